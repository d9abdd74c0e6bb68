"""Advisory file locks: the kernel releases them when the process dies, however it dies."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anabranch.errors import AnabranchError

__all__ = ["FileLock"]


class FileLock:
    """A ``flock`` on a file of its own; not shared with forked children.

    A forked worker inherits the open file, and with it the lock, which would then outlive a killed
    coordinator. The child therefore closes its copy as soon as it exists.
    """

    def __init__(self, path: Path) -> None:
        self._flock = _flock()
        self._descriptor: int | None = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        _close_in_children(self)

    def try_exclusive(self) -> bool:
        """Take the lock alone, without waiting; whether that worked."""
        try:
            self._apply("exclusive", wait=False)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others; waits for an exclusive holder."""
        self._apply("shared", wait=True)
        try:
            yield
        finally:
            self.release()

    @contextmanager
    def exclusive_or_not(self) -> Iterator[bool]:
        """Hold the lock alone if nobody else has it; gives whether it is held."""
        held = self.try_exclusive()
        try:
            yield held
        finally:
            if held:
                self.release()

    def release(self) -> None:
        """Let others have the lock."""
        self._apply("release", wait=True)

    def leave_word(self, text: str) -> None:
        """Write ``text`` (who holds the lock) for whoever finds it taken."""
        os.ftruncate(self._open(), 0)
        os.pwrite(self._open(), text.encode(), 0)

    def word(self) -> str:
        """What the holder wrote."""
        return os.pread(self._open(), 200, 0).decode(errors="replace")

    @property
    def closed(self) -> bool:
        """Whether the lock was given up for good (or belongs to the parent process)."""
        return self._descriptor is None

    def close(self) -> None:
        """Release and close; may be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the lock is closed")
        return self._descriptor

    def _apply(self, how: str, *, wait: bool) -> None:
        self._flock(self._open(), how, wait)


def _close_in_children(lock: FileLock) -> None:
    reference = weakref.ref(lock)

    def close() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.close()

    os.register_at_fork(after_in_child=close)


def _flock() -> Callable[[int, str, bool], None]:
    """The system call, where it exists."""
    try:
        import fcntl
    except ImportError as error:
        raise AnabranchError(
            "AB-615",
            "this operating system has no flock, which the store needs.",
            fix="run the coordinator on Linux or macOS (or in WSL 2).",
        ) from error
    modes = {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX, "release": fcntl.LOCK_UN}

    def apply(descriptor: int, how: str, wait: bool) -> None:
        fcntl.flock(descriptor, modes[how] | (0 if wait else fcntl.LOCK_NB))

    return apply
