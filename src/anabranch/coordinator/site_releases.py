"""Releases of a run whose noise is made inside the sites: one ledger line for each of them.

What a site sends is noisy already, so it is spent when it is asked: the reservation comes before
the task, and a site that never answers has spent it too. The same round computed again after a
crash is the same release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.coordinator.releasing import Passed
from anabranch.coordinator.store.ledger import RunLedger
from anabranch.coordinator.store.records import Arrays
from anabranch.errors import AnabranchError
from anabranch.fleet.selection import Known
from anabranch.fleet.selection.codes import Code
from anabranch.privacy.door import Admission, ReleaseDoor, digest_of
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger import Request
from anabranch.privacy.mechanisms import SiteScores
from anabranch.updates.sections import Sections, Vector
from anabranch.updates.total import Total

__all__ = ["SiteReleases", "SiteTelling"]

_EXHAUSTED = "AB-920"
_DETAILS = (("arithmetic", "integers; discrete noise by alias tables on AES-256-CTR"),)


@dataclass(frozen=True)
class SiteTelling:
    """What sites tell of a model's quality, and what each of them spends for it.

    Attributes:
        scores: bounded sums over a site's units.
        charge: of one evaluation.
    """

    scores: SiteScores
    charge: GaussianEvent


@dataclass
class SiteReleases:
    """Counts what sites release.

    Attributes:
        charges: of one round, by site.
        ledger: the run's part of the population's ledger.
        names: client identifiers by number.
        door: describes the sum for the run's record.
        telling: of evaluations at the sites; None where none is planned.
        clip: bound on one unit's gradient, for the report.
    """

    charges: Mapping[str, GaussianEvent]
    ledger: RunLedger
    names: Sequence[str]
    door: ReleaseDoor
    telling: SiteTelling | None = None
    clip: float = 1.0
    ended: str = ""
    _unsettled: dict[str, GaussianEvent] = field(default_factory=dict)
    _spent: set[str] = field(default_factory=set)
    _model: dict[str, str] = field(default_factory=dict)

    def broadcast(self, extra: Arrays) -> Broadcast:
        return {}

    def admitted(self, known: Known) -> Known:
        """Sites whose line is used up are asked no more."""
        if not self._spent:
            return known
        refused = known.refused.copy()
        refused[[n for n, name in enumerate(self.names) if name in self._spent]] = (
            Code.PARTICIPATIONS
        )
        return replace(known, refused=refused)

    def asked(self, round_: int, clients: Sequence[int]) -> None:
        """Every site's next steps are paid for before it is asked.

        Raises:
            AnabranchError: AB-920 a line is used up; as the ledger, otherwise.
        """
        for name in (self.names[client] for client in clients):
            charge = self.charges[name]
            details = (*_DETAILS, ("clip norm", f"{self.clip:.9g}"))
            request = Request("model", round_, "", (name,), "", charge, name, details)
            try:
                reservation = self.ledger.reserve(request)
            except AnabranchError as error:
                if error.code == _EXHAUSTED:
                    self._spent.add(name)
                    self.ended = f"the privacy budget of {name} is used up"
                raise
            self._unsettled[reservation.release] = charge
            self._model[name] = reservation.release

    # Metrics of the sites -----------------------------------------------------------------------

    def sections(self) -> Sections:
        """All that a site tells of a model's quality."""
        assert self.telling is not None  # sites are asked only then
        return Sections(self.telling.scores.sums.sections())

    def measured(self, round_: int, clients: Sequence[int], model: Vector) -> Sequence[int]:
        """The sites that may be asked about a model: every one has paid for its answer before."""
        assert self.telling is not None
        asked, version = [], hashlib.sha256(np.ascontiguousarray(model).data).hexdigest()
        for client in clients:
            name, charge = self.names[client], self.telling.charge
            bound = ("bound on one unit", f"{self.telling.scores.sums.bound:.6g}")
            details = (*_DETAILS, bound)
            request = Request("evaluation", round_, version, (name,), "", charge, name, details)
            try:
                reservation = self.ledger.reserve(request)
            except AnabranchError as error:
                if error.code != _EXHAUSTED:
                    raise
                continue
            self._unsettled[reservation.release] = charge
            asked.append(client)
        return asked

    def score(
        self, round_: int, total: Total, contributors: Sequence[int], clients: int, model: Vector
    ) -> tuple[Mapping[str, float], tuple[Admission, ...]]:
        """Metrics over all units of the sites that answered; the noise is theirs."""
        if self.telling is None or not contributors:
            return {}, ()
        scores, charge = self.telling.scores, self.telling.charge
        values = scores.sums.values(scores.sums.steps(total))
        deviation = scores.sums.deviation(charge.noise_multiplier, len(contributors))
        found = replace(
            self.door.admit("metrics of the sites", round_, total),
            mechanism=f"noise {charge.noise_multiplier:.6g} bounds inside each site",
        )
        return scores.metrics(values, deviation), (found,)

    def release(
        self,
        round_: int,
        total: Total,
        contributors: Sequence[int],
        model: Vector,
        extra: Arrays,
    ) -> Passed:
        admission = self.door.admit("model", round_, total)
        if not admission.admitted:
            reason = f"{total.contributors} contributors are fewer than a release needs"
            return Passed(None, (admission,), reason=reason)
        noisy = replace(admission, mechanism="DP-SGD inside each site", digest=digest_of(total))
        weakest = min(self.charges[self.names[c]].noise_multiplier for c in contributors)
        return Passed(total, (noisy,), {"site_noise": float(np.float64(weakest))})

    def kept(self, extra: Arrays) -> Arrays:
        return {}

    def declined(self, round_: int, clients: Sequence[int]) -> None:
        """What a site was asked for returns to it: by its own word nothing was ever computed."""
        for name in (self.names[client] for client in clients):
            release = self._model.pop(name, "")
            if self._unsettled.pop(release, None) is not None:
                self.ledger.void(release, "the site declined the run")

    def failed(self, round_: int) -> None:
        """What sites were asked for stays spent: they may have sent it."""

    def committed(self) -> None:
        self._model.clear()
        for release, charge in self._unsettled.items():
            self.ledger.settle(release, charge, "")
        self._unsettled.clear()
