"""What simulated clients remember between rounds: three slots a client in one sparse file.

A client's memory is *two-phase*: what it wrote in a round counts only once the round is merged, and
a merged round counts only once it is durable. Hence three slots a client:

- **durable**: named by the last committed row of the store; never overwritten;
- **current**: merged since; the same slot as durable after each commit;
- **pending**: written by a worker for an open task; `SlotFile.promote` makes it current,
  `SlotFile.discard` forgets it.

`SlotFile` is the bookkeeping, at the coordinator. `SlotMap` is the file as workers see it: they are
told which slot to read and which to write. Before each commit of the store the coordinator calls
`SlotFile.sync`, hands `SlotFile.durable` to the commit and then calls `SlotFile.committed`. A crash
between any two of these steps leaves each client with exactly its last durable memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anabranch.disk import (
    INTACT,
    Faults,
    disk_problem,
    explained,
    in_place_points,
    no_faults,
    sync_directory,
    write_in_place,
)
from anabranch.errors import AnabranchError
from anabranch.updates.sections import Vector

__all__ = ["SLOTS", "SLOT_POINTS", "SlotFile", "SlotMap"]

SLOTS: Final = 3
"""Slots a client: with durable and current taken, one is always free."""

SLOT_POINTS: Final = in_place_points("slots")
"""Fault points of this file."""

_HEADER: Final = struct.Struct("<8sqq")
_MAGIC: Final = b"ABSLOT01"
_START: Final = 4096
_ITEM: Final = 4


class SlotMap:
    """The file: ``clients * 3`` vectors of ``length`` float32; no bookkeeping, any process.

    Reads and writes are positioned system calls, not a memory map: a full disk is then an error
    instead of a fatal signal, and pages do not count as memory of every worker.

    Attributes:
        fresh: whether this object created the file and nothing in it was committed yet.

    Args:
        path: created sparse when absent.
        clients: number of clients N.
        length: float32 values a client.
        faults: see `anabranch.disk`.

    Raises:
        AnabranchError: AB-611 the file is of another shape, AB-602, AB-603 or AB-613 from the disk.
    """

    def __init__(
        self, path: Path, clients: int, length: int, *, faults: Faults = no_faults
    ) -> None:
        if clients < 1 or length < 1:
            raise ValueError("a slot file needs at least one client and one value")
        self.path, self.clients, self.length = Path(path), clients, length
        self.fresh = False
        self._faults = faults
        self._bytes = length * _ITEM
        with explained(self.path, "opening the client states"):
            self._descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            self._check_header()
            _lock(self._descriptor, exclusive=False)
        except BaseException:
            os.close(self._descriptor)
            raise

    def read(self, client: int, slot: int) -> Vector:
        """A copy of one slot, shape (length,); zeros when it was never written."""
        vector = np.empty(self.length, np.float32)
        offset = self._offset(client, slot)
        try:
            if os.preadv(self._descriptor, [vector.data], offset) != self._bytes:
                raise OSError(errno.EIO, "the file ends too early")
        except OSError as error:
            raise disk_problem(error, self.path, "reading a client state") from error
        return vector

    def write(self, client: int, slot: int, vector: Vector) -> None:
        """Overwrite one slot with ``vector``, shape (length,)."""
        if vector.shape != (self.length,) or vector.dtype != np.float32:
            raise ValueError(f"a client state is float32 of shape ({self.length},)")
        data, offset = np.ascontiguousarray(vector).data, self._offset(client, slot)
        try:
            write_in_place(self._descriptor, data, offset, "slots", self._faults)
        except OSError as error:
            raise disk_problem(error, self.path, "writing a client state") from error

    def sync(self) -> None:
        """Make every write of every process durable."""
        with explained(self.path, "syncing the client states"):
            self._faults.reach("slots.sync.before")
            os.fsync(self._descriptor)
            self._faults.reach("slots.sync.after")

    def wait_for_others(self, seconds: float) -> None:
        """Return once no other process has the file open.

        Raises:
            AnabranchError: AB-616 when somebody still has it after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not _lock(self._descriptor, exclusive=True):
            if time.monotonic() > deadline:
                _lock(self._descriptor, exclusive=False)
                raise AnabranchError(
                    "AB-616",
                    f"workers of an earlier coordinator still use {self.path}.",
                    fix="end the left-over worker processes of this run, then resume.",
                )
            time.sleep(0.02)
        _lock(self._descriptor, exclusive=False)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _offset(self, client: int, slot: int) -> int:
        if not (0 <= client < self.clients and 0 <= slot < SLOTS):
            raise IndexError(f"no slot {slot} of client {client}")
        return _START + (client * SLOTS + slot) * self._bytes

    def _check_header(self) -> None:
        wanted = _HEADER.pack(_MAGIC, self.clients, self.length)
        size = _START + self.clients * SLOTS * self._bytes
        with explained(self.path, "preparing the client states"):
            found = os.pread(self._descriptor, _HEADER.size, 0)
            if found == wanted and os.fstat(self._descriptor).st_size == size:
                return
            if found.strip(b"\0"):
                raise AnabranchError(
                    "AB-611",
                    f"{self.path} does not hold the states of {self.clients} clients with "
                    f"{self.length} values each.",
                    fix="resume with the data and algorithm that the run was started with.",
                )
            # New, or killed right here before: the header comes last and makes the file valid.
            self.fresh = True
            os.ftruncate(self._descriptor, size)
            os.pwrite(self._descriptor, wanted, 0)
            os.fsync(self._descriptor)
            sync_directory(self.path.parent, "slots", self._faults)


class SlotFile:
    """Two-phase states of ``clients`` clients, at the coordinator; see the module's text.

    Bookkeeping is three small integers a client. Args and errors as for `SlotMap`.

    >>> import numpy as np, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> states = SlotFile(pathlib.Path(folder.name) / "run.slots", clients=2, length=3)
    >>> states.write_pending(1, np.ones(3, np.float32))
    >>> print(states.read(1))
    None
    >>> states.promote(1)
    >>> states.read(1)
    array([1., 1., 1.], dtype=float32)
    >>> states.sync(); states.durable()
    {1: 0}
    >>> states.committed(); states.close(); folder.cleanup()
    """

    def __init__(
        self, path: Path, clients: int, length: int, *, faults: Faults = no_faults
    ) -> None:
        self.map = SlotMap(path, clients, length, faults=faults)
        self._durable: NDArray[np.int8] = np.full(clients, -1, np.int8)
        self._current = self._durable.copy()
        self._pending = self._durable.copy()
        self._unsynced = False

    def __enter__(self) -> SlotFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, client: int) -> Vector | None:
        """The client's current memory; None before its first merged round."""
        slot = self.current_slot(client)
        return None if slot < 0 else self.map.read(client, slot)

    def current_slot(self, client: int) -> int:
        """Which slot a worker reads for ``client``; -1 before its first merged round."""
        return int(self._current[client])

    def pending_slot(self, client: int) -> int:
        """Which slot a worker writes for ``client``: reserved until `promote` or `discard`."""
        reserved = int(self._pending[client])
        if reserved >= 0:
            return reserved
        taken = (self._durable[client], self._current[client])
        free = next(slot for slot in range(SLOTS) if slot not in taken)
        self._pending[client] = free
        return free

    def write_pending(self, client: int, vector: Vector) -> None:
        """Write what ``client`` would remember, shape (length,), if its task is merged."""
        self.map.write(client, self.pending_slot(client), vector)

    def promote(self, client: int) -> None:
        """The client's open task was merged: pending becomes current.

        Raises:
            ValueError: nothing is pending.
        """
        if self._pending[client] < 0:
            raise ValueError(f"client {client} has no pending state")
        self._current[client] = self._pending[client]
        self._pending[client] = -1

    def discard(self, client: int) -> None:
        """The client's open task was dropped; without one, nothing happens."""
        self._pending[client] = -1

    def durable(self) -> Mapping[int, int]:
        """Slots to commit: the current slot of each client where it is not the durable one."""
        changed = np.flatnonzero(self._current != self._durable)
        return dict(zip(changed.tolist(), self._current[changed].tolist(), strict=True))

    def sync(self) -> None:
        """Make current slots durable on disk; before the commit that names them.

        Raises:
            AnabranchError: AB-602 or AB-613. After a failed sync the kernel may have thrown the
                data away, so the object refuses every later sync: resume the run.
        """
        if self._unsynced:
            raise AnabranchError(
                "AB-613",
                f"an earlier sync of {self.map.path} failed; its content is in doubt.",
                fix="resume the run: it goes on from the last committed round.",
                kept=INTACT,
            )
        self._unsynced = True
        self.map.sync()
        self._unsynced = False

    def committed(self) -> None:
        """The commit that names `durable` happened."""
        np.copyto(self._durable, self._current)
        self.map.fresh = False

    def restore(self, slots: Mapping[int, int], *, patience: float = 10.0) -> None:
        """Go on from what the store says; everything newer in the file is forgotten.

        Args:
            slots: durable slot by client; clients that are absent have no memory.
            patience: seconds to wait until workers of a killed coordinator are gone, because they
                could still write.

        Raises:
            AnabranchError: AB-616 when such workers stay alive; AB-619 when there should be
                memories but the file is new.
        """
        if slots and self.map.fresh:
            raise AnabranchError(
                "AB-619",
                f"the client states of the run are missing: there was no {self.map.path}.",
                fix="restore the file from a backup of the store, or start the run again.",
            )
        self.map.wait_for_others(patience)
        self._durable.fill(-1)
        if slots:
            clients = np.fromiter(slots.keys(), np.int64, len(slots))
            self._durable[clients] = np.fromiter(slots.values(), np.int8, len(slots))
        np.copyto(self._current, self._durable)
        self._pending.fill(-1)

    def close(self) -> None:
        """Close the file; nothing is synced or committed."""
        self.map.close()


def _lock(descriptor: int, *, exclusive: bool) -> bool:
    """Mark the open file as used (shared) or try to have it alone; where flock exists."""
    with contextlib.suppress(ImportError):
        import fcntl

        how = fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            return False
    return True
