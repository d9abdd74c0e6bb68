"""What leaves a client: declared sections, flat layouts, and the stages that an update passes."""

from anabranch.updates.clip import Clip
from anabranch.updates.codec import Codec
from anabranch.updates.codecs import CODECS
from anabranch.updates.downlink import AnyDownlink, DeltaDownlink, Downlink, HalfDownlink, Sent
from anabranch.updates.downlink_state import DownlinkState, Held
from anabranch.updates.lattice import Lattice
from anabranch.updates.layout import Layout, Parameter, Policy
from anabranch.updates.levels import Levels
from anabranch.updates.lossless import Half, Zstd
from anabranch.updates.lowrank import LowRank
from anabranch.updates.norm import squared_norm
from anabranch.updates.packed import Packed
from anabranch.updates.quantise import ECQ, QSGD, Ternary
from anabranch.updates.rotate import EDEN
from anabranch.updates.sections import (
    WEIGHT,
    Audience,
    Kind,
    Section,
    Sections,
    Statistics,
    Update,
    Vector,
    Weighting,
)
from anabranch.updates.shared import SharedLowRank
from anabranch.updates.sparse import STC, RandomMask, Sign, TopK
from anabranch.updates.stages import (
    EncodeContext,
    Pipeline,
    Stage,
    StageContract,
    compile_stages,
)
from anabranch.updates.subsample import Subsample
from anabranch.updates.total import Finest, Total

__all__ = [
    "CODECS",
    "ECQ",
    "EDEN",
    "QSGD",
    "STC",
    "WEIGHT",
    "AnyDownlink",
    "Audience",
    "Clip",
    "Codec",
    "DeltaDownlink",
    "Downlink",
    "DownlinkState",
    "EncodeContext",
    "Finest",
    "Half",
    "HalfDownlink",
    "Held",
    "Kind",
    "Lattice",
    "Layout",
    "Levels",
    "LowRank",
    "Packed",
    "Parameter",
    "Pipeline",
    "Policy",
    "RandomMask",
    "Section",
    "Sections",
    "Sent",
    "SharedLowRank",
    "Sign",
    "Stage",
    "StageContract",
    "Statistics",
    "Subsample",
    "Ternary",
    "TopK",
    "Total",
    "Update",
    "Vector",
    "Weighting",
    "Zstd",
    "compile_stages",
    "squared_norm",
]
