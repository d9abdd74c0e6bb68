"""From a TOML file to a plan and back."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path as FilePath

import tomli_w
from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.plan.complaints import complain
from anabranch.plan.document import PlanDocument, dotted, leaves, parse_toml, read_document
from anabranch.plan.migrate import PLAN_SCHEMA, migrate
from anabranch.plan.overrides import Document, Path, put
from anabranch.plan.schema import Plan

__all__ = [
    "changed",
    "dump_toml",
    "load_plan",
    "origins",
    "parse_plan",
    "plan_from",
    "plan_of",
    "read_plan",
    "require_servable",
    "tables_of",
]


def read_plan(
    path: str | FilePath,
    changes: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> PlanDocument:
    """The layers of a plan file: the file, ``ANABRANCH_…`` variables, ``a.b=value`` changes.

    Raises:
        AnabranchError: AB-101 unreadable, AB-102 not TOML, AB-106 newer schema, AB-107 no usable
            schema, AB-108 a change of the wrong form.
    """
    return read_document(FilePath(path), changes, environment, tuple(Plan.model_fields))


def plan_of(document: PlanDocument) -> Plan:
    """The checked plan of a document.

    Raises:
        AnabranchError: AB-103 unknown key, AB-104 missing key, AB-105 wrong value, AB-109 unknown
            name or kind, AB-111 keys that contradict one another, AB-421 a callable that is not
            installed.
    """
    text = json.dumps(document.tables, default=str)
    try:
        # Strict, and through JSON: no text for numbers, but lists for tuples.
        return Plan.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise complain(error, Plan, document) from error


def load_plan(
    path: str | FilePath,
    changes: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Plan:
    """The checked plan of a file; see `read_plan` and `plan_of` for the errors."""
    return plan_of(read_plan(path, changes, environment))


def parse_plan(text: str, where: str = "the plan") -> Plan:
    r"""The checked plan of a TOML text.

    >>> text = 'schema = 1\ndata.source = "heart"\nmodel.name = "linear"'
    >>> parse_plan(text).data.source
    'heart'
    """
    return plan_of(PlanDocument(migrate(parse_toml(text, where), where=where), where, text))


def plan_from(tables: Mapping[str, object]) -> Plan:
    """The checked plan of tables made in Python, whose values may be objects already.

    Raises:
        AnabranchError: as `plan_of`.

    >>> tables = {"data": {"source": "heart"}, "model": {"name": "linear"}, "epochs": 2}
    >>> plan_from(tables)
    Traceback (most recent call last):
    ...
    anabranch.errors.AnabranchError: AB-103 [plan] the plan: the key 'epochs' is unknown. ...
    """
    try:
        return Plan.model_validate(tables)
    except ValidationError as error:
        raise complain(error, Plan, PlanDocument(dict(tables))) from error


def tables_of(plan: Plan, only: Collection[str | int] = ()) -> Document:
    """The plan (or only these tables) as nested tables, without the fields that are None."""
    include = {str(key) for key in only} or None
    return _without_none(plan.model_dump(mode="json", include=include))


def _without_none(given: Mapping[str, object]) -> Document:
    return {key: _inner(value) for key, value in given.items() if value is not None}


def _inner(value: object) -> object:
    if isinstance(value, Mapping):
        return _without_none(value)
    if isinstance(value, list):
        return [_inner(item) for item in value]
    return value


def dump_toml(plan: Plan) -> str:
    """The resolved plan as TOML: every key stated, in the order of the schema.

    ``parse_plan(dump_toml(plan)) == plan.resolved()`` for every servable plan.
    """
    return tomli_w.dumps({"schema": PLAN_SCHEMA, **tables_of(plan.resolved())})


def origins(document: PlanDocument, plan: Plan) -> dict[str, str]:
    """Who set each key of the resolved plan: the origin in the document, "derived" or "default"."""
    resolved = {dotted(path) for path, _ in leaves(tables_of(plan.resolved()))}
    stated = {dotted(path) for path, _ in leaves(tables_of(plan))}
    return {
        key: document.origins.get(key, "default" if key in stated else "derived")
        for key in sorted(resolved)
    }


def changed(plan: Plan, changes: Mapping[str, object]) -> Plan:
    r"""A copy of ``plan`` with the values at dotted paths replaced; None removes the key.

    Raises:
        AnabranchError: as `plan_of`; and AB-108 when a path leads nowhere.

    >>> from anabranch.plan import parse_plan
    >>> text = 'schema = 1\ndata.source = "heart"\nmodel.name = "linear"'
    >>> changed(parse_plan(text), {"local.epochs": 2}).local.epochs
    2
    """
    paths: dict[Path, object] = {
        tuple(int(step) if step.isdigit() else step for step in key.split(".")): value
        for key, value in changes.items()
    }
    touched = {path[0] for path in paths}
    # Tables that are not changed stay values: one of them may hold a class without a name.
    tables = tables_of(plan, touched)
    for path, value in paths.items():
        tables = put(tables, path, value)
    kept = {key: value for key, value in plan if key not in touched}
    return plan_from({**kept, **tables})


def _unwritable(plan: Plan) -> AnabranchError:
    names = ", ".join(r.name for r in plan.callables if not r.importable)
    return AnabranchError(
        "AB-110",
        f"the plan names {names}, which only this session can see.",
        fix="move it into an installed module and name it 'module:Class'.",
    )


def require_servable(plan: Plan) -> None:
    """Raise AB-110 when another process could not run the plan."""
    if not plan.servable:
        raise _unwritable(plan)
