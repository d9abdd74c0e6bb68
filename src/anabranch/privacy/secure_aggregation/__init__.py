"""Secure aggregation: the sum of many vectors, and nothing else about any of them.

A pure core: messages, the states of both ends and the steps between them, after SecAgg+ (Bell et
al. 2020) with signed keys, a signed set of survivors, everything bound to the round, and one share
per client. It carries no message and keeps no file: that is done by `coordinator.secure_sum` and
`client.secure`.
"""

from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.fixed_point import FixedPoint
from anabranch.privacy.secure_aggregation.key_messages import (
    KeyAdvert,
    KeyList,
    NonceList,
    NonceOpening,
)
from anabranch.privacy.secure_aggregation.messages import (
    MaskedInput,
    ShareBundle,
    ShareDelivery,
    SurvivorSet,
    SurvivorSignature,
    UnmaskReply,
    UnmaskRequest,
)
from anabranch.privacy.secure_aggregation.primitives import Entropy
from anabranch.privacy.secure_aggregation.server import Abandoned, Finished, Outcome
from anabranch.privacy.secure_aggregation.thresholds import Neighbourhood, choose_neighbourhood

__all__ = [
    "Abandoned",
    "Entropy",
    "Finished",
    "FixedPoint",
    "KeyAdvert",
    "KeyList",
    "MaskedInput",
    "Neighbourhood",
    "NonceList",
    "NonceOpening",
    "Outcome",
    "RoundContext",
    "ShareBundle",
    "ShareDelivery",
    "SurvivorSet",
    "SurvivorSignature",
    "UnmaskReply",
    "UnmaskRequest",
    "choose_neighbourhood",
]
