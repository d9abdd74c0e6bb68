"""Budgets of updates by the network in use: simulated devices, reports over HTTP, the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anabranch.api.run import Run
from anabranch.api.simulate import resume, run_plan
from anabranch.coordinator.budgets import network_budgets
from anabranch.coordinator.store import Store
from anabranch.errors import AnabranchError
from anabranch.fleet.view import unknown_fleet
from anabranch.observe.budgets import budget_rows
from anabranch.observe.reading import read_run
from anabranch.plan import Plan, parse_plan
from anabranch.plan.budget import check_budget
from anabranch.updates import ECQ, compile_stages
from anabranch.updates.budget import Budget

MOST = {"2g": 660, "wifi": 3000}
PLAN: dict[str, object] = {
    "name": "networks",
    "seed": 3,
    "data": {"source": "digits", "partition": {"kind": "iid", "clients": 12}},
    "model": {"name": "logistic"},
    "local": {"epochs": 1, "batch_size": 16},
    "rounds": {"count": 4, "quorum": 1, "deadline": 600.0},
    "evaluation": {"every": 4},
    "runtime": {"kind": "inline", "engine": "numpy", "commit_seconds": 0},
    "updates": {
        "max_bytes": 700,
        "stages": [{"kind": "ecq", "coarseness": 1.0, "coarsest": 256.0}],
        "budgets": MOST,
    },
}


def networks_plan(folder: Path, **changes: object) -> Plan:
    """Twelve devices: four each over 2G, over 3G and over WiFi, always there."""
    lines = ["client,class,network,home_wifi,utc_offset,region"]
    for client in range(12):
        network = ("2g", "3g", "wifi")[client % 3]
        kind = "board" if network == "wifi" else "mid"
        lines.append(f"client-{client:02d},{kind},{network},0,0,x")
    table = folder / "devices.csv"
    table.write_text("\n".join(lines) + "\n")
    always = {"availability": 0.95, "permanent_loss": 0.0, "session_minutes": 120.0, "swing": 1.0}
    devices = {"profiles": str(table), "behaviour": always}
    return Plan.model_validate({**PLAN, "devices": devices, **changes})


def rows_of(store: Path, run: Run) -> list[tuple[str, object, int, object]]:
    """Network, budget, bytes and coarseness of every task that was merged."""
    with Store.open(store) as opened:
        columns = [stored.client_columns for stored in opened.rounds(run.id) if stored.round]
    rows = []
    for c in columns:
        cells = zip(c["device.network"], c["budget"], c["bytes_up"], c["coarseness"], c["fate"],
                    strict=True)  # fmt: skip
        rows += [cell[:4] for cell in cells if cell[4] == "merged"]
    return rows


def test_each_client_keeps_to_the_budget_of_its_network(tmp_path: Path) -> None:
    run = run_plan(networks_plan(tmp_path), store=tmp_path)
    rows = rows_of(tmp_path, run)
    seen = {network for network, *_ in rows}
    assert {"2g", "3g", "wifi"} <= seen
    for network, most, size, _ in rows:
        assert most == {**MOST, "3g": 700}[network]
        assert 0 < size <= most
    coarse = {n: np.median([c for m, _, _, c in rows if m == n]) for n in seen}
    assert coarse["2g"] > coarse["3g"] > coarse["wifi"] == 1.0
    # The report says the same, in words.
    with Store.open(tmp_path) as opened:
        found = {row[0]: row for row in budget_rows(read_run(opened, run.id))}
    assert found["2g"][1] == "660 B"
    assert found["wifi"][6] == "1"
    assert sum(int(row[3]) for row in found.values()) == len(rows)


def test_a_run_that_was_stopped_goes_on_with_the_budgets_it_gave_out(tmp_path: Path) -> None:
    """Tasks stay open over a restart, with differences down and budgets up."""
    changes: dict[str, object] = {
        "rounds": {"count": 6, "asynchronous": {"buffer": 3, "concurrency": 6}},
        "clients": {"memory": True},
        "updates": {**PLAN["updates"], "downlink": {"kind": "delta"}},  # type: ignore[dict-item]
    }
    of = networks_plan(tmp_path, **changes)
    whole = run_plan(of, store=tmp_path / "whole")
    turns = iter([False, False, False, True])
    half = run_plan(of, store=tmp_path / "half", stopped=lambda: next(turns))
    assert half.status == "stopped"
    rest = resume(half.id, store=tmp_path / "half")
    np.testing.assert_array_equal(rest.vector, whole.vector)
    assert rows_of(tmp_path / "half", rest) == rows_of(tmp_path / "whole", whole)

    def clocks(store: Path, run: Run) -> list[float]:
        with Store.open(store) as opened:
            return [r.metrics["virtual_seconds"] for r in opened.rounds(run.id) if r.round]

    assert clocks(tmp_path / "half", rest) == clocks(tmp_path / "whole", whole)


def test_what_does_not_fit_is_not_sent_and_is_counted(tmp_path: Path) -> None:
    updates = {**PLAN["updates"], "stages": [{"kind": "ecq", "coarseness": 1.0}]}  # type: ignore[dict-item]
    run = run_plan(networks_plan(tmp_path, updates=updates), store=tmp_path)
    with Store.open(tmp_path) as opened:
        found = {row[0]: row for row in budget_rows(read_run(opened, run.id))}
    assert found["2g"][3] == "0"  # none was sent
    assert int(found["2g"][7]) > 0
    assert found["wifi"][7] == "0"


def test_budgets_are_by_name_and_network() -> None:
    pipeline = compile_stages(
        [ECQ()],
        900,
        [
            Budget(clients="phone-*", network="2g", max_bytes=100),
            Budget(network="2g", max_bytes=200),
        ],
    )
    view = replace(
        unknown_fleet(4), networks=("2g", "wifi"), network=np.array([0, 1, 0, 1], np.int16)
    )
    names = ("phone-1", "phone-2", "gate-1", "gate-2")
    assert network_budgets(pipeline, names, view, (0, 1, 2)) == {0: 100, 1: 900, 2: 200}
    assert network_budgets(pipeline, names, unknown_fleet(4), (0,)) == {0: 900}
    by_name = compile_stages([ECQ()], 900, [Budget(clients="phone-*", max_bytes=100)])
    assert network_budgets(by_name, names, view, (0, 1)) == {}  # clients know it themselves


def test_a_table_of_networks_is_a_list_of_budgets_and_names_are_checked() -> None:
    text = (
        'schema = 1\nname = "x"\n[data]\nsource = "digits"\n[model]\nname = "logistic"\n'
        '[updates]\nstages = [{ kind = "ecq" }]\n[updates.budgets]\n2g = "20kB"\n'
    )
    (budget,) = parse_plan(text).updates.budgets
    assert (budget.network, budget.clients, budget.max_bytes) == ("2g", "*", 20_000)
    with pytest.raises(AnabranchError, match="no network 'edge'"):
        parse_plan(text.replace("2g =", "edge ="))
    tight = parse_plan(text.replace("20kB", "10B"))
    with pytest.raises(AnabranchError, match=r"AB-465.*over 2g"):
        check_budget(tight, 10_000)
