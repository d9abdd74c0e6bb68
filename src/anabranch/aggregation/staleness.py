r"""How much an update counts whose base is an older model version. Pure.

An update made from version v that is merged into version v + 1 + tau has staleness tau. Its vectors
are multiplied by s(tau); its weight is not, so stale updates are damped and the denominator stays.

Sources: s constant, polynomial and hinge are those of Xie, Koyejo & Gupta 2019 ("Asynchronous
Federated Optimization", section 5.2); FedBuff (Nguyen et al. 2022) takes the polynomial, a = 0.5.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from anabranch.updates.sections import Sections, Update, Vector, Weighting
from anabranch.values import Value

__all__ = [
    "ConstantStaleness",
    "HingeStaleness",
    "PolynomialStaleness",
    "Staleness",
    "damped",
    "rebased",
]


class _Rule(Value):
    @abstractmethod
    def factor(self, staleness: int) -> float:
        """s(tau), with s(0) = 1."""


class ConstantStaleness(_Rule):
    """s(tau) = 1: however old, an update counts whole."""

    kind: Literal["constant"] = "constant"

    def factor(self, staleness: int) -> float:
        return 1.0


class PolynomialStaleness(_Rule):
    """s(tau) = (1 + tau)^-a.

    >>> PolynomialStaleness().factor(3)
    0.5
    """

    kind: Literal["polynomial"] = "polynomial"
    exponent: float = Field(default=0.5, ge=0, le=10)
    """The a of the formula."""

    def factor(self, staleness: int) -> float:
        return float((1.0 + staleness) ** -self.exponent)


class HingeStaleness(_Rule):
    """s(tau) = 1 up to b, then 1 / (a (tau - b) + 1).

    >>> HingeStaleness(slope=1.0, free=2).factor(2), HingeStaleness(slope=1.0, free=2).factor(3)
    (1.0, 0.5)
    """

    kind: Literal["hinge"] = "hinge"
    slope: float = Field(default=10.0, gt=0)
    """The a of the formula."""
    free: int = Field(default=4, ge=0, json_schema_extra={"unit": "model versions"})
    """The b of the formula: up to this staleness an update counts whole."""

    def factor(self, staleness: int) -> float:
        late = staleness - self.free
        return 1.0 if late <= 0 else 1.0 / (self.slope * late + 1.0)


Staleness: TypeAlias = Annotated[
    ConstantStaleness | PolynomialStaleness | HingeStaleness, Field(discriminator="kind")
]
"""Any of the rules, chosen by ``kind``."""


def rebased(update: Update, base: Vector, current: Vector) -> Update:
    """The update as a step from the current model to the client's: delta + base - current.

    With s as mixing weight the server then does w + s (w_client - w), equation 1 of FedAsync.
    """
    delta = update.vectors["delta"] + (base - current)
    return Update({**update.vectors, "delta": delta}, update.scalars)


def damped(update: Update, factor: float, sections: Sections) -> Update:
    """``update`` with the vectors that are averaged by weight multiplied by ``factor``."""
    if factor == 1.0:
        return update
    scaled = {
        name: value * value.dtype.type(factor)
        if sections[name].weighting is Weighting.BY_WEIGHT
        else value
        for name, value in update.vectors.items()
    }
    return Update(scaled, update.scalars)
