"""Real training in virtual time: the contract of a runtime, and that only the clock differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from anabranch.algorithms import FedAvg
from anabranch.client.states import SlotFile
from anabranch.coordinator.runtime import Fate, Outcome, Payload, Runtime, RuntimeEvent, Work
from anabranch.fleet.devices.profiles import draw_profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.devices.simulated import SimulatedFleet
from anabranch.runtimes.local import InlineRuntime
from anabranch.runtimes.local.virtual import DeviceRuntime
from anabranch.testing.runtime import CLIENTS, RuntimeContract, SmallFleet

FAITHFUL = DeviceSettings(availability=1.0, permanent_loss=0.0)
MOODY = DeviceSettings(session_minutes=0.5, permanent_loss=0.3, task_seconds=900.0)


def runtime_of(
    fleet: SmallFleet,
    settings: DeviceSettings,
    slots: SlotFile | None = None,
    batch: int = 2,
    memory: float = 0.0,
) -> DeviceRuntime:
    devices = SimulatedFleet.drawn(draw_profiles(CLIENTS, {"entry": 1.0}, 0), settings, 0)
    examples = np.full(CLIENTS, 10.0)
    inner = InlineRuntime(fleet.build(), slots)
    flops = np.full(CLIENTS, 80e9)
    return DeviceRuntime(inner, devices, flops, examples, batch=batch, memory=memory)


class TestFaithfulDevices(RuntimeContract):
    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        return runtime_of(fleet, FAITHFUL, slots)


def work(round_: int = 1, task: str = "a" * 32) -> Work:
    return replace(
        RuntimeContract().work(SmallFleet(FedAvg()).build(), round_=round_), task=task, draw=round_
    )


def drained(
    runtime: DeviceRuntime, patience: float | None, until: int = CLIENTS
) -> list[tuple[float, RuntimeEvent]]:
    """Events with their virtual times, until so many clients have an outcome."""
    seen: list[tuple[float, RuntimeEvent]] = []
    while sum(isinstance(event, Outcome) for _, event in seen) < until:
        seen += [(runtime.now(), event) for event in runtime.poll(patience)]
    return seen


def told(events: Sequence[tuple[float, RuntimeEvent]]) -> list[object]:
    """What was heard, without real seconds."""
    return [
        (time, event.client, event.content if isinstance(event, Payload) else event.fate)
        for time, event in events
        if isinstance(event, (Payload, Outcome))
    ]


def traces(events: Sequence[tuple[float, RuntimeEvent]]) -> list[object]:
    return [event.trace for _, event in events if isinstance(event, Outcome)]


@pytest.mark.parametrize("patience", [None, 0.25, 7.0])
@pytest.mark.parametrize("batch", [1, 8])
def test_answers_do_not_depend_on_patience_or_batches(patience: float | None, batch: int) -> None:
    wanted = runtime_of(SmallFleet(FedAvg()), MOODY)
    wanted.submit(work())
    got = runtime_of(SmallFleet(FedAvg()), MOODY, batch=batch)
    got.submit(work())
    first, second = drained(wanted, None), drained(got, patience)
    assert told(first) == told(second)
    assert str(traces(first)) == str(traces(second))
    fates = {event.fate for _, event in first if isinstance(event, Outcome)}
    assert fates == {Fate.MERGED, Fate.LOST}  # the script has both


def test_time_goes_on_by_the_patience_when_nothing_happens() -> None:
    runtime = runtime_of(SmallFleet(FedAvg()), FAITHFUL)
    assert runtime.poll(60.0) == []
    assert runtime.now() == 60.0
    runtime.submit(work())
    assert runtime.poll(0.5) == []
    assert runtime.now() == 60.5


def test_a_timeline_adds_up() -> None:
    runtime = runtime_of(SmallFleet(FedAvg()), MOODY)
    runtime.poll(100.0)
    runtime.submit(work())
    for time, event in drained(runtime, None):
        if isinstance(event, Outcome):
            trace = event.trace
            assert trace is not None
            assert trace.asked == 100.0
            assert trace.seconds == pytest.approx(time - 100.0)
            assert event.seconds == pytest.approx(time - 100.0)
            assert trace.spent > 0
            assert trace.device == "entry"
            if event.fate is Fate.MERGED:
                assert trace.bytes_up >= event.bytes_up > 0


def test_a_restart_goes_on_to_the_same_answers() -> None:
    whole = runtime_of(SmallFleet(FedAvg()), MOODY)
    whole.submit(work())
    events = drained(whole, None)
    outcomes = [(time, event) for time, event in events if isinstance(event, Outcome)]
    cut = outcomes[1][0]
    first = runtime_of(SmallFleet(FedAvg()), MOODY)
    first.submit(work())
    before = drained(first, None, until=2)
    done = {event.client for _, event in before if isinstance(event, Outcome)}
    second = runtime_of(SmallFleet(FedAvg()), MOODY)
    second.restore(first.now(), first.arrays())
    rest = tuple(client for client in range(CLIENTS) if client not in done)
    second.resubmit(replace(work(), clients=rest), at=0.0)
    after = drained(second, None, until=CLIENTS - 2)
    assert told(before) + told(after) == told(events)
    assert str(traces(after)) == str(traces([e for e in events if e[0] > cut]))
    np.testing.assert_array_equal(whole.arrays()["devices.level"], second.arrays()["devices.level"])


def test_work_that_is_given_up_costs_what_was_done() -> None:
    runtime = runtime_of(SmallFleet(FedAvg()), FAITHFUL)
    runtime.submit(work(1, "a" * 32))
    runtime.submit(work(2, "b" * 32))
    runtime.poll(5.0)
    late = runtime.abandon("a" * 32)
    assert [outcome.fate for outcome in late] == [Fate.TOO_LATE] * len(late)
    asked = [outcome.trace.spent for outcome in late if outcome.trace is not None]
    assert len(asked) == len(late) > 0
    assert all(0 < joules < 200 for joules in asked)
    rest = drained(runtime, None)
    assert {event.task for _, event in rest if isinstance(event, Outcome)} == {"b" * 32}
    assert runtime.poll(1e5) == []


def test_an_overdue_client_is_lost_when_its_time_is_over() -> None:
    settings = DeviceSettings(availability=1.0, permanent_loss=0.0, task_seconds=3.0)
    runtime = runtime_of(SmallFleet(FedAvg()), settings)
    runtime.submit(work())
    events = drained(runtime, None)
    assert {e.fate for _, e in events if isinstance(e, Outcome)} == {Fate.LOST}
    assert {time for time, _ in events} == {3.0}


def test_less_work_takes_less_time() -> None:
    def training(fraction: float) -> dict[int, float]:
        runtime = runtime_of(SmallFleet(FedAvg()), FAITHFUL)
        runtime.submit(replace(work(), fractions=dict.fromkeys(range(CLIENTS), fraction)))
        outcomes = [event for _, event in drained(runtime, None) if isinstance(event, Outcome)]
        return {o.client: o.trace.train for o in outcomes if o.trace is not None}

    whole, part = training(1.0), training(0.25)
    assert len(whole) == CLIENTS
    assert part == pytest.approx({client: seconds / 4 for client, seconds in whole.items()})


def test_a_model_that_does_not_fit_into_memory_is_never_heard_of() -> None:
    runtime = runtime_of(SmallFleet(FedAvg()), FAITHFUL, memory=601e6)  # entry phones: 600 MB
    runtime.submit(work())
    events = drained(runtime, None)
    assert {e.fate for _, e in events if isinstance(e, Outcome)} == {Fate.LOST}
    assert all(e.trace.train == 0 for _, e in events if isinstance(e, Outcome) and e.trace)


def test_the_frozen_part_comes_down_once() -> None:
    def made() -> DeviceRuntime:
        devices = SimulatedFleet.drawn(draw_profiles(CLIENTS, {"entry": 1.0}, 0), FAITHFUL, 0)
        inner = InlineRuntime(SmallFleet(FedAvg()).build(), None)
        flops, examples = np.full(CLIENTS, 80e9), np.full(CLIENTS, 10.0)
        return DeviceRuntime(inner, devices, flops, examples, frozen=1e6)

    def fetched(runtime: DeviceRuntime, asked: Work) -> list[int | None]:
        runtime.submit(asked)
        events = [event for _, event in drained(runtime, None)]
        return [event.bytes_down for event in events if isinstance(event, Outcome)]

    runtime, first = made(), work(1)
    meant = first.bytes_to(0)
    assert fetched(runtime, first) == [meant + 1_000_000] * CLIENTS
    second = work(2, "b" * 32)
    again = made()
    again.restore(runtime.now(), runtime.arrays())
    assert fetched(runtime, second) == fetched(again, second) == [meant] * CLIENTS
    assert fetched(made(), second) == [meant + 1_000_000] * CLIENTS
