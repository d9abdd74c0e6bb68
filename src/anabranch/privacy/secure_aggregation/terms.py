"""What a client agrees to: the sums its own plan describes, among people it knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from anabranch.aggregation.staleness import Staleness
from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.refusals import invitation_refused
from anabranch.privacy.secure_aggregation.section_codec import SectionCodec
from anabranch.updates.sections import Sections

__all__ = ["HELD_PURPOSE", "Known", "Shape", "Terms"]

HELD_PURPOSE = "train"
"""What clients hold until a sum is formed: updates. Evaluations are summed in one round."""


@dataclass(frozen=True)
class Shape:
    """The vectors of one purpose.

    Attributes:
        sections: of an update.
        bound: see ``SectionCodec``.
        weight_bound: see ``SectionCodec``.
        norm_bound: see ``SectionCodec``.
        wraps, exact: see ``SectionCodec``.
    """

    sections: Sections
    bound: float = math.inf
    weight_bound: float = 1.0
    norm_bound: float = math.inf
    wraps: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Terms:
    """How sums are made; a part of the plan's contract, equal at all who take part.

    Attributes:
        plan_digest: SHA-256 of the contract.
        shapes: of the vectors, by purpose.
        bits: b of the modulus.
        corrupt_share, dropout_share: of those asked.
        minimum: fewest survivors that a client accepts.
        complete_below, attempts, unopened, draw, hybrid: see ``RoundContext``.
        staleness: how much an update of an older model counts, where rounds are asynchronous:
            updates are then held at the client until a sum is formed. None in synchronous rounds.
    """

    plan_digest: bytes
    shapes: Mapping[str, Shape]
    bits: int
    corrupt_share: float = 0.1
    dropout_share: float = 0.1
    minimum: int = 2
    complete_below: int = 100
    attempts: int = 3
    unopened: int = 0
    draw: int = 0
    hybrid: bool = False
    staleness: Staleness | None = None

    def holds(self, purpose: str) -> bool:
        """Whether updates of this purpose wait at the client for their sum."""
        return self.staleness is not None and purpose == HELD_PURPOSE

    def codec_for(self, purpose: str, clients: int) -> SectionCodec:
        """Lanes for sums over at most ``clients`` updates.

        Raises:
            AnabranchError: AB-951 if the modulus does not hold so many, AB-966 for a purpose that
                the plan does not have.
        """
        shape = self.shapes.get(purpose)
        if shape is None:
            raise invitation_refused(f"the plan has no sums for {purpose!r}")
        return SectionCodec(
            shape.sections,
            clients,
            self.bits,
            shape.bound,
            shape.weight_bound,
            shape.norm_bound,
            shape.wraps,
            shape.exact,
        )

    def codec(self, context: RoundContext) -> SectionCodec:
        """Lanes for the sum of a round."""
        return self.codec_for(context.purpose, len(context.roster))

    def check(self, context: RoundContext) -> None:
        """Refuse a round that is not what the plan says.

        Raises:
            AnabranchError: AB-966.
        """
        if context.plan_digest != self.plan_digest:
            raise invitation_refused("it is for another plan")
        codec = self.codec(context)
        wanted = (
            (context.length, codec.length, "length"),
            (context.encoding, codec.encoding, "encoding"),
            (context.corrupt_share, self.corrupt_share, "corrupt share"),
            (context.dropout_share, self.dropout_share, "dropout share"),
            (context.complete_below, self.complete_below, "bound on complete graphs"),
            (context.attempts, self.attempts, "number of attempts"),
            (context.unopened, self.unopened, "number of closed nonces"),
            (context.draw, self.draw, "size of the drawn cohort"),
            (context.hybrid, self.hybrid, "key agreement"),
        )
        for found, expected, what in wanted:
            if found != expected:
                raise invitation_refused(f"its {what} is not the plan's")
        if bool(context.bases) != self.holds(context.purpose):
            raise invitation_refused("the plan's rounds are of the other kind (asynchronous?)")
        if context.minimum_survivors < self.minimum:
            raise invitation_refused(
                f"it opens sums of {context.minimum_survivors} clients, the plan {self.minimum}"
            )


def _nobody(name: str) -> bytes | None:
    return None


def _no(name: str) -> bool:
    return False


def _nothing() -> None:
    """There is nothing newer."""


@dataclass(frozen=True)
class Known:
    """Whom a client knows without the coordinator's word.

    Attributes:
        key_of: public key of a member on the roster that the client holds; None if it has none.
        canary: whether a member is enrolled as a canary.
        open: whether a name that is on no roster is accepted with the key that it is first shown
            with. False once the client holds a signed roster.
        refresh: looks for a newer signed roster; asked once when somebody is not on the one held.
        vouched: members whom the client itself vouches for, such as sites that it works with.
        least_vouched: how many of them must be in a sum; what Sybils around a client can not fake.
    """

    key_of: Callable[[str], bytes | None] = _nobody
    canary: Callable[[str], bool] = _no
    open: bool = True
    refresh: Callable[[], None] = _nothing
    vouched: frozenset[str] = field(default_factory=frozenset)
    least_vouched: int = 0
