"""Simulated clients on this machine: inline, or in persistent worker processes."""

from anabranch.runtimes.local.choose import LocalSetup, local_runtime
from anabranch.runtimes.local.inline import InlineRuntime
from anabranch.runtimes.local.processes import ProcessRuntime
from anabranch.runtimes.local.worker import Simulant, holdout_shards

__all__ = [
    "InlineRuntime",
    "LocalSetup",
    "ProcessRuntime",
    "Simulant",
    "holdout_shards",
    "local_runtime",
]
