"""Releases of a private run whose noise the coordinator adds: what may leave, and what it costs.

A round runs

    reserve participations, train, check them, reserve the release, add noise, commit, settle

The reservation is durable before its noise key exists outside the ledger; the settlement follows
the commit. What a kill leaves between the two counts as spent, and the same round computed again is
the same release with the same noise.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.client.program import CLIP_NORM
from anabranch.coordinator.releasing import PROGRESS, Passed
from anabranch.coordinator.store.ledger import Reservation, RunLedger
from anabranch.coordinator.store.records import Arrays
from anabranch.coordinator.takers import Takers
from anabranch.errors import AnabranchError
from anabranch.fleet.selection import Code, Known
from anabranch.plan.promise import Promise
from anabranch.privacy.door import Admission, digest_of
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger import Charge, Purpose, Request
from anabranch.privacy.mechanisms import (
    AdaptiveClip,
    Mechanism,
    PrivateScores,
    Released,
    RoundNoise,
)
from anabranch.updates.sections import Sections, Vector
from anabranch.updates.total import Total

__all__ = ["PrivateReleases"]

_EXHAUSTED = "AB-920"
_OURS = "privacy."
_CLIP, _SHARES = "privacy.clip_norm", "privacy.shares"
_IDS, _ROUNDS = "privacy.releases", "privacy.released_rounds"
_NONE = np.zeros(0)


@dataclass
class PrivateReleases:
    """Releases of a run with a mechanism and a ledger.

    Attributes:
        promise: what the plan promises, in numbers.
        mechanism: adds the noise.
        ledger: the run's part of the population's ledger.
        names: client identifiers by number.
        seed: the plan's public seed.
    """

    promise: Promise
    mechanism: Mechanism
    ledger: RunLedger
    names: Sequence[str]
    seed: int
    ended: str = ""
    _released: set[int] = field(default_factory=set)
    _unsettled: list[tuple[str, Charge, str]] = field(default_factory=list)
    _takers: Takers | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.promise.limit is not None:
            rounds = self.ledger.participations.rounds()
            self._takers = Takers(self.promise.limit, [rounds.get(n, ()) for n in self.names])

    def broadcast(self, extra: Arrays) -> Broadcast:
        return {CLIP_NORM.name: np.array([self._clip(extra)], np.float32)}

    def _clip(self, extra: Arrays) -> float:
        if _CLIP in extra:
            return float(extra[_CLIP][0])
        return float(np.float32(self.mechanism.clip.first))

    # Who takes part -----------------------------------------------------------------------------

    def admitted(self, known: Known) -> Known:
        if self._takers is None:
            return known
        refused = known.refused.copy()
        refused[~self._takers.free(known.round)] = Code.PARTICIPATIONS
        return replace(known, refused=refused)

    def asked(self, round_: int, clients: Sequence[int]) -> None:
        if self._takers is None:
            return
        names = [self.names[client] for client in clients]
        self.ledger.participations.reserve(names, round_, self._takers.limit)
        self._takers.add(round_, clients)

    def kept(self, extra: Arrays) -> Arrays:
        return {name: value for name, value in extra.items() if name.startswith(_OURS)}

    def declined(self, round_: int, clients: Sequence[int]) -> None:
        """Whose update is in no sum did not take part, whatever the reason: see `_forgo`."""

    def failed(self, round_: int) -> None:
        if round_ not in self._released:  # a release counts even if its model was of no use
            self._forgo(round_, ())

    def _forgo(self, round_: int, contributors: Sequence[int]) -> None:
        """Those whose update is in no sum did not take part."""
        if self._takers is None:
            return
        absent = self._takers.at(round_) - set(contributors)
        if absent:
            names = sorted(self.names[client] for client in absent)
            self.ledger.participations.forgo(names, round_)
            self._takers.drop(round_, absent)

    # The release --------------------------------------------------------------------------------

    def release(
        self,
        round_: int,
        total: Total,
        contributors: Sequence[int],
        model: Vector,
        extra: Arrays,
    ) -> Passed:
        names = tuple(sorted(self.names[client] for client in contributors))
        if self.promise.limit is not None:
            self.ledger.participations.require(names, round_, self.promise.limit)
        kept = self.kept(extra)
        try:
            charge = self._charge(round_, total, kept)
            details = self._details(kept)
            reservation = self._reserve("model", round_, model, names, total, charge, details)
        except AnabranchError as error:
            if error.code == _EXHAUSTED:
                self.ended = "the privacy budget is used up"
            self.failed(round_)
            return Passed(None, extra=kept, reason=str(error))
        self._released.add(round_)
        after = _with_release(kept, round_, reservation.release)
        noise = RoundNoise(
            clip=self._clip(after),
            multiplier=charge.noise_multiplier,
            round=round_,
            keys=self._keys(after),
            seed=self.seed,
        )
        released = self.mechanism.release(total, noise)
        self._forgo(round_, contributors)
        return self._passed(round_, reservation.release, charge, total, released, after)

    def _reserve(
        self,
        purpose: Purpose,
        round_: int,
        model: Vector,
        names: tuple[str, ...],
        total: Total,
        charge: Charge,
        details: tuple[tuple[str, str], ...],
    ) -> Reservation:
        version = hashlib.sha256(np.ascontiguousarray(model).data).hexdigest()
        request = Request(
            purpose, round_, version, names, self._tag(total), charge, details=details
        )
        return self.ledger.reserve(request)

    # Metrics of the clients ---------------------------------------------------------------------

    def sections(self) -> Sections:
        """All that a client tells of a model's quality."""
        return Sections(PrivateScores().sections())

    def measured(self, round_: int, clients: Sequence[int], model: Vector) -> Sequence[int]:
        """Everybody may be asked: what leaves is their sum, and it is paid for then."""
        return clients

    def score(
        self, round_: int, total: Total, contributors: Sequence[int], clients: int, model: Vector
    ) -> tuple[Mapping[str, float], tuple[Admission, ...]]:
        """The noisy mean accuracy over clients; nothing without a budget for it."""
        charge = self.promise.evaluation_charge()
        if charge is None or not contributors:
            return {}, ()
        names = tuple(sorted(self.names[client] for client in contributors))
        details = (("mechanism", "PrivateScores"), ("bound on one unit", "1"))
        try:
            held = self._reserve("evaluation", round_, model, names, total, charge, details)
        except AnabranchError as error:
            if error.code == _EXHAUSTED:
                return {}, ()
            raise
        key = self.ledger.noise_key(held.release)
        mean = PrivateScores().release(total, clients, charge.noise_multiplier, key)
        output = hashlib.sha256(f"{mean!r}".encode()).hexdigest()
        self._unsettled.append((held.release, charge, output))
        sections = tuple(section.name for section in total.sections)
        admission = Admission(
            "metrics of the clients", round_, len(names), sections, _words(charge), True, output
        )
        return {"accuracy": mean}, (admission,)

    def _tag(self, total: Total) -> str:
        """A digest of what arrived that only this run can make: an open one would be an oracle."""
        return hmac.new(
            self.ledger.payload_key(), digest_of(total).encode(), hashlib.sha256
        ).hexdigest()

    def _charge(self, round_: int, total: Total, extra: Arrays) -> Charge:
        """What the release costs, with the noise that will really be in it."""
        progress, spent = extra.get(PROGRESS, _NONE).tolist(), extra.get(_SHARES, _NONE).tolist()
        planned = self.promise.model_charge(round_, progress, spent)
        realised = self.mechanism.realised(total.contributors, planned.noise_multiplier)
        if isinstance(planned, GaussianEvent) and realised != planned.noise_multiplier:
            return replace(planned, realised_noise=realised)
        return planned

    def _keys(self, extra: Arrays) -> dict[int, bytes]:
        """Noise keys by round. Only their release ids are stored; the secret is in the ledger."""
        ids = (bytes(row).hex() for row in extra[_IDS])
        rounds = extra[_ROUNDS].tolist()
        return {r: self.ledger.noise_key(i) for r, i in zip(rounds, ids, strict=True)}

    def _details(self, extra: Arrays) -> tuple[tuple[str, str], ...]:
        return (
            ("arithmetic", "integers; discrete noise by alias tables on AES-256-CTR"),
            ("clip norm", f"{self._clip(extra):.9g}"),
            ("mechanism", type(self.mechanism).__name__),
        )

    def _passed(
        self,
        round_: int,
        release: str,
        charge: Charge,
        exact: Total,
        released: Released,
        extra: dict[str, np.ndarray],
    ) -> Passed:
        output = digest_of(released.total)
        self._unsettled.append((release, charge, output))
        names = tuple(section.name for section in exact.sections)
        admission = Admission(
            "model", round_, exact.contributors, names, _words(charge), True, output
        )
        facts = {"clip_norm": self._clip(extra), "noise_deviation": released.deviation}
        if released.unclipped is not None and isinstance(self.mechanism.clip, AdaptiveClip):
            facts["unclipped_share"] = released.unclipped
            after = self.mechanism.clip.after(self._clip(extra), released.unclipped)
            extra[_CLIP] = np.array([after], np.float32)
        if isinstance(charge, GaussianEvent):
            share = charge.noise_to_sensitivity**-2
            extra[_SHARES] = np.append(extra.get(_SHARES, _NONE), share)
        return Passed(released.total, (admission,), facts, extra)

    def recover(self, extra: Arrays, outputs: Mapping[int, str]) -> None:
        """Settle what a killed process had committed, but not settled yet.

        Args:
            extra: of the last durable round.
            outputs: digest of what was released, by round, from the run's own record.
        """
        open_ = self.ledger.unsettled()
        ids, rounds = extra.get(_IDS, ()), extra.get(_ROUNDS, ())
        for row, round_ in zip(ids, rounds, strict=True):
            release = bytes(row).hex()
            if release in open_ and int(round_) in outputs:
                self.ledger.settle(release, open_[release], outputs[int(round_)])

    def committed(self) -> None:
        for release, charge, output in self._unsettled:
            self.ledger.settle(release, charge, output)
        self._unsettled.clear()


def _words(charge: Charge) -> str:
    """The mechanism, for the run's record."""
    event = charge if isinstance(charge, GaussianEvent) else charge.as_gaussian()
    kind = "noise" if isinstance(charge, GaussianEvent) else "correlated noise"
    return f"{kind} {charge.noise_multiplier:.6g} clip norms, {event.relation.value}"


def _with_release(extra: Arrays, round_: int, release: str) -> dict[str, np.ndarray]:
    row = np.frombuffer(bytes.fromhex(release), np.uint8)[None]
    ids, rounds = extra.get(_IDS), extra.get(_ROUNDS)
    return {
        **extra,
        _IDS: row if ids is None else np.concatenate([ids, row]),
        _ROUNDS: np.append(np.zeros(0, np.int64) if rounds is None else rounds, round_),
    }
