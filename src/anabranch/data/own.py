"""The user's own files: a folder with one file a client, or one table with a client column."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.data.cells import texts_of
from anabranch.data.federation import Card, Federation
from anabranch.data.partition import NaturalKey
from anabranch.data.raw import SUFFIXES, missing_file, read_raw, unreadable
from anabranch.data.schema import DataSchema
from anabranch.data.site import SiteMapping, load_mapping
from anabranch.data.sources.base import Pool, number_keys, sha256_of
from anabranch.data.table import concatenate, interpret, read_table
from anabranch.errors import AnabranchError

__all__ = ["read_arrays", "read_folder", "read_one_table", "site_files"]


def site_files(path: Path) -> tuple[Path, Path | None]:
    """A site's data file and its mapping, or None.

    ``path`` is a data file (mapping: ``<name>.site.toml`` beside it), or a folder with one data
    file (mapping: ``site.toml`` inside).

    Raises:
        AnabranchError: AB-207 nothing there, AB-209 no data file or several.
    """
    if path.is_dir():
        files = _data_files(path)
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise AnabranchError(
                "AB-209",
                f"folder {path.name!r} of a site should hold one data file; found: {names}.",
                fix=f"keep one file ({', '.join(SUFFIXES)}) in the folder.",
                kept="Nothing was read.",
            )
        mapping = path / "site.toml"
        return files[0], mapping if mapping.is_file() else None
    if not path.is_file():
        raise missing_file(path)
    mapping = path.with_name(f"{path.stem}.site.toml")
    return path, mapping if mapping.is_file() else None


def read_folder(path: Path, schema: DataSchema | None) -> Pool:
    """Every file or folder in ``path`` is one client, called by its name without the suffix.

    ``.npz`` files with arrays ``x`` and ``y`` need no schema and are taken as they are.

    Raises:
        AnabranchError: AB-207 to AB-218 for the first thing that does not fit, AB-219 when there
            is no schema.
    """
    if not path.is_dir():
        raise missing_file(path)
    sites = sorted([*_data_files(path), *(p for p in path.iterdir() if _is_site(p))])
    if not sites:
        raise AnabranchError(
            "AB-209",
            f"folder {path.name!r} holds no data files.",
            fix=f"put one file a client ({', '.join(SUFFIXES)}) or one folder a client into it.",
            kept="Nothing was read.",
        )
    names = [site.stem if site.is_file() else site.name for site in sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnabranchError(
            "AB-209",
            f"folder {path.name!r} has more than one file for client {twice[0]!r}.",
            fix="keep one file a client; the name without its suffix names the client.",
            kept="Nothing was read.",
        )
    files = [site_files(site) for site in sites]
    card = _card("folder", path.name, [file for file, _ in files])
    if schema is None:
        return _arrays({name: file for name, (file, _) in zip(names, files, strict=True)}, card)
    tables = [
        read_table(schema, file, name, _mapping(toml, schema))
        for name, (file, toml) in zip(names, files, strict=True)
    ]
    table = concatenate(tables)
    return Pool(
        card,
        table,
        table.y,
        np.repeat(np.arange(len(tables)), [len(part) for part in tables]).astype(np.int64),
        tuple(names),
        subjects=table.subjects if schema.subject else None,
        classes=schema.target.count,
        partition=NaturalKey(),
        test_fraction=0.2,
    )


def read_one_table(path: Path, schema: DataSchema | None, client_column: str) -> Pool:
    """One file with the rows of all clients; the client column says whose a row is.

    Raises:
        AnabranchError: AB-207 to AB-218 for the first thing that does not fit, AB-210 when the
            client column is missing or has gaps, AB-219 when there is no schema.
    """
    if schema is None:
        raise _no_schema()
    file, toml = site_files(path)
    mapping = _mapping(toml, schema)
    raw = read_raw(file, mapping.file)
    client = client_column or schema.client or ""
    clients = texts_of(raw.columns.get(mapping.site_name(client), np.array([], object)))
    if len(clients) != len(raw) or not client:
        raise _no_client(f"file {file.name!r} has no client column {client!r}.")
    if (clients == "").any():
        row = int(raw.rows[np.argmax(clients == "")])
        raise _no_client(f"file {file.name!r}: column {client!r} is missing in row {row}.")
    table, problems = interpret(schema, raw, mapping)
    if problems:
        raise problems[0].error(str(clients[problems[0].index]))
    if not len(table):
        raise unreadable(file.name, "has no usable rows")
    key, names = number_keys(clients[np.searchsorted(raw.rows, table.rows)])
    return Pool(
        _card("table", file.name, [file]),
        table,
        table.y,
        key,
        names,
        subjects=table.subjects if schema.subject else None,
        classes=schema.target.count,
        partition=NaturalKey(),
        test_fraction=0.2,
    )


def _is_site(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and bool(_data_files(path))


def _data_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )


def _mapping(path: Path | None, schema: DataSchema) -> SiteMapping:
    return load_mapping(path, schema) if path is not None else SiteMapping()


def _arrays(files: Mapping[str, Path], card: Card) -> Pool:
    clients = {name: read_arrays(file) for name, file in files.items()}
    federation = Federation.from_arrays(clients)
    return Pool(
        card,
        federation.train.x,
        federation.train.y,
        np.repeat(np.arange(len(federation)), federation.train.counts).astype(np.int64),
        federation.names,
        classes=federation.classes,
        partition=NaturalKey(),
        test_fraction=0.2,
    )


def read_arrays(file: Path) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """The arrays ``x`` and ``y`` of a site's .npz file.

    Raises:
        AnabranchError: AB-208 it cannot be read, AB-219 it has no such arrays.
    """
    if file.suffix.lower() != ".npz":
        raise _no_schema()
    try:
        # Object arrays would be pickles, and a pickle may run code: they are refused.
        with np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in ("x", "y") if name not in arrays.files]
            pair = None if missing else (arrays["x"], arrays["y"])
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(file.name, "is not a .npz file of plain arrays") from error
    if pair is None:
        raise _no_schema(
            f"file {file.name!r} has no array {missing[0]!r}, and the plan does not say what the "
            "others mean."
        )
    return pair


def _card(kind: str, name: str, files: Sequence[Path]) -> Card:
    return Card(
        name=kind,
        title=f"Your own data: {name}",
        origin=f"{len(files)} file(s)",
        licence="your own",
        citation="",
        partition="natural",
        sha256=sha256_of(file.read_bytes() for file in files),
        # Unknown data are treated with the care that data of persons need.
        personal=True,
    )


def _no_schema(
    message: str = "the plan does not say what the columns mean.",
) -> AnabranchError:
    return AnabranchError(
        "AB-219",
        message,
        fix="write a data schema in the plan ([data.table]), or give .npz files with arrays x "
        "and y.",
        kept="Nothing was read.",
    )


def _no_client(message: str) -> AnabranchError:
    return AnabranchError(
        "AB-210",
        message,
        fix="name the column in data.client_column and fill it in every row.",
        kept="Nothing was read.",
    )
