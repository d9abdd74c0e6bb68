"""What leaves a client: declared sections, flat layouts, and the stages that an update passes."""

from anabranch.updates.clip import Clip
from anabranch.updates.layout import Layout, Parameter, Policy
from anabranch.updates.norm import squared_norm
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
from anabranch.updates.stages import (
    EncodeContext,
    Pipeline,
    Stage,
    StageContract,
    compile_stages,
)
from anabranch.updates.total import Finest, Total

__all__ = [
    "WEIGHT",
    "Audience",
    "Clip",
    "EncodeContext",
    "Finest",
    "Kind",
    "Layout",
    "Parameter",
    "Pipeline",
    "Policy",
    "Section",
    "Sections",
    "Stage",
    "StageContract",
    "Statistics",
    "Total",
    "Update",
    "Vector",
    "Weighting",
    "compile_stages",
    "squared_norm",
]
