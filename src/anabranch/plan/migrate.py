"""Old plans: a chain of pure functions from one plan schema to the next.

The key ``schema`` at the top of a plan file says which schema it was written for. A change that
renames or moves keys raises `PLAN_SCHEMA` by one and adds the function that carries the old
document over. Schema 1 is the first, so there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from anabranch.errors import AnabranchError
from anabranch.plan.overrides import Document

__all__ = ["MIGRATIONS", "PLAN_SCHEMA", "Migration", "migrate"]

PLAN_SCHEMA = 1
"""The plan schema that this version reads and writes."""

Migration: TypeAlias = Callable[[Document], Document]
"""From a document of schema n (without the key ``schema``) to one of schema n + 1."""

MIGRATIONS: Mapping[int, Migration] = MappingProxyType({})
"""The migration that starts from each schema."""


def migrate(
    document: Mapping[str, object],
    *,
    where: str = "the plan",
    migrations: Mapping[int, Migration] = MIGRATIONS,
    current: int = PLAN_SCHEMA,
) -> Document:
    """The document in the current schema, without the key ``schema``.

    Args:
        document: as read; it is not changed.
        where: the file, for messages.
        migrations: the functions by the schema they start from.
        current: the schema to arrive at.

    Raises:
        AnabranchError: AB-106 when the plan is newer than this software, AB-107 when its schema is
            no integer from 1, or too old to be carried over.

    >>> migrate({"schema": 1, "name": "heart"})
    {'name': 'heart'}
    """
    result = dict(document)
    schema = result.pop("schema", None)
    if schema is None:
        raise _unusable(f"{where} does not say which plan schema it was written for.")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise _unusable(f"{where}: schema is {schema!r} (wanted: an integer from 1 to {current}).")
    if schema > current:
        raise AnabranchError(
            "AB-106",
            f"{where} has plan schema {schema}; this version of anabranch reads up to {current}.",
            fix=f"install a version that reads plan schema {schema}: "
            "pip install --upgrade anabranch.",
        )
    for step in range(schema, current):
        if step not in migrations:
            raise _unusable(f"{where} has plan schema {schema}, which is no longer read.")
        result = migrations[step](result)
    return result


def _unusable(message: str) -> AnabranchError:
    return AnabranchError(
        "AB-107",
        message,
        fix=f"write 'schema = {PLAN_SCHEMA}' at the top and adapt the keys to it.",
    )
