"""The round loop.

    select, train and fold -> release -> server update -> evaluate -> commit

One call of `Coordinator.run` is one run, from its stored state to its end by rule. A round is a
transaction: it changes the model and is recorded whole, or it fails and changes nothing but its
own record. Tasks may stay open over rounds, where the policy keeps them. The public state of the
generators is (seed, purpose, number), so a resumed run draws what the uninterrupted one would have
drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from anabranch.algorithms.base import Broadcast, RoundContext, ServerState
from anabranch.client.program import ClientProgram
from anabranch.coordinator.adjusting import Adjustment
from anabranch.coordinator.aggregate import Aggregated, aggregate
from anabranch.coordinator.asking import Asking, open_tasks
from anabranch.coordinator.chosen import selection_events
from anabranch.coordinator.collect import Collected, OpenWork, gather
from anabranch.coordinator.declined import declined_of
from anabranch.coordinator.downlink import Downstream, Sending
from anabranch.coordinator.evaluation import Evaluation, Evaluator
from anabranch.coordinator.events import ClientTrouble, Event
from anabranch.coordinator.limits import LimitWatch
from anabranch.coordinator.policies import Policy
from anabranch.coordinator.record import (
    VIRTUAL_SECONDS,
    RoundTimes,
    committed_event,
    round_record,
)
from anabranch.coordinator.releasing import PROGRESS, Releases
from anabranch.coordinator.runtime import Fate, FollowsRounds, Framed, Runtime, VirtualRuntime
from anabranch.coordinator.state import RunState
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import Arrays, GroupedCommits, RoundRecord, RunStatus
from anabranch.plan.schema import Plan

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
        releases: what may leave, and what it costs.
        asking: whom a round asks.
        policy: when tasks are given out and when a round is closed.
        journal: makes rounds durable.
        tell: the listener.
        stopped: asked between rounds; true ends the run in good order.
        watch: adds up what the plan's limits need; None without limits.
        framed: which encoded broadcasts the runtime carries.
    """

    plan: Plan
    program: ClientProgram
    names: tuple[str, ...]
    runtime: Runtime
    evaluator: Evaluator
    releases: Releases
    asking: Asking
    policy: Policy
    journal: GroupedCommits
    tell: Callable[[Event], None]
    stopped: Callable[[], bool] = lambda: False
    watch: LimitWatch | None = None
    framed: Framed = "differences"
    _measured: tuple[int, Evaluation] | None = None
    _trouble: str = ""

    def run(self, state: RunState) -> tuple[RunState, Ending]:
        """Rounds until a stop rule holds; everything is durable when this returns."""
        self._go_on(state)
        ending = self._ending(state)
        while ending is None:
            state = self.round(state)
            ending = self._ending(state)
        self.journal.flush()
        self.releases.committed()
        return state, ending

    def round(self, state: RunState) -> RunState:
        """One round: the next state, already noted in the journal."""
        times = RoundTimes()
        number = state.round + 1
        sending = self._sending(number, state)
        collected, kept = self._train(number, state, sending)
        self.releases.declined(number, declined_of(collected.outcomes.values()))
        times.mark("train")
        aggregated = self._aggregate(number, state, collected)
        times.mark("aggregate")
        evaluation = self._evaluate(number, aggregated.server)
        times.mark("evaluate")
        progress = self._progress(state, collected, aggregated, evaluation, times)
        state = self._next(state, aggregated, progress, collected, kept)
        measured = self._validation(state, evaluation)
        state = replace(state, extra={**state.extra, **sending.kept(collected), **measured})
        record = round_record(number, collected, aggregated, evaluation, times, self.names)
        record = self._commit(record, state)
        self._tell_round(record, collected, evaluation, progress)
        return state

    def _commit(self, record: RoundRecord, state: RunState) -> RoundRecord:
        """The record and the state that it leads to, in one transaction of the journal."""
        chosen = selection_events(self.asking.taken())
        metrics = record.metrics
        if isinstance(self.runtime, VirtualRuntime):
            metrics = {**metrics, VIRTUAL_SECONDS: state.clock}
        record = replace(record, metrics=metrics, events=(*chosen, *record.events))
        if self.journal.add(replace(record, state=state.arrays())):
            self.releases.committed()
        return record

    def _go_on(self, state: RunState) -> None:
        """Tell the runtime what was open when the run was interrupted."""
        if isinstance(self.runtime, VirtualRuntime):
            self.runtime.restore(state.clock, state.extra)
        for opened in self.asking.again(state.open, state.versions):
            if isinstance(self.runtime, VirtualRuntime):
                self.runtime.resubmit(opened.work, opened.at)
            else:
                self.runtime.submit(opened.work)

    def _sending(self, number: int, state: RunState) -> Sending:
        """What goes down in a round, as clients decode it."""
        downstream = Downstream(self.program, len(self.names))
        own = self.program.algorithm.broadcast(state.server)
        return downstream.sending(number, own, state.extra)

    def _train(
        self, number: int, state: RunState, sending: Sending
    ) -> tuple[Collected, tuple[OpenWork, ...]]:
        """Ask clients by the policy; their updates are folded as they come."""
        broadcast = {**sending.vectors, **self.releases.broadcast(state.extra)}

        def dispatch(count: int, collected: Collected) -> OpenWork | None:
            opened = self.asking.new(
                count,
                round_=number,
                draw=state.draws + collected.dispatches + 1,
                now=self.runtime.now(),
                busy=[client for opened in collected.still_open() for client in opened.waiting],
                broadcast=broadcast,
                history=state.history,
                down=sending.sizes(self.framed),
            )
            collected.over = self.asking.exhausted
            return sending.addressed(opened, self.framed) if opened is not None else None

        adjust = Adjustment(number, self.plan.rounds, self.program, broadcast)
        collected = Collected(number, self.asking.fold, self.runtime.now(), adjust, False)
        collected.coarseness = self.program.pipeline.coarseness_of
        for opened in self.asking.again(state.open, state.versions):
            collected.keep(opened)
        if isinstance(self.runtime, FollowsRounds):
            self._half_summed(self.runtime.begin_round(number), state, collected, broadcast)
        early, self.evaluator.early[:] = tuple(self.evaluator.early), ()
        for event in early:
            collected.absorb(event, self._name, self.runtime.now())
        kept = gather(collected, self.runtime, self.policy, dispatch, self._name)
        return collected, kept

    def _half_summed(
        self,
        tasks: Mapping[str, tuple[int, ...]],
        state: RunState,
        collected: Collected,
        broadcast: Broadcast,
    ) -> None:
        """Take up work of this round that a sum was about when the coordinator was killed."""
        forgotten = {task: who for task, who in tasks.items() if task not in collected.works}
        for opened in self.asking.half_summed(
            forgotten,
            round_=collected.round,
            draws=state.draws,
            now=self.runtime.now(),
            broadcast=broadcast,
        ):
            collected.keep(opened)
            # What follows has other names.
            collected.dispatches = max(collected.dispatches, opened.work.draw - state.draws)
            self.runtime.submit(opened.work)

    def _aggregate(self, number: int, state: RunState, collected: Collected) -> Aggregated:
        """The next server state, or the same one when the round fails; clients are told."""
        rounds, clients = self.plan.rounds, len(self.names)
        factor = rounds.server_schedule.factor(number, rounds.count)
        aggregated = aggregate(
            self.program,
            state.server,
            collected,
            context=RoundContext(number, clients, factor),
            needed=rounds.needed(clients),
            release=lambda total, clients: self.releases.release(
                number, total, clients, state.server.model, state.extra
            ),
        )
        if aggregated.outcome == "failed":
            self.releases.failed(number)
        by_task: dict[str, dict[int, Fate]] = {}
        for key, fate in aggregated.fates.items():
            by_task.setdefault(key.task, {})[key.client] = fate
        for task, fates in by_task.items():
            self.runtime.settle(task, fates)
        return aggregated

    def _next(
        self,
        state: RunState,
        made: Aggregated,
        progress: Progress,
        collected: Collected,
        kept: tuple[OpenWork, ...],
    ) -> RunState:
        """What the next round starts from."""
        schedule, history = self.asking.schedule, state.history
        if schedule is not None and history is not None:
            history = schedule.learnt(history, collected)
        return RunState(
            collected.round,
            made.server,
            progress,
            history=history,
            draws=state.draws + collected.dispatches,
            clock=self.runtime.now() if isinstance(self.runtime, VirtualRuntime) else 0.0,
            open=open_tasks(kept),
            versions={opened.work.round: opened.work.broadcast for opened in kept},
            extra={**self.releases.kept(state.extra), **self._extra(), **made.extra},
        )

    def _validation(self, state: RunState, evaluation: Evaluation) -> Arrays:
        """The watched metric so far, more is better, for a budget that follows progress."""
        watched = evaluation.metrics.get(self.plan.stop.metric)
        if self.plan.privacy is None or watched is None:
            return {}
        value = watched if self.plan.stop.better == "maximize" else -watched
        return {PROGRESS: np.append(state.extra.get(PROGRESS, np.zeros(0)), value)}

    def _extra(self) -> Arrays:
        """The state of other parts of the run."""
        return self.runtime.arrays() if isinstance(self.runtime, VirtualRuntime) else {}

    def _evaluate(self, number: int, server: ServerState) -> Evaluation:
        if not self.plan.evaluation.due(number, self.plan.rounds.count):
            return Evaluation()
        return self.evaluate(number, server)

    def evaluate(self, number: int, server: ServerState) -> Evaluation:
        """Metrics of the model that the algorithm hands out; measured once a version."""
        if self._measured is not None and self._measured[0] == number:
            return self._measured[1]
        model = self.program.algorithm.evaluated_model(server)
        own = self.program.algorithm.broadcast(server)
        broadcast = {**own, **self.releases.broadcast({}), "model": model}
        evaluation = self.evaluator.evaluate(number, broadcast)
        self._measured = (number, evaluation)
        return evaluation

    def _progress(
        self,
        state: RunState,
        collected: Collected,
        made: Aggregated,
        evaluation: Evaluation,
        times: RoundTimes,
    ) -> Progress:
        before = state.progress
        sizes = [o.bytes_up for o in collected.outcomes.values()]
        failed = made.outcome == "failed"
        merged = 0 if failed else collected.contributors
        self._trouble = made.reason
        progress = replace(
            before,
            failures=before.failures + 1 if failed else 0,
            asked=before.asked + len(collected.outcomes),
            merged=before.merged + merged,
            largest_update=max([before.largest_update, *sizes]),
            seconds=before.seconds + times.seconds,
        )
        watched = evaluation.metrics.get(self.plan.stop.metric)
        if watched is None:
            return progress
        return progress.after_evaluation(self.plan.stop, state.round + 1, watched)

    def _ending(self, state: RunState) -> Ending | None:
        if state.progress.failures > self.plan.rounds.max_failures:
            why = f": {self._trouble}" if self._trouble else ""
            return Ending("failed", f"{state.progress.failures} rounds in a row failed{why}")
        reason = state.progress.reason_to_stop(self.plan.stop, state.round, self.plan.rounds.count)
        if not reason and self.asking.exhausted:
            reason = "every client has taken part as often as it may"
        if reason and not state.progress.merged:
            why = f"; {self._trouble}" if self._trouble else ""
            return Ending("failed", f"{reason}, but no round was merged{why}")
        reason = reason or self.releases.ended
        if reason:
            return Ending("complete", reason)
        return Ending("stopped", "stopped by the user") if self.stopped() else None

    def _tell_round(
        self,
        record: RoundRecord,
        collected: Collected,
        evaluation: Evaluation,
        progress: Progress,
    ) -> None:
        for key, outcome in collected.outcomes.items():
            if not outcome.fate.counts:
                name = self._name(key.client)
                self.tell(ClientTrouble(record.round, name, outcome.fate.value, outcome.detail))
        event = committed_event(record, collected, evaluation, self.names)
        if self.watch is not None:
            event = replace(event, limits=self.watch.after(record.client_columns, progress))
        self.tell(event)

    def _name(self, client: int) -> str:
        return self.names[client] if client < len(self.names) else str(client)
