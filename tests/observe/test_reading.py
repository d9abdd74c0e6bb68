"""What the store holds is what reports, comparisons and exports say."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_runs import TRUST, store_run

from anabranch.coordinator.store import Store, StoredEvent
from anabranch.errors import AnabranchError
from anabranch.observe.compare import common_metric, compare, plan_differences
from anabranch.observe.export import clients_csv, events_jsonl, rounds_csv, run_json
from anabranch.observe.notes import cards_of, evaluations_of, limits_of, model_of
from anabranch.observe.reading import read_run
from anabranch.observe.report import write_report
from anabranch.observe.tables import client_rows
from anabranch.observe.view import RunView


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def view(store: Store) -> RunView:
    return read_run(store, store_run(store))


def test_a_view_is_what_was_stored(view: RunView) -> None:
    assert (view.status, view.reason, view.trust_line) == ("complete", "all rounds done", TRUST)
    assert (view.rounds_planned, view.clients, view.created) == (3, 2, "2023-11-14 22:13 UTC")
    assert [r.outcome for r in view.rounds] == ["complete", "partial", "failed"]
    assert [r.contributors for r in view.rounds] == [2, 1, 0]
    assert [r.cohort for r in view.rounds] == [2, 2, 2]
    assert view.rounds[1].fates == {"merged": 1, "too late": 1}
    assert view.participation == 0.5
    assert view.seconds == pytest.approx(1.0)
    assert (view.bytes_up, view.bytes_down) == (16, 24)
    assert view.shown_metric == "auc"
    assert view.limits[0].measured == 0.5
    assert (view.model, view.model_sha256) == ("models/x.safetensors", "ef" * 32)
    assert [(t.round, t.client, t.fate) for t in view.troubles] == [
        (2, "b", "too late"),
        (3, "b", "refused"),
    ]


def test_training_diagnostics_are_no_evaluation(view: RunView) -> None:
    evaluation = view.rounds[0].evaluation
    assert evaluation is not None
    assert evaluation.metrics == {"auc": pytest.approx(0.6)}
    assert evaluation.clients == {"a": {"auc": pytest.approx(0.7)}}  # b's AUC is undefined
    assert [r.number for r in view.evaluated] == [1]


def test_a_release_that_was_held_back_is_said_so(view: RunView) -> None:
    assert [(r.what, r.round, r.contributors, r.detail) for r in view.releases] == [
        ("model", 1, 2, "delta"),
        ("model", 2, 1, "held back: too few contributors"),
    ]


def test_the_plan_is_toml_without_nulls(view: RunView) -> None:
    assert "clip_norm" not in view.plan_text
    assert view.plan_text.startswith("schema = 1\n")
    stages = tomllib.loads(view.plan_text)["updates"]["stages"]
    assert stages == [{"kind": "clip", "max_norm": 1.0}]
    assert view.plan["updates.stages.0.max_norm"] == 1.0


def test_the_last_note_counts_and_malformed_ones_are_left_out() -> None:
    events = [
        StoredEvent("limits", "", details={"limits": "none"}),
        StoredEvent("evaluation", "", details={"what": "final", "metrics": {"auc": 1}}),
        StoredEvent("evaluation", "", details={"what": "final", "metrics": {"auc": 0.5, "x": "y"}}),
        StoredEvent("card", "", details={"title": "t", "licence": "b", "origin": 3, "notes": [1]}),
        StoredEvent("model", "", details={}),
    ]
    assert limits_of(events) == ()
    assert evaluations_of(events)["final"].metrics == {"auc": 0.5}
    assert cards_of(events)[0].rows == (("licence", "b"),)
    assert model_of(events) == ("", "")


def test_rows_pair_federated_and_local_over_repeats(store: Store) -> None:
    runs = [store_run(store, seed, auc=auc) for seed, auc in ((0, 0.7), (1, 0.8))]
    rows = client_rows([read_run(store, run) for run in runs], "auc")
    assert [row.client for row in rows] == ["a", "b"]
    assert rows[0].examples == 30
    assert rows[0].federated.mean == pytest.approx(0.85)
    assert rows[0].gain is not None
    assert rows[0].gain.mean == pytest.approx(0.05)
    assert rows[0].gain.error == pytest.approx(0.0, abs=1e-12)


def test_runs_of_one_plan_are_repeats_and_others_are_paired_by_seed(store: Store) -> None:
    values = {(0, 2): 0.70, (1, 2): 0.74, (0, 5): 0.75, (1, 5): 0.77, (2, 5): 0.9}
    runs = [store_run(store, seed, epochs, auc) for (seed, epochs), auc in values.items()]
    views = [read_run(store, run, clients=False) for run in runs]
    first, second = compare(views, common_metric(views))
    assert (first.label, second.label) == ("heart", "local.epochs=5")
    assert first.seeds == (0, 1)
    assert first.metric.mean == pytest.approx(0.72)
    assert first.metric.error == pytest.approx(0.02)
    assert first.advantage is None
    assert second.metric.count == 3
    assert second.advantage is not None
    assert second.advantage.mean == pytest.approx((0.05 + 0.03) / 2)  # seeds 0 and 1 only
    keys = [d.key for d in plan_differences(views[0], views[4])]
    assert keys == ["local.epochs", "seed"]


def test_a_metric_that_a_run_lacks_is_refused_by_name(view: RunView) -> None:
    with pytest.raises(AnabranchError, match=r"AB-808.*'rmse'.*in common: auc"):
        common_metric([view], "rmse")


def test_exports_agree_with_the_view(store: Store, view: RunView) -> None:
    document = json.loads(json.dumps(run_json(view), allow_nan=False))
    assert document["final"]["metrics"] == {"auc": 0.7}
    assert document["rounds"][1]["fates"] == {"merged": 1, "too late": 1}
    rounds = list(csv.DictReader(io.StringIO(rounds_csv(view))))
    assert rounds[0]["metric_auc"] == str(0.7 - 0.1)
    assert rounds[0]["seconds_train"] == "0.4"
    assert rounds[1]["metric_auc"] == ""
    clients = list(csv.DictReader(io.StringIO(clients_csv(view))))
    assert {row["model"] for row in clients} == {"final", "local_only", "pooled"}
    assert clients[0] == {
        "model": "final",
        "client": "a",
        "test_examples": "30",
        "metric": "auc",
        "value": str(0.7 + 0.1),
    }
    lines = events_jsonl(view.run_id, store.events(view.run_id)).splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events if e["client"] == "b"] == ["too late", "refused"]


def test_the_report_of_a_store_has_intervals_over_the_other_seeds(
    store: Store, tmp_path: Path
) -> None:
    runs = [store_run(store, seed, auc=0.7 + 0.01 * seed) for seed in range(3)]
    store_run(store, 7, epochs=9)
    path = write_report(store, runs[0], tmp_path / "new" / "report.html")
    text = path.read_text()
    assert "mean over 3 seeds with 95 % interval" in text
    assert "0.810 [0.80" in text
    assert "rows describe persons" in text
    assert "2023-11-14 22:13 UTC" in text


def test_a_report_that_cannot_be_written_says_where(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnabranchError, match=r"AB-806.*report\.html cannot be written"):
        write_report(store, store_run(store), tmp_path / "file" / "report.html")
