"""The contract of a plan: its canonical document, its digest, and the callables that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256

from anabranch.errors import AnabranchError
from anabranch.named import load_named
from anabranch.plan.fields import unit_of
from anabranch.plan.migrate import PLAN_SCHEMA
from anabranch.plan.named import Named, Reference, reference_of
from anabranch.values import Value

__all__ = ["CALLABLE_UNIT", "canonical_json", "contract_digest", "contract_of", "references"]

CALLABLE_UNIT = "module:name"
"""Unit that marks a text field as the name of a callable."""


def canonical_json(document: Mapping[str, object]) -> str:
    """One text for equal documents: sorted keys, no spaces, shortest numbers, UTF-8.

    >>> canonical_json({"b": 1.0, "a": [None, "ä"]})
    '{"a":[null,"ä"],"b":1.0}'
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def contract_of(plan: Value, callables: tuple[Reference, ...]) -> dict[str, object]:
    """Every table but ``runtime`` and ``devices``, the plan schema, and the callables' digests.

    Where a site keeps its files (``data.path``) is its own affair and no part of the contract.
    """
    document: dict[str, object] = plan.model_dump(
        mode="json", exclude={"runtime": True, "devices": True, "data": {"path"}}
    )
    named = {reference.name: reference.sha256 for reference in callables}
    return {"schema": PLAN_SCHEMA, **document, "callables": named}


def contract_digest(contract: Mapping[str, object]) -> str:
    """SHA-256 (hexadecimal) over the canonical JSON."""
    return sha256(canonical_json(contract).encode()).hexdigest()


def references(plan: Value, names: tuple[str, ...] = ()) -> tuple[Reference, ...]:
    """The user's own classes and functions in a plan and among ``names``, sorted, each once."""
    given = [_by_name(name) for name in names]
    found = {reference.name: reference for reference in (*_references(plan), *given)}
    return tuple(found[name] for name in sorted(found))


def _references(value: Value) -> Iterator[Reference]:
    for name, field in type(value).model_fields.items():
        held = getattr(value, name)
        if isinstance(held, str) and held and unit_of(field) == CALLABLE_UNIT:
            yield _by_name(held)
        items = held if isinstance(held, tuple) else (held,)
        for item in items:
            if isinstance(item, Value):
                yield from _own(item, tuple(field.metadata), field.annotation)
                yield from _references(item)


def _own(item: Value, metadata: tuple[object, ...], annotation: object) -> Iterator[Reference]:
    named = _named(metadata, annotation)
    own = named.own(item) if named is not None else None
    if own is not None:
        yield own


def _named(metadata: tuple[object, ...], annotation: object) -> Named | None:
    """The `Named` annotation of a field, also inside a list."""
    for entry in (*metadata, *getattr(annotation, "__args__", ())):
        if isinstance(entry, Named):
            return entry
        inner = [m for m in getattr(entry, "__metadata__", ()) if isinstance(m, Named)]
        if inner:
            return inner[0]
    return None


def _by_name(name: str) -> Reference:
    """The reference of a callable given by name; without a digest where it is not installed."""
    try:
        target = load_named(name)
    except AnabranchError:  # the machine that prints a plan need not be able to run it
        return Reference(name, "", importable=False)
    importable = not name.startswith("__main__:")
    if callable(target):
        found = reference_of(target)
        return Reference(name, found.sha256, importable)
    return Reference(name, "", importable)
