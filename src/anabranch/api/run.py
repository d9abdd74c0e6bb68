"""`Run`: what a finished run gives back, in Python and in a notebook."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from anabranch.coordinator.events import LimitCheck
from anabranch.coordinator.store import Store, StoredRound
from anabranch.disk import TEMPORARY, explained
from anabranch.learners.base import Learner
from anabranch.updates.sections import Vector

__all__ = ["Baseline", "Run"]

_OS_ERROR: Final = re.compile(r"os error (\d+)")


@dataclass(frozen=True)
class Baseline:
    """A comparison: the same model trained without the federation.

    Attributes:
        name: ``local-only`` or ``pooled``.
        metrics: over all clients' test examples.
        clients: metrics of each client.
    """

    name: str
    metrics: Mapping[str, float]
    clients: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        id: its name in the store.
        store: the folder of the store.
        status: ``complete``, ``stopped`` or ``failed``.
        reason: why it ended.
        rounds: rounds done.
        seconds: wall time of this call.
        metrics: of the last evaluation.
        clients: the last metrics of each client.
        limits: the plan's limits and whether they were met.
        baselines: comparisons that the plan asked for.
        learner: trains and predicts with the model.
        vector: the final model as one flat float32 vector.
        personal: the same with each client's own local parameters, by client; empty when
            everything is averaged.
    """

    id: str
    store: Path
    status: str
    reason: str
    rounds: int
    seconds: float
    metrics: Mapping[str, float]
    clients: Mapping[str, Mapping[str, float]]
    limits: tuple[LimitCheck, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    learner: Learner = field(repr=False, kw_only=True)
    vector: Vector = field(repr=False, kw_only=True)
    personal: Mapping[str, Vector] = field(default_factory=dict, repr=False, kw_only=True)

    @property
    def history(self) -> list[StoredRound]:
        """Every round as it was stored: outcome, metrics, phases, per-client columns."""
        with Store.open(self.store) as store:
            return list(store.rounds(self.id))

    def parameters(self, client: str | None = None) -> dict[str, Vector]:
        """The final model by parameter name, in logical shapes; with a client's own local part."""
        views = self.learner.layout.views(self._vector_of(client))
        return {name: np.array(view) for name, view in views.items()}

    def model(self, client: str | None = None) -> object:
        """The final model: a PyTorch module where the learner is PyTorch's, else `parameters`.

        Args:
            client: with the local parameters of this client (models that keep some at home).
        """
        build = getattr(self.learner, "module", None)
        return build(self._vector_of(client)) if build is not None else self.parameters(client)

    def _vector_of(self, client: str | None) -> Vector:
        return self.vector if client is None else self.personal.get(client, self.vector)

    def save(self, path: str | Path) -> Path:
        """Write the final model as safetensors, with its own names and shapes; returns the path.

        Raises:
            AnabranchError: AB-602, AB-603, AB-613 from the disk; what was there before is intact.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        path = Path(path)
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        tensors = {name: np.ascontiguousarray(v) for name, v in self.parameters().items()}
        with explained(path, "writing the model"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file(tensors, temporary)
                os.replace(temporary, path)
            except SafetensorError as error:  # it tells the system's number in its text only
                number = _OS_ERROR.search(str(error))
                raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
            finally:
                temporary.unlink(missing_ok=True)
        return path

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report (needs the extra ``report``); returns its path."""
        from anabranch.observe.report import write_report

        target = Path(path) if path is not None else self.store / f"{self.id}.html"
        with Store.open(self.store) as store:
            return write_report(store, self.id, target)

    @property
    def limits_met(self) -> bool:
        """Whether every limit of the plan was kept."""
        return all(limit.met for limit in self.limits)
