"""Changes on top of a plan file: ``--set local.epochs=2`` and ``ANABRANCH_LOCAL__EPOCHS=2``.

Both name a key by its path and give a value as TOML writes it; what is not TOML is taken as text,
so ``--set algorithm.name=fedprox`` needs no quotes. An empty value removes the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence

from anabranch.errors import AnabranchError

__all__ = ["Document", "Path", "apply_overrides", "environment_changes", "parse_override", "put"]

Document = dict[str, object]
"""A plan as nested tables, before it is checked."""

Path = tuple[str | int, ...]
"""Keys, and positions in lists, from the top of the plan."""

_PREFIX = "ANABRANCH_"


def parse_override(text: str) -> tuple[Path, object]:
    """The path and value of ``a.b=value``; the value is None when the key is to be removed.

    Raises:
        AnabranchError: AB-108 when there is no ``=`` or no key.

    >>> parse_override("local.epochs=2"), parse_override("algorithm.name=fedprox")
    ((('local', 'epochs'), 2), (('algorithm', 'name'), 'fedprox'))
    >>> parse_override("updates.stages.0.max_norm=1.5"), parse_override("rounds.cohort=")
    ((('updates', 'stages', 0, 'max_norm'), 1.5), (('rounds', 'cohort'), None))
    """
    key, equals, value = text.partition("=")
    steps = [step.strip() for step in key.split(".")]
    if not equals or not all(steps):
        raise AnabranchError(
            "AB-108",
            f"the change {text!r} is not of the form table.key=value.",
            fix="write for example --set local.epochs=2 (an empty value removes the key).",
        )
    return tuple(int(step) if step.isdigit() else step for step in steps), _value(value)


def _value(text: str) -> object:
    text = text.strip()
    if not text:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def apply_overrides(document: Mapping[str, object], changes: Iterable[str]) -> Document:
    """A copy of ``document`` with ``a.b=value`` changes applied in order.

    Raises:
        AnabranchError: AB-108 when a change has the wrong form or leads through a plain value.

    >>> apply_overrides({"local": {"epochs": 1}}, ["local.epochs=2", "seed=7"])
    {'local': {'epochs': 2}, 'seed': 7}
    """
    result: Document = dict(document)
    for text in changes:
        path, value = parse_override(text)
        result = put(result, path, value)
    return result


def put(document: Mapping[str, object], path: Path, value: object) -> Document:
    """A copy of ``document`` with ``value`` at ``path``; None removes the key.

    Raises:
        AnabranchError: AB-108 when the path leads through something that is not a table, or to a
            position that a list does not have.
    """
    changed = _put(document, path, value, path)
    return dict(changed) if isinstance(changed, Mapping) else dict(document)


def _put(given: object, path: Path, value: object, whole: Path) -> object:
    if not path:
        return value
    step, *rest = path
    if given is None:
        given = {}
    if isinstance(given, Mapping):
        table = dict(given)
        inner = _put(table.get(str(step)), tuple(rest), value, whole)
        if inner is None:
            table.pop(str(step), None)
        else:
            table[str(step)] = inner
        return table
    if isinstance(given, (list, tuple)) and isinstance(step, int) and step < len(given):
        items = list(given)
        inner = _put(items[step], tuple(rest), value, whole)
        items[step : step + 1] = [] if inner is None else [inner]
        return items
    dotted = ".".join(map(str, whole))
    raise AnabranchError(
        "AB-108",
        f"the change of {dotted!r} leads through {step!r}, where the plan has no table or entry.",
        fix="check the path against `anabranch plan schema`, or set the whole table.",
    )


def environment_changes(
    environment: Mapping[str, str], tables: Sequence[str]
) -> list[tuple[str, Path, object]]:
    """The changes that variables ``ANABRANCH_TABLE__KEY`` make: (variable, path, value), by name.

    Variables without a double underscore count only when they name a top-level key of the plan
    (``ANABRANCH_SEED``); others belong to other parts of the software. Names are lower-cased.

    >>> environment_changes({"ANABRANCH_LOCAL__EPOCHS": "2", "ANABRANCH_HOME": "/x"}, ["seed"])
    [('ANABRANCH_LOCAL__EPOCHS', ('local', 'epochs'), 2)]
    """
    found = []
    for variable in sorted(environment):
        if not variable.startswith(_PREFIX):
            continue
        steps = variable.removeprefix(_PREFIX).lower().split("__")
        if len(steps) == 1 and steps[0] not in tables:
            continue
        path = tuple(int(step) if step.isdigit() else step for step in steps)
        found.append((variable, path, _value(environment[variable])))
    return found
