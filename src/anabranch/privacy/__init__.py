"""What leaves the trust boundary, through one door. Pure: it returns entries, the store writes."""

from anabranch.privacy.door import Admission, ReleaseDoor
from anabranch.privacy.events import (
    FixedSizeSampling,
    GaussianEvent,
    Mechanism,
    NoSampling,
    PoissonSampling,
    Relation,
    Unit,
)

__all__ = [
    "Admission",
    "FixedSizeSampling",
    "GaussianEvent",
    "Mechanism",
    "NoSampling",
    "PoissonSampling",
    "Relation",
    "ReleaseDoor",
    "Unit",
]
