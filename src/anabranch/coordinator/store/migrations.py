"""The version of the tables: created new, migrated when older, refused when newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, inspect, select, update

from anabranch.coordinator.store import tables
from anabranch.errors import AnabranchError

__all__ = ["STEPS", "prepare", "schema_version"]

Step = Callable[[Connection], None]

STEPS: Final[Mapping[int, Step]] = {}
"""``STEPS[n]`` turns the tables of version n into those of version n + 1."""


def schema_version(connection: Connection) -> int:
    """The version found; 0 in an empty database.

    Raises:
        AnabranchError: AB-612 when the database is not a store.
    """
    names = set(inspect(connection).get_table_names())
    if not names:
        return 0
    if tables.meta.name in names:
        query = select(tables.meta.c.value).where(tables.meta.c.key == "schema")
        value = connection.execute(query).scalar_one_or_none()
        if value is not None and value.isdecimal():
            return int(value)
    raise AnabranchError(
        "AB-612",
        "the database is not a store of Anabranch, or it is damaged.",
        fix="choose another folder, or restore the store from a backup.",
    )


def prepare(
    connection: Connection,
    found: int,
    wanted: int = tables.SCHEMA_VERSION,
    steps: Mapping[int, Step] = STEPS,
) -> None:
    """Bring the tables from version ``found`` to ``wanted``, inside the caller's transaction.

    Raises:
        AnabranchError: AB-606 when the store was written by a newer version.
    """
    if found > wanted:
        raise AnabranchError(
            "AB-606",
            f"the store has schema {found}; this version of Anabranch knows up to {wanted}.",
            fix="upgrade Anabranch (pip install -U anabranch), or use another folder.",
        )
    if found == 0:
        tables.metadata.create_all(connection)
        connection.execute(tables.meta.insert().values(key="schema", value=str(wanted)))
        return
    for version in range(found, wanted):
        steps[version](connection)
    row = update(tables.meta).where(tables.meta.c.key == "schema")
    connection.execute(row.values(value=str(wanted)))
