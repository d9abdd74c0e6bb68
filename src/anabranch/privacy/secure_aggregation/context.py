"""What a round is about: the description that every key, mask, share and signature is bound to.

Its digest enters every derivation, so a client that was given another model, another plan, another
roster or another round makes masks that cancel with nobody's (Pasquini et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.bases import NO_BASES, Bases
from anabranch.privacy.secure_aggregation.fixed_point import FixedPoint
from anabranch.privacy.secure_aggregation.primitives import DIGEST_BYTES, KEY_BYTES, digest
from anabranch.privacy.secure_aggregation.refusals import bad_parameters, malformed
from anabranch.privacy.secure_aggregation.thresholds import (
    COMPLETE_BELOW,
    Neighbourhood,
    choose_neighbourhood,
    head_count,
    worst_draw,
)
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = ["Listed", "RoundContext"]

_ZEROS = bytes(DIGEST_BYTES)
_MOST_ATTEMPTS = 255


@dataclass(frozen=True)
class Listed:
    """What follows from the number of clients that sent keys.

    Attributes:
        cohort: how many of them take part.
        corrupt: how many of the cohort may be corrupt, except with probability 2^-40.
        shape: k and t.
        quorum: signatures under one set of survivors that no second set can have as well.
        least: the fewest survivors whose sum is opened.
    """

    cohort: int
    corrupt: int
    shape: Neighbourhood
    quorum: int
    least: int


@dataclass(frozen=True)
class RoundContext:
    """One attempt at one sum. Public, and equal at every client and at the coordinator.

    Attributes:
        run: the run's name.
        round: the round's number.
        attempt: counts repetitions of the round from 0; a context is never used twice.
        model_digest: SHA-256 of what clients train from.
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
        purpose: what is summed up (``train``, ``evaluate`` ...).
        canaries: openly enrolled auditors among the roster. Their secrets are the auditor's, so
            each counts as one more corrupt client.
        attempts: how often a round is tried; each try shows the coordinator one more graph.
        unopened: how many clients of the key list may keep their nonce closed where the graph is
            sparse or the cohort is drawn. Each lets the coordinator choose among more graphs, and
            k and t grow with it.
        draw: how many clients of the key list take part, drawn by the nonces; 0 means all.
        ledger_length: entries of the ledger behind ``ledger_head``.
        enrolment: SHA-256 of the signed roster that the keys were taken from, or zeros.
        hybrid: whether ML-KEM-768 stands beside X25519 (FIPS 203).
        bases: what each member's update was made from, in asynchronous rounds. ``round`` then
            counts the sums, and ``model_digest`` stands for all the bases.

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
    purpose: str = "train"
    canaries: frozenset[str] = frozenset()
    attempts: int = 3
    unopened: int = 0
    draw: int = 0
    ledger_length: int = 0
    enrolment: bytes = _ZEROS
    hybrid: bool = False
    bases: Bases = NO_BASES

    def __post_init__(self) -> None:
        object.__setattr__(self, "roster", MappingProxyType(dict(sorted(self.roster.items()))))
        _check_numbers(self)
        if self.minimum_survivors > len(self.roster):
            raise _too_small(len(self.roster), self.minimum_survivors)
        self.encoding.check(len(self.roster))
        asked = self.listed(len(self.roster))
        left = asked.cohort - head_count(self.dropout_share, asked.cohort)
        if left < asked.least:
            raise _too_small(left, asked.least)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for all of the above."""
        return digest("context", self.to_bytes())

    @property
    def corrupt(self) -> int:
        """How many clients may be corrupt: all of them may be among those that answer."""
        members = len(self.roster) - len(self.canaries)
        return min(head_count(self.corrupt_share, members) + len(self.canaries), len(self.roster))

    @property
    def quorum(self) -> int:
        """How many of those asked must send keys: two lists can not both have so many.

        Honest clients send keys once. Two lists of q clients each would need
        2 q <= n + corrupt keys, so q is the first number above (n + corrupt) / 2.
        """
        return _majority(len(self.roster), self.corrupt)

    @property
    def honest_survivors(self) -> int:
        """Survivors that are certainly honest, whatever vanishes: what noise may be divided by."""
        asked = self.listed(len(self.roster))
        return max(0, asked.least - asked.corrupt)

    def listed(self, clients: int, of: int = 0) -> Listed:
        """Cohort, k, t and quorums for the number of clients that sent keys and opened nonces.

        Args:
            of: clients on the key list, if some kept their nonce closed.

        Raises:
            AnabranchError: AB-953 if they are too few for the shares.
        """
        if clients < max(2, self.minimum_survivors) or self.corrupt >= clients:
            raise _too_small(clients, self.minimum_survivors)
        cohort = min(self.draw, clients) if self.draw else clients
        freedom = self._freedom(max(of, clients), cohort == clients < self.complete_below)
        corrupt = worst_draw(clients, self.corrupt, cohort, freedom)
        if cohort < max(2, self.minimum_survivors) or corrupt >= cohort:
            raise _too_small(cohort, self.minimum_survivors)
        shape = choose_neighbourhood(
            cohort,
            corrupt,
            head_count(self.dropout_share, cohort),
            complete_below=self.complete_below,
            freedom=freedom,
        )
        # Signatures under one set that no second set can have too. Without a draw those asked
        # count, so that leaving honest clients out of the list helps nobody.
        quorum = _majority(cohort, corrupt) if cohort < clients else self.quorum
        return Listed(cohort, corrupt, shape, quorum, max(quorum, self.minimum_survivors))

    def neighbourhood(self, clients: int) -> Neighbourhood:
        """k and t for the clients that sent keys.

        Raises:
            AnabranchError: AB-953 if they are too few for the shares.
        """
        return self.listed(clients).shape

    def may_stay_closed(self, clients: int) -> int:
        """How many of a key list may keep their nonces closed."""
        drawn = 0 < self.draw < clients
        return self.unopened if drawn or clients >= self.complete_below else clients

    def _freedom(self, clients: int, complete: bool) -> int:
        """How many graphs the coordinator can choose among: tries, and who is left out of each."""
        if complete:
            return 1
        left_out = sum(math.comb(clients, count) for count in range(self.unopened + 1))
        return self.attempts * left_out

    def to_bytes(self) -> bytes:
        """The context as it travels in an invitation; equal contexts, equal bytes."""
        writer = Writer().text(self.run).text(self.purpose)
        writer.number(self.round).number(self.attempt, 1).number(self.attempts, 1)
        writer.raw(self.model_digest).raw(self.plan_digest).raw(self.ledger_head)
        writer.number(self.ledger_length).raw(self.enrolment)
        writer.number(len(self.roster), 4)
        for name, key in self.roster.items():
            writer.text(name).raw(key).number(name in self.canaries, 1)
        # float.hex is exact and the same on every machine.
        shares = (self.corrupt_share, self.dropout_share)
        for number in (self.encoding.scale, self.encoding.bound, *shares):
            writer.text(float(number).hex())
        writer.number(self.encoding.bits, 1).number(self.encoding.wraps, 1).number(self.length)
        writer.number(self.minimum_survivors).number(self.complete_below)
        writer.number(self.unopened, 4).number(self.draw, 4).number(self.hybrid, 1)
        return self.bases.write(writer).finish()

    @staticmethod
    def from_bytes(content: bytes) -> RoundContext:
        """The context that ``to_bytes`` wrote.

        Raises:
            AnabranchError: AB-954 if the bytes are no context, AB-951 to AB-953 if its numbers
                are impossible.
        """
        reader = Reader(content)
        run, purpose = reader.text(), reader.text()
        number, attempt, attempts = reader.number(), reader.number(1), reader.number(1)
        model, plan, head = (reader.raw(DIGEST_BYTES) for _ in range(3))
        entries, enrolment = reader.number(), reader.raw(DIGEST_BYTES)
        clients = [
            (reader.text(), reader.raw(KEY_BYTES), reader.number(1)) for _ in range(reader.count())
        ]
        scale, bound, corrupt, dropout = (_real(reader.text()) for _ in range(4))
        bits, wraps, length = reader.number(1), reader.number(1), reader.number()
        minimum, complete = reader.number(), reader.number()
        unopened, draw, hybrid = reader.number(4), reader.number(4), reader.number(1)
        bases = Bases.read(reader)
        reader.finish()
        made = RoundContext(
            run=run,
            round=number,
            attempt=attempt,
            model_digest=model,
            plan_digest=plan,
            ledger_head=head,
            roster={name: key for name, key, _ in clients},
            length=length,
            encoding=FixedPoint(scale, bound, bits, bool(wraps)),
            corrupt_share=corrupt,
            dropout_share=dropout,
            minimum_survivors=minimum,
            complete_below=complete,
            purpose=purpose,
            canaries=frozenset(name for name, _, canary in clients if canary),
            attempts=attempts,
            unopened=unopened,
            draw=draw,
            ledger_length=entries,
            enrolment=enrolment,
            hybrid=bool(hybrid),
            bases=bases,
        )
        if made.to_bytes() != content:
            raise malformed("a context is not in its canonical form")
        return made


def _real(text: str) -> float:
    try:
        return float.fromhex(text)
    except (ValueError, OverflowError) as error:
        raise malformed("a number of a context can not be read") from error


def _majority(clients: int, corrupt: int) -> int:
    return (clients + corrupt) // 2 + 1


def _check_numbers(context: RoundContext) -> None:
    digests = (context.model_digest, context.plan_digest, context.ledger_head, context.enrolment)
    if any(len(one) != DIGEST_BYTES for one in digests):
        raise bad_parameters(f"Digests have {DIGEST_BYTES} bytes each.")
    if any(len(key) != KEY_BYTES for key in context.roster.values()):
        raise bad_parameters(f"Identities have {KEY_BYTES} bytes each.")
    if min(context.round, context.attempt, context.ledger_length) < 0 or context.length < 1:
        raise bad_parameters("Round and attempt count from 0, a vector has a coordinate.")
    if not (0 <= context.corrupt_share < 1 and 0 <= context.dropout_share < 1):
        raise bad_parameters("Shares of clients lie between 0 and 1.")
    if not context.attempt < context.attempts <= _MOST_ATTEMPTS:
        raise bad_parameters(
            f"A round is tried {context.attempts} times, this would be try {context.attempt + 1}."
        )
    if min(context.unopened, context.draw) < 0 or not context.canaries <= set(context.roster):
        raise bad_parameters("Canaries are on the roster; closed nonces and draws count from 0.")
    if context.bases and set(context.bases.of) != set(context.roster):
        raise bad_parameters("A sum of updates that were held names the base of every member.")
    if context.bases and context.model_digest != context.bases.model_digest:
        raise bad_parameters("The digest of the models is not that of the bases.")
    if context.complete_below < COMPLETE_BELOW:
        raise bad_parameters(f"The graph is complete below {COMPLETE_BELOW} clients, or more.")
    if context.minimum_survivors < 2:
        raise bad_parameters("The sum of one client is that client's vector: at least 2.")


def _too_small(clients: int, minimum: int) -> AnabranchError:
    return AnabranchError(
        "AB-953",
        f"{clients} clients are too few: at least {minimum} must survive.",
        fix="ask more clients, or lower the minimum or the shares if the population allows it.",
        kept="The round was not started.",
    )
