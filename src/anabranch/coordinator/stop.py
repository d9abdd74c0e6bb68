"""What the stop rules remember: a run ends by rule, with a reason that is stored and printed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from anabranch.plan.evaluation import StopPlan

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """The stop rules' memory; stored with every round, so that a resumed run stops alike.

    Attributes:
        best: best value of the watched metric so far; NaN before the first evaluation.
        best_round: the round it was seen in.
        stale: evaluations since.
        reached: first round in which the target was met, 0 while it is not.
        failures: failed rounds in a row.
        seconds: time that the run has worked, over all its processes.
        asked: training tasks that have an outcome, over all rounds.
        merged: updates merged, over all rounds.
        largest_update: bytes of the largest update seen.
    """

    best: float = math.nan
    best_round: int = 0
    stale: int = 0
    reached: int = 0
    failures: int = 0
    seconds: float = 0.0
    asked: int = 0
    merged: int = 0
    largest_update: int = 0

    def after_evaluation(self, rule: StopPlan, round_: int, value: float) -> Progress:
        """The progress once ``value`` of the watched metric was measured in ``round_``."""
        better = math.isnan(self.best) or rule.improves(value, self.best)
        return replace(
            self,
            best=value if better else self.best,
            best_round=round_ if better else self.best_round,
            stale=0 if better else self.stale + 1,
            reached=self.reached or (round_ if rule.reached(value) else 0),
        )

    def reason_to_stop(self, rule: StopPlan, round_: int, rounds: int) -> str:
        """Why the run ends in good order after ``round_``; empty while it goes on."""
        if rule.at_target and self.reached:
            return f"target {rule.target:g} of {rule.metric} reached in round {self.reached}"
        if rule.patience is not None and self.stale >= rule.patience:
            return (
                f"no better {rule.metric} in {self.stale} evaluations "
                f"(best {self.best:.4g} in round {self.best_round})"
            )
        if rule.max_seconds is not None and self.seconds >= rule.max_seconds:
            return f"time limit of {rule.max_seconds:g} s reached"
        return "all rounds done" if round_ >= rounds else ""
