"""The only client code: `execute(program, task, broadcast, memory, data) -> Reply`."""

from anabranch.client.execute import execute
from anabranch.client.program import ClientProgram, MemoryLayout
from anabranch.client.task import Reply, Task, TaskKind

__all__ = ["ClientProgram", "MemoryLayout", "Reply", "Task", "TaskKind", "execute"]
