"""What a round is about: the description that every key, mask, share and signature is bound to.

Its digest enters every derivation, so a client that was given another model, another plan, another
roster or another round makes masks that cancel with nobody's (Pasquini et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.fixed_point import FixedPoint
from anabranch.privacy.secure_aggregation.primitives import DIGEST_BYTES, KEY_BYTES, digest
from anabranch.privacy.secure_aggregation.refusals import bad_parameters
from anabranch.privacy.secure_aggregation.thresholds import (
    COMPLETE_BELOW,
    Neighbourhood,
    choose_neighbourhood,
    head_count,
)
from anabranch.privacy.secure_aggregation.wire import Writer

__all__ = ["RoundContext"]


@dataclass(frozen=True)
class RoundContext:
    """One attempt at one sum. Public, and equal at every client and at the coordinator.

    Attributes:
        run: the run's name.
        round: the round's number.
        attempt: counts repetitions of the round; a context is never used twice.
        model_digest: SHA-256 of the model that clients train from.
        plan_digest: SHA-256 of the plan's contract.
        ledger_head: SHA-256 head of the population's ledger, or zeros.
        roster: Ed25519 public key of each client that was asked, by name.
        length: coordinates of the vector.
        encoding: how coordinates are counted.
        corrupt_share: how many of those asked may work with the coordinator, 0 to below 1.
        dropout_share: how many may vanish without the round being lost, 0 to below 1.
        minimum_survivors: the fewest clients whose sum is opened, at least 2.
        complete_below: with fewer clients everybody is everybody's neighbour. A sparse graph
            assumes that the coordinator does not choose who drops; raise this if it might.

    Raises:
        AnabranchError: AB-951 if the sum could wrap around, AB-952 if a number is impossible,
            AB-953 if the roster is too small for the shares or the minimum.
    """

    run: str
    round: int
    attempt: int
    model_digest: bytes
    plan_digest: bytes
    ledger_head: bytes
    roster: Mapping[str, bytes] = field(repr=False)
    length: int
    encoding: FixedPoint
    corrupt_share: float = 0.1
    dropout_share: float = 0.1
    minimum_survivors: int = 2
    complete_below: int = COMPLETE_BELOW

    def __post_init__(self) -> None:
        object.__setattr__(self, "roster", MappingProxyType(dict(sorted(self.roster.items()))))
        digests = (self.model_digest, self.plan_digest, self.ledger_head)
        if any(len(one) != DIGEST_BYTES for one in digests):
            raise bad_parameters(f"Digests have {DIGEST_BYTES} bytes each.")
        if any(len(key) != KEY_BYTES for key in self.roster.values()):
            raise bad_parameters(f"Identities have {KEY_BYTES} bytes each.")
        if min(self.round, self.attempt) < 0 or self.length < 1:
            raise bad_parameters("Round and attempt count from 0, a vector has a coordinate.")
        if not (0 <= self.corrupt_share < 1 and 0 <= self.dropout_share < 1):
            raise bad_parameters("Shares of clients lie between 0 and 1.")
        if self.complete_below < COMPLETE_BELOW:
            raise bad_parameters(f"The graph is complete below {COMPLETE_BELOW} clients, or more.")
        if self.minimum_survivors < 2:
            raise bad_parameters("The sum of one client is that client's vector: at least 2.")
        if self.minimum_survivors > len(self.roster):
            raise _too_small(len(self.roster), self.minimum_survivors)
        self.encoding.check(len(self.roster))
        self.neighbourhood(len(self.roster))
        left = len(self.roster) - head_count(self.dropout_share, len(self.roster))
        if left < self.quorum:
            raise _too_small(left, self.quorum)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for all of the above."""
        writer = Writer().text(self.run).number(self.round).number(self.attempt)
        writer.raw(self.model_digest).raw(self.plan_digest).raw(self.ledger_head)
        writer.number(len(self.roster), 4)
        for name, key in self.roster.items():
            writer.text(name).raw(key)
        # float.hex is exact and the same on every machine.
        shares = (self.corrupt_share, self.dropout_share)
        for number in (self.encoding.scale, self.encoding.bound, *shares):
            writer.text(float(number).hex())
        writer.number(self.encoding.bits, 1).number(self.length)
        writer.number(self.minimum_survivors).number(self.complete_below)
        return digest("context", writer.finish())

    @property
    def corrupt(self) -> int:
        """How many clients may be corrupt: all of them may be among those that answer."""
        return head_count(self.corrupt_share, len(self.roster))

    @property
    def quorum(self) -> int:
        """Signatures under one set of survivors that no second set can have as well.

        Honest clients sign one set. Two sets with a quorum each would need
        2 q <= n + corrupt signatures, so q is the first number above (n + corrupt) / 2.
        """
        return (len(self.roster) + self.corrupt) // 2 + 1

    def neighbourhood(self, clients: int) -> Neighbourhood:
        """k and t for the clients that sent keys.

        Raises:
            AnabranchError: AB-953 if they are too few for the shares.
        """
        if clients < max(2, self.minimum_survivors) or self.corrupt >= clients:
            raise _too_small(clients, self.minimum_survivors)
        dropped = head_count(self.dropout_share, clients)
        return choose_neighbourhood(
            clients, self.corrupt, dropped, complete_below=self.complete_below
        )


def _too_small(clients: int, minimum: int) -> AnabranchError:
    return AnabranchError(
        "AB-953",
        f"{clients} clients are too few: at least {minimum} must survive.",
        fix="ask more clients, or lower the minimum or the shares if the population allows it.",
        kept="The round was not started.",
    )
