"""Statistics for preprocessing within a run's promise: reserved, made with noise, settled.

Where sites make the noise (DP-SGD) each adds its own before it answers, and what it answers is paid
for before it is asked. Where the coordinator makes it, clients tell exact bounded sums, and what
leaves the coordinator is noisy. Either way the charge stands in the ledger beside the model's, and
the same statistics computed again after a crash are the same release.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.api.prepare import Prepared, program_of
from anabranch.client.bounded import bounded_statistics
from anabranch.coordinator.store.ledger import Reservation, RunLedger
from anabranch.data.bounded import NoisyStatistics, fit_noisy
from anabranch.data.load import PendingTable
from anabranch.data.preprocess import Preprocessor, PreprocessRules, StatisticRelease
from anabranch.data.schema import DataSchema
from anabranch.plan import Plan
from anabranch.plan.mechanism import statistics_of
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import share_event
from anabranch.privacy.door import digest_of
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger import Request
from anabranch.privacy.mechanisms import BoundedSums
from anabranch.privacy.noise import SecretStream
from anabranch.updates.sections import Sections, Statistics
from anabranch.updates.total import Total

__all__ = ["StatisticsBudget", "with_statistics"]

_ROUND = 0


@dataclass
class StatisticsBudget:
    """What the statistics of one run may cost, and where that is written down.

    Attributes:
        plan: with a share for statistics.
        sums: of its schema.
        ledger: of the run; its allotment holds the lines.
        names: of the clients.
    """

    plan: Plan
    sums: BoundedSums
    ledger: RunLedger
    names: Sequence[str]

    @staticmethod
    def of(
        plan: Plan, schema: DataSchema, ledger: RunLedger, names: Sequence[str]
    ) -> StatisticsBudget:
        """Raises:
        AnabranchError: AB-989 a column has no range or no codes.
        """
        sums = statistics_of(plan, schema)
        if sums is None:
            raise ValueError("the plan pays for no statistics")
        return StatisticsBudget(plan, sums, ledger, names)

    @property
    def charge(self) -> GaussianEvent:
        """What each release costs."""
        event = share_event(self.plan, "statistics")
        assert event is not None  # see `of`
        return event

    @property
    def inside(self) -> bool:
        """Whether sites make the noise."""
        return self.plan.privacy is not None and isinstance(self.plan.privacy.mechanism, LocalDpSgd)

    @property
    def sections(self) -> Sections:
        """What a client tells."""
        return Sections(self.sums.sections())

    def before(self) -> None:
        """Every site's noisy statistics are paid for before it is asked; may be repeated.

        Raises:
            AnabranchError: AB-919, AB-920 the run's allotment does not hold them.
        """
        if self.inside:
            for name in self.names:
                self.ledger.reserve(self._request((name,), "", site=name))

    def declined(self, names: Sequence[str]) -> None:
        """These sites say that they never computed anything: what they were to spend returns."""
        for name in names if self.inside else ():
            held = self.ledger.reserve(self._request((name,), "", site=name))
            self.ledger.void(held.release, "the site declined the run")
        self.names = [name for name in self.names if name not in names]

    def released(self, total: Total) -> NoisyStatistics:
        """What may be used: the sum over clients, with the noise of all sites or of this end.

        Raises:
            AnabranchError: as `before`.
        """
        steps, charge = self.sums.steps(total), self.charge
        if self.inside:
            for name in self.names:
                # Who did not answer has spent it all the same: it may have been on its way.
                held = self.ledger.reserve(self._request((name,), "", site=name))
                self.ledger.settle(held.release, charge, "")
            parts = max(1, total.contributors)
        else:
            tag = hmac.new(self.ledger.payload_key(), digest_of(total).encode(), hashlib.sha256)
            held = self.ledger.reserve(self._request(tuple(sorted(self.names)), tag.hexdigest()))
            steps = steps + self._noise(held)
            output = hashlib.sha256(np.ascontiguousarray(steps).data).hexdigest()
            self.ledger.settle(held.release, charge, output)
            parts = 1
        deviation = self.sums.deviation(charge.noise_multiplier, parts)
        return NoisyStatistics(self.sums.values(steps), deviation)

    def _noise(self, held: Reservation) -> Statistics:
        stream = SecretStream.keyed(held.noise_key, "statistics")
        return self.sums.noise(self.charge.noise_multiplier, stream)

    def _request(self, names: tuple[str, ...], tag: str, site: str = "") -> Request:
        details = (
            ("arithmetic", "integers; discrete noise by alias tables on AES-256-CTR"),
            ("bound on one unit", f"{self.sums.bound:.6g}"),
            ("mechanism", "BoundedSums"),
        )
        return Request("statistics", _ROUND, "", names, tag, self.charge, site, details)

    def release(self, total: Total, withheld: tuple[str, ...]) -> StatisticRelease:
        """For the run's record."""
        where = "each site" if self.inside else "the coordinator"
        words = f"noise {self.charge.noise_multiplier:.6g} bounds, added by {where}"
        return StatisticRelease("column statistics of training rows", total, withheld, words)

    def fitted(
        self, schema: DataSchema, total: Total, rules: PreprocessRules
    ) -> tuple[Preprocessor, StatisticRelease]:
        """The preprocessor, and what the run's record says about it."""
        preprocessor = fit_noisy(schema, self.released(total), rules)
        return preprocessor, self.release(total, preprocessor.withheld)


def with_statistics(prepared: Prepared, ledger: RunLedger) -> Prepared:
    """A simulated run whose preprocessing is learnt from noisy statistics, when it is pending."""
    pending = prepared.loaded.pending if prepared.loaded is not None else None
    if pending is None:
        return prepared
    budget = StatisticsBudget.of(prepared.plan, pending.table.schema, ledger, pending.names)
    budget.before()
    total = _simulated(pending, budget)
    preprocessor, release = budget.fitted(pending.table.schema, total, pending.rules)
    loaded = pending.prepared(preprocessor, (release,))
    program = program_of(prepared.plan, loaded.federation, prepared.module)
    return replace(prepared, federation=loaded.federation, loaded=loaded, program=program)


def _simulated(pending: PendingTable, budget: StatisticsBudget) -> Total:
    """Every client's part, with its own noise where sites make it."""
    fold = Accumulator(FoldPlan(budget.sections, len(pending.names)))
    key = budget.ledger.client_key()
    for number, name in enumerate(pending.names):
        stream = SecretStream.keyed(key, "statistics", name)
        update, _ = bounded_statistics(budget.plan, pending.train(number), stream)
        fold.add(update, name)
    return fold.total()
