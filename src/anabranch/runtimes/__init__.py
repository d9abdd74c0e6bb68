"""What carries tasks to clients: worker processes of this machine, or a network.

Names are imported when they are first used: a networked client needs no simulator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anabranch.runtimes.local import InlineRuntime, ProcessRuntime, local_runtime

__all__ = ["InlineRuntime", "ProcessRuntime", "local_runtime"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("anabranch.runtimes.local"), name)
    raise AttributeError(f"module 'anabranch.runtimes' has no attribute {name!r}")
