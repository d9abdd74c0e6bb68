"""What a spawned worker needs to build its own simulant: values that can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from anabranch.api.prepare import Prepared, program_of
from anabranch.client.states import SlotFile, SlotMap
from anabranch.data.federation import Federation
from anabranch.plan import Plan
from anabranch.runtimes.local.worker import Simulant

__all__ = ["SpawnedSimulant"]


@dataclass(frozen=True)
class SpawnedSimulant:
    """Builds the program again from the plan, in the worker.

    Attributes:
        plan: every class that it names can be imported.
        federation: the data, copied to the worker once.
        states: path of the clients' memory, or None.
        length: length of one client's memory.
        secret: what simulated clients draw noise from.
    """

    plan: Plan
    federation: Federation
    states: Path | None
    length: int
    secret: bytes | None = field(default=None, repr=False)

    @staticmethod
    def of(prepared: Prepared, slots: SlotFile | None) -> SpawnedSimulant | None:
        """The builder, or None when the plan holds something that only this process knows."""
        if prepared.module is not None or not prepared.plan.servable:
            return None
        path = slots.map.path if slots is not None else None
        length = prepared.program.memory.size
        secret = prepared.program.secret
        return SpawnedSimulant(prepared.plan, prepared.federation, path, length, secret)

    def __call__(self) -> Simulant:
        memory = None
        if self.states is not None:
            memory = SlotMap(self.states, len(self.federation), self.length)
        program = program_of(self.plan, self.federation, None)
        return Simulant(replace(program, secret=self.secret), self.federation, memory)
