"""The contract of two-phase client states: after any crash, exactly the last durable memory.

Subclass `StatesContract`, say how to open the states, and run it with pytest::

    class TestMyStates(StatesContract):
        def open_states(self, path, clients, length, faults):
            return MyStates(path, clients, length, faults=faults)
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.client.states import SlotFile
from anabranch.disk import Faults, no_faults
from anabranch.updates.sections import Vector

__all__ = ["ClientStates", "StatesContract"]

_CLIENTS = 3
_LENGTH = 5

_STEPS = (
    *("write", "write", "promote", "promote", "discard", "commit"),
    *("crash", "torn", "uncommitted", "unswitched"),
)

Step: TypeAlias = tuple[str, int]


class ClientStates(Protocol):
    """What a coordinator needs from the memory of simulated clients."""

    def read(self, client: int) -> Vector | None: ...
    def write_pending(self, client: int, vector: Vector) -> None: ...
    def promote(self, client: int) -> None: ...
    def discard(self, client: int) -> None: ...
    def durable(self) -> Mapping[int, int]: ...
    def sync(self) -> None: ...
    def committed(self) -> None: ...
    def restore(self, slots: Mapping[int, int]) -> None: ...
    def close(self) -> None: ...


class _TornError(Exception):
    """Stands for a process that dies in the middle of a write."""


class _TearWrites:
    """Dies half-way through each write while armed."""

    armed = False

    def reach(self, point: str) -> None:
        if self.armed and point == "slots.write.half":
            raise _TornError


class _Model:
    """The obvious implementation: three dictionaries."""

    def __init__(self) -> None:
        self.durable: dict[int, float] = {}
        self.current: dict[int, float] = {}
        self.pending: dict[int, float] = {}

    def crash(self) -> None:
        self.current, self.pending = dict(self.durable), {}


class StatesContract:
    """Every implementation of two-phase client states passes these tests."""

    def open_states(self, path: Path, clients: int, length: int, faults: Faults) -> ClientStates:
        """Open (or reopen) the states in file ``path``."""
        return SlotFile(path, clients, length, faults=faults)

    def test_starts_empty(self, tmp_path: Path) -> None:
        states = self.open_states(tmp_path / "s", 4, 2, no_faults)
        assert [states.read(client) for client in range(4)] == [None] * 4
        assert dict(states.durable()) == {}
        states.close()

    def test_pending_is_invisible_until_promoted(self, tmp_path: Path) -> None:
        states = self.open_states(tmp_path / "s", 2, 2, no_faults)
        states.write_pending(0, _vector(1.0, 2))
        assert states.read(0) is None
        states.promote(0)
        states.write_pending(0, _vector(2.0, 2))
        assert _value(states.read(0)) == 1.0
        states.discard(0)
        states.discard(0)
        assert _value(states.read(0)) == 1.0
        states.close()

    def test_promote_needs_something_pending(self, tmp_path: Path) -> None:
        states = self.open_states(tmp_path / "s", 2, 2, no_faults)
        with pytest.raises(ValueError):
            states.promote(1)
        states.close()

    def test_task_open_across_a_commit(self, tmp_path: Path) -> None:
        """A worker's slot stays its own when a commit happens while it trains."""
        states = self.open_states(tmp_path / "s", 1, 2, no_faults)
        for value in (1.0, 2.0):
            states.write_pending(0, _vector(value, 2))
            states.promote(0)
        states.write_pending(0, _vector(3.0, 2))
        states.sync()
        slots = dict(states.durable())
        states.committed()
        assert dict(states.durable()) == {}
        states.promote(0)
        assert _value(states.read(0)) == 3.0
        states.restore(slots)
        assert _value(states.read(0)) == 2.0
        states.close()

    @settings(max_examples=150, deadline=None)
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(_STEPS),
                st.integers(0, _CLIENTS - 1),
            ),
            max_size=60,
        )
    )
    def test_agrees_with_dictionaries(self, steps: list[Step]) -> None:
        """Any history with crashes, also inside writes and on both sides of the commit."""
        with tempfile.TemporaryDirectory() as folder:
            history = _History(self, Path(folder) / "s")
            for number, (what, client) in enumerate(steps):
                history.step(what, client, float(number + 1))
                history.check()
            history.crash()
            history.check()
            history.states.close()


class _History:
    """Drives states and model side by side; ``slots`` plays the database."""

    def __init__(self, suite: StatesContract, path: Path) -> None:
        self.suite, self.path, self.faults = suite, path, _TearWrites()
        self.slots: dict[int, int] = {}
        self.model = _Model()
        self.states = suite.open_states(path, _CLIENTS, _LENGTH, self.faults)

    def step(self, what: str, client: int, value: float) -> None:
        model = self.model
        if what == "write":
            self.states.write_pending(client, _vector(value, _LENGTH))
            model.pending[client] = value
        elif what == "promote" and client in model.pending:
            self.states.promote(client)
            model.current[client] = model.pending.pop(client)
        elif what == "discard":
            self.states.discard(client)
            model.pending.pop(client, None)
        elif what in ("commit", "uncommitted", "unswitched"):
            self.commit(until=what)
        elif what == "torn":
            self.faults.armed = True
            with pytest.raises(_TornError):
                self.states.write_pending(client, _vector(value, _LENGTH))
            self.faults.armed = False
            self.crash()
        elif what == "crash":
            self.crash()

    def commit(self, until: str) -> None:
        """Sync, commit, switch; or die before the commit, or after it and before the switch."""
        self.states.sync()
        if until == "uncommitted":
            return self.crash()
        self.slots.update(self.states.durable())
        self.model.durable = dict(self.model.current)
        if until == "unswitched":
            return self.crash()
        self.states.committed()
        return None

    def crash(self) -> None:
        self.states.close()
        self.model.crash()
        self.states = self.suite.open_states(self.path, _CLIENTS, _LENGTH, self.faults)
        self.states.restore(self.slots)

    def check(self) -> None:
        for client in range(_CLIENTS):
            assert _value(self.states.read(client)) == self.model.current.get(client)


def _vector(value: float, length: int) -> Vector:
    return np.full(length, value, np.float32)


def _value(vector: Vector | None) -> float | None:
    """The one number that a vector of the contract repeats."""
    if vector is None:
        return None
    assert len(set(vector.tolist())) == 1, "a torn state was read"
    return float(vector[0])
