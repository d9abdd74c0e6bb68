"""One thread for the arithmetic of a worker: faster for small steps, and the same bits everywhere.

A second thread changes how matrix products are summed, so inline, forked and spawned runs agree
bitwise only if all of them compute with one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["one_thread", "use_one_thread"]


def use_one_thread() -> None:
    """From now on, this process computes with one thread (for workers)."""
    threadpool_limits(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, then as before."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 1
    with threadpool_limits(limits=1):
        if torch is not None and before != 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None and before != 1:
                torch.set_num_threads(before)
