"""Dividing rows among clients: frozen values, pure functions of labels and a generator.

Every partitioner that is not the natural key invents clients; the data card says so
(``synthetic: ...``). The label-skew schemes follow Li et al., "Federated Learning on Non-IID Data
Silos" (ICDE 2022): Dirichlet shares of each class, k labels a client, Dirichlet sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = [
    "IID",
    "Assignment",
    "Dirichlet",
    "EqualDirichlet",
    "Labels",
    "NaturalKey",
    "Partition",
    "Quantity",
    "TEN_IID",
    "assign",
]

Index = NDArray[np.int64]
_ATTEMPTS = 5000


@dataclass(frozen=True)
class Assignment:
    """Rows by client: client i owns ``rows[offsets[i]:offsets[i + 1]]``."""

    rows: Index
    offsets: Index

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, client: int) -> Index:
        """The rows of client number ``client``."""
        return self.rows[self.offsets[client] : self.offsets[client + 1]]

    @property
    def counts(self) -> Index:
        """Rows of each client."""
        return np.diff(self.offsets)

    @staticmethod
    def by_owner(owner: Index, clients: int) -> Assignment:
        """From the client of each row; rows keep their order inside a client.

        >>> Assignment.by_owner(np.array([1, 0, 1]), 2).of(1).tolist()
        [0, 2]
        """
        rows = np.argsort(owner, kind="stable").astype(np.int64)
        counts = np.bincount(owner, minlength=clients)
        return Assignment(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    @staticmethod
    def of_parts(parts: Sequence[Index]) -> Assignment:
        """From the rows of each client."""
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        rows = np.concatenate(parts) if parts else np.empty(0)
        return Assignment(rows.astype(np.int64), offsets.astype(np.int64))


class NaturalKey(Value):
    """The clients are real: hospitals, schools, users, roles."""

    kind: Literal["natural"] = "natural"


class _Invented(Value):
    """What invented clients have in common."""

    clients: int = Field(ge=1, json_schema_extra={"unit": "clients"})
    """Number of clients."""
    min_examples: int = Field(default=1, ge=0, json_schema_extra={"unit": "examples"})
    """Fewest examples that a client may get."""


class IID(_Invented):
    """Rows dealt at random in equal numbers (within one)."""

    kind: Literal["iid"] = "iid"

    @property
    def description(self) -> str:
        return f"synthetic: IID over {self.clients} clients"

    def owners(self, labels: Index, rng: np.random.Generator) -> Index:
        """The client of each row, shape (n,)."""
        owner = np.arange(len(labels), dtype=np.int64) % self.clients
        return rng.permutation(owner)


class Dirichlet(_Invented):
    """Label skew: each class is shared among the clients by a Dirichlet draw.

    Shares are drawn again until every client has ``min_examples`` (rejection keeps the law of the
    accepted partitions exact).
    """

    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(gt=0)
    """Concentration: small means a few clients hold nearly all of a class."""
    min_examples: int = Field(default=10, ge=0, json_schema_extra={"unit": "examples"})
    """Fewest examples that a client may get."""
    balanced: bool = True
    """Whether a client that has its equal share already gets nothing of the classes that follow
    (Li et al.); otherwise sizes vary more."""

    @property
    def description(self) -> str:
        return f"synthetic: Dirichlet({self.alpha:g}) label skew over {self.clients} clients"

    def owners(self, labels: Index, rng: np.random.Generator) -> Index:
        """The client of each row, shape (n,)."""
        counts = np.bincount(labels)
        for _ in range(_ATTEMPTS):
            quotas = self._quotas(counts, rng)
            if quotas.sum(axis=0).min() >= self.min_examples:
                return _deal(labels, quotas, rng)
        raise _impossible(f"no draw of {_ATTEMPTS} gave every client", self)

    def _quotas(self, counts: Index, rng: np.random.Generator) -> Index:
        fair = counts.sum() / self.clients
        sizes = np.zeros(self.clients, np.int64)
        quotas = np.zeros((len(counts), self.clients), np.int64)
        for label in np.flatnonzero(counts):
            shares = rng.dirichlet(np.full(self.clients, self.alpha))
            if self.balanced:
                shares = shares * (sizes < fair)
            total = shares.sum()
            # Tiny alpha can leave all the mass on clients that are full already.
            shares = shares / total if total > 0 else (sizes < fair) / (sizes < fair).sum()
            bounds = np.rint(np.cumsum(shares) * counts[label]).astype(np.int64)
            bounds[-1] = counts[label]
            quotas[label] = np.diff(bounds, prepend=0)
            sizes += quotas[label]
        return quotas


class EqualDirichlet(_Invented):
    """Label skew with equal sizes: each client draws its label shares from a Dirichlet law.

    Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification" (2019), section 3. Clients are served in a random order without replacement; a
    client whose classes are used up takes what is left in proportion to its other shares.
    """

    kind: Literal["equal-dirichlet"] = "equal-dirichlet"
    alpha: float = Field(gt=0, json_schema_extra={"unit": "concentration"})
    """Concentration: small means that a client holds few classes."""

    @property
    def description(self) -> str:
        return (
            f"synthetic: Dirichlet({self.alpha:g}) label shares, "
            f"{self.clients} clients of equal size"
        )

    def owners(self, labels: Index, rng: np.random.Generator) -> Index:
        """The client of each row, shape (n,)."""
        left = np.bincount(labels)
        quotas = np.zeros((len(left), self.clients), np.int64)
        shares = rng.dirichlet(np.full(len(left), self.alpha), self.clients)
        sizes = np.full(self.clients, len(labels) // self.clients)
        sizes[: len(labels) % self.clients] += 1
        if sizes.min() < self.min_examples:
            raise _impossible("equal sizes do not give every client", self)
        for client in rng.permutation(self.clients):
            while (wanted := sizes[client] - quotas[:, client].sum()) > 0:
                # A share of 0 can remain where nothing else is left; then classes count alike.
                weights = np.where(left > 0, shares[client], 0.0)
                weights = weights if weights.sum() > 0 else (left > 0).astype(float)
                drawn = rng.multinomial(wanted, weights / weights.sum())
                taken = np.minimum(drawn, left)
                quotas[:, client] += taken
                left -= taken
        return _deal(labels, quotas, rng)


class Labels(_Invented):
    """Label skew: every client holds ``k`` of the classes, each split equally among its holders."""

    kind: Literal["labels"] = "labels"
    k: int = Field(ge=1, json_schema_extra={"unit": "labels"})
    """Different labels a client has."""

    @property
    def description(self) -> str:
        return f"synthetic: {self.k} label(s) a client over {self.clients} clients"

    def owners(self, labels: Index, rng: np.random.Generator) -> Index:
        """The client of each row, shape (n,); the holders of a class differ by one row at most."""
        counts = np.bincount(labels)
        classes = np.flatnonzero(counts)
        if self.k > len(classes) or self.clients * self.k < len(classes):
            raise _impossible(
                f"{self.clients} clients with {self.k} of {len(classes)} labels cannot hold all "
                "rows, or there are not so many labels, so that",
                self,
            )
        holds = np.zeros((len(counts), self.clients), np.bool_)
        # Labels are dealt from shuffled decks, so that every label has a holder.
        deck: list[int] = []
        for client in range(self.clients):
            for _ in range(self.k):
                deck = deck or rng.permutation(classes).tolist()
                fresh = next((label for label in deck if not holds[label, client]), None)
                if fresh is None:
                    deck += rng.permutation(classes).tolist()
                    fresh = next(label for label in deck if not holds[label, client])
                deck.remove(fresh)
                holds[fresh, client] = True
        quotas = np.zeros(holds.shape, np.int64)
        for label in classes:
            holders = rng.permutation(np.flatnonzero(holds[label]))
            quotas[label, holders] = counts[label] // len(holders)
            quotas[label, holders[: counts[label] % len(holders)]] += 1
        return _deal(labels, quotas, rng)


class Quantity(_Invented):
    """Size skew: client sizes follow one Dirichlet draw, labels are dealt at random."""

    kind: Literal["quantity"] = "quantity"
    alpha: float = Field(gt=0)
    """Concentration: small means that sizes differ much."""

    @property
    def description(self) -> str:
        return f"synthetic: Dirichlet({self.alpha:g}) sizes over {self.clients} clients"

    def owners(self, labels: Index, rng: np.random.Generator) -> Index:
        """The client of each row, shape (n,)."""
        free = len(labels) - self.clients * self.min_examples
        if free < 0:
            raise _impossible("there are too few rows to give every client", self)
        shares = rng.dirichlet(np.full(self.clients, self.alpha))
        bounds = np.rint(np.cumsum(shares) * free).astype(np.int64)
        bounds[-1] = free
        sizes = np.diff(bounds, prepend=0) + self.min_examples
        return rng.permutation(np.repeat(np.arange(self.clients, dtype=np.int64), sizes))


Invented: TypeAlias = IID | Dirichlet | EqualDirichlet | Labels | Quantity
Partition: TypeAlias = Annotated[
    NaturalKey | IID | Dirichlet | EqualDirichlet | Labels | Quantity,
    Field(discriminator="kind"),
]
"""Any partition, told apart by ``kind``."""


TEN_IID = IID(clients=10)
"""What a source without natural clients gets when a plan says nothing."""


def assign(
    partition: Invented,
    y: NDArray[np.generic],
    rng: np.random.Generator,
    subjects: NDArray[np.int64] | None = None,
) -> Assignment:
    """Divide rows among invented clients; the rows of a subject stay together.

    Args:
        partition: how.
        y: targets, shape (n,); numbers of a regression are cut into ten quantile bins.
        rng: public generator.
        subjects: person of each row, shape (n,); none when every row is a person of its own.

    Raises:
        AnabranchError: AB-220 when the partition cannot be made from these rows.
    """
    labels = _labels(y)
    if subjects is None:
        return _checked(
            partition, Assignment.by_owner(partition.owners(labels, rng), partition.clients)
        )
    first, person = np.unique(subjects, return_index=True, return_inverse=True)[1:]
    owner = partition.owners(labels[first], rng)[person]
    return _checked(partition, Assignment.by_owner(owner, partition.clients))


def _labels(y: NDArray[np.generic]) -> Index:
    if np.issubdtype(y.dtype, np.integer):
        return y.astype(np.int64)
    values = y.astype(np.float64)
    edges = np.quantile(values, np.linspace(0, 1, 11)[1:-1]) if len(values) else values
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _deal(labels: Index, quotas: Index, rng: np.random.Generator) -> Index:
    """Give the rows of each label to clients at random, ``quotas[label, client]`` to each."""
    owner = np.empty(len(labels), np.int64)
    everyone = np.arange(quotas.shape[1], dtype=np.int64)
    for label in np.flatnonzero(quotas.sum(axis=1)):
        owner[labels == label] = rng.permutation(np.repeat(everyone, quotas[label]))
    return owner


def _checked(partition: Invented, assignment: Assignment) -> Assignment:
    if assignment.counts.min() < partition.min_examples:
        raise _impossible("there are too few rows to give every client", partition)
    return assignment


def _impossible(why: str, partition: Invented) -> AnabranchError:
    return AnabranchError(
        "AB-220",
        f"the partition '{partition.description}' cannot be made: {why} "
        f"{partition.min_examples} example(s).",
        fix="use fewer clients, a larger alpha, more labels a client, or a smaller min_examples.",
    )
