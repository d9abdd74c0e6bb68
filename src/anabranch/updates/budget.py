"""How many bytes an encoded update may have: for all clients, or for some by name or network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from anabranch.values import Value

__all__ = ["Budget", "ByteCount", "budgets_of", "bytes_of", "limit_for"]

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_WRITTEN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def bytes_of(written: object) -> object:
    """A number of bytes from text with a unit; anything else is left to the type check.

    Raises:
        ValueError: the text is no number with a unit.

    >>> bytes_of("10MB"), bytes_of("1.5 KiB"), bytes_of(400)
    (10000000, 1536, 400)
    """
    if not isinstance(written, str):
        return written
    match = _WRITTEN.fullmatch(written)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("must be a number of bytes, such as 400000, '400kB' or '10MB'")
    return int(float(match[1]) * unit)


_TEXT = {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG]?[iI]?[bB])?\s*$"}

ByteCount = Annotated[
    int,
    BeforeValidator(bytes_of),
    Field(ge=1),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, _TEXT]}),
]
"""Bytes as a whole number, or as text with a unit: ``"10MB"``, ``"400kB"``, ``"64KiB"``."""


class Budget(Value):
    """A budget of its own for some clients.

    >>> phones = Budget(clients="phone-*", max_bytes="100kB")
    >>> limit_for("phone-7", 10**6, [phones]), limit_for("gateway", 10**6, [phones])
    (100000, 1000000)
    >>> limit_for("gateway", None, [Budget(network="2g", max_bytes="20kB")], network="2g")
    20000
    """

    clients: str = Field(default="*", min_length=1, max_length=256)
    """Names of the clients that it is for; ``*`` stands for any text."""
    network: str = Field(default="", max_length=32)
    """Kind of network over which it holds, such as ``2g``: of the connection that the client's
    device uses when it is asked. Empty: over every network, and where none is known."""
    max_bytes: ByteCount = Field(json_schema_extra={"unit": "bytes"})
    """Most bytes of an encoded update of these clients."""


def budgets_of(written: object) -> object:
    """Budgets as a table from kinds of network to bytes, as they are.

    >>> budgets_of({"2g": "20kB", "wifi": "1MB"})
    ({'network': '2g', 'max_bytes': '20kB'}, {'network': 'wifi', 'max_bytes': '1MB'})
    """
    if isinstance(written, Mapping):
        return tuple({"network": network, "max_bytes": most} for network, most in written.items())
    return tuple(written) if isinstance(written, list) else written


def limit_for(
    client: str, most: int | None, budgets: Sequence[Budget], network: str = ""
) -> int | None:
    """The bytes that an update of ``client`` may have: of the first budget that is for it and for
    the network in use, else ``most``.

    Args:
        client: its name.
        most: for everybody else.
        budgets: in the order of the plan.
        network: in use; empty where it is not known.
    """
    for budget in budgets:
        if fnmatchcase(client, budget.clients) and budget.network in ("", network):
            return budget.max_bytes
    return most
