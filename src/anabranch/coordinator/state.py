"""Everything that a run must remember between rounds, as arrays for the store."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np

from anabranch.algorithms.base import ServerState
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import Arrays

__all__ = ["RunState"]

_SERVER = "server."
_PROGRESS = "progress."


@dataclass(frozen=True)
class RunState:
    """The state after a round.

    Attributes:
        round: number of the last round, failed ones included; 0 before the first.
        server: the algorithm's state.
        progress: what the stop rules remember.
    """

    round: int
    server: ServerState
    progress: Progress

    def arrays(self) -> dict[str, np.ndarray]:
        """For the store; the inverse of `from_arrays`."""
        arrays = {_SERVER + name: value for name, value in self.server.arrays().items()}
        for name, value in zip(_progress_names(), astuple(self.progress), strict=True):
            arrays[_PROGRESS + name] = np.array([value], np.float64)
        return arrays

    @staticmethod
    def from_arrays(round_: int, kind: type[ServerState], arrays: Arrays) -> RunState:
        """The state of ``round_`` as the store returned it."""
        server = {k.removeprefix(_SERVER): v for k, v in arrays.items() if k.startswith(_SERVER)}
        numbers = {name: float(arrays[_PROGRESS + name][0]) for name in _progress_names()}
        whole = {f.name for f in fields(Progress) if f.type == "int"}
        progress = Progress(**{k: int(v) if k in whole else v for k, v in numbers.items()})  # type: ignore[arg-type]  # every field is an int or a float
        return RunState(round_, kind.from_arrays(server), progress)


def _progress_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Progress))
