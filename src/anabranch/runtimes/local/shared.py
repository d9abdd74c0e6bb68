"""Arrays shared by processes, that no kill can leave behind.

The memory is an unlinked temporary file (in /dev/shm where there is one): when the last process
that maps it ends, however it ends, the system frees it. A forked child inherits the map; a spawned
one receives the file descriptor.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from multiprocessing import reduction
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["SharedArray"]

_SHM = Path("/dev/shm")
Number = TypeVar("Number", bound=np.generic)


class SharedArray(Generic[Number]):
    """A one-dimensional array of ``dtype`` that parent and workers see alike.

    Args:
        size: number of elements.
        dtype: of the elements.
    """

    def __init__(self, size: int, dtype: type[Number]) -> None:
        self._size, self._dtype = size, np.dtype(dtype)
        directory = _SHM if _SHM.is_dir() and os.access(_SHM, os.W_OK) else None
        with tempfile.TemporaryFile(dir=directory) as file:
            file.truncate(max(size * self._dtype.itemsize, mmap.PAGESIZE))
            self._descriptor = os.dup(file.fileno())
        self._open()

    def _open(self) -> None:
        length = max(self._size * self._dtype.itemsize, mmap.PAGESIZE)
        self._map = mmap.mmap(self._descriptor, length)
        self.array: NDArray[Number] = np.frombuffer(self._map, self._dtype, self._size)

    def __getstate__(self) -> tuple[int, str, object]:
        return self._size, self._dtype.str, reduction.DupFd(self._descriptor)

    def __setstate__(self, state: tuple[int, str, object]) -> None:
        size, dtype, descriptor = state
        self._size, self._dtype = size, np.dtype(dtype)
        self._descriptor = descriptor.detach()  # type: ignore[attr-defined]  # of DupFd
        self._open()

    def close(self) -> None:
        """Close the descriptor; the map goes when the last view of the array does."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
