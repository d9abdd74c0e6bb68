"""The site's policy: each rule alone refuses what it is about, and nothing else."""

from __future__ import annotations

from datetime import time as Clock
from pathlib import Path

import pytest

from anabranch.client.policy import ClientPolicy, TaskFacts, load_policy, within
from anabranch.client.secure import known_by
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, parse_plan

TEXT = """
schema = 1
name = "heart"
[data]
source = "folder"
path = "sites"
[data.table]
columns = [{ name = "age" }, { name = "chol" }]
target = { column = "num", rule = "> 0" }
[model]
name = "logistic"
[local]
epochs = 3
[rounds]
count = 20
quorum = 3
"""


def plan(extra: str = "") -> Plan:
    return parse_plan(TEXT + extra)


def policy(text: str, tmp_path: Path) -> ClientPolicy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return load_policy(path)


ALLOWING = [
    "",
    '[work]\nalgorithms = ["fedavg"]',
    '[work]\nmodels = ["logistic", "mlp"]',
    '[work]\ncolumns = ["age", "chol", "num", "sex"]',
    "[work]\nmax_epochs = 3",
    "[work]\nmax_rounds = 20",
    "[work]\nown_code = false",
    '[privacy]\nupdates = "any"\nmin_cohort = 3',
]
REFUSING = {
    '[work]\nalgorithms = ["fedprox"]': "algorithm 'fedavg'",
    "[work]\nalgorithms = []": "algorithm 'fedavg'",
    '[work]\nmodels = ["mlp"]': "model 'logistic'",
    '[work]\ncolumns = ["age", "num"]': "column 'chol'",
    '[work]\ncolumns = ["age", "chol"]': "column 'num'",
    "[work]\nmax_epochs = 2": "3 epochs",
    "[work]\nmax_rounds = 19": "20 rounds",
    "[privacy]\nmin_cohort = 4": "3 clients, and 4",
    '[privacy]\nupdates = "summed"': "read single updates",
    '[privacy]\nupdates = "private"': "neither",
    "[privacy]\nmax_epsilon = 8.0": "no differential privacy",
    "[privacy]\nmax_delta = 1e-5": "no differential privacy",
    '[privacy]\nunits = ["client"]': "no differential privacy",
    '[privacy]\nvouched = ["va"]\nmin_vouched = 1': "vouches for",
}


@pytest.mark.parametrize("text", ALLOWING)
def test_what_is_allowed_is_accepted(text: str, tmp_path: Path) -> None:
    assert policy(text, tmp_path).judge(plan(), 5).accepted


@pytest.mark.parametrize(("text", "why"), REFUSING.items())
def test_what_is_not_allowed_is_declined_with_the_reason(
    text: str, why: str, tmp_path: Path
) -> None:
    decision = policy(text, tmp_path).judge(plan(), 5)
    assert not decision.accepted
    assert why in decision.reason
    with pytest.raises(AnabranchError, match="AB-743"):
        decision.require()


def test_steps_do_not_bound_how_often_a_row_is_used(tmp_path: Path) -> None:
    stepping = parse_plan(TEXT.replace("epochs = 3", "steps = 10"))
    decision = policy("[work]\nmax_epochs = 100", tmp_path).judge(stepping, 5)
    assert "counts steps" in decision.reason


def test_unlisted_columns_are_not_assumed_to_be_fine(tmp_path: Path) -> None:
    digits = parse_plan('schema = 1\ndata.source = "digits"\nmodel.name = "logistic"')
    decision = policy('[work]\ncolumns = ["age"]', tmp_path).judge(digits, 5)
    assert "does not list" in decision.reason


def test_epsilon_and_unit_are_bounded(tmp_path: Path) -> None:
    private = plan(
        "[privacy]\nepsilon = 4.0\ndelta = 1e-5\npopulation = 'people'\n"
        "[privacy.mechanism]\nkind = 'gaussian'\nclip = { kind = 'fixed', norm = 1.0 }\n"
    )
    assert policy("[privacy]\nmax_epsilon = 4.0", tmp_path).judge(private, 5).accepted
    assert policy('[privacy]\nupdates = "private"', tmp_path).judge(private, 5).accepted
    tight = policy("[privacy]\nmax_epsilon = 3.9", tmp_path).judge(private, 5)
    assert "epsilon 4, and 3.9" in tight.reason
    unit = policy('[privacy]\nmax_epsilon = 8.0\nunits = ["subject"]', tmp_path).judge(private, 5)
    assert "unit of privacy is 'client'" in unit.reason
    alone = policy('[privacy]\nunits = ["subject"]', tmp_path).judge(private, 5)
    assert alone.reason == unit.reason, "a site may name units and bound no epsilon"
    assert policy("[privacy]\nmax_delta = 1e-5", tmp_path).judge(private, 5).accepted
    loose = policy("[privacy]\nmax_epsilon = 4.0\nmax_delta = 1e-6", tmp_path).judge(private, 5)
    assert "delta 1e-05, and 1e-06" in loose.reason


def test_a_site_names_members_that_it_vouches_for(tmp_path: Path) -> None:
    text = '[privacy]\nvouched = ["va", "hungary"]\nmin_vouched = 2'
    rules = policy(text, tmp_path)
    masked = plan("[secure_aggregation]\nminimum = 3\n")
    assert rules.judge(masked, 5).accepted
    known = known_by(lambda: None, vouched=rules.privacy.vouched, least_vouched=2)
    assert (known.vouched, known.least_vouched) == ({"va", "hungary"}, 2)
    with pytest.raises(AnabranchError, match=r"AB-742.*no sum would ever be opened"):
        policy('[privacy]\nvouched = ["va", "va"]\nmin_vouched = 2', tmp_path)


def facts(now: str = "12:00", upload: int = 0, sent: int = 0, round_: int = 1) -> TaskFacts:
    return TaskFacts("run", round_, Clock.fromisoformat(now), upload, sent)


@pytest.mark.parametrize(
    ("text", "task", "why"),
    [
        ('[work]\nhours = ["20:00-06:00"]', facts("12:00"), "20:00-06:00 only"),
        ("[traffic]\nmax_upload = 100", facts(upload=101), "update of 101 bytes"),
        ("[traffic]\nmax_upload_day = 100", facts(upload=51, sent=50), "100 bytes a day"),
        ("[traffic]\nmax_upload_day = 100", facts(sent=100), "100 bytes a day"),
        ("[work]\nmax_rounds = 3", facts(round_=4), "round 4"),
    ],
)
def test_tasks_are_bounded(text: str, task: TaskFacts, why: str, tmp_path: Path) -> None:
    decision = policy(text, tmp_path).judge_task(task)
    assert why in decision.reason
    assert decision.code == "AB-743"


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ('[work]\nhours = ["20:00-06:00", "11:00-13:00"]', facts("12:59")),
        ("[traffic]\nmax_upload = 100\nmax_upload_day = 100", facts(upload=100)),
        ("[work]\nmax_rounds = 3", facts(round_=3)),
    ],
)
def test_tasks_within_the_bounds_are_done(text: str, task: TaskFacts, tmp_path: Path) -> None:
    assert policy(text, tmp_path).judge_task(task).accepted


@pytest.mark.parametrize(
    ("span", "now", "inside"),
    [
        ("08:00-17:00", "08:00", True),
        ("08:00-17:00", "17:00", False),
        ("20:00-06:00", "20:00", True),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "06:00", False),
        ("00:00-00:00", "12:00", True),
    ],
)
def test_spans(span: str, now: str, inside: bool) -> None:
    assert within(span, Clock.fromisoformat(now)) is inside


@pytest.mark.parametrize(
    "text",
    [
        "[work]\nmax_epoch = 5",
        "work = [",
        '[work]\nhours = ["25:00-06:00"]',
        "[work]\nmax_epochs = 0",
        '[privacy]\nupdates = "all"',
    ],
)
def test_a_policy_that_cannot_be_read_stops_the_client(text: str, tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-742"):
        policy(text, tmp_path)


def test_a_missing_policy_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match=r"AB-742.*absent\.toml"):
        load_policy(tmp_path / "absent.toml")


def test_before_the_first_roster_the_smallest_cohort_is_judged_where_the_contract_names_it(
    tmp_path: Path,
) -> None:
    """The first kit is read before anybody is a member."""
    rules = policy("[privacy]\nmin_cohort = 4", tmp_path)
    assert not rules.judge(plan(), None).accepted  # quorum = 3
    half = Plan.model_validate({**plan().model_dump(), "rounds": {"count": 20}})
    assert rules.judge(half, None).accepted
    assert not rules.judge(half, 6).accepted
    assert rules.judge(half, 7).accepted
