"""What is done to one update between its arrival and the fold: decoded, and damped when late."""

from __future__ import annotations

from dataclasses import dataclass

from anabranch.aggregation.staleness import damped, rebased
from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.coordinator.runtime import Work
from anabranch.plan.rounds import RoundsPlan
from anabranch.updates.sections import Update
from anabranch.updates.total import Finest

__all__ = ["Adjustment"]


@dataclass(frozen=True)
class Adjustment:
    """What a round does to the updates that it merges.

    Attributes:
        round: that merges them.
        rounds: how late ones count.
        program: how clients encoded them.
        broadcast: from which the round's own clients began.
    """

    round: int
    rounds: RoundsPlan
    program: ClientProgram
    broadcast: Broadcast

    def __call__(self, update: Update, work: Work) -> Update:
        """The update as it is folded; ``work`` is what it answers."""
        pipeline, late = self.program.pipeline, self.round - work.round
        if not late and work.finest is not Finest.INDIVIDUALS:
            return pipeline.decode_to_add(update)
        decoded = pipeline.decode_one(update)
        if not late:
            return decoded
        asynchronous = self.rounds.asynchronous
        if asynchronous is not None and asynchronous.rebase:
            decoded = rebased(decoded, work.broadcast["model"], self.broadcast["model"])
        return damped(decoded, self.rounds.staleness.factor(late), self.program.sections)
