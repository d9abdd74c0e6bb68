"""The plan's table ``[model]``: which model is learnt, with which loss, and what stays where."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from pydantic import Field

from anabranch.updates.layout import Policy
from anabranch.values import Value

__all__ = ["LossName", "ModelPlan", "Normalisation", "ParameterValue"]

LossName: TypeAlias = Literal["auto", "cross-entropy", "binary-cross-entropy", "mse", "huber"]
"""Names of the losses; ``auto`` follows the labels."""

Normalisation: TypeAlias = Literal["refuse", "local", "average"]
"""What to do with batch normalisation."""

ParameterValue: TypeAlias = int | float | str | bool | list[int]
"""What a model's factory may be given from a plan."""


class ModelPlan(Value):
    """What is learnt (the plan's table ``[model]``).

    >>> ModelPlan(name="mlp", parameters={"hidden": [200]}).policy_of("output.bias").value
    'average'
    >>> ModelPlan(name="mlp", keep_local=("output.*",)).policy_of("output.bias").value
    'local'
    """

    name: str = "logistic"
    """A built-in model (``logistic``, ``linear``, ``mlp``, ``leaf-cnn``, ``char-gru``) or
    ``package.module:factory``."""
    parameters: dict[str, ParameterValue] = Field(default_factory=dict)
    """Keyword arguments of the factory, e.g. ``hidden = [200]``."""
    loss: LossName = "auto"
    """The loss of one example; ``auto``: cross-entropy for classes (binary when the model has one
    output), mean squared error for regression."""
    keep_local: tuple[str, ...] = ()
    """Patterns of parameter names that are trained but never leave the client (FedPer, FedBN)."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that never change (a pretrained backbone)."""
    normalisation: Normalisation = "refuse"
    """Batch normalisation: ``refuse`` the model, keep it ``local`` at each client (FedBN), or
    ``average`` its running statistics like parameters."""

    def policy_of(self, parameter: str) -> Policy:
        """The policy of a parameter by the patterns alone; ``freeze`` wins."""
        if any(fnmatchcase(parameter, pattern) for pattern in self.freeze):
            return Policy.FREEZE
        if any(fnmatchcase(parameter, pattern) for pattern in self.keep_local):
            return Policy.LOCAL
        return Policy.AVERAGE
