"""The plan's tables ``[evaluation]`` and ``[stop]``: what is measured, and what ends a run."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from anabranch.values import Value

__all__ = ["Direction", "EvaluationPlan", "StopPlan"]

Direction: TypeAlias = Literal["maximize", "minimize"]

_MINIMIZED = frozenset({"loss", "rmse", "mae", "mse", "perplexity"})


class EvaluationPlan(Value):
    """When and where the model is measured. The last round is always evaluated."""

    every: int = Field(default=1, ge=0, json_schema_extra={"unit": "rounds"})
    """Rounds between evaluations; 0 means after the last round only."""
    on: Literal["clients", "holdout", "both", "nowhere"] = "clients"
    """Whose examples: each client's own test split, the coordinator's hold-out set, both, or
    nobody's ("nowhere": under a privacy promise metrics of clients would be releases)."""
    bins: int = Field(default=512, ge=2, le=65536, json_schema_extra={"unit": "bins"})
    """Bins of the score histograms that AUC is computed from; more is finer and larger."""
    baselines: tuple[Literal["local-only", "pooled"], ...] = ()
    """Also train, for comparison: each client alone ("local-only"), or one model on the data of all
    ("pooled", possible in a simulation only)."""

    @model_validator(mode="after")
    def _baselines_once(self) -> EvaluationPlan:
        if len(set(self.baselines)) != len(self.baselines):
            raise ValueError("a baseline is named twice; name each once")
        return self

    def due(self, round_: int, rounds: int) -> bool:
        """Whether the model made in ``round_`` (from 1) of ``rounds`` is evaluated.

        >>> [r for r in range(1, 8) if EvaluationPlan(every=3).due(r, 7)]
        [3, 6, 7]
        """
        return round_ == rounds or (self.every > 0 and round_ % self.every == 0)


class StopPlan(Value):
    """When a run ends before its last round. Left empty, it never does."""

    metric: str = Field(default="loss", min_length=1, max_length=64)
    """The metric that ``patience`` and ``target`` look at, as the evaluation reports it: loss,
    accuracy, auc, rmse, or one of your own."""
    direction: Direction | None = None
    """Whether more or less of the metric is better. Left out: less of loss, rmse, mae, mse and
    perplexity, more of everything else."""
    patience: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "evaluations"})
    """Stop after this many evaluations in a row without an improvement."""
    min_delta: float = Field(default=0.0, ge=0, json_schema_extra={"unit": "of the metric"})
    """Smallest change that counts as an improvement."""
    target: float | None = Field(default=None, json_schema_extra={"unit": "of the metric"})
    """Value of the metric to reach."""
    at_target: bool = True
    """Stop when the target is reached; false only notes the round."""
    max_seconds: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "seconds"})
    """Stop in good order at the end of the round in which this wall time has passed."""

    @property
    def better(self) -> Direction:
        """The direction of improvement, stated or known.

        >>> StopPlan(metric="auc").better, StopPlan().better
        ('maximize', 'minimize')
        """
        return self.direction or ("minimize" if self.metric in _MINIMIZED else "maximize")

    def reached(self, value: float) -> bool:
        """Whether ``value`` meets the target (False when there is none)."""
        if self.target is None:
            return False
        return value <= self.target if self.better == "minimize" else value >= self.target

    def improves(self, value: float, best: float) -> bool:
        """Whether ``value`` is better than ``best`` by more than ``min_delta``."""
        gain = best - value if self.better == "minimize" else value - best
        return gain > self.min_delta
