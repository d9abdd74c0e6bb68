"""Local training as a value: how much work, with which optimizer, on which batches."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from anabranch.schedules import Constant, Schedule
from anabranch.values import Value

__all__ = ["SGD", "Adam", "LocalOptimizer", "LocalTraining"]


class SGD(Value):
    """v <- momentum * v + g + weight_decay * w;  w <- w - rate * v (Nesterov: g + momentum * v)."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Heavy-ball factor; the buffer starts at zero in every round."""
    nesterov: bool = False
    """Use Nesterov's look-ahead gradient (needs momentum)."""
    weight_decay: float = Field(default=0.0, ge=0, json_schema_extra={"unit": "1"})
    """L2 penalty added to the gradient."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum > 0")
        return self

    @property
    def plain(self) -> bool:
        """Whether a step is exactly w - rate * g."""
        return not (self.momentum or self.weight_decay)


class Adam(Value):
    """Adam (Kingma & Ba 2015) with bias correction; its state starts at zero in every round."""

    kind: Literal["adam"] = "adam"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty; decoupled (AdamW) when ``decoupled``."""
    decoupled: bool = False
    """Decoupled weight decay (AdamW, Loshchilov & Hutter 2019)."""

    @property
    def plain(self) -> bool:
        return False


LocalOptimizer: TypeAlias = Annotated[SGD | Adam, Field(discriminator="kind")]


class LocalTraining(Value):
    """What each client does in a round (the plan's table ``[local]``)."""

    epochs: int | None = Field(default=1, ge=1, json_schema_extra={"unit": "passes"})
    """Passes over the client's training examples; leave out when ``steps`` is given."""
    steps: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "optimizer steps"})
    """Optimizer steps instead of epochs; batches go round the data."""
    batch_size: int = Field(default=32, ge=0, json_schema_extra={"unit": "examples"})
    """Examples a step; 0 means all examples of the client. A short last batch is kept."""
    learning_rate: float = Field(default=0.05, gt=0, json_schema_extra={"unit": "1"})
    """Step size of the local optimizer in round 1."""
    schedule: Schedule = Constant()
    """Factor on the learning rate by round."""
    optimizer: LocalOptimizer = SGD()
    """The local optimizer."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Clip each batch gradient to this Euclidean norm (over all trained parameters)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the steps; "bfloat16" computes with a rounded copy of float32 parameters:
    faster for convolutions and wide layers, and another model than float32 gives."""
    shuffle: bool = True
    """Draw a new order of the examples for each epoch from (seed, round, client)."""

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_epochs(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("steps") and "epochs" not in values:
            return {**values, "epochs": None}
        return values

    @model_validator(mode="after")
    def _one_of_epochs_and_steps(self) -> LocalTraining:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self
