"""The benchmark items A-D: the same data, cohorts, order and initial parameters for everybody.

Fashion-MNIST scaled to [0, 1], label-skewed Dirichlet(0.3) for each class, at least 8 examples a
client. Clients' examples lie in a fixed order, the cohort of every round is fixed, nothing is
shuffled, so every contestant computes the same function and final parameters can be compared.

    python -m benchmarks.items        build the cache and print the table
"""

from __future__ import annotations

import argparse
import gzip
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["BATCH", "ITEMS", "LEARNING_RATE", "Item", "Work", "load_initial", "load_work"]

SOURCE = Path("/usr/share/datasets/fashion-mnist")
CACHE = Path(__file__).parent / "cache"
SEED = 37  # chosen: rounding is hardly amplified in item B (README)
ROUNDS = 20
BATCH = 32
LEARNING_RATE = 0.05
SKEW = 0.3
SMALLEST = 8


@dataclass(frozen=True)
class Item:
    """One benchmark item.

    Attributes:
        name: A, B, C or D.
        clients: number of clients.
        cohort: clients a round.
        model: name in `benchmarks.models`.
        flops: floating-point operations an example (forward and backward).
        rounds: rounds of a timed run.
        warm_up: rounds at the start that are not counted.
        equal_rounds: rounds after which parameters are compared with the plain script's.
        tolerance: largest absolute difference allowed then.
        threads: threads of the plain script and of the tuned loop.
        chaotic: within one round rounding grows so much that equality is also judged after a round
            of one step a client.
    """

    name: str
    clients: int
    cohort: int
    model: str
    flops: int
    rounds: int = ROUNDS
    warm_up: int = 3
    equal_rounds: int = ROUNDS
    tolerance: float = 1e-4
    threads: int = 1
    chaotic: bool = False


ITEMS = {
    item.name: item
    for item in (
        Item("A", 100, 10, "logistic", 31_360),
        Item("B", 100, 10, "mlp", 639_200),
        Item("C", 100, 10, "cnn", 72_384_512, 3, 1, 1, 1e-6, 2, chaotic=True),
        Item("D", 1000, 100, "logistic", 31_360),
    )
}


@dataclass(frozen=True)
class Work:
    """The data of an item.

    Attributes:
        x: shape (60000, 784), float32 in [0, 1], clients back to back.
        y: shape (60000,), int64.
        offsets: client i owns rows offsets[i]:offsets[i + 1].
        cohorts: shape (rounds, cohort): client numbers in the order they are visited.
        test_x, test_y: the 10,000 test examples.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    offsets: NDArray[np.int64]
    cohorts: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Examples of each client."""
        return np.diff(self.offsets)

    def first_batches(self) -> Work:
        """The same clients with one batch each, so that a round is one step."""
        counts = np.minimum(self.counts, BATCH)
        rows = np.concatenate(
            [np.arange(a, a + n) for a, n in zip(self.offsets, counts, strict=False)]
        )
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return replace(self, x=self.x[rows], y=self.y[rows], offsets=offsets)

    def examples_a_round(self) -> NDArray[np.int64]:
        """Examples trained on in each round."""
        return np.asarray(self.counts[self.cohorts].sum(1))

    def steps_a_round(self) -> NDArray[np.int64]:
        """SGD steps taken in each round."""
        return np.asarray((-(-self.counts // BATCH))[self.cohorts].sum(1))


def load_work(item: Item) -> Work:
    """The data of ``item``, built on first use.

    Raises:
        FileNotFoundError: the Debian package with the images is not installed.
    """
    path = CACHE / f"fashion-{item.clients}.npz"
    if not path.exists():
        _write(path, _build(item.clients, item.cohort))
    with np.load(path) as stored:
        return Work(
            x=stored["x"].astype(np.float32) / np.float32(255),
            y=stored["y"].astype(np.int64),
            offsets=stored["offsets"],
            cohorts=stored["cohorts"],
            test_x=stored["test_x"].astype(np.float32) / np.float32(255),
            test_y=stored["test_y"].astype(np.int64),
        )


def load_initial(item: Item) -> NDArray[np.float32]:
    """Initial parameters of ``item``'s model in PyTorch's order, built on first use."""
    path = CACHE / f"initial-{item.model}.npz"
    if not path.exists():
        from benchmarks import models  # the peers' environments need not have the same PyTorch

        _write(path, {"vector": models.initial(item.model)})
    with np.load(path) as stored:
        return np.asarray(stored["vector"], dtype=np.float32)


def partition(
    labels: NDArray[np.uint8], clients: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Row numbers of each client: every class dealt by its own Dirichlet draw, in mixed order."""
    owned: list[list[int]] = [[] for _ in range(clients)]
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(rng.dirichlet(np.full(clients, SKEW)))[:-1]
        for client, part in enumerate(np.split(rows, (shares * len(rows)).astype(np.int64))):
            owned[client] += part.tolist()
    for small in owned:
        while len(small) < SMALLEST:
            small.append(max(owned, key=len).pop())
    return [rng.permutation(np.array(rows, dtype=np.int64)) for rows in owned]


def cohort_of(clients: int, cohort: int, number: int) -> tuple[int, ...]:
    """Clients of round ``number``: those that Anabranch draws from the public seed."""
    from anabranch.fleet.selection import select_uniform  # the peers' environments lack it
    from anabranch.randomness import generator

    return select_uniform(clients, cohort, generator(SEED, "cohort", number))


def _build(clients: int, cohort: int) -> dict[str, NDArray[np.generic]]:
    images, labels = _images("train"), _labels("train")
    parts = partition(labels, clients, np.random.default_rng([SEED, clients]))
    order = np.concatenate(parts)
    return {
        "x": images[order],
        "y": labels[order],
        "offsets": np.concatenate([[0], np.cumsum([len(part) for part in parts])]),
        "cohorts": np.array([cohort_of(clients, cohort, n) for n in range(1, ROUNDS + 1)]),
        "test_x": _images("t10k"),
        "test_y": _labels("t10k"),
    }


def _read(name: str, header: int) -> NDArray[np.uint8]:
    path = SOURCE / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: install the Debian package dataset-fashion-mnist "
            "(apt-get install dataset-fashion-mnist)."
        )
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header)


def _images(split: str) -> NDArray[np.uint8]:
    return _read(f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 784)


def _labels(split: str) -> NDArray[np.uint8]:
    return _read(f"{split}-labels-idx1-ubyte.gz", 8)


def _write(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez(part, allow_pickle=False, **arrays)
    part.replace(path)


def main() -> None:
    """Build the cache and print what each item is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", default="A,B,C,D", help="comma-separated (default: all)")
    for name in parser.parse_args().items.split(","):
        item = ITEMS[name]
        work, vector = load_work(item), load_initial(item)
        examples, counts = work.examples_a_round(), work.counts
        print(
            f"{name}: {item.clients} clients (examples {counts.min()} / {np.median(counts):.0f} / "
            f"{counts.max()}), cohort {item.cohort}, {item.model} ({len(vector):,} parameters), "
            f"examples a round {np.median(examples):,.0f} ({examples.min():,}-{examples.max():,}), "
            f"steps a round {np.median(work.steps_a_round()):.0f}, "
            f"{np.median(examples) * item.flops / 1e9:.3f} GFLOP a round"
        )


if __name__ == "__main__":
    main()
