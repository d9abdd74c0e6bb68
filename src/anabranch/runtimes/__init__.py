"""What carries tasks to clients: today worker processes of this machine."""

from anabranch.runtimes.local import InlineRuntime, ProcessRuntime, local_runtime

__all__ = ["InlineRuntime", "ProcessRuntime", "local_runtime"]
