"""Small federations on drawn rows, and their simulated runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.run import Run
from anabranch.coordinator.events import Event
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.plan import Plan


def on_drawn_rows(names: Sequence[str], tables: Mapping[str, object]) -> Prepared:
    """A plan on three classes; each client has four rows more than the one before it."""
    draw = np.random.default_rng(3)
    clients = {}
    for client, name in enumerate(names):
        x = draw.normal(size=(10 + 4 * client, 5)).astype(np.float32)
        clients[name] = (x, (np.arange(len(x)) % 3).astype(np.int64))
    federation = Federation.from_arrays(clients, test=clients, holdout=clients[names[0]])
    return prepare(Plan.model_validate(tables), federation)


def silent(event: Event) -> None:
    """Nobody listens."""


def simulated(made: Prepared, path: Path) -> Run:
    """A run of it in this process, in a store of its own."""
    with Store.open(path) as store:
        run = store.create_run(new_record(made))
        return conduct(made, store, run, silent)
