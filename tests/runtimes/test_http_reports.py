"""Clients that report their devices: timelines, the view, and reports that make no sense."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from http_fleets import OPTIONS, QUICK

from anabranch.algorithms import FedAvg
from anabranch.client.battery import PowerSources
from anabranch.client.measuring import DeviceMeter, learner_gflops
from anabranch.coordinator.collect import collect
from anabranch.coordinator.runtime import Fate, Outcome
from anabranch.errors import AnabranchError
from anabranch.fleet.devices.classes import CLASS_NAMES
from anabranch.fleet.devices.report import DeviceReport, TaskReport
from anabranch.fleet.devices.reported import ReportBook, reported_view
from anabranch.runtimes.http import ClientData, HttpRuntime, JoinOptions, join
from anabranch.runtimes.http.reports import TaskMessage
from anabranch.testing.runtime import CLIENTS, RuntimeContract, SmallFleet


def battery(root: Path, level: int, energy: int) -> PowerSources:
    """A made-up /sys with one battery of 50 Wh."""
    folder = root / "class" / "power_supply" / "BAT0"
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "type": "Battery",
        "status": "Discharging",
        "capacity": level,
        "energy_now": energy,
        "energy_full": 50_000_000,
    }
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return PowerSources(root, lambda: None)


@contextmanager
def deployed(folder: Path, meters: dict[str, DeviceMeter]) -> Iterator[HttpRuntime]:
    """The small fleet in threads; some of its clients report."""
    simulant = SmallFleet(FedAvg()).build()
    runtime = HttpRuntime(
        simulant.federation.names, simulant.program.broadcast_sections, limits=QUICK
    )

    def work(name: str) -> None:
        own = SmallFleet(FedAvg()).build()  # a learner has buffers of its own
        data = ClientData.of(own.federation, name)
        options = JoinOptions(OPTIONS.wait, OPTIONS.timeout, 0.5, meter=meters.get(name))
        with suppress(AnabranchError):  # the server may go before the client has heard of it
            join(runtime.url, name, own.program, data, folder / name, options)

    threads = [
        threading.Thread(target=work, args=(name,), daemon=True)
        for name in simulant.federation.names
    ]
    for thread in threads:
        thread.start()
    try:
        yield runtime
    finally:
        runtime.close()
        for thread in threads:
            thread.join(10.0)


def answered(runtime: HttpRuntime) -> dict[int, Outcome]:
    simulant = SmallFleet(FedAvg()).build()
    work = replace(RuntimeContract().work(simulant), task="a" * 32)
    return dict(collect(work, runtime, "client-{}".format, 30.0).by_client)


def test_a_report_becomes_a_timeline_and_a_view(tmp_path: Path) -> None:
    meter = DeviceMeter(
        DeviceReport(device="entry", network="3g", watts=2.0),
        battery(tmp_path, 80, 40_000_000),
    )
    with deployed(tmp_path, {"client-1": meter}) as runtime:
        outcomes = answered(runtime)
        view = runtime.view(5.0)
    assert {outcome.fate for outcome in outcomes.values()} == {Fate.MERGED}
    assert [client for client, o in outcomes.items() if o.trace is not None] == [1]
    trace = outcomes[1].trace
    assert trace is not None
    assert trace.train > 0
    assert trace.seconds == pytest.approx(outcomes[1].seconds, abs=0.01)
    assert (trace.device, trace.network, trace.level) == ("entry", "3g", 0.8)
    assert trace.modelled > 7.4  # a session on 3G alone
    assert math.isnan(trace.reported)  # the battery's counter did not move
    assert trace.share == pytest.approx(trace.modelled / (50 * 3600))
    assert meter.gflops is not None
    assert trace.flops == pytest.approx(view.flops[1] * trace.train)
    assert view.flops[1] == pytest.approx(meter.gflops * 1e9, abs=1e6)  # whole megaflops
    assert view.classes[view.device[1]] == "entry"
    assert view.classes[view.device[0]] == "unknown"
    assert view.battery[1] == 0.8
    assert view.watts[1] == 2.0
    assert not view.charging[1]
    assert np.isinf(view.flops[0])


def test_a_meter_that_says_what_cannot_be_costs_no_answer(tmp_path: Path) -> None:
    broken = DeviceMeter(sources=battery(tmp_path, 150, 40_000_000))
    with deployed(tmp_path, {"client-2": broken}) as runtime:
        outcomes = answered(runtime)
    assert outcomes[2].fate is Fate.MERGED
    assert outcomes[2].trace is None
    assert len(outcomes) == CLIENTS


def test_messages_are_whole_numbers_and_come_back() -> None:
    report = TaskReport(
        download_seconds=1.25,
        train_seconds=3.5,
        joules=12.345,
        source="battery",
        device=DeviceReport(
            device="mid", gflops=24.0, battery=0.55, metered=True, utc_offset=5.5, charging=False
        ),
    )
    message = TaskMessage.of_task(report)
    for value in message.model_dump().values():
        assert value is None or isinstance(value, (int, str, bool))
    again = TaskMessage.model_validate_json(message.model_dump_json())
    assert again.task_report("va") == report


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (TaskMessage(battery_permille=1500), "battery (1.5)"),
        (TaskMessage(megaflops=-3000), "gflops (-3.0)"),
        (TaskMessage(network="6g"), "network"),
        (TaskMessage(train_milliseconds=-1), "train_seconds"),
    ],
)
def test_messages_that_cannot_be_are_refused(message: TaskMessage, says: str) -> None:
    with pytest.raises(AnabranchError, match="AB-535") as caught:
        message.task_report("va")
    assert says in str(caught.value)


def test_the_book_keeps_what_was_said_before() -> None:
    book = ReportBook()
    book.device("a", DeviceReport(device="mid", battery=0.9))
    book.device("a", DeviceReport(battery=0.5))
    book.task("t", "a", TaskReport(train_seconds=1.0, device=DeviceReport(charging=True)))
    known = book.of("a")
    assert known is not None
    assert (known.device, known.battery, known.charging) == ("mid", 0.5, True)
    assert book.taken("t", "a") is not None
    assert book.taken("t", "a") is None
    view = reported_view(["a", "b"], book, 0.0, 12.0)
    view.check()
    assert view.flops.tolist() == [25e9, math.inf]
    assert view.device.tolist() == [CLASS_NAMES.index("mid"), len(CLASS_NAMES)]
    assert np.isnan(view.battery_joules[1])


def test_a_learner_measures_its_speed() -> None:
    simulant = SmallFleet(FedAvg()).build()
    speed = learner_gflops(simulant.program, simulant.federation.train.of(0))
    assert speed is not None
    assert speed > 0
    assert float(f"{speed:.2g}") == speed
