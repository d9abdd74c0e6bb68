"""From the ``[data]`` table of a plan to a federation: read, divide, split, preprocess.

Everything random is public and derives from the plan's seed. Statistics are computed from training
rows only, client by client, and added by the same exact fold as every update.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.data.bounded import neutral
from anabranch.data.federation import Card, Examples, Federation, Ragged
from anabranch.data.own import read_folder, read_one_table
from anabranch.data.partition import Assignment, NaturalKey, assign
from anabranch.data.plan import DataPlan
from anabranch.data.preprocess import (
    Preprocessor,
    PreprocessRules,
    StatisticRelease,
    fit_preprocessor,
)
from anabranch.data.schema import DataSchema
from anabranch.data.sources import open_source
from anabranch.data.sources.base import Pool
from anabranch.data.split import split_generator, train_test
from anabranch.data.statistics import local_statistics, statistic_sections, withhold_small
from anabranch.data.table import Table
from anabranch.data.vocabulary import fit_vocabulary, local_vocabulary, vocabulary_sections
from anabranch.errors import AnabranchError
from anabranch.randomness import generator
from anabranch.updates.total import Total

__all__ = ["LoadedData", "PendingTable", "load_federation", "load_pool"]

Array = NDArray[np.generic]


@dataclass(frozen=True)
class LoadedData:
    """A federation, and how it came about.

    Attributes:
        federation: ready for learning.
        card: provenance, with the partition that was used.
        releases: statistics that left the sites, to be passed through the release door.
        preprocessor: from tables to features; None when the source gives features.
        schema: of the table, with learnt codes; None when the source gives features.
        pending: the table, where its statistics are still to be learnt with noise; ``federation``
            is then prepared by the contract alone.
    """

    federation: Federation
    card: Card
    releases: tuple[StatisticRelease, ...] = ()
    preprocessor: Preprocessor | None = None
    schema: DataSchema | None = None
    pending: PendingTable | None = None


@dataclass(frozen=True)
class PendingTable:
    """A table in parts whose preprocessing is not learnt yet.

    Attributes:
        plan: the ``[data]`` table.
        pool: where the rows come from.
        table: all rows.
        parts: rows of each client.
        names: of the clients.
        card: provenance.
        seed: the plan's public seed.
    """

    plan: DataPlan
    pool: Pool
    table: Table
    parts: _Parts
    names: tuple[str, ...]
    card: Card
    seed: int

    @property
    def rules(self) -> PreprocessRules:
        """What may be learnt."""
        return _rules(self.plan)

    def train(self, client: int) -> Table:
        """The training rows of one client."""
        return self.table.take(self.parts.train.of(client))

    def prepared(
        self, preprocessor: Preprocessor, releases: tuple[StatisticRelease, ...] = ()
    ) -> LoadedData:
        """The federation with this preprocessing; nothing is pending any more."""
        x = preprocessor.apply(self.table).x
        names, features = self.names, preprocessor.features
        federation = _federation(
            self.plan, self.pool, x, self.parts, names, self.card, self.seed, features
        )
        return LoadedData(federation, self.card, releases, preprocessor, self.table.schema)


@dataclass(frozen=True)
class _Parts:
    """Rows of each client for training and testing, and rows for the coordinator."""

    train: Assignment
    test: Assignment
    holdout: NDArray[np.int64]


def load_federation(plan: DataPlan, seed: int, *, noisy: bool = False) -> LoadedData:
    """Load what a plan's ``[data]`` table says.

    Args:
        plan: the table.
        seed: the plan's public seed.
        noisy: statistics of tables are learnt later, with noise (`PendingTable`).

    Raises:
        AnabranchError: AB-205 to AB-219 when data cannot be read, AB-220 the partition, AB-221 a
            client has too few examples, AB-222 the source is given in Python, AB-989 noisy
            statistics of columns that the contract does not bound.
    """
    pool = load_pool(plan, seed)
    assignment, names, description = _divide(plan, pool, seed)
    parts = _split(plan, pool, assignment, names, seed)
    parts, names = _enough(plan, parts, names)
    card = dataclasses.replace(pool.card, partition=description)
    if isinstance(pool.x, Table):
        if noisy:
            pending = PendingTable(plan, pool, pool.x, parts, names, card, seed)
            contract_only = neutral(pool.x.schema, pending.rules)
            return dataclasses.replace(pending.prepared(contract_only), pending=pending)
        return _from_table(plan, pool, pool.x, parts, names, card, seed)
    return LoadedData(_federation(plan, pool, pool.x, parts, names, card, seed), card)


def load_pool(plan: DataPlan, seed: int) -> Pool:
    """The rows of the plan's source before anything is done to them."""
    if plan.source == "folder":
        return read_folder(Path(plan.path).expanduser(), plan.table)
    if plan.source == "table":
        return read_one_table(Path(plan.path).expanduser(), plan.table, plan.client_column)
    if plan.source == "arrays":
        raise AnabranchError(
            "AB-222",
            "the plan's data are arrays that were given in Python, so they cannot be loaded here.",
            fix="give the arrays again (anabranch.simulate), or save them as a folder of .npz "
            "files and set source = 'folder'.",
        )
    return open_source(plan.source, plan.options).load(seed, plan.table)


def _divide(plan: DataPlan, pool: Pool, seed: int) -> tuple[Assignment, tuple[str, ...], str]:
    partition = plan.partition or (NaturalKey() if pool.key is not None else pool.partition)
    if not isinstance(partition, NaturalKey):
        rng = generator(seed, "partition")
        assignment = assign(partition, pool.y, rng, pool.subjects)
        width = len(str(partition.clients - 1))
        names = tuple(f"client-{number:0{width}d}" for number in range(partition.clients))
        description = f"{partition.description}, seed {seed}"
    elif pool.key is None:
        raise AnabranchError(
            "AB-220",
            f"the data source {pool.card.name!r} has no natural clients.",
            fix="choose a partition that invents them: iid, dirichlet, labels or quantity.",
        )
    else:
        assignment = Assignment.by_owner(pool.key, len(pool.names))
        names, description = pool.names, pool.card.partition
    if plan.noise is not None:
        # Noise is not nature's: a natural partition with noise is a synthetic federation.
        prefix = "" if description.startswith("synthetic") else "synthetic: "
        description = f"{prefix}{description} + {plan.noise.description}"
    return assignment, names, description


def _split(
    plan: DataPlan, pool: Pool, assignment: Assignment, names: tuple[str, ...], seed: int
) -> _Parts:
    test_share = pool.test_fraction if plan.test_fraction is None else plan.test_fraction
    nothing = Assignment(np.empty(0, np.int64), np.zeros(len(assignment) + 1, np.int64))
    if not test_share and not plan.holdout_fraction:
        return _Parts(assignment, nothing, nothing.rows)
    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    holdout: list[NDArray[np.int64]] = []
    for number, name in enumerate(names):
        rows, rng = assignment.of(number), split_generator(seed, plan.split_repeat, name)
        for share, part in ((plan.holdout_fraction, holdout), (test_share, test)):
            # The second cut is of what the first has left.
            left = share if part is holdout else share / (1 - plan.holdout_fraction)
            subjects = None if pool.subjects is None else pool.subjects[rows]
            kept, cut = train_test(pool.y[rows], left, rng, subjects)
            part.append(rows[cut])
            rows = rows[kept]
        train.append(rows)
    return _Parts(Assignment.of_parts(train), Assignment.of_parts(test), np.concatenate(holdout))


def _enough(
    plan: DataPlan, parts: _Parts, names: tuple[str, ...]
) -> tuple[_Parts, tuple[str, ...]]:
    keep = np.flatnonzero(parts.train.counts >= plan.min_examples).tolist()
    if len(keep) == len(names):
        return parts, names
    few = int(np.argmin(parts.train.counts))
    if plan.too_few == "refuse" or not len(keep):
        raise AnabranchError(
            "AB-221",
            f"client {names[few]!r} has {int(parts.train.counts[few])} training example(s); "
            f"{len(names) - len(keep)} of {len(names)} clients have fewer than "
            f"{plan.min_examples}.",
            fix="set data.too_few = 'drop' to leave them out, lower data.min_examples, or give "
            "them more data.",
        )
    train = Assignment.of_parts([parts.train.of(client) for client in keep])
    test = Assignment.of_parts([parts.test.of(client) for client in keep])
    return _Parts(train, test, parts.holdout), tuple(names[client] for client in keep)


def _from_table(
    plan: DataPlan,
    pool: Pool,
    table: Table,
    parts: _Parts,
    names: tuple[str, ...],
    card: Card,
    seed: int,
) -> LoadedData:
    rules = _rules(plan)
    releases: list[StatisticRelease] = []
    if table.schema.open:
        total = _vocabulary(table, parts.train, names, rules)
        codes = fit_vocabulary(table.schema, total, rules.vocabulary)
        table = table.closed(table.schema.with_codes(codes))
        releases.append(StatisticRelease("vocabulary of columns without codes", total))
    total = _statistics(table, parts.train, names)
    total = withhold_small(table.schema, total, rules.min_count)
    preprocessor = fit_preprocessor(table.schema, total, rules)
    releases.append(
        StatisticRelease("column statistics of training rows", total, preprocessor.withheld)
    )
    federation = _federation(
        plan, pool, preprocessor.apply(table).x, parts, names, card, seed, preprocessor.features
    )
    return LoadedData(federation, card, tuple(releases), preprocessor, table.schema)


def _rules(plan: DataPlan) -> PreprocessRules:
    return PreprocessRules(
        min_count=plan.min_count, indicators=plan.indicators, vocabulary=plan.vocabulary
    )


def _vocabulary(
    table: Table, train: Assignment, names: tuple[str, ...], rules: PreprocessRules
) -> Total:
    sections = vocabulary_sections(table.schema, rules.vocabulary)
    fold = Accumulator(FoldPlan(sections, len(names)))
    for number, name in enumerate(names):
        part = table.take(train.of(number))
        fold.add(local_vocabulary(part, rules.vocabulary, name), name)
    return fold.total()


def _statistics(table: Table, train: Assignment, names: tuple[str, ...]) -> Total:
    fold = Accumulator(FoldPlan(statistic_sections(table.schema), len(names)))
    for number, name in enumerate(names):
        fold.add(local_statistics(table.schema, table.take(train.of(number))), name)
    return fold.total()


def _federation(
    plan: DataPlan,
    pool: Pool,
    x: Array,
    parts: _Parts,
    names: tuple[str, ...],
    card: Card,
    seed: int,
    features: tuple[str, ...] = (),
) -> Federation:
    train = _gather(x, pool, parts.train)
    test = _gather(x, pool, parts.test) if len(parts.test.rows) else None
    if plan.noise is not None:
        train = plan.noise.apply(train, generator(seed, "feature-noise"))
        if test is not None:
            test = plan.noise.apply(test, generator(seed, "feature-noise", 1))
    return Federation(
        names=names,
        train=train,
        test=test,
        holdout=_holdout(x, pool, parts.holdout),
        card=card,
        classes=pool.classes,
        features=features or pool.features,
        vocabulary=pool.vocabulary,
    )


def _gather(x: Array, pool: Pool, part: Assignment) -> Ragged:
    subjects = None if pool.subjects is None else pool.subjects[part.rows]
    return Ragged(_take(x, pool, part.rows), _rows(pool.y, part.rows), part.offsets, subjects)


def _holdout(x: Array, pool: Pool, rows: NDArray[np.int64]) -> Examples | None:
    held = [Examples(_take(x, pool, rows), pool.y[rows])] if len(rows) else []
    if pool.holdout is not None:
        everything = np.arange(len(pool.holdout))
        held.append(Examples(_take(pool.holdout.x, pool, everything), pool.holdout.y))
    if not held:
        return None
    return Examples(
        np.concatenate([part.x for part in held]), np.concatenate([part.y for part in held])
    )


def _take(x: Array, pool: Pool, rows: NDArray[np.int64]) -> Array:
    taken = _rows(x, rows)
    if taken.dtype != np.uint8:
        return taken
    return np.multiply(taken, np.float32(pool.scale), dtype=np.float32)


def _rows(x: Array, rows: NDArray[np.int64]) -> Array:
    # Rows that stand in order already are shared, not copied: half a gigabyte at full scale.
    in_order = len(rows) == len(x) and bool((np.diff(rows) == 1).all())
    return x if in_order else x[rows]
