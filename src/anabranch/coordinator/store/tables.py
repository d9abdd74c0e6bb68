"""The tables (SQLAlchemy Core, portable SQL). Everything is keyed by run."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

__all__ = [
    "NO_SLOT",
    "SCHEMA_VERSION",
    "SLOT_BLOCK",
    "client_slots",
    "events",
    "labels",
    "meta",
    "metadata",
    "releases",
    "rounds",
    "runs",
    "states",
]

SCHEMA_VERSION: Final = 1
"""Raised with every change of a table, together with a step in `migrations`."""

SLOT_BLOCK: Final = 1024
"""Clients in one row of ``client_slots``."""

NO_SLOT: Final = 255
"""Byte of a client that has no memory yet."""

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("plan", Text, nullable=False),
    Column("plan_digest", String(64), nullable=False),
    Column("contract_digest", String(64), nullable=False),
    Column("data_digest", String(64), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("versions", Text, nullable=False),
    Column("trust_line", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("ended", Float),
)

rounds = Table(
    "rounds",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("outcome", String(16), nullable=False),
    Column("state_digest", String(64)),
    Column("metrics", Text, nullable=False),
    Column("phases", Text, nullable=False),
    Column("bytes_up", BigInteger, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float, nullable=False),
    Column("client_columns", Text, nullable=False),
)

states = Table(  # the blobs that exist: of the latest round and of each label
    "states",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Index("states_by_digest", "digest"),
)

labels = Table(
    "labels",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("round", Integer, nullable=False),
)

client_slots = Table(  # one byte a client, SLOT_BLOCK clients a row: 100,000 clients are 98 rows
    "client_slots",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("slots", LargeBinary, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("what", Text, nullable=False),
    Column("mechanism", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("round", Integer),
    Column("at", Float, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("details", Text, nullable=False),
)
