"""Data ready for learning: arrays of all clients back to back, cut by offsets.

100,000 clients are two arrays and a list of offsets; a client's examples are views, so memory stays
flat and worker processes share the pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.data.arrays import Pair, clean_pair, count_classes, pairs_of, require_alike
from anabranch.errors import AnabranchError

__all__ = ["Card", "Examples", "Federation", "Ragged"]


@dataclass(frozen=True, slots=True)
class Examples:
    """Features and targets of some examples.

    Attributes:
        x: shape (n, ...), float32 (or integer tokens).
        y: shape (n,), int64 class indices, or float32 values for regression.
        subjects: person of each example, shape (n,); None when every example is a person of its
            own, or nothing is known of persons.
    """

    x: NDArray[np.generic]
    y: NDArray[np.generic]
    subjects: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Ragged:
    """Examples of many clients back to back: client i owns rows offsets[i]:offsets[i + 1]."""

    x: NDArray[np.generic]
    y: NDArray[np.generic]
    offsets: NDArray[np.int64]
    subjects: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, client: int) -> Examples:
        """The examples of client number ``client`` (views)."""
        rows = slice(int(self.offsets[client]), int(self.offsets[client + 1]))
        subjects = None if self.subjects is None else self.subjects[rows]
        return Examples(self.x[rows], self.y[rows], subjects)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Examples of each client."""
        return np.diff(self.offsets)

    @staticmethod
    def stack(parts: Sequence[Examples]) -> Ragged:
        """Concatenate one `Examples` per client."""
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        x = np.concatenate([part.x for part in parts])
        y = np.concatenate([part.y for part in parts])
        known = [part.subjects for part in parts if part.subjects is not None]
        subjects = np.concatenate(known) if known and len(known) == len(parts) else None
        return Ragged(np.ascontiguousarray(x), np.ascontiguousarray(y), offsets, subjects)


@dataclass(frozen=True)
class Card:
    """Where data come from: printed with every run and report.

    Attributes:
        name: identifier of the source.
        title: one line for people.
        origin: who made the data and where they were published.
        licence: of the data.
        citation: how to cite.
        partition: ``natural`` (the clients are real) or ``synthetic: <how>``.
        sha256: of the bytes read.
        personal: whether rows describe persons.
        notes: known flaws, in sentences.
    """

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    partition: str
    sha256: str
    personal: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Federation:
    """A federation's data, preprocessed: what a simulation runs on.

    Attributes:
        names: client identifiers, in the order of client numbers.
        train: training examples by client.
        test: held-out examples by client, or None.
        holdout: global held-out examples at the coordinator, or None.
        card: provenance.
        classes: number of classes; 0 for regression.
        features: names of the input columns, when the data are a table.
        vocabulary: tokens of a text source, in the order of their numbers.
    """

    names: tuple[str, ...]
    train: Ragged
    test: Ragged | None = None
    holdout: Examples | None = None
    card: Card | None = None
    classes: int = 0
    features: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.train):
            raise ValueError(f"{len(self.names)} names for {len(self.train)} clients")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.x.shape[1:])

    def digest(self) -> str:
        """SHA-256 over every array and name: a run resumes only on the data it started with."""
        digest = hashlib.sha256(repr(self.names).encode())
        ragged = [part for part in (self.train, self.test) if part is not None]
        arrays = [array for part in ragged for array in (part.x, part.y, part.offsets)]
        if self.holdout is not None:
            arrays += [self.holdout.x, self.holdout.y]
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @staticmethod
    def from_arrays(
        clients: Mapping[str, tuple[NDArray[np.generic], NDArray[np.generic]]],
        *,
        test: Mapping[str, tuple[NDArray[np.generic], NDArray[np.generic]]] | None = None,
        holdout: tuple[NDArray[np.generic], NDArray[np.generic]] | None = None,
    ) -> Federation:
        """A federation from ``{"client": (X, y), ...}``.

        Integer targets mean classification, floating ones regression.

        Raises:
            AnabranchError: AB-201 no clients, AB-202 lengths differ, AB-203 shapes differ between
                clients, AB-204 values that are not finite, AB-225 not arrays of numbers, AB-226
                integer and floating targets, AB-227 labels that are not classes, AB-228 test
                examples of a client that is not there.
        """
        parts = pairs_of(clients)
        tests = pairs_of(test) if test else {}
        held = {"the hold-out": clean_pair("the hold-out", holdout)} if holdout is not None else {}
        _require_known(parts, tests)
        everything = {f"client {name!r}": pair for name, pair in parts.items()}
        everything |= {f"the test of client {name!r}": pair for name, pair in tests.items()} | held
        require_alike(everything)
        x, y = next((pair for pair in parts.values() if len(pair[1])), next(iter(parts.values())))
        nothing = (x[:0], y[:0])  # of the right kind, whatever an empty list was taken for
        tested = [tests.get(name, nothing) for name in parts]
        return Federation(
            names=tuple(parts),
            train=_stacked(parts.values(), nothing),
            test=_stacked(tested, nothing) if tests else None,
            holdout=Examples(*held["the hold-out"]) if held else None,
            classes=count_classes(everything),
        )


def _stacked(pairs: Iterable[Pair], nothing: Pair) -> Ragged:
    return Ragged.stack([Examples(*(pair if len(pair[1]) else nothing)) for pair in pairs])


def _require_known(clients: Mapping[str, Pair], tests: Mapping[str, Pair]) -> None:
    unknown = [name for name in tests if name not in clients]
    if unknown:
        raise AnabranchError(
            "AB-228",
            f"there are test examples for {unknown[0]!r}, which is not among the clients.",
            fix="use the same names in test and clients.",
        )
