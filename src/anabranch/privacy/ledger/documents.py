"""Entries as plain documents and back: what is hashed, stored and exported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from anabranch.errors import AnabranchError
from anabranch.privacy.events import (
    FixedSizeSampling,
    GaussianEvent,
    Mechanism,
    NoSampling,
    PoissonSampling,
    Relation,
    Unit,
)
from anabranch.privacy.ledger.entries import (
    Allotted,
    Closed,
    Entry,
    Line,
    Opened,
    Reserved,
    Settled,
)
from anabranch.privacy.ledger.matrix import MatrixEvent

__all__ = ["Document", "as_document", "canonical", "from_document", "unreadable"]

Document: TypeAlias = (
    "bool | int | float | str | Sequence[Document] | Mapping[str, Document] | None"
)
"""What a JSON text can say."""

_CLASSES: Final[Mapping[str, Callable[..., object]]] = MappingProxyType(
    {
        "opened": Opened,
        "allotted": Allotted,
        "reserved": Reserved,
        "settled": Settled,
        "closed": Closed,
        "line": Line,
        "gaussian": GaussianEvent,
        "matrix": MatrixEvent,
        "none": NoSampling,
        "poisson": PoissonSampling,
        "without-replacement": FixedSizeSampling,
    }
)
_NAMES: Final = MappingProxyType({made: name for name, made in _CLASSES.items()})
_WORDS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {"unit": Unit, "relation": Relation, "mechanism": Mechanism}
)


def as_document(entry: Entry) -> Mapping[str, Document]:
    """The entry in plain values.

    >>> as_document(Settled("r", None, reason="nobody answered"))
    {'kind': 'settled', 'release': 'r', 'charge': None, 'output': '', 'reason': 'nobody answered'}
    """
    return cast(Mapping[str, Document], _plain(entry))


def _plain(value: object) -> Document:
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": _NAMES[type(value)], **held}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value)  # an enumeration's word
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a ledger entry")


def from_document(document: Mapping[str, Document]) -> Entry:
    """The inverse of :func:`as_document`.

    Raises:
        AnabranchError: AB-914 the document is no entry.
    """
    try:
        entry = _value(document)
    except (KeyError, TypeError, ValueError, AnabranchError) as error:
        raise unreadable(str(error)) from error
    if not isinstance(entry, Opened | Allotted | Reserved | Settled | Closed):
        raise unreadable("it is no entry")
    return entry


def _value(given: Document, key: str = "") -> object:
    if isinstance(given, Mapping):
        held = {name: _value(item, name) for name, item in given.items() if name != "kind"}
        return _CLASSES[str(given["kind"])](**held)
    if isinstance(given, str):
        return _WORDS[key](given) if key in _WORDS else given
    if isinstance(given, Sequence):
        return tuple(_value(item) for item in given)
    return given


def canonical(document: Document) -> str:
    """One text for equal documents: sorted keys, no spaces, shortest numbers.

    >>> canonical({"b": 1.0, "a": [None, True]})
    '{"a":[null,true],"b":1.0}'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def unreadable(why: str) -> AnabranchError:
    """AB-914: the ledger is not what was written."""
    return AnabranchError(
        "AB-914",
        f"the privacy ledger is damaged or was tampered with: {why}.",
        fix="restore the ledger from a backup or an export; until then nothing private may run on "
        "this population. `anabranch privacy verify` names the first bad entry.",
    )
