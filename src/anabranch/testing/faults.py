"""Faults to inject into whatever touches the disk: a kill, a full disk, a plain record."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

__all__ = ["DiskFull", "FailAt", "KillAt", "Trace"]


class _At:
    """Acts when ``point`` is reached for the ``nth`` time (from 1)."""

    def __init__(self, point: str, nth: int = 1) -> None:
        if nth < 1:
            raise ValueError("nth counts from 1")
        self.point = point
        self.nth = nth
        self.seen = 0

    def reach(self, point: str) -> None:
        """Count, and act when it is time."""
        if point != self.point:
            return
        self.seen += 1
        if self.seen == self.nth:
            self.act()

    def act(self) -> None:
        """What happens."""
        raise NotImplementedError


class KillAt(_At):
    """SIGKILL to the own process: nothing is flushed, closed or cleaned up."""

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class FailAt(_At):
    """An `OSError` with any number, for example ``errno.EROFS`` or ``errno.EIO``.

    >>> import errno
    >>> faults = FailAt("blob.sync.before", number=errno.EIO, nth=2)
    >>> faults.reach("blob.sync.before")
    >>> faults.reach("blob.sync.before")
    Traceback (most recent call last):
        ...
    OSError: [Errno 5] Input/output error
    """

    def __init__(self, point: str, nth: int = 1, *, number: int) -> None:
        super().__init__(point, nth)
        self.number = number

    def act(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


class DiskFull(FailAt):
    """No space left on the device."""

    def __init__(self, point: str, nth: int = 1) -> None:
        super().__init__(point, nth, number=errno.ENOSPC)


class Trace:
    """Does nothing but remember every point, in order."""

    def __init__(self) -> None:
        self.points: list[str] = []

    def reach(self, point: str) -> None:
        """Remember."""
        self.points.append(point)

    @property
    def counts(self) -> Counter[str]:
        """How often each point was reached."""
        return Counter(self.points)
