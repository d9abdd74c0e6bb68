"""Privacy for persons with several rows, made inside sites, over real daemons and clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from served_fleets import AGREES, ServedFleet

from anabranch.api import run_plan
from anabranch.client.home import ClientHome
from anabranch.client.vault import FileKey
from anabranch.coordinator.store import Store
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.observe.privacy_report import privacy_report, report_document
from anabranch.plan import parse_plan
from anabranch.privacy.events import GaussianEvent, PoissonSampling

SITES = {"north": 30, "south": 50}
DECLARED = {"north": 20, "south": 40}
ROWS = 3

PLAN = """
schema = 1
name = "persons"
seed = 11
[data]
source = "folder"
path = "{sites}"
test_fraction = 0.25
[data.table]
subject = "person"
columns = [
    {{ name = "age", unit = "years", range = [0, 120] }},
    {{ name = "sex", type = "category", codes = {{ f = 0, m = 1 }} }},
]
target = {{ column = "ill", rule = "> 0" }}
[model]
name = "logistic"
[aggregation]
weighting = {{ kind = "uniform" }}
[local]
steps = 2
learning_rate = 0.5
[rounds]
count = 2
[evaluation]
on = "clients"
every = 0
[runtime]
engine = "numpy"
kind = "inline"
[privacy]
epsilon = 8.0
delta = 1e-3
population = "patients"
unit = "subject"
statistics_share = 0.2
evaluation_share = 0.2
[privacy.mechanism]
kind = "dp-sgd"
batch = 16
max_examples = 2
disjoint = true
units = {{ north = 20, south = 40 }}
clip = {{ kind = "fixed", norm = 1.0 }}
"""


def write_persons(folder: Path) -> None:
    """Three visits a person, one file a site."""
    for other in folder.glob("*.csv"):
        other.unlink()
    draw = np.random.default_rng(7)
    for name, persons in SITES.items():
        lines = ["person,age,sex,ill"]
        for person in range(persons):
            age, sex = draw.normal(50, 10), "fm"[int(draw.integers(2))]
            for visit in range(ROWS):
                ill = int(age + draw.normal(0, 5) > 52)
                lines.append(f"{name}-{person},{age + visit:.1f},{sex},{ill}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f", patience=150.0)
    write_persons(made.sites)
    yield made
    made.close()


def home(fleet: ServedFleet, name: str) -> ClientHome:
    path = fleet.folder / "homes" / name
    return ClientHome(path, FileKey(path.with_suffix(".key")), AGREES)


def carried(fleet: ServedFleet, text: str) -> str:
    """Serve a plan to both sites, until it is complete."""
    fleet.start_daemon()
    for name in SITES:
        fleet.start_client(name)
    fleet.until(lambda status: len(fleet.members()) == len(SITES))
    run = fleet.submit(text)
    status = fleet.ended(run, 240.0)
    assert status.state == "complete", (status, fleet.screen("north"))
    return run


@pytest.mark.slow
def test_persons_are_protected_over_real_processes(fleet: ServedFleet) -> None:
    """Every release has its line, both ends count for a person, and no site told its size."""
    run = carried(fleet, PLAN.format(sites=fleet.sites))
    with PopulationLedger.existing(fleet.store / "ledgers", "patients") as ledger:
        balance = ledger.balance()
    assert (balance.opened.unit.value, balance.opened.size) == ("subject", sum(DECLARED.values()))
    lines = {x.site: x.charges[0] for x in balance.runs[run].allotted.lines if x.purpose == "model"}
    assert lines.keys() == DECLARED.keys()
    for site, event in lines.items():
        assert isinstance(event, GaussianEvent)
        assert isinstance(event.sampling, PoissonSampling)
        assert event.sampling.rate == 16 / DECLARED[site]
        assert event.rounds == 2 * 2
    released = sorted(
        (r.reserved.site, r.reserved.purpose, r.reserved.round)
        for r in balance.runs[run].releases.values()
    )
    each = [("evaluation", 2), ("model", 1), ("model", 2), ("statistics", 0)]
    assert released == [(site, *what) for site in sorted(SITES) for what in each]
    assert balance.epsilon() <= 8.0 * (1 + 1e-6)
    with Store.open(fleet.store) as store:
        shown = privacy_report(store, run, fleet.store / "ledgers", simulated=False)
    page = json.dumps(report_document(shown))
    assert "for one subject under add-or-remove" in page
    assert "on machines of their own" in page
    assert "no site told a number of its own" in page
    (told,) = (fleet.store / "served" / "runs" / run).rglob("members.json")
    assert json.loads(told.read_text())["counts"] == [[20, 7], [40, 13]]
    fleet.close()
    for name in SITES:
        with home(fleet, name) as opened:
            (counted,) = opened.spending.runs()
            assert opened.spending.rounds(*counted) == (1, 2)
            assert opened.spending.rounds(*counted, "statistics") == (0,)
            assert opened.spending.rounds(*counted, "evaluation") == (2,)
            assert opened.spending.total(1e-3) == pytest.approx(8.0, rel=2e-2)


@pytest.mark.slow
def test_the_served_model_is_the_simulated_one_but_for_noise(fleet: ServedFleet) -> None:
    """All units in every step, and noise of a few lattice steps: nothing else may differ."""
    text = PLAN.format(sites=fleet.sites)
    for old, new in (
        ("epsilon = 8.0", "epsilon = 1e15"),
        ("batch = 16", "batch = 64\nnoise_multiplier = 1e-7"),
        ("statistics_share = 0.2", 'open_statistics = "synthetic"'),
        ("evaluation_share = 0.2", ""),
        ('on = "clients"\nevery = 0', 'on = "nowhere"'),
    ):
        assert old in text
        text = text.replace(old, new)
    run = carried(fleet, text)
    simulated = run_plan(parse_plan(text), store=fleet.folder / "simulated")
    served = load_file(fleet.store / "models" / f"{run}.safetensors")
    wanted = load_file(fleet.folder / "simulated" / "models" / f"{simulated.id}.safetensors")
    assert served.keys() == wanted.keys()
    for name, value in wanted.items():
        assert np.linalg.norm(value) > 0.05
        # 4 steps with noise of about one lattice step (C / 2,048) over the batch, times the rate.
        np.testing.assert_allclose(served[name], value, atol=3e-4)
