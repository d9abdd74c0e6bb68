"""Tasks that stay open over rounds: late windows, full buffers, staleness, and resuming.

A scripted runtime answers after fixed delays of a virtual clock; a slow oracle replays the same
events one by one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.aggregation.staleness import (
    ConstantStaleness,
    HingeStaleness,
    PolynomialStaleness,
    damped,
)
from anabranch.algorithms import FedAvg
from anabranch.algorithms.base import RoundContext
from anabranch.client.execute import execute
from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.asking import Asking, everybody
from anabranch.coordinator.evaluation import Evaluator
from anabranch.coordinator.loop import Coordinator
from anabranch.coordinator.policies import Buffered, Policy, Synchronous
from anabranch.coordinator.releasing import OpenReleases
from anabranch.coordinator.runtime import Outcome, Payload, RuntimeEvent, VirtualRuntime, Work
from anabranch.coordinator.state import RunState
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import RoundRecord
from anabranch.plan import Plan, plan_from
from anabranch.privacy import ReleaseDoor
from anabranch.randomness import generator
from anabranch.runtimes.local.worker import Simulant
from anabranch.testing.runtime import CLIENTS, SmallFleet
from anabranch.updates.wire import pack

Delay = Callable[[int, int], float]


@dataclass
class Scripted:
    """Client ``c`` answers dispatch ``d`` after ``delay(c, d)`` seconds, and never with inf."""

    simulant: Simulant
    delay: Delay
    clock: float = 0.0
    due: list[tuple[float, int, str]] = field(default_factory=list)
    works: dict[str, Work] = field(default_factory=dict)
    repeat: bool = False
    settled: dict[tuple[str, int], Fate] = field(default_factory=dict)

    def now(self) -> float:
        return self.clock

    def submit(self, work: Work) -> None:
        self.resubmit(work, self.clock)

    def resubmit(self, work: Work, at: float) -> None:
        self.works[work.task] = work
        for client in work.clients:
            when = at + self.delay(client, work.draw)
            if np.isfinite(when):
                heapq.heappush(self.due, (when, client, work.task))

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"clock": np.array([self.clock])}

    def restore(self, now: float, arrays: Mapping[str, np.ndarray]) -> None:
        assert not arrays or arrays["clock"][0] == now
        self.clock = now

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        until = np.inf if timeout is None else self.clock + timeout
        if not self.due or self.due[0][0] > until:
            assert np.isfinite(until), "waiting for ever"
            self.clock = until
            return []
        self.clock, client, task = heapq.heappop(self.due)
        work = self.works[task]
        name = self.simulant.federation.names[client]
        data = self.simulant.federation.train.of(client)
        reply = execute(
            self.simulant.program, work.task_of(client, name), work.broadcast, None, data
        )
        content = pack(reply.update, work.fold.sections)
        events = [Payload(client, content, task), Outcome(client, Fate.MERGED, task=task)]
        return events * 2 if self.repeat else events

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        late = [e for e in self.due if task in (None, e[2])]
        self.due = [e for e in self.due if task not in (None, e[2])]
        heapq.heapify(self.due)
        return [Outcome(client, Fate.TOO_LATE, task=name) for _, client, name in late]

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        self.settled |= {(task, client): fate for client, fate in fates.items()}

    def close(self) -> None:
        pass


@dataclass
class Journal:
    records: list[RoundRecord] = field(default_factory=list)

    def add(self, record: RoundRecord) -> bool:
        self.records.append(record)
        return True

    def flush(self) -> None:
        pass


def asynchronous(**table: object) -> Plan:
    return plan(asynchronous={"buffer": 2, "concurrency": 3, "max_staleness": 2, **table})


def plan(**rounds: object) -> Plan:
    return plan_from(
        {
            "data": {"source": "arrays"},
            "model": {"name": "logistic"},
            "seed": 1,
            "rounds": {"count": 6, "quorum": 1, **rounds},
            "evaluation": {"on": "clients", "every": 100},
        }
    )


def coordinator(
    wanted: Plan, policy: Policy, runtime: Scripted, simulant: Simulant
) -> tuple[Coordinator, Journal]:
    journal, names = Journal(), simulant.federation.names
    door, program = ReleaseDoor(), simulant.program
    made = Coordinator(
        plan=wanted,
        program=program,
        names=names,
        runtime=runtime,
        evaluator=Evaluator(runtime, program.metrics, door, (), 0, False, names.__getitem__),
        releases=OpenReleases(door),
        asking=Asking("run", program, CLIENTS, 20, everybody(CLIENTS)),
        policy=policy,
        journal=journal,  # type: ignore[arg-type]  # the two methods that the loop calls
        tell=lambda event: None,
    )
    return made, journal


def start(simulant: Simulant) -> RunState:
    program = simulant.program
    return RunState(0, program.algorithm.init(program.base.copy()), Progress())


def uneven(client: int, draw: int) -> float:
    return 1.0 + 1.7 * client + 0.37 * (draw % 3)


def buffered_oracle(simulant: Simulant, rounds: int, delay: Delay) -> np.ndarray:
    """FedBuff with K = 2, M = 3, tau max = 2 and s = 1 / sqrt(1 + tau), event by event."""
    program, names = simulant.program, simulant.federation.names
    sections = program.sections
    server = program.algorithm.init(program.base.copy())
    models, clock, draw = {1: server.model}, 0.0, 0
    waiting: list[tuple[float, int, int, int]] = []  # when, client, base round, draw
    for number in range(1, rounds + 1):
        models[number] = server.model
        sums = Accumulator(FoldPlan(sections, 20))
        while sums.contributors < 2:
            missing = 3 - len(waiting)
            if missing:
                busy = {client for _, client, _, _ in waiting}
                free = [client for client in range(CLIENTS) if client not in busy]
                draw += 1
                picked = generator(1, "cohort", draw).choice(
                    len(free), missing, False, shuffle=False
                )
                for index in sorted(picked.tolist()):
                    client = free[index]
                    waiting.append((clock + delay(client, draw), client, number, draw))
            event = min(waiting)
            waiting.remove(event)
            clock, client, base, number_of_draw = event
            work = Work(
                TaskKind.TRAIN,
                base,
                (client,),
                {"model": models[base]},
                sums.plan,
                draw=number_of_draw,
            )
            data = simulant.federation.train.of(client)
            task = work.task_of(client, names[client])
            update = execute(program, task, work.broadcast, None, data).update
            factor = float((1.0 + number - base) ** -0.5)
            sums.add(damped(update, factor, sections), names[client])
        waiting = [task for task in waiting if number + 1 - task[2] <= 2]
        context = RoundContext(number, CLIENTS)
        server = program.algorithm.server_update(server, sums.total(), context)
    return server.model


@pytest.fixture
def simulant() -> Simulant:
    return SmallFleet(FedAvg()).build()


def test_a_buffered_run_equals_its_replay_event_by_event(simulant: Simulant) -> None:
    runtime = Scripted(simulant, uneven)
    made, journal = coordinator(asynchronous(), Buffered(2, 3, 2), runtime, simulant)
    state, ending = made.run(start(simulant))
    assert ending.status == "complete"
    np.testing.assert_array_equal(state.server.model, buffered_oracle(simulant, 6, uneven))
    stale = [
        row for record in journal.records for row in record.client_columns.get("staleness", ())
    ]
    assert max(stale) > 0  # otherwise nothing of this was tested
    late = [fate for fate in runtime.settled.values() if fate is Fate.MERGED_LATE]
    assert len(late) == sum(1 for s in stale if s > 0)


def test_repeated_answers_count_once(simulant: Simulant) -> None:
    runtime = Scripted(simulant, uneven, repeat=True)
    made, _ = coordinator(asynchronous(), Buffered(2, 3, 2), runtime, simulant)
    state, _ = made.run(start(simulant))
    np.testing.assert_array_equal(state.server.model, buffered_oracle(simulant, 6, uneven))


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_buffered_run_goes_on_from_its_arrays(simulant: Simulant, stop_after: int) -> None:
    def run(rounds: int, state: RunState) -> RunState:
        runtime = Scripted(simulant, uneven)
        assert isinstance(runtime, VirtualRuntime)
        made, _ = coordinator(asynchronous(), Buffered(2, 3, 2), runtime, simulant)
        made._go_on(state)
        for _ in range(rounds):
            state = made.round(state)
        return state

    first = run(stop_after, start(simulant))
    assert first.open
    arrays = {name: value.copy() for name, value in first.arrays().items()}
    back = RunState.from_arrays(first.round, type(first.server), arrays)
    assert back.open == first.open
    whole = run(6, start(simulant))
    np.testing.assert_array_equal(run(6 - stop_after, back).server.model, whole.server.model)


def test_a_late_update_is_merged_into_the_next_round_with_less_weight(simulant: Simulant) -> None:
    slow = CLIENTS - 1

    def delay(client: int, draw: int) -> float:
        return 15.0 if client == slow and draw == 1 else 1.0

    wanted = plan(late_window=1, deadline=10.0)
    runtime = Scripted(simulant, delay)
    policy = Synchronous(CLIENTS, 10.0, late_window=1)
    made, journal = coordinator(wanted, policy, runtime, simulant)
    first = made.round(start(simulant))
    assert [task.client for task in first.open] == [slow]
    # In round 2 the slow client is busy: the four others answer after 1 s, at 11 s; it is not
    # waited for, so it stays open for nobody: its window is over.
    second = made.round(first)
    assert second.open == ()
    assert set(runtime.settled.values()) == {Fate.MERGED, Fate.TOO_LATE}
    columns = journal.records[1].client_columns
    assert sorted(columns["staleness"]) == [0, 0, 0, 0, 1]


def test_the_late_update_counts_when_the_round_is_still_open(simulant: Simulant) -> None:
    slow = CLIENTS - 1

    def delay(client: int, draw: int) -> float:
        return (15.0 if client == slow else 1.0) if draw == 1 else 8.0

    runtime = Scripted(simulant, delay)
    policy = Synchronous(CLIENTS, 10.0, late_window=1)
    made, journal = coordinator(plan(late_window=1, deadline=10.0), policy, runtime, simulant)
    state = made.round(made.round(start(simulant)))
    assert state.open == ()
    assert sorted(journal.records[1].client_columns["fate"]) == ["merged"] * 4 + ["merged late"]
    assert journal.records[1].outcome == "complete"


def test_work_that_used_up_its_time_is_given_up_in_a_buffered_run(simulant: Simulant) -> None:
    dead = 2
    runtime = Scripted(simulant, lambda c, d: np.inf if c == dead else uneven(c, d))
    made, journal = coordinator(asynchronous(), Buffered(2, 3, 2), runtime, simulant)
    asking = made.asking
    original = asking.new

    def limited(*args: object, **kwargs: object) -> object:
        opened = original(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they are
        return replace(opened, limit=30.0) if opened is not None else None

    asking.new = limited  # type: ignore[method-assign,assignment]  # adds a limit
    state, ending = made.run(start(simulant))
    assert ending.status == "complete"
    assert state.round == 6
    fates = [f for record in journal.records for f in record.client_columns["fate"]]
    assert "merged" in fates
    assert all(task.client != dead or runtime.clock - task.at <= 30.0 for task in state.open)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (ConstantStaleness(), [1, 1, 1, 1]),
        (PolynomialStaleness(exponent=1.0), [1, 1 / 2, 1 / 3, 1 / 4]),
        (HingeStaleness(slope=1.0, free=1), [1, 1, 1 / 2, 1 / 3]),
    ],
)
def test_staleness_rules_by_hand(rule: PolynomialStaleness, wanted: list[float]) -> None:
    assert [rule.factor(tau) for tau in range(4)] == pytest.approx(wanted)


def test_a_fully_asynchronous_step_mixes_the_clients_model_in(simulant: Simulant) -> None:
    """w <- w + s (w_client - w), by hand, for a stale client."""
    runtime = Scripted(simulant, uneven)
    wanted = asynchronous(buffer=1, concurrency=2, rebase=True)
    made, journal = coordinator(wanted, Buffered(1, 2, 2), runtime, simulant)
    state = start(simulant)
    seen = 0
    for _ in range(6):
        before, was_open = state, {(t.draw, t.client): t for t in state.open}
        state = made.round(state)
        columns = journal.records[-1].client_columns
        tau = int(columns["staleness"][0]) if "staleness" in columns else 0
        if not tau:
            continue
        seen += 1
        name = columns["client"][0]
        client = simulant.federation.names.index(str(name))
        task = next(t for (_, c), t in was_open.items() if c == client)
        work = Work(
            TaskKind.TRAIN, task.round, (client,), before.versions[task.round],
            made.asking.fold, draw=task.draw,
        )  # fmt: skip
        data = simulant.federation.train.of(client)
        reply = execute(
            simulant.program, work.task_of(client, str(name)), work.broadcast, None, data
        )
        theirs = work.broadcast["model"] + reply.update.vectors["delta"]
        mixed = before.server.model + (1 + tau) ** -0.5 * (theirs - before.server.model)
        np.testing.assert_allclose(state.server.model, mixed, atol=1e-6)
    assert seen


class Broken(Scripted):
    """Every client answers that it failed."""

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        events = super().poll(timeout)
        return [replace(e, fate=Fate.FAILED) for e in events if isinstance(e, Outcome)]


def test_a_run_in_which_everybody_fails_again_and_again_comes_to_an_end(simulant: Simulant) -> None:
    wanted = asynchronous()
    made, journal = coordinator(wanted, Buffered(2, 3, 2), Broken(simulant, uneven), simulant)
    state, ending = made.run(start(simulant))
    assert ending.status == "failed"
    assert state.progress.merged == 0
    assert {record.outcome for record in journal.records} == {"failed"}
    np.testing.assert_array_equal(state.server.model, simulant.program.base)


def test_answers_that_come_while_a_model_is_measured_are_merged(simulant: Simulant) -> None:
    runtime = Scripted(simulant, uneven)
    wanted = asynchronous(max_staleness=20)
    made, journal = coordinator(wanted, Buffered(2, 3, 20), runtime, simulant)
    names, door = simulant.federation.names, ReleaseDoor()
    everybody_else = range(CLIENTS)
    made.evaluator = Evaluator(
        runtime, simulant.program.metrics, door, everybody_else, 0, False, names.__getitem__
    )
    early = 0
    state = start(simulant)
    for _ in range(6):
        state = made.round(state)
        made.evaluate(state.round, state.server)
        early += sum(isinstance(event, Payload) for event in made.evaluator.early)
    assert early > 0  # otherwise nothing of this was tested
    fates = [fate for record in journal.records for fate in record.client_columns["fate"]]
    assert set(fates) == {"merged", "merged late"}
    assert len(fates) >= 12


def test_a_model_is_measured_without_a_client_that_is_never_heard_of(simulant: Simulant) -> None:
    gone = CLIENTS - 1
    runtime = Scripted(simulant, lambda c, d: 1e9 if c == gone else 1.0)
    names, door = simulant.federation.names, ReleaseDoor()
    patient = Evaluator(
        runtime, simulant.program.metrics, door, range(CLIENTS), 0, False, names.__getitem__
    )
    broadcast = {"model": simulant.program.base}
    seconds = []
    for evaluator in (replace(patient, straggling=3.0), patient):
        before = runtime.now()
        assert evaluator.evaluate(1, broadcast).metrics
        seconds.append(runtime.now() - before)
    assert seconds == [30.0, 1e9]  # the shortest time that a client is given, and for ever


@dataclass
class Together(Scripted):
    """When told so, whatever is on its way arrives together."""

    together: bool = False

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        events = list(super().poll(timeout))
        while self.together and self.due:
            events += super().poll(None)
        return events


def test_answers_that_were_early_make_the_round_and_nobody_else_is_asked(
    simulant: Simulant,
) -> None:
    runtime, wanted = Together(simulant, uneven), asynchronous(concurrency=4, max_staleness=20)
    made, journal = coordinator(wanted, Buffered(2, 4, 20), runtime, simulant)
    made.asking.capacity = wanted.rounds.most(CLIENTS)
    names, door = simulant.federation.names, ReleaseDoor()
    made.evaluator = Evaluator(
        runtime, simulant.program.metrics, door, range(CLIENTS), 0, False, names.__getitem__
    )
    state = made.round(start(simulant))
    assert len(state.open) == 3
    runtime.together = True
    made.evaluate(state.round, state.server)
    # Three came early. Four more would be one too many for the sum.
    state = made.round(state)
    merged = [f for f in journal.records[-1].client_columns["fate"] if str(f).startswith("merged")]
    assert len(merged) == 3
    assert made.round(state).open == ()
