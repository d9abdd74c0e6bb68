"""Before a client computes for a private run: its own count, its own limit, the ledger's head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from anabranch.client.inside import units_of
from anabranch.client.spending import SpendingCap
from anabranch.client.task import TaskKind
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import Promise, evaluations_of, promise_of
from anabranch.plan.site_units import known_units
from anabranch.privacy.budget import ParticipationLimit
from anabranch.privacy.ledger import Purpose
from anabranch.privacy.ledger.heads import Head
from anabranch.runtimes.http.client.line import Line, parsed
from anabranch.runtimes.http.messages import LedgerShown, TaskOffer

if TYPE_CHECKING:
    from anabranch.client.home import ClientHome

__all__ = ["PURPOSES", "Counting"]


PURPOSES: Final[Mapping[TaskKind, Purpose]] = {
    TaskKind.TRAIN: "model",
    TaskKind.EVALUATE: "evaluation",
    TaskKind.STATISTICS: "statistics",
}
"""What a task of each kind releases; others release nothing of their own."""


def _spends(plan: Plan, kind: TaskKind) -> bool:
    """Whether a task spends of the plan's promise; statistics may be outside it, with a reason."""
    if plan.privacy is None or kind is TaskKind.TRAIN:
        return plan.privacy is not None
    if kind is TaskKind.STATISTICS:
        return plan.privacy.statistics_share > 0
    return plan.privacy.evaluation_share > 0


def _limit(plan: Plan, kind: TaskKind, promise: Promise) -> ParticipationLimit:
    """How many releases of its purpose the contract pays for."""
    if kind is TaskKind.STATISTICS:
        return ParticipationLimit(1)
    if kind is TaskKind.EVALUATE:
        return ParticipationLimit(evaluations_of(plan))
    assert plan.privacy is not None  # nothing else is counted
    return promise.limit or ParticipationLimit(plan.rounds.count + plan.privacy.spares)


@dataclass
class Counting:
    """Counts for one client, whatever the coordinator's ledger says.

    Attributes:
        home: keeps the count.
        name: of the client.
    """

    home: ClientHome
    name: str
    _promises: dict[str, Promise] = field(default_factory=dict)

    def before(
        self, plan: Plan, offer: TaskOffer, rows: Callable[[], Examples | None], line: Line
    ) -> None:
        """Count what a task releases before anything is computed.

        Args:
            plan: of the contract.
            offer: the task.
            rows: whose rows this client trains on.
            line: to the coordinator.

        Raises:
            AnabranchError: AB-929 the site's own cap; AB-923 once too often; AB-924 the ledger was
                turned back, or is not shown; AB-992 this client's own count was turned back; AB-901
                dp-accounting is not installed here.
        """
        if not _spends(plan, offer.kind):
            return
        # A contract that changed under the same run is another run to this count.
        run, who = f"{offer.run}/{offer.contract}", line.checker.key
        self._see(plan, offer.run, who, line)
        promise = self._promise(plan, run, rows)
        rules = self.home.policy.privacy
        cap = (
            SpendingCap(rules.max_total_epsilon, rules.total_delta)
            if rules.max_total_epsilon is not None
            else None
        )
        if not self.home.spending.counts(who, run):
            self.home.spending.agree(who, promise.allotted(run), cap)
        # Attempts at one secure sum are several tasks; the session opens one of them.
        task = "" if plan.secure_aggregation is not None else offer.task
        limit, purpose = _limit(plan, offer.kind, promise), PURPOSES[offer.kind]
        self.home.spending.take_part(who, run, offer.round, limit, task=task, purpose=purpose)

    def _promise(self, plan: Plan, run: str, rows: Callable[[], Examples | None]) -> Promise:
        if run not in self._promises:
            roster = self.home.roster
            members = len(list(roster.active())) if roster is not None else 1
            if isinstance(plan.rounds.cohort, int):
                members = max(members, plan.rounds.cohort)
            sites: dict[str, int] = {}
            inside = plan.privacy is not None and isinstance(plan.privacy.mechanism, LocalDpSgd)
            train = rows() if inside else None
            if train is not None and plan.privacy is not None:
                own = units_of(train, plan.privacy.unit, self.name)
                sites = known_units(plan, self.name, own)
            self._promises[run] = promise_of(plan, members, sites).at(self.name)
        return self._promises[run]

    def _see(self, plan: Plan, run: str, who: str, line: Line) -> None:
        """Ask for the ledger's head, and refuse one that forgets what was shown before."""
        assert plan.privacy is not None  # asked of private plans only
        spending, population = self.home.spending, plan.privacy.population
        known = spending.known_head(who, population)
        query = {"after": str(known[0])} if known is not None else None
        try:
            shown = parsed(LedgerShown, line.send("GET", f"/runs/{run}/ledger", params=query))
        except AnabranchError as error:
            if error.code != "AB-717":
                raise
            raise self._hidden(population) from error
        line.checker.require(shown, shown.signature, run)
        if shown.population != population:
            raise self._hidden(population)
        numbers = float(shown.epsilon), float(shown.budget), float(shown.delta)
        head = Head(shown.population, shown.sequence, shown.digest, *numbers)
        spending.see_head(who, head, shown.contents)
        own, lost = spending.given(), self.home.policy.privacy.forgotten
        if shown.given > own + lost:
            raise _outdated(shown.given, own)

    def _hidden(self, population: str) -> AnabranchError:
        return AnabranchError(
            "AB-924",
            f"the coordinator does not show the ledger of {population!r}, which this run spends "
            "from.",
            fix="ask who runs the coordinator; this client takes part in nothing private without.",
            kept="Nothing was computed and nothing was sent.",
        )


def _outdated(given: int, known: int) -> AnabranchError:
    return AnabranchError(
        "AB-992",
        f"this client gave updates for {given} rounds of private runs, and its own count knows of "
        f"{known}: an old copy of its folder was put back, or its count was lost.",
        fix="put the newest folder back. If there is none, write into the site's policy how many "
        f"rounds are lost ([privacy] forgotten = {given - known}), and lower max_total_epsilon by "
        "what they cost.",
        kept="Nothing was computed and nothing was sent.",
    )
