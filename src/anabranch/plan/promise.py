"""What a plan with `[privacy]` promises, in numbers: noise of every round, lines of the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from anabranch.errors import AnabranchError
from anabranch.learners.training import LocalTraining
from anabranch.plan.privacy import (
    CentralGaussian,
    DistributedNoise,
    LocalDpSgd,
    MatrixMechanism,
    PrivacyPlan,
)
from anabranch.plan.schema import Plan
from anabranch.privacy.accounting import (
    calibrate,
    exact_noise,
    population_warning,
)
from anabranch.privacy.budget import AdaptiveAllocation, ParticipationLimit, Shares
from anabranch.privacy.events import (
    GaussianEvent,
    NoSampling,
    PoissonSampling,
    Sampling,
    Unit,
)
from anabranch.privacy.ledger import (
    Allotted,
    Charge,
    Line,
    MatrixEvent,
    Opened,
    Purpose,
    epsilon_of,
)

__all__ = ["Promise", "evaluations_of", "local_schedule", "promise_of", "share_event"]


@dataclass(frozen=True)
class Promise:
    """The numbers behind a plan's promise, for a fleet of a known size.

    Attributes:
        opened: what the population's ledger is opened with.
        lines: all that the run may release.
        limit: how often a client may be asked; None without a limit.
        shares: of a plain budget dealt to rounds; None where every round is the same or one matrix.
        epsilon: the run's promise.
        delta: of the promise.
        sampling: what is claimed of the selection.
    """

    opened: Opened
    lines: tuple[Line, ...]
    limit: ParticipationLimit | None
    shares: Shares | None
    epsilon: float
    delta: float
    sampling: Sampling

    def allotted(self, run: str, plan_digest: str = "", label: str = "") -> Allotted:
        """The run's first entry, without its secret."""
        return Allotted(run, self.lines, self.epsilon, self.delta, label, plan_digest)

    def at(self, site: str) -> Promise:
        """What one site spends of it: lines of other sites are left out."""
        return replace(self, lines=tuple(x for x in self.lines if x.site in ("", site)))

    def model_charge(
        self, round_: int, progress: Sequence[float] = (), spent: Sequence[float] = ()
    ) -> Charge:
        """What releasing the model of ``round_`` costs, with the noise that is planned for it.

        Args:
            round_: from 1.
            progress: validation metric so far, more is better (adaptive allocation).
            spent: shares 1 / noise-to-sensitivity^2 of earlier rounds (adaptive allocation).

        Raises:
            AnabranchError: AB-920 the budget leaves nothing for this round.
        """
        planned = self.lines[0].charges[0]
        if isinstance(planned, MatrixEvent):
            return replace(planned, rounds=round_)
        if self.shares is None:
            return replace(planned, rounds=1)
        share = self.shares.share(round_, progress, spent)
        if share <= 0:
            raise AnabranchError(
                "AB-920",
                f"the budget leaves nothing for round {round_}.",
                fix="nothing has to be mended: the run ends with its last good model.",
                kept="Nothing was released.",
            )
        noise = planned.relation.sensitivity / math.sqrt(share)
        return replace(planned, noise_multiplier=noise, rounds=1)

    def evaluation_charge(self) -> GaussianEvent | None:
        """What one evaluation at clients costs; None when none is planned."""
        return self._charge("evaluation")

    def statistics_charge(self) -> GaussianEvent | None:
        """What the statistics for preprocessing cost; None where they are not paid for."""
        return self._charge("statistics")

    def _charge(self, purpose: Purpose) -> GaussianEvent | None:
        """Of the first line for a purpose; those of all sites are equal."""
        for line in self.lines:
            charge = line.charges[0]
            if line.purpose == purpose and isinstance(charge, GaussianEvent):
                return replace(charge, rounds=1)
        return None


def promise_of(plan: Plan, clients: int, sites: Mapping[str, int] | None = None) -> Promise:
    """The numbers behind ``plan.privacy`` for a fleet of ``clients``.

    Args:
        plan: with a table `[privacy]`.
        clients: enrolled clients.
        sites: units at each site, for noise made inside sites (DP-SGD).

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed; AB-902, AB-905, AB-910, AB-911,
            AB-912 the numbers do not go together; AB-926 the unit's population is not known.
        ValueError: the plan has no `[privacy]`.
    """
    if plan.privacy is None:
        raise ValueError("the plan promises nothing")
    return _Maker(plan, plan.privacy, clients, dict(sites or {})).promise()


def local_schedule(mechanism: LocalDpSgd, training: LocalTraining, units: int) -> tuple[float, int]:
    """Probability of a unit to be in a step, and the steps of one round, at a site of ``units``."""
    rate = min(1.0, mechanism.batch / max(units, 1))
    return rate, training.steps or max(1, round((training.epochs or 1) / rate))


def evaluations_of(plan: Plan) -> int:
    """How often a model is evaluated in a run that comes to its end."""
    rounds = plan.rounds.count
    return sum(plan.evaluation.due(round_, rounds) for round_ in range(1, rounds + 1))


def share_event(plan: Plan, purpose: Literal["evaluation", "statistics"]) -> GaussianEvent | None:
    """What all evaluations, or the statistics for preprocessing, cost; None without a budget.

    It follows from the contract alone: every client finds the same noise, whatever data it has.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    privacy = plan.privacy
    if privacy is None:
        return None
    share, releases = privacy.statistics_share, 1
    if purpose == "evaluation":
        share, releases = privacy.evaluation_share, evaluations_of(plan)
    if not share or not releases:
        return None
    noise = math.sqrt(releases / (_whole_share(privacy) * share))
    relation = privacy.neighbours
    return GaussianEvent(
        noise * relation.sensitivity, releases, relation=relation, unit=privacy.unit
    )


def _whole_share(privacy: PrivacyPlan) -> float:
    """The share 1 / z^2 of the whole run, for plain Gaussian releases."""
    return exact_noise(privacy.epsilon, privacy.delta) ** -2 * (1 - 1e-9)


@dataclass(frozen=True)
class _Maker:
    plan: Plan
    privacy: PrivacyPlan
    clients: int
    sites: dict[str, int]

    def promise(self) -> Promise:
        privacy, mechanism = self.privacy, self.privacy.mechanism
        opened = self._opened()
        population_warning(privacy.delta, opened.size)
        others = self._others()
        shares: Shares | None = None
        limit: ParticipationLimit | None = None
        sampling: Sampling = NoSampling()
        if isinstance(mechanism, LocalDpSgd):
            lines = self._local(mechanism, others)
        elif isinstance(mechanism, MatrixMechanism):
            matrix = self._matrix(mechanism)
            limit = ParticipationLimit(matrix.participations, matrix.separation)
            lines = (Line("model", (matrix, *self._spare(matrix))),)
        else:
            sampling = self._sampling(mechanism)
            lines, shares = self._rounds(mechanism, sampling, others)
            if mechanism.participations is not None:
                limit = ParticipationLimit(mechanism.participations)
        return Promise(
            opened,
            lines + others,
            limit,
            shares,
            privacy.epsilon,
            privacy.delta,
            sampling,
        )

    def _opened(self) -> Opened:
        privacy = self.privacy
        size = privacy.population_size or self.clients
        inside = privacy.unit in (Unit.EXAMPLE, Unit.SUBJECT)
        if inside and privacy.population_size is None:
            size = sum(self.sites.values())
            if not size:
                raise AnabranchError(
                    "AB-926",
                    f"the unit of privacy is {privacy.unit.value!r}, and it is not known how many "
                    "there are.",
                    fix="state privacy.population_size.",
                    kept="Nothing was started.",
                )
        return Opened(
            privacy.population,
            privacy.unit,
            privacy.neighbours,
            privacy.population_epsilon or privacy.epsilon,
            privacy.delta,
            size,
            # A row of data is at one site only; a person may be at several.
            privacy.unit is Unit.EXAMPLE or getattr(privacy.mechanism, "disjoint", False),
        )

    def _others(self) -> tuple[Line, ...]:
        """Lines for evaluations and statistics: everybody takes part in each of them.

        Where sites add the noise each has its own, as for the model.
        """
        inside = isinstance(self.privacy.mechanism, LocalDpSgd)
        sites = tuple(self.sites) if inside else ("",)
        purposes: tuple[Literal["evaluation", "statistics"], ...] = ("evaluation", "statistics")
        return tuple(
            Line(purpose, (event,), site=site)
            for purpose in purposes
            if (event := share_event(self.plan, purpose)) is not None
            for site in sites
        )

    def _gaussian(self, noise_to_sensitivity: float, rounds: int) -> GaussianEvent:
        relation = self.privacy.neighbours
        return GaussianEvent(
            noise_to_sensitivity * relation.sensitivity,
            rounds,
            relation=relation,
            unit=self.privacy.unit,
        )

    def _left(self) -> float:
        others = self.privacy.evaluation_share + self.privacy.statistics_share
        return _whole_share(self.privacy) * (1 - others)

    def _matrix(self, mechanism: MatrixMechanism) -> MatrixEvent:
        rounds, most = self.plan.rounds.count, mechanism.participations
        separation = mechanism.separation or max(1, rounds // most)
        draft = MatrixEvent(
            mechanism.noise_multiplier or 1.0,
            rounds,
            separation,
            most,
            min(mechanism.bands or separation, separation, rounds),
            self.privacy.neighbours,
            self.privacy.unit,
        )
        if mechanism.noise_multiplier is not None:
            return draft
        squares = draft.sensitivity**2 + self.privacy.spares
        noise = draft.relation.sensitivity * math.sqrt(squares / self._left())
        return replace(draft, noise_multiplier=noise)

    def _spare(self, matrix: MatrixEvent) -> tuple[Charge, ...]:
        if not self.privacy.spares:
            return ()
        spare = GaussianEvent(
            matrix.noise_multiplier,
            self.privacy.spares,
            relation=matrix.relation,
            unit=matrix.unit,
        )
        return (spare,)

    def _sampling(self, mechanism: CentralGaussian | DistributedNoise) -> Sampling:
        if mechanism.sampling == "none":
            return NoSampling()
        cohort = self.plan.rounds.wanted(self.clients)
        cap = math.ceil(cohort + 6 * math.sqrt(cohort))
        if cap >= self.clients:
            return PoissonSampling(cohort / self.clients)
        return PoissonSampling(cohort / self.clients, cap, self.clients)

    def _rounds(
        self,
        mechanism: CentralGaussian | DistributedNoise,
        sampling: Sampling,
        others: tuple[Line, ...],
    ) -> tuple[tuple[Line, ...], Shares | None]:
        rounds = self.plan.rounds.count + self.privacy.spares
        most = min(mechanism.participations or rounds, rounds)
        template = replace(self._gaussian(1.0, rounds), sampling=sampling)
        if mechanism.noise_multiplier is not None:
            noise = mechanism.noise_multiplier
            charge = replace(template, noise_multiplier=noise)
            return (Line("model", (charge,), mechanism.participations or 0),), None
        if not isinstance(sampling, NoSampling):
            # Sampled rounds are equal; the algebra refuses other allocations for them.
            return (Line("model", (self._sampled(template, others),)),), None
        shares = Shares(self._left(), rounds, most, self.privacy.allocation)
        if isinstance(self.privacy.allocation, AdaptiveAllocation):
            # What the rounds will cost is not known, but what they cost together is.
            charges = [self._gaussian(1 / math.sqrt(self._left()), 1)]
        else:
            charges = [self._gaussian(1 / math.sqrt(share), 1) for share in shares.planned()]
        return (Line("model", _grouped(charges), mechanism.participations or 0),), shares

    def _sampled(self, template: GaussianEvent, lines: tuple[Line, ...]) -> GaussianEvent:
        """The least noise at which sampled rounds and all else together keep epsilon."""
        privacy = self.privacy
        others = [e for line in lines for e in line.charges if isinstance(e, GaussianEvent)]
        found = calibrate(template, privacy.epsilon, privacy.delta)
        return self._scaled([found], others)[0]

    def _scaled(
        self, events: Sequence[GaussianEvent], others: Sequence[GaussianEvent]
    ) -> list[GaussianEvent]:
        """``events`` with the least common factor on their noise that keeps epsilon."""
        privacy = self.privacy

        def noisier(factor: float) -> list[GaussianEvent]:
            return [replace(e, noise_multiplier=e.noise * factor) for e in events]

        def fits(factor: float) -> bool:
            return epsilon_of([*noisier(factor), *others], privacy.delta) <= privacy.epsilon

        low, high = 1.0, 1.0
        while not fits(high):
            low, high = high, high * 2
        while high / low > 1.001:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if fits(middle) else (middle, high)
        return noisier(high)

    def _local(self, mechanism: LocalDpSgd, others: tuple[Line, ...]) -> tuple[Line, ...]:
        """One line a site: Poisson sampling of its units in every local step."""
        events = {
            site: self._site(mechanism, units, tuple(o for o in others if o.site == site))
            for site, units in self.sites.items()
        }
        if mechanism.noise_multiplier is None and not self._opened().disjoint:
            # Somebody may have data at every site: all of them together keep the promise.
            events = dict(zip(events, self._scaled(list(events.values()), ()), strict=True))
        return tuple(Line("model", (event,), site=site) for site, event in events.items())

    def _site(self, mechanism: LocalDpSgd, units: int, others: tuple[Line, ...]) -> GaussianEvent:
        local = self.plan.local
        rate, steps = local_schedule(mechanism, local, units)
        template = replace(
            self._gaussian(1.0, steps * (self.plan.rounds.count + self.privacy.spares)),
            sampling=PoissonSampling(rate),
        )
        if mechanism.noise_multiplier is not None:
            return replace(template, noise_multiplier=mechanism.noise_multiplier)
        return self._sampled(template, others)


def _grouped(charges: Sequence[GaussianEvent]) -> tuple[GaussianEvent, ...]:
    counts: dict[GaussianEvent, int] = {}
    for charge in charges:
        counts[charge] = counts.get(charge, 0) + 1
    return tuple(replace(charge, rounds=count) for charge, count in counts.items())
