"""Whatever stands in a plan file: the answer is a plan or an error with a code."""

from __future__ import annotations

import contextlib
import json
from importlib.resources import files

import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.plan import Plan, check_against_fleet, dump_toml, explain, judge, parse_plan
from anabranch.plan.document import leaves, parse_toml
from anabranch.plan.overrides import Path, put
from anabranch.values import Value

EXAMPLES = files("anabranch.plan").joinpath("examples")
TABLES = [parse_toml(path.read_text("utf-8"), path.name) for path in EXAMPLES.iterdir()]
RESOLVED = [parse_toml(dump_toml(parse_plan(tomli_w.dumps(t))), "resolved") for t in TABLES]
PATHS = sorted({path[:n] for t in RESOLVED for path, _ in leaves(t) for n in (1, 2, 3) if path[:n]})

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**60)
    | st.floats(-10, 10)
    | st.sampled_from([float("inf"), float("nan")])
    | st.text(max_size=8)
    | st.sampled_from(["fedavg", "scaffold", "clip", "iid", "adam", "cosine", "math:sqrt", "a:b"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner.filter(lambda v: v is not None), max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "name", "clients", "alpha", "max_norm", "columns", "x y"]),
            inner.filter(lambda v: v is not None),
            max_size=3,
        )
    ),
    max_leaves=5,
)


def plan_or_code(tables: dict[str, object], changes: list[tuple[Path, object]]) -> Plan | str:
    """The plan with the changes, or the code of what is wrong."""
    try:
        for path, value in changes:
            tables = put(tables, path, value)
        return parse_plan(tomli_w.dumps(tables), "plan.toml")
    except AnabranchError as error:
        return error.code


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TABLES), st.lists(st.tuples(st.sampled_from(PATHS), values), max_size=3))
def test_a_plan_or_an_error_with_a_code(
    tables: dict[str, object], changes: list[tuple[Path, object]]
) -> None:
    plan = plan_or_code(tables, changes)
    if isinstance(plan, str):
        assert plan[:4] in ("AB-1", "AB-4")
        return
    assert parse_plan(dump_toml(plan)) == plan.resolved()
    assert explain(plan)
    verdict = judge(plan)
    assert all(refusal.alternatives for refusal in verdict.refusals)
    json.dumps(plan.contract(), allow_nan=False)
    with contextlib.suppress(AnabranchError):
        check_against_fleet(plan, 5)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    with contextlib.suppress(AnabranchError):
        parse_plan("schema = 1\n" + text, "plan.toml")


def test_a_copy_is_checked_and_keeps_values() -> None:
    plan = Plan.model_validate({"data": {}, "model": {}})
    copy = plan.replace(seed=3)
    assert (copy.seed, copy.data) == (3, plan.data)
    assert copy.data is plan.data
    assert isinstance(copy, Value)
