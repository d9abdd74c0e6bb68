"""A stored plan as people read it: TOML text, and dotted keys for comparing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import tomli_w

from anabranch.coordinator.store.records import Json

__all__ = ["flattened", "toml_text"]


def flattened(plan: Mapping[str, Json]) -> dict[str, Json]:
    """Every value under its dotted key; tables in lists are numbered, other lists are values.

    >>> flattened({"seed": 0, "local": {"epochs": 2}, "stages": [{"kind": "clip"}]})
    {'seed': 0, 'local.epochs': 2, 'stages.0.kind': 'clip'}
    """
    return dict(_leaves(plan, ""))


def _leaves(value: Json, key: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(isinstance(entry, Mapping) for entry in value)
    ):
        for number, entry in enumerate(value):
            yield from _leaves(entry, f"{key}.{number}")
    else:
        yield key, value


def toml_text(plan: Mapping[str, Json]) -> str:
    """The plan as TOML; keys without a value are left out, since TOML has no null.

    >>> print(toml_text({"seed": 0, "stop": {"target": None, "metric": "auc"}}))
    seed = 0
    <BLANKLINE>
    [stop]
    metric = "auc"
    <BLANKLINE>
    """
    return tomli_w.dumps({k: _without_null(v) for k, v in plan.items() if v is not None})


def _without_null(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {k: _without_null(v) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_null(entry) for entry in value if entry is not None]
    return value
