"""Everything that a run must remember between rounds, as arrays for the store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace

import numpy as np

from anabranch.algorithms.base import Broadcast, ServerState
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import Arrays
from anabranch.fleet.history import FleetHistory

__all__ = ["OpenTask", "RunState"]

_SERVER = "server."
_PROGRESS = "progress."
_HISTORY = "history."
_OPEN = "open."
_VERSION = "version."
_EXTRA = "extra."


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task that a later round may still merge.

    Attributes:
        draw: number of the dispatch; it names the piece of work.
        round: the model version that was to be made when it was given out.
        at: when that was, on the runtime's clock.
        client: number of the client.
        fraction: share of the planned local work that is asked.
        limit: seconds that the client was given; inf without a limit.
        bytes_down: of its download, as it was encoded.
        update_bytes: most bytes of its update; 0 where its program says so.
    """

    draw: int
    round: int
    at: float
    client: int
    fraction: float = 1.0
    limit: float = math.inf
    bytes_down: int = 0
    update_bytes: int = 0


@dataclass(frozen=True)
class RunState:
    """The state after a round.

    Attributes:
        round: number of the last round, failed ones included; 0 before the first.
        server: the algorithm's state.
        progress: what the stop rules remember.
        history: what clients showed; None where nothing is predicted from it.
        draws: dispatches so far; the next one derives its generators from the next number.
        clock: the runtime's clock when the round was closed; simulated devices go on from it.
        open: tasks that a later round may still merge.
        versions: broadcasts that open tasks refer to, by their round.
        extra: the state of simulated devices, by name; empty without them.
    """

    round: int
    server: ServerState
    progress: Progress
    history: FleetHistory | None = None
    draws: int = 0
    clock: float = 0.0
    open: tuple[OpenTask, ...] = ()
    versions: Mapping[int, Broadcast] = field(default_factory=dict)
    extra: Arrays = field(default_factory=dict)

    def for_clients(self, clients: int) -> RunState:
        """The same state for a fleet that has grown: a run was amended to more sites."""
        if self.history is None:
            return self
        return replace(self, history=self.history.for_clients(clients))

    def arrays(self) -> dict[str, np.ndarray]:
        """For the store; the inverse of `from_arrays`."""
        arrays = {_SERVER + name: value for name, value in self.server.arrays().items()}
        for name, value in zip(_progress_names(), astuple(self.progress), strict=True):
            arrays[_PROGRESS + name] = np.array([value], np.float64)
        arrays["draws"] = np.array([self.draws], np.int64)
        arrays["clock"] = np.array([self.clock], np.float64)
        if self.history is not None:
            arrays |= {_HISTORY + name: v for name, v in self.history.arrays().items()}
        if self.open:
            arrays |= _of_open(self.open)
        for round_, broadcast in self.versions.items():
            arrays |= {f"{_VERSION}{round_}.{name}": v for name, v in broadcast.items()}
        return arrays | {_EXTRA + name: np.asarray(v) for name, v in self.extra.items()}

    @staticmethod
    def from_arrays(round_: int, kind: type[ServerState], arrays: Arrays) -> RunState:
        """The state of ``round_`` as the store returned it."""
        numbers = {name: float(arrays[_PROGRESS + name][0]) for name in _progress_names()}
        whole = {f.name for f in fields(Progress) if f.type == "int"}
        progress = Progress(**{k: int(v) if k in whole else v for k, v in numbers.items()})  # type: ignore[arg-type]  # every field is an int or a float
        history = _under(_HISTORY, arrays)
        return RunState(
            round_,
            kind.from_arrays(_under(_SERVER, arrays)),
            progress,
            history=FleetHistory.from_arrays(history) if history else None,
            draws=int(arrays["draws"][0]),
            clock=float(arrays["clock"][0]),
            open=_open_of(_under(_OPEN, arrays)),
            versions=_versions_of(_under(_VERSION, arrays)),
            extra=_under(_EXTRA, arrays),
        )


def _under(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _of_open(tasks: Sequence[OpenTask]) -> dict[str, np.ndarray]:
    columns = zip(*(astuple(task) for task in tasks), strict=True)
    return {
        _OPEN + f.name: np.array(column, np.int64 if f.type == "int" else np.float64)
        for f, column in zip(fields(OpenTask), columns, strict=True)
    }


def _open_of(columns: Mapping[str, np.ndarray]) -> tuple[OpenTask, ...]:
    if not columns:
        return ()
    rows = zip(*(columns[f.name].tolist() for f in fields(OpenTask)), strict=True)
    return tuple(OpenTask(*row) for row in rows)


def _versions_of(arrays: Mapping[str, np.ndarray]) -> dict[int, Broadcast]:
    versions: dict[int, Broadcast] = {}
    for key, value in arrays.items():
        number, _, name = key.partition(".")
        versions[int(number)] = {**versions.get(int(number), {}), name: value}
    return versions


def _progress_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Progress))
