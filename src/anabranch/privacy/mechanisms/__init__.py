"""Mechanisms: how updates are bounded, and where the noise comes from. Pure, given secret keys."""

from anabranch.privacy.mechanisms.base import Mechanism, Released, RoundNoise
from anabranch.privacy.mechanisms.central import CentralNoise
from anabranch.privacy.mechanisms.clipping import AdaptiveClip, ClipRule, FixedClip
from anabranch.privacy.mechanisms.distributed import DistributedNoise
from anabranch.privacy.mechanisms.ftrl import MatrixNoise
from anabranch.privacy.mechanisms.lattice import UnitLattice
from anabranch.privacy.mechanisms.reach import check_reachable, noise_to_signal
from anabranch.privacy.mechanisms.scores import PrivateScores, SiteScores
from anabranch.privacy.mechanisms.sums import BoundedSums

__all__ = [
    "AdaptiveClip",
    "BoundedSums",
    "CentralNoise",
    "ClipRule",
    "DistributedNoise",
    "FixedClip",
    "MatrixNoise",
    "Mechanism",
    "PrivateScores",
    "Released",
    "RoundNoise",
    "SiteScores",
    "UnitLattice",
    "check_reachable",
    "noise_to_signal",
]
