"""Who takes part in a served run, and how many rows each has: all that is known of their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from anabranch.client.equipment import Equipment
from anabranch.data.federation import Card, Federation, Ragged
from anabranch.plan import Plan
from anabranch.updates.sections import Update
from anabranch.values import Value

__all__ = ["Members", "shape_of"]


class Members(Value):
    """The sites of a run in the order of their client numbers.

    Attributes:
        names: identifiers.
        counts: training and test rows of each; zeros for one that did not answer.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, names: tuple[str, ...], answers: Mapping[int, Update]) -> Members:
        """From what sites told of their examples, by client number."""
        told = [answers.get(client) for client in range(len(names))]
        counts = tuple(
            (int(u.scalars["train_rows"]), int(u.scalars["test_rows"])) if u else (0, 0)
            for u in told
        )
        return cls(names=names, counts=counts)

    def federation(self, plan: Plan, equipment: Equipment) -> Federation:
        """A stand-in that knows how many rows everybody has, and holds none of them."""
        preprocessor = equipment.preprocessor
        card = Card(
            name=plan.data.source,
            title="Data of the sites",
            origin=f"{len(self.names)} site(s)",
            licence="the sites' own",
            citation="",
            partition="natural",
            sha256="",
            personal=True,
        )
        test = [count for _, count in self.counts]
        return Federation(
            names=self.names,
            train=_counted([count for count, _ in self.counts], equipment),
            test=_counted(test, equipment) if any(test) else None,
            card=card,
            classes=equipment.classes,
            features=preprocessor.features if preprocessor is not None else (),
        )


def shape_of(update: Update) -> tuple[int, ...]:
    """The shape of one example, as a site told it."""
    axes = int(update.scalars["axes"])
    return tuple(int(n) for n in update.vectors["shape"][:axes])


def _counted(counts: Sequence[int], equipment: Equipment) -> Ragged:
    """Offsets as if the rows were there, and one row of zeros that checks may look at."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    kind = np.int64 if equipment.classes else np.float32
    x = np.zeros((1, *equipment.input_shape), np.float32)
    return Ragged(x, np.zeros(1, kind), offsets)
