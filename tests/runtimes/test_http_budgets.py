"""A budget of the network that a client reported goes out with the task and is kept there."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from http_fleets import OPTIONS, QUICK

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms import FedAvg
from anabranch.client.battery import PowerSources
from anabranch.client.measuring import DeviceMeter
from anabranch.coordinator.budgets import network_budgets
from anabranch.coordinator.collect import Collected
from anabranch.coordinator.runtime import Fate, Work
from anabranch.errors import AnabranchError
from anabranch.fleet.devices.report import DeviceReport
from anabranch.runtimes.http import ClientData, HttpRuntime, JoinOptions, join
from anabranch.runtimes.local.worker import Simulant
from anabranch.testing.runtime import CLIENTS, RuntimeContract, SmallFleet
from anabranch.updates import ECQ, compile_stages
from anabranch.updates.budget import Budget
from anabranch.updates.total import Finest

PIPELINE = compile_stages(
    [ECQ(coarseness=1.0, coarsest=8.0)],
    2000,
    [Budget(network="2g", max_bytes=300), Budget(network="wifi", max_bytes=1800)],
)


def simulant() -> Simulant:
    built = SmallFleet(FedAvg()).build()
    built.program = replace(built.program, pipeline=PIPELINE)
    return built


def asked(runtime: HttpRuntime, task: str) -> tuple[Work, Collected]:
    """One round, with the budgets that follow from what is known by now."""
    own = simulant()
    work = replace(
        RuntimeContract().work(own, Finest.INDIVIDUALS),
        task=task * 32,
        fold=FoldPlan(own.program.sections, CLIENTS),
        update_bytes=network_budgets(
            PIPELINE, own.federation.names, runtime.view(runtime.now()), range(CLIENTS)
        ),
    )
    collected = Collected.of(work, runtime.now())
    collected.adjust = lambda update, of: PIPELINE.decode_one(update)
    runtime.submit(work)
    while any(True for _ in collected.still_open()):
        for event in runtime.poll(5.0):
            collected.absorb(event, "client-{}".format, runtime.now())
    return work, collected


def test_what_a_client_reports_decides_its_budget(tmp_path: Path) -> None:
    own = simulant()
    report, sources = DeviceReport(gflops=1.0), PowerSources(tmp_path, lambda: None)
    meters = {
        "client-1": DeviceMeter(report.replace(network="2g"), sources),
        "client-2": DeviceMeter(report.replace(network="wifi"), sources),
    }
    names = own.federation.names
    runtime = HttpRuntime(names, own.program.broadcast_sections, limits=QUICK)

    def attend(name: str) -> None:
        built = simulant()  # a learner has buffers of its own
        options = JoinOptions(OPTIONS.wait, OPTIONS.timeout, 0.5, meter=meters.get(name))
        data = ClientData.of(built.federation, name)
        with suppress(AnabranchError):  # the server may go before the client has heard of it
            join(runtime.url, name, built.program, data, tmp_path / name, options)

    threads = [threading.Thread(target=attend, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    try:
        first, before = asked(runtime, "a")
        second, after = asked(runtime, "b")
    finally:
        runtime.close()
        for thread in threads:
            thread.join(10.0)
    assert set(first.update_bytes.values()) == {2000}  # nobody has reported yet
    assert second.update_bytes == {0: 2000, 1: 300, 2: 1800, 3: 2000, 4: 2000}
    assert {o.fate for o in before.by_client.values()} == {Fate.MERGED}
    fates = {client: outcome.fate for client, outcome in after.by_client.items()}
    assert fates == {c: Fate.FAILED if c == 1 else Fate.MERGED for c in range(CLIENTS)}
    assert "AB-524" in after.by_client[1].detail
