"""What can be written in a plan: every field of every value, found by walking the types.

One walk serves the reference page, the messages about wrong values, and the test that every field
has a description.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from anabranch.plan.named import Named
from anabranch.values import Value

__all__ = [
    "Choice",
    "choices",
    "field_at",
    "fields_of",
    "of_field",
    "owner_at",
    "range_text",
    "type_text",
    "unit_of",
    "values_below",
]

_WORDS: dict[object, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "nothing",
}
_SIGNS = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One value that a field may hold.

    Attributes:
        key: the key that chooses it ("name", "kind"), or "" when there is no choice.
        name: what that key must be.
        value: the class.
    """

    key: str
    name: str
    value: type[Value]


def _literal(value: type[Value], key: str) -> str:
    field = value.model_fields.get(key)
    found = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return str(found[0]) if len(found) == 1 else ""


def choices(annotation: object, metadata: tuple[object, ...] = ()) -> Iterator[Choice]:
    """The values that a field of this type may hold, also inside lists and options."""
    named = next((m for m in metadata if isinstance(m, Named)), None)
    if named is not None:
        for name, value in sorted(named.registry().items()):
            yield Choice(named.key, name, value)
        return
    if get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        yield from choices(inner, tuple(extra))
    elif isinstance(annotation, type) and issubclass(annotation, Value):
        kind = _literal(annotation, "kind")
        yield Choice("kind" if kind else "", kind, annotation)
    else:
        for part in get_args(annotation):
            yield from choices(part)


def fields_of(value: type[Value]) -> dict[str, FieldInfo]:
    """The fields of a value by the key that a plan writes."""
    return {field.alias or name: field for name, field in value.model_fields.items()}


def of_field(field: FieldInfo) -> tuple[Choice, ...]:
    """The values that ``field`` may hold."""
    return tuple(choices(field.annotation, tuple(field.metadata)))


def values_below(root: type[Value]) -> tuple[type[Value], ...]:
    """Every value class that can occur in ``root``, itself first, each once."""
    found: dict[type[Value], None] = {}
    open_: list[type[Value]] = [root]
    while open_:
        value = open_.pop(0)
        if value in found:
            continue
        found[value] = None
        for field in value.model_fields.values():
            open_ += [choice.value for choice in of_field(field)]
    return tuple(found)


def field_at(root: type[Value], path: tuple[str | int, ...], given: object) -> FieldInfo | None:
    """The field that ``path`` leads to in a document shaped like ``root``; None when it does not.

    Args:
        root: the value that the document describes.
        path: keys and list positions.
        given: the document, which says which of several kinds of value is meant.
    """
    owner, field = root, None
    for step in path:
        if isinstance(given, Mapping):
            if field is not None:
                meant = _meant(of_field(field), given)
                if meant is None:
                    return None
                owner = meant
            field = fields_of(owner).get(str(step))
            if field is None:
                return None
            given = given.get(step)
        elif isinstance(given, (list, tuple)) and isinstance(step, int):
            given = given[step] if step < len(given) else None
        else:
            return None
    return field


def _meant(options: tuple[Choice, ...], given: Mapping[str, object]) -> type[Value] | None:
    for option in options:
        if not option.key or given.get(option.key) == option.name:
            return option.value
    return None


def owner_at(root: type[Value], path: tuple[str | int, ...], given: object) -> type[Value] | None:
    """The value class whose table ``path`` leads to; None when it is not known."""
    if not path:
        return root
    field = field_at(root, path, given)
    if field is None:
        return None
    for step in path:
        given = _child(given, step)
    return _meant(of_field(field), given) if isinstance(given, Mapping) else None


def _child(given: object, step: str | int) -> object:
    if isinstance(given, Mapping):
        return given.get(step)
    if isinstance(given, (list, tuple)) and isinstance(step, int) and step < len(given):
        return given[step]
    return None


def unit_of(field: FieldInfo) -> str:
    """The unit of a field, or ""."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def range_text(metadata: tuple[object, ...]) -> str:
    """The range of a number in signs.

    >>> range_text((Ge(0), Lt(1)))
    '>= 0, < 1'
    """
    flat = [inner for m in metadata for inner in (m.metadata if isinstance(m, FieldInfo) else [m])]
    parts = [
        f"{sign} {getattr(item, kind.__name__.lower())}"
        for item in flat
        for kind, sign in _SIGNS.items()
        if isinstance(item, kind)
    ]
    return ", ".join(parts)


def type_text(annotation: object, metadata: tuple[object, ...] = ()) -> str:
    """A type in words, with its range.

    >>> type_text(int, (Ge(1),)), type_text(Literal["a", "b"]), type_text(tuple[int, ...])
    ('integer >= 1', '"a" or "b"', 'list of integer')
    """
    options = [c for c in choices(annotation, metadata) if c.key]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(args[0], (*args[1:], *metadata))
    if origin in (tuple, list):
        return f"list of {type_text(args[0])}"
    if options:
        named = " or ".join(f'"{option.name}"' for option in options)
        return f"table with {options[0].key} = {named}"
    if origin is Literal:
        return " or ".join(_literal_text(arg) for arg in args)
    if origin in (Union, types.UnionType):
        shown = [type_text(arg, metadata) for arg in args if arg is not type(None)]
        return " or ".join(dict.fromkeys(shown))
    if isinstance(annotation, type) and issubclass(annotation, Value):
        return "table"
    if origin is not None:
        return "table"
    word = _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
    bounds = range_text(metadata)
    return f"{word} {bounds}" if bounds else word


def _literal_text(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
