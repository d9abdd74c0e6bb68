"""A site's own data: read from its folder by the contract, divided as a simulation would.

Rows never leave. What leaves before the first round are declared sums: how many examples of which
shape there are (the contract's own number where it declares one), the codes of columns that the
contract leaves open, and counts and moments of columns, each only where enough persons contribute.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.client.bounded import bounded_statistics
from anabranch.client.equipment import DESCRIPTION, Equipment
from anabranch.data.federation import Examples, Federation
from anabranch.data.load import load_federation
from anabranch.data.own import read_arrays, site_files
from anabranch.data.schema import DataSchema
from anabranch.data.site import SiteMapping, load_mapping
from anabranch.data.split import split_generator, train_test
from anabranch.data.statistics import local_statistics, statistic_sections
from anabranch.data.table import Table, read_table
from anabranch.data.vocabulary import local_vocabulary, vocabulary_sections
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.site_units import DEFAULT_TEST_SHARE, declared_rows
from anabranch.privacy.noise import SecretStream
from anabranch.runtimes.http.client.workplace import ClientData
from anabranch.updates.sections import Sections, Update

__all__ = ["OWN_SOURCES", "SiteData", "open_site", "public_part"]

OWN_SOURCES = ("folder", "table")
"""Sources whose rows lie at the sites; every other one is public and named."""

Index = NDArray[np.int64]


@dataclass(frozen=True)
class SiteData:
    """The data of one site under one contract.

    Attributes:
        plan: made of the contract.
        name: of the client.
        train: row numbers for training.
        test: row numbers for testing.
        table: rows that fit the schema; None for arrays.
        arrays: examples; None for tables.
    """

    plan: Plan
    name: str
    train: Index
    test: Index
    table: Table | None = None
    arrays: Examples | None = None

    def answer(self, equipment: Equipment) -> tuple[Update, Sections]:
        """What a stage of the preparation asks for, with its declared sections.

        Raises:
            AnabranchError: AB-224 a code is too long; AB-761 the stage does not fit the data;
                AB-988 statistics outside the contract's promise, AB-989 unbounded ones.
        """
        if equipment.stage == "examples":
            return self._description(), DESCRIPTION
        if self.table is None or equipment.table is None:
            raise AnabranchError(
                "AB-761",
                "the coordinator asks for column statistics, and this site's data are arrays.",
                fix="give the site's data as a table that fits the contract's schema.",
                kept="Nothing was sent.",
            )
        rules, privacy = self.plan.data.vocabulary, self.plan.privacy
        if privacy is not None and privacy.statistics_share and equipment.stage == "columns":
            closed = self.table.closed(equipment.table).take(self.train)
            return bounded_statistics(self.plan, closed, SecretStream.system())
        if privacy is not None and not privacy.open_statistics:
            raise _unpaid()
        if equipment.stage == "codes":
            part = self.table.take(self.train)
            update = local_vocabulary(part, rules, self.name)
            return update, vocabulary_sections(self.table.schema, rules)
        closed = self.table.closed(equipment.table).take(self.train)
        return local_statistics(equipment.table, closed), statistic_sections(equipment.table)

    def _description(self) -> Update:
        y = self.table.y if self.table is not None else np.zeros(0)
        shape: tuple[int, ...] = ()
        if self.arrays is not None:
            y, shape = self.arrays.y, self.arrays.x.shape[1:]
        classification = np.issubdtype(y.dtype, np.integer)
        classes = int(y.max()) + 1 if classification and len(y) else 0
        if self.table is not None:
            classes = self.table.schema.target.count
        told = declared_rows(self.plan, self.name) or (len(self.train), len(self.test))
        padded = [*shape, *([0] * (DESCRIPTION["shape"].length - len(shape)))]
        return Update(
            {"shape": np.array(padded, np.float64)},
            {
                "train_rows": float(told[0]),
                "test_rows": float(told[1]),
                "classes": float(classes),
                "axes": float(len(shape)),
            },
        )

    def examples(self, equipment: Equipment) -> ClientData:
        """The site's examples, ready for learning.

        Raises:
            AnabranchError: AB-761 the equipment is not for such data, AB-221 too few examples.
        """
        if len(self.train) < max(1, self.plan.data.min_examples):
            raise AnabranchError(
                "AB-221",
                f"this site has {len(self.train)} training example(s), fewer than the contract "
                "asks for.",
                fix="give more data, or leave the run.",
                kept="Nothing was sent.",
            )
        whole = self.arrays
        if self.table is not None:
            if equipment.table is None or equipment.preprocessor is None:
                raise AnabranchError(
                    "AB-761",
                    "the coordinator sent no preprocessing for a table.",
                    fix="use the same plan and software version at both ends.",
                )
            whole = equipment.preprocessor.apply(self.table.closed(equipment.table))
        assert whole is not None
        test = self._part(whole, self.test) if len(self.test) else None
        return ClientData(self._part(whole, self.train), test)

    def _part(self, whole: Examples, rows: Index) -> Examples:
        """Some rows, with whose they are where the schema says it."""
        persons = None
        if self.table is not None and self.table.schema.subject is not None:
            persons = self.table.subjects[rows]
        return Examples(whole.x[rows], whole.y[rows], persons)

    @property
    def training_rows(self) -> Examples:
        """Which rows there are for training and whose they are, without their features."""
        return self._part(Examples(np.zeros((self._length, 0)), np.zeros(self._length)), self.train)

    @property
    def _length(self) -> int:
        rows = self.table if self.table is not None else self.arrays
        return len(rows) if rows is not None else 0


def _unpaid() -> AnabranchError:
    return AnabranchError(
        "AB-988",
        "the coordinator asks for statistics of this site's columns, which the contract neither "
        "pays for nor gives a reason for.",
        fix="ask who runs the coordinator; a plan can set privacy.statistics_share, or say why "
        "in privacy.open_statistics.",
        kept="Nothing was computed and nothing was sent.",
    )


def open_site(plan: Plan, name: str, path: Path) -> SiteData:
    """Read a site's folder or file.

    Raises:
        AnabranchError: AB-207 to AB-219 as when the data are read by a simulation.
    """
    file, toml = site_files(path)
    schema = plan.data.table
    if schema is None:
        federation = Federation.from_arrays({name: read_arrays(file)})
        examples = federation.train.of(0)
        train, test = _divided(plan, name, examples.y, None)
        return SiteData(plan, name, train, test, arrays=examples)
    table = read_table(schema, file, name, _mapping(toml, schema))
    train, test = _divided(plan, name, table.y, table.subjects if schema.subject else None)
    return SiteData(plan, name, train, test, table=table)


def public_part(plan: Plan, name: str) -> ClientData:
    """This client's part of a named public source (trials).

    Raises:
        AnabranchError: AB-762 the source has no client of that name; AB-2xx it cannot be read.
    """
    federation = load_federation(plan.data, plan.seed).federation
    if name not in federation.names:
        shown = ", ".join(federation.names[:5])
        raise AnabranchError(
            "AB-762",
            f"the source {plan.data.source!r} has no client {name!r} (it has {shown}, ...).",
            fix="join under one of these names; or give the site's own data with --data and a plan "
            "whose source is 'folder'.",
            kept="Nothing was sent.",
        )
    return ClientData.of(federation, name)


def _divided(
    plan: Plan, name: str, y: NDArray[np.generic], subjects: Index | None
) -> tuple[Index, Index]:
    share = DEFAULT_TEST_SHARE if plan.data.test_fraction is None else plan.data.test_fraction
    everything = np.arange(len(y), dtype=np.int64)
    if not share:
        return everything, everything[:0]
    rng = split_generator(plan.seed, plan.data.split_repeat, name)
    train_test(y, 0.0, rng, subjects)  # a simulation first cuts its hold-out, here of nothing
    return train_test(y, share, rng, subjects)


def _mapping(path: Path | None, schema: DataSchema) -> SiteMapping:
    return load_mapping(path, schema) if path is not None else SiteMapping()
