"""What every contestant hands back: seconds of each round and the final parameters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """A contestant's run.

    Attributes:
        seconds: shape (rounds,): wall time of each round.
        final: final parameters, flat, in PyTorch's order (`benchmarks.models.flat`).
        start_up: seconds from the start of the contestant's own work to its first round.
        cores: processes or threads that compute.
        versions: name and version of what was measured, for people.
    """

    seconds: NDArray[np.float64]
    final: NDArray[np.float32]
    start_up: float = 0.0
    cores: int = 1
    versions: str = ""

    def write(self, path: Path) -> None:
        """Store it for the parent process; a half-written file is never seen."""
        part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
        np.savez(
            part,
            seconds=self.seconds,
            final=self.final,
            start_up=self.start_up,
            cores=self.cores,
            versions=self.versions,
        )
        part.replace(path)

    @staticmethod
    def read(path: Path) -> Outcome:
        """What `write` stored."""
        with np.load(path) as stored:
            return Outcome(
                stored["seconds"],
                stored["final"],
                float(stored["start_up"]),
                int(stored["cores"]),
                str(stored["versions"]),
            )
