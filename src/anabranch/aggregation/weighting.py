r"""Aggregation weights: how much a client's update counts in the mean.

A weight is a pure function of two declared sections, the examples and the steps of a client, so
the client computes it, the coordinator can recompute it, and no third number leaves. The mean of a
section x that is folded by weight is sum_i w_i x_i / sum_i w_i.

Weights by examples minimise the pooled loss (McMahan et al. 2017); uniform weights treat every
client alike, which SCAFFOLD and FedDyn need and which a private mean wants. A client can claim any
number of examples: the cap bounds its influence, and the fold refuses a weight above it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from anabranch.errors import AnabranchError
from anabranch.named import load_named
from anabranch.updates.sections import WEIGHT, Kind, Section, Weighting
from anabranch.values import Value

__all__ = ["Custom", "Examples", "Steps", "Uniform", "WeightRule"]


class _Rule(Value):
    """What all weight rules share."""

    def weight(self, examples: int, steps: int) -> float:
        """The weight of a client with so many training examples and optimizer steps.

        A finite number above zero; clients without examples are refused before they train.
        """
        raise NotImplementedError(f"{type(self).__name__} has no weight")

    @property
    def bound(self) -> float:
        """Largest weight that the rule can give; ``inf`` when there is none."""
        return math.inf

    def section(self) -> Section:
        """The declared section of the weight; the fold refuses more than `bound`."""
        return Section(WEIGHT, 1, Kind.STATISTIC, Weighting.UNIFORM, bound=self.bound)


class Examples(_Rule):
    """The number of training examples, at most ``cap``.

    >>> Examples().weight(300, 5), Examples(cap=100).weight(300, 5)
    (300.0, 100.0)
    """

    kind: Literal["examples"] = "examples"
    cap: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "examples"})
    """More examples than this count as this many; without it a large client can dominate."""

    def weight(self, examples: int, steps: int) -> float:
        return float(examples if self.cap is None else min(examples, self.cap))

    @property
    def bound(self) -> float:
        return math.inf if self.cap is None else float(self.cap)


class Uniform(_Rule):
    """One for every client.

    >>> Uniform().weight(300, 5)
    1.0
    """

    kind: Literal["uniform"] = "uniform"

    def weight(self, examples: int, steps: int) -> float:
        return 1.0

    @property
    def bound(self) -> float:
        return 1.0


class Steps(_Rule):
    """The number of optimizer steps that the client took.

    >>> Steps().weight(300, 5)
    5.0
    """

    kind: Literal["steps"] = "steps"

    def weight(self, examples: int, steps: int) -> float:
        return float(steps)


class Custom(_Rule):
    """A function of your own, ``function(examples, steps) -> float``, installed everywhere.

    It must be pure: the coordinator and the client may both evaluate it.

    >>> Custom(function="math:hypot").weight(3, 4)
    5.0
    """

    kind: Literal["custom"] = "custom"
    function: str = Field(pattern=r"^[^:\s]+:[^:\s]+$", json_schema_extra={"unit": "module:name"})
    """Where the function is, as ``module:name``."""

    def weight(self, examples: int, steps: int) -> float:
        """The function's value.

        Raises:
            AnabranchError: AB-421 when the function cannot be imported, AB-423 when it is not
                callable or its value is not a finite number above zero.
        """
        function = load_named(self.function)
        value = function(examples, steps) if callable(function) else None
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise AnabranchError(
                "AB-423",
                f"the weight function {self.function!r} gave {value!r} for a client; a weight is "
                "a finite number above zero.",
                fix="return a float > 0 for every examples >= 1 and steps >= 1.",
                kept="Nothing was sent.",
            )
        return float(value)


WeightRule: TypeAlias = Annotated[Examples | Uniform | Steps | Custom, Field(discriminator="kind")]
"""Any weight rule, told apart by ``kind``."""
