"""The round loop.

    select -> train and fold -> release -> server update -> evaluate -> commit

One call of `Coordinator.run` is one run, from its stored state to its end by rule. A round is a
transaction: it changes the model and is recorded whole, or it fails and changes nothing but its
own record. The public state of the generators is (seed, purpose, round), so a resumed run draws
what the uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms.base import RoundContext, ServerState
from anabranch.client.program import ClientProgram
from anabranch.client.task import TaskKind
from anabranch.coordinator.aggregate import Aggregated, aggregate
from anabranch.coordinator.collect import Collected, collect
from anabranch.coordinator.evaluation import Evaluation, Evaluator
from anabranch.coordinator.events import ClientTrouble, Event, RoundCommitted
from anabranch.coordinator.policies import Policy
from anabranch.coordinator.record import RoundTimes, committed_event, round_record
from anabranch.coordinator.runtime import Fate, Runtime, Work
from anabranch.coordinator.state import RunState
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import GroupedCommits, RunStatus
from anabranch.fleet.selection import select_uniform
from anabranch.plan.schema import Plan
from anabranch.privacy.door import ReleaseDoor
from anabranch.randomness import generator

__all__ = ["Coordinator", "Ending"]


@dataclass(frozen=True)
class Ending:
    """How a run ended: the store's status word, and the reason for people."""

    status: RunStatus
    reason: str


@dataclass
class Coordinator:
    """One run.

    Attributes:
        plan: the contract and how it is run.
        program: what clients run.
        names: client identifiers by number.
        runtime: carries the work.
        evaluator: measures models.
        door: what may leave.
        policy: when tasks are given out and when a round is closed.
        journal: makes rounds durable.
        tell: the listener.
        stopped: asked between rounds; true ends the run in good order.
    """

    plan: Plan
    program: ClientProgram
    names: tuple[str, ...]
    runtime: Runtime
    evaluator: Evaluator
    door: ReleaseDoor
    policy: Policy
    journal: GroupedCommits
    tell: Callable[[Event], None]
    stopped: Callable[[], bool] = lambda: False
    _measured: tuple[int, Evaluation] | None = None
    _trouble: str = ""

    def run(self, state: RunState) -> tuple[RunState, Ending]:
        """Rounds until a stop rule holds; everything is durable when this returns."""
        ending = self._ending(state)
        while ending is None:
            state = self.round(state)
            ending = self._ending(state)
        self.journal.flush()
        return state, ending

    def round(self, state: RunState) -> RunState:
        """One round: the next state, already noted in the journal."""
        times = RoundTimes()
        number = state.round + 1
        cohort = self._select(number)
        collected = self._train(number, cohort, state.server)
        times.mark("train")
        aggregated = self._aggregate(number, state.server, collected)
        times.mark("aggregate")
        evaluation = self._evaluate(number, aggregated.server)
        times.mark("evaluate")
        progress = self._progress(state, collected, aggregated, evaluation)
        state = self._timed(RunState(number, aggregated.server, progress), times)
        record = round_record(number, collected, aggregated, evaluation, times, self.names)
        self.journal.add(replace(record, state=state.arrays()))
        self._tell_round(committed_event(record, collected, evaluation, self.names), collected)
        return state

    def _select(self, number: int) -> tuple[int, ...]:
        clients = len(self.names)
        draw = generator(self.plan.seed, "cohort", number)
        return select_uniform(clients, self.plan.rounds.asked(clients), draw)

    def _train(self, number: int, cohort: tuple[int, ...], server: ServerState) -> Collected:
        """Ask the cohort to train; its updates are folded as they come."""
        work = Work(
            TaskKind.TRAIN,
            number,
            cohort,
            self.program.algorithm.broadcast(server),
            FoldPlan(self.program.sections, capacity=len(cohort)),
            self.program.pipeline.delivery,
        )
        decode = self.program.pipeline.decode_one
        return collect(work, self.runtime, self.policy, self._name, decode)

    def _aggregate(self, number: int, server: ServerState, collected: Collected) -> Aggregated:
        """The next server state, or the same one when the round fails; clients are told."""
        rounds, clients = self.plan.rounds, len(self.names)
        factor = rounds.server_schedule.factor(number, rounds.count)
        aggregated = aggregate(
            self.program,
            server,
            collected,
            context=RoundContext(number, clients, factor),
            needed=rounds.needed(clients),
            door=self.door,
        )
        self.runtime.settle(collected.work.task, aggregated.fates)
        return aggregated

    def _evaluate(self, number: int, server: ServerState) -> Evaluation:
        if not self.plan.evaluation.due(number, self.plan.rounds.count):
            return Evaluation()
        return self.evaluate(number, server)

    def evaluate(self, number: int, server: ServerState) -> Evaluation:
        """Metrics of the model that the algorithm hands out; measured once a version."""
        if self._measured is not None and self._measured[0] == number:
            return self._measured[1]
        model = self.program.algorithm.evaluated_model(server)
        broadcast = {**self.program.algorithm.broadcast(server), "model": model}
        evaluation = self.evaluator.evaluate(number, broadcast)
        self._measured = (number, evaluation)
        return evaluation

    def _progress(
        self, state: RunState, collected: Collected, made: Aggregated, evaluation: Evaluation
    ) -> Progress:
        before = state.progress
        sizes = [o.bytes_up for o in collected.outcomes.values()]
        failed = made.outcome == "failed"
        merged = 0 if failed else collected.contributors
        self._trouble = made.reason
        progress = replace(
            before,
            failures=before.failures + 1 if failed else 0,
            asked=before.asked + len(collected.work.clients),
            merged=before.merged + merged,
            largest_update=max([before.largest_update, *sizes]),
        )
        watched = evaluation.metrics.get(self.plan.stop.metric)
        if watched is None:
            return progress
        return progress.after_evaluation(self.plan.stop, state.round + 1, watched)

    @staticmethod
    def _timed(state: RunState, times: RoundTimes) -> RunState:
        seconds = state.progress.seconds + times.seconds
        return replace(state, progress=replace(state.progress, seconds=seconds))

    def _ending(self, state: RunState) -> Ending | None:
        if state.progress.failures > self.plan.rounds.max_failures:
            why = f": {self._trouble}" if self._trouble else ""
            return Ending("failed", f"{state.progress.failures} rounds in a row failed{why}")
        reason = state.progress.reason_to_stop(self.plan.stop, state.round, self.plan.rounds.count)
        if reason and not state.progress.merged:
            why = f"; {self._trouble}" if self._trouble else ""
            return Ending("failed", f"{reason}, but no round was merged{why}")
        if reason:
            return Ending("complete", reason)
        return Ending("stopped", "stopped by the user") if self.stopped() else None

    def _tell_round(self, event: RoundCommitted, collected: Collected) -> None:
        for client, outcome in collected.outcomes.items():
            if outcome.fate is not Fate.MERGED:
                name = self._name(client)
                self.tell(ClientTrouble(event.round, name, outcome.fate.value, outcome.detail))
        self.tell(event)

    def _name(self, client: int) -> str:
        return self.names[client] if client < len(self.names) else str(client)
