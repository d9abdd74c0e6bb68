"""From what pydantic found wrong to an error that says where, what was wanted and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from anabranch.errors import AnabranchError
from anabranch.plan.document import PlanDocument, dotted, line_of
from anabranch.plan.fields import (
    field_at,
    fields_of,
    of_field,
    owner_at,
    type_text,
    unit_of,
)
from anabranch.plan.overrides import Path
from anabranch.values import Value

__all__ = ["complain"]

_UNKNOWN_CHOICE = frozenset({"union_tag_invalid", "union_tag_not_found", "named_unknown"})
_CONTRADICTION = "value_error"


@dataclass(frozen=True, slots=True)
class _Complaint:
    code: str
    path: Path
    text: str
    fix: str


def complain(error: ValidationError, root: type[Value], document: PlanDocument) -> AnabranchError:
    """The error for the first thing that is wrong; the others are counted.

    Codes: AB-103 unknown key, AB-104 missing key, AB-105 wrong value, AB-109 unknown name or kind,
    AB-111 keys that contradict one another.
    """
    found: dict[tuple[str, str], list[_Complaint]] = {}
    for details in error.errors():
        complaint = _complaint(details, root, document)
        found.setdefault((complaint.code, dotted(complaint.path)), []).append(complaint)
    first, *others = (_merged(same) for same in found.values())
    line = line_of(document.text, first.path)
    place = f"{document.where}, line {line}" if line else document.where
    more = f" ({len(others)} more: {', '.join(_names(others))}.)" if others else ""
    return AnabranchError(first.code, f"{place}: {first.text}{more}", fix=first.fix)


def _merged(same: list[_Complaint]) -> _Complaint:
    """A field with several types complains once for each: what was wanted then says it all."""
    first = same[0]
    if len(same) == 1:
        return first
    return _Complaint(first.code, first.path, f"{first.text.partition('; it ')[0]}.", first.fix)


def _names(others: list[_Complaint]) -> list[str]:
    return [dotted(other.path) or "the plan" for other in others]


def _complaint(details: ErrorDetails, root: type[Value], document: PlanDocument) -> _Complaint:
    kind = details["type"]
    path = _real_path(details["loc"], document.tables, keep_last=kind == "missing")
    if kind == "extra_forbidden":
        return _unknown_key(path, root, document)
    if kind == "missing":
        return _missing(path, root, document)
    if kind in _UNKNOWN_CHOICE:
        return _unknown_choice(path, root, document)
    if kind == "named_kind":
        return _Complaint(
            "AB-109",
            path,
            f"{dotted(path)}: {details['msg']}.",
            "name a class that derives from it, as 'module:Class'.",
        )
    if kind == _CONTRADICTION and not isinstance(details["input"], (str, int, float)):
        text = details["msg"].removeprefix("Value error, ")
        where = f"[{dotted(path)}] " if path else ""
        return _Complaint(
            "AB-111", path, f"{where}{text}.", "change one of the keys named, so that they agree."
        )
    return _wrong_value(path, details, root, document)


def _real_path(loc: tuple[str | int, ...], given: object, *, keep_last: bool) -> Path:
    """The path in the document: pydantic also names the branch of a union that it tried."""
    path: list[str | int] = []
    for position, step in enumerate(loc):
        inside = isinstance(given, Mapping) and step in given
        listed = isinstance(given, (list, tuple)) and isinstance(step, int) and step < len(given)
        if inside or listed:
            given = given[step]  # type: ignore[index]  # a mapping or a list, as just checked
            path.append(step)
        elif keep_last and position == len(loc) - 1:
            path.append(step)
    return tuple(path)


def _unknown_key(path: Path, root: type[Value], document: PlanDocument) -> _Complaint:
    *table, key = path
    owner = owner_at(root, tuple(table), document.tables)
    known = sorted(fields_of(owner)) if owner else []
    close = get_close_matches(str(key), known, n=1)
    elsewhere = [
        f"{name}.{key}"
        for name, field in fields_of(root).items()
        for choice in of_field(field)
        if key in fields_of(choice.value)
    ]
    if table and key in fields_of(root):
        fix = f"move {key!r} to the top of the file, before the first table."
    elif elsewhere:
        fix = f"did you mean {elsewhere[0]!r}?"
    elif close:
        fix = f"did you mean {dotted((*table, close[0]))!r}?"
    else:
        fix = f"remove it; known here are: {', '.join(known)}."
    return _Complaint("AB-103", path, f"the key {dotted(path)!r} is unknown.", fix)


def _missing(path: Path, root: type[Value], document: PlanDocument) -> _Complaint:
    field = field_at(root, path, document.tables)
    wanted = f" (wanted: {_wanted(root, path, document)})" if field else ""
    return _Complaint(
        "AB-104",
        path,
        f"the key {dotted(path)!r} is missing{wanted}.",
        "add it; `anabranch plan schema` says what it means.",
    )


def _unknown_choice(path: Path, root: type[Value], document: PlanDocument) -> _Complaint:
    given: object = document.tables
    for step in path:
        given = given[step]  # type: ignore[index]  # the path was followed in this document before
    field = field_at(root, path, document.tables)
    options = of_field(field) if field else ()
    key = options[0].key if options else "kind"
    known = [option.name for option in options]
    name = given.get(key) if isinstance(given, Mapping) else given
    close = get_close_matches(str(name), known, n=1)
    listed = ", ".join(known)
    return _Complaint(
        "AB-109",
        path,
        f"the table {dotted(path)!r} has no key {key!r}."
        if name is None
        else f"{dotted((*path, key))} is {name!r}, which is not known.",
        (f"did you mean {close[0]!r}? " if close else "") + f"Known are: {listed}.",
    )


def _wanted(root: type[Value], path: Path, document: PlanDocument) -> str:
    field = field_at(root, path, document.tables)
    if field is None:
        return "another value"
    unit = unit_of(field)
    text = type_text(field.annotation, tuple(field.metadata))
    return f"{text}, {unit}" if unit and unit != "1" else text


def _wrong_value(
    path: Path, details: ErrorDetails, root: type[Value], document: PlanDocument
) -> _Complaint:
    while path and isinstance(path[-1], int):
        path = path[:-1]
    shown = repr(details["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    reason = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return _Complaint(
        "AB-105",
        path,
        f"{dotted(path) or 'the plan'} is {shown} (wanted: {_wanted(root, path, document)}); "
        f"it {reason[:1].lower()}{reason[1:]}.",
        "give a value of that type and range.",
    )
