"""Plan files: layers and origins, round trips, and every way in which a file can be wrong."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from test_algebra_pairs import BASE
from test_plan_rules import settings_of_all_axes

from anabranch.errors import AnabranchError
from anabranch.plan import (
    Plan,
    apply_overrides,
    changed,
    check_against_fleet,
    dump_toml,
    judge,
    load_plan,
    migrate,
    origins,
    parse_plan,
    plan_of,
    read_plan,
    require_servable,
)
from anabranch.plan.document import line_of

HEAD = 'schema = 1\n[data]\nsource = "heart"\n[model]\nname = "logistic"\n'
EXAMPLES = sorted(path.name for path in files("anabranch.plan").joinpath("examples").iterdir())


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def failure(text: str) -> AnabranchError:
    with pytest.raises(AnabranchError) as caught:
        parse_plan(text, "plan.toml")
    return caught.value


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_accepted(name: str) -> None:
    text = files("anabranch.plan").joinpath("examples", name).read_text("utf-8")
    plan = parse_plan(text, name)
    assert judge(plan).accepted
    assert plan.servable
    assert parse_plan(dump_toml(plan)) == plan.resolved()


def test_there_is_an_example_for_each_kind_of_federation() -> None:
    assert EXAMPLES == ["device.toml", "research.toml", "silo.toml"]


@settings(max_examples=60, deadline=None)
@given(settings_of_all_axes())
def test_round_trip(chosen: dict[str, object]) -> None:
    plan = changed(BASE, chosen)
    again = parse_plan(dump_toml(plan))
    assert again == plan.resolved() == again.resolved()
    assert dump_toml(again) == dump_toml(plan)
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan
    assert again.contract_digest == plan.contract_digest


def test_later_layers_win_and_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "[local]\nepochs = 2\nbatch_size = 8\n[rounds]\ncohort = 4\n")
    environment = {
        "ANABRANCH_LOCAL__EPOCHS": "3",
        "ANABRANCH_SEED": "5",
        "ANABRANCH_HOME": "/elsewhere",
        "HOME": "/root",
    }
    document = read_plan(path, ["local.epochs=4", "rounds.cohort=", "name=changed"], environment)
    plan = plan_of(document)
    assert (plan.local.epochs, plan.local.batch_size, plan.seed) == (4, 8, 5)
    assert (plan.rounds.cohort, plan.name) == (None, "changed")
    found = origins(document, plan)
    assert found["local.epochs"] == "command line"
    assert found["local.batch_size"] == "file"
    assert found["seed"] == "environment ANABRANCH_SEED"
    assert found["local.learning_rate"] == "default"
    assert found["aggregation.weighting.kind"] == "derived"
    assert "rounds.cohort" not in found


def test_environment_beats_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "[local]\nepochs = 2\n")
    assert load_plan(path, environment={"ANABRANCH_LOCAL__EPOCHS": "3"}).local.epochs == 3
    assert load_plan(path).local.epochs == 2


def test_a_misspelt_variable_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD)
    with pytest.raises(AnabranchError, match=r"local\.epoch' is unknown"):
        load_plan(path, environment={"ANABRANCH_LOCAL__EPOCH": "3"})


def test_override_of_a_whole_table_replaces_it() -> None:
    document = {"algorithm": {"name": "fedprox", "mu": 0.1}}
    change = 'algorithm={name = "fednova"}'
    assert apply_overrides(document, [change]) == {"algorithm": {"name": "fednova"}}
    assert document == {"algorithm": {"name": "fedprox", "mu": 0.1}}


def test_override_inside_a_list() -> None:
    document = {"updates": {"stages": [{"kind": "clip", "max_norm": 1.0}]}}
    changed_ = apply_overrides(document, ["updates.stages.0.max_norm=2.5"])
    assert changed_["updates"] == {"stages": [{"kind": "clip", "max_norm": 2.5}]}
    assert apply_overrides(document, ["updates.stages.0="])["updates"] == {"stages": []}


@pytest.mark.parametrize("text", ["local.epochs", "=3", "a..b=1", "updates.stages.4.max_norm=1"])
def test_bad_override(text: str) -> None:
    with pytest.raises(AnabranchError, match="AB-108"):
        apply_overrides({"updates": {"stages": []}}, [text])


@pytest.mark.parametrize(
    ("text", "code", "parts"),
    [
        ("schema = 1\n[data\n", "AB-102", ["plan.toml, line 2, column 6"]),
        ("schema = 1\nname = ", "AB-102", ["plan.toml", "not valid TOML"]),
        ("schema = 1\n[local]\n[local]\n", "AB-102", ["line 3"]),
        (HEAD + "[local]\nepoch = 2", "AB-103", ["line 7", "mean 'local.epochs'"]),
        (HEAD + "[rounds]\nepochs = 2", "AB-103", ["mean 'local.epochs'"]),
        (HEAD + "seed = 2", "AB-103", ["move 'seed' to the top"]),
        (HEAD + "[algoritm]\nname = 'fedavg'", "AB-103", ["line 6", "mean 'algorithm'"]),
        (HEAD + "[algorithm]\nname = 'fedprox'\nnu = 1", "AB-103", ["mu, server_learning_rate"]),
        (HEAD + "[local.optimizer]\nkind = 'sgd'\nmomentun = 0.9", "AB-103", ["momentum'?"]),
        ("schema = 1\n[model]\nname = 'mlp'", "AB-104", ["'data' is missing"]),
        (HEAD + "[[updates.stages]]\nkind = 'clip'", "AB-104", ["max_norm' is missing", "norm"]),
        (HEAD + "[local]\nepochs = '2'", "AB-105", ["line 7", "integer >= 1, passes"]),
        (HEAD + "[local]\nbatch_size = -1", "AB-105", ["integer >= 0, examples"]),
        (HEAD + "[local]\nlearning_rate = nan", "AB-105", ["finite"]),
        (HEAD + "[rounds]\ncohort = 1.5", "AB-105", ["integer >= 1 or number > 0, <= 1"]),
        (HEAD + "[evaluation]\non = 'all'", "AB-105", ['"clients" or "holdout" or "both"']),
        (HEAD + "[runtime]\nworkers = 0", "AB-105", ['integer >= 1 or "auto", processes']),
        (HEAD + "local = 3", "AB-103", ["move 'local'"]),
        ("local = 3\n" + HEAD, "AB-105", ["local is 3", "table"]),
        ("schema = 7\n", "AB-106", ["schema 7", "reads up to 1", "install"]),
        ("name = 'x'\n", "AB-107", ["schema = 1"]),
        ("schema = 'one'\n", "AB-107", ["'one'"]),
        ("schema = 0\n", "AB-107", ["from 1 to 1"]),
        (HEAD + "[algorithm]\nname = 'fedporx'", "AB-109", ["mean 'fedprox'?", "scaffold"]),
        (HEAD + "[algorithm]\nmu = 1", "AB-109", ["no key 'name'"]),
        (HEAD + "[algorithm]\nname = 'math:sqrt'", "AB-109", ["not a subclass of Algorithm"]),
        (HEAD + "[local.optimizer]\nkind = 'sdg'", "AB-109", ["mean 'sgd'?"]),
        (HEAD + "[[updates.stages]]\nkind = 'clop'", "AB-109", ["mean 'clip'?"]),
        (HEAD + "[rounds]\ncohort = 5\nquorum = 6", "AB-111", ["quorum 6", "cohort 5"]),
        (HEAD + "[rounds]\nover_selection = 1.5", "AB-111", ["everyone"]),
        (HEAD + "[local]\nsteps = 3\nepochs = 2", "AB-111", ["either epochs or steps"]),
        (HEAD + "[limits]\nrounds_to_target = 9", "AB-111", ["stop.target"]),
        (HEAD + "[evaluation]\nbaselines = ['pooled', 'pooled']", "AB-111", ["twice"]),
    ],
)
def test_bad_plan(text: str, code: str, parts: list[str]) -> None:
    error = failure(text)
    assert error.code == code
    assert [part for part in parts if part not in str(error)] == []


def test_others_are_counted() -> None:
    error = failure(HEAD + "[local]\nepochs = 0\nbatch = 3\n[rounds]\ncount = 'x'\n")
    assert "(2 more: " in error.message


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-101"):
        load_plan(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes("name = 'é'".encode("latin-1"))
    with pytest.raises(AnabranchError, match="UTF-8"):
        load_plan(tmp_path / "latin.toml")


def test_migrations_run_in_order() -> None:
    """The mechanism, with two invented steps: a rename, then a key that moves into a table."""

    def rename(document: dict[str, object]) -> dict[str, object]:
        return {("title" if key == "name" else key): value for key, value in document.items()}

    def nest(document: dict[str, object]) -> dict[str, object]:
        return {"head": {"title": document["title"]}}

    old = {"schema": 1, "name": "heart"}
    new = migrate(old, migrations={1: rename, 2: nest}, current=3)
    assert new == {"head": {"title": "heart"}}
    assert old == {"schema": 1, "name": "heart"}
    with pytest.raises(AnabranchError, match="AB-107"):
        migrate(old, migrations={2: nest}, current=3)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("seed",), 1),
        (("local", "epochs"), 3),
        (("local", "optimizer", "momentum"), 4),
        (("updates", "stages", 0, "max_norm"), 7),
        (("model", "name"), 8),
        (("rounds", "count"), None),
    ],
)
def test_line_of(path: tuple[str | int, ...], line: int | None) -> None:
    text = (
        "seed = 1\n[local]  # work\nepochs = 2\noptimizer = { momentum = 0.9 }\n"
        '[[updates.stages]]\nkind = "clip"\nmax_norm = 1\n[model]\n'
    )
    assert line_of(text, path) == line


@pytest.mark.parametrize(
    ("rounds", "clients", "code"),
    [
        ({"cohort": 10}, 4, "AB-112"),
        ({"quorum": 5}, 4, "AB-113"),
        ({"cohort": 0.5, "quorum": 3}, 4, "AB-113"),
    ],
)
def test_rounds_that_the_fleet_cannot_fill(
    rounds: dict[str, object], clients: int, code: str
) -> None:
    plan = BASE.replace(rounds=rounds)
    with pytest.raises(AnabranchError, match=code):
        check_against_fleet(plan, clients)
    check_against_fleet(plan, 100)


def test_the_runtime_is_no_part_of_the_contract() -> None:
    other = changed(BASE, {"runtime.workers": 2, "runtime.store": "/elsewhere"})
    assert other.contract_digest == BASE.contract_digest
    assert changed(BASE, {"seed": 1}).contract_digest != BASE.contract_digest
    assert changed(BASE, {"local.learning_rate": 0.1}).contract_digest != BASE.contract_digest


def test_saying_what_is_derived_changes_no_digest() -> None:
    said = changed(BASE, {"aggregation.weighting": {"kind": "examples"}})
    assert said != BASE
    assert said.contract_digest == BASE.contract_digest


def test_callables_are_named_and_digested() -> None:
    weighting = {"kind": "custom", "function": "anabranch.randomness:derived_seed"}
    plan = changed(BASE, {"aggregation.weighting": weighting, "model.name": "a.module:Net"})
    assert [r.name for r in plan.callables] == ["a.module:Net", weighting["function"]]
    assert len(plan.callables[1].sha256) == 64
    assert not plan.servable  # a.module is not installed here
    assert plan.contract()["callables"] == {r.name: r.sha256 for r in plan.callables}


def test_a_class_from_a_cell_is_simulated_and_not_served() -> None:
    class Mine(type(BASE.algorithm)):  # type: ignore[misc]  # a class that only this test can see
        """FedAvg under another name."""

    plan = BASE.replace(algorithm=Mine())
    assert not plan.servable
    assert judge(plan).accepted
    assert any("not served" in note.text for note in judge(plan).notes)
    assert plan.resolved().algorithm == plan.algorithm
    assert changed(plan, {"local.epochs": 5}).algorithm is plan.algorithm
    assert "Mine" in dump_toml(plan)
    with pytest.raises(AnabranchError, match="AB-110"):
        require_servable(plan)
    require_servable(BASE)


OWN = '''
from anabranch.algorithms import FedAvg
from anabranch.updates import Stage, StageContract


class Damped(FedAvg):
    """FedAvg with a factor of its own."""

    factor: float = 0.5
    """How much of the mean is taken."""


class Nothing(Stage):
    """Leaves every update as it is."""

    name = "nothing"
    strength: int = 1
    """How much nothing."""

    def contract(self):
        return StageContract(linear=True, unbiased=True)
'''


def test_own_classes_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_plan_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = HEAD + (
        '[algorithm]\nname = "own_plan_parts:Damped"\nfactor = 0.25\n'
        '[[updates.stages]]\nkind = "own_plan_parts:Nothing"\nstrength = 3\n'
    )
    plan = parse_plan(text)
    assert plan.algorithm.model_dump()["factor"] == 0.25
    assert plan.updates.stages[0].name == "nothing"
    assert [r.name for r in plan.callables] == ["own_plan_parts:Damped", "own_plan_parts:Nothing"]
    assert plan.servable
    assert judge(plan).accepted
    assert parse_plan(dump_toml(plan)) == plan.resolved()
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan
    assert failure(text.replace("strength = 3", "strength = 'x'")).code == "AB-105"
    assert failure(text.replace("factor = 0.25", "facto = 0.25")).code == "AB-103"
    assert failure(text.replace(":Damped", ":Absent")).code == "AB-421"
