r"""The exact fold: many updates become one, and neither order nor grouping changes a bit.

For client i with weight w_i and section value x_i the fold keeps

    S = sum_i  round_q(w_i * x_i),      round_q(t) = q * rint(t / q),   q a public power of two

in float64. Every term is a multiple of q and |S| <= 2^52 q, so each addition is exact and addition
is associative and commutative: workers, edges, restarts and arrival order give the same bits, and
nothing is buffered or sorted. A term that could leave the exact range is refused before it is
added, and the client is named. The mean of 100 clients is off by less than q / 2 per unit weight.

Rounding uses the addition of 1.5 * 2^52 * q, whose last mantissa bit is worth q (round half to
even, as `numpy.rint`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.updates.levels import Levels
from anabranch.updates.sections import (
    WEIGHT,
    Kind,
    Section,
    Sections,
    Statistics,
    Update,
    Vector,
    Weighting,
)
from anabranch.updates.total import Total

__all__ = ["Accumulator", "FoldPlan", "round_to_quantum"]

_CHUNK = 1 << 15  # float64 scratch of 256 KiB stays in a core's second-level cache
_MAGIC = 1.5 * 2.0**52

Values: TypeAlias = Vector | Statistics | Levels
"""What can be added up."""


def round_to_quantum(value: float, quantum: float) -> float:
    """The multiple of ``quantum`` nearest to ``value`` (half to even).

    >>> round_to_quantum(0.3, 0.25), round_to_quantum(0.375, 0.25)
    (0.25, 0.5)
    """
    return float(np.rint(value / quantum)) * quantum


@dataclass(frozen=True)
class FoldPlan:
    """What the fold must know beforehand, equal at every worker, edge and coordinator.

    Attributes:
        sections: the type of every update.
        capacity: the most updates that can ever be added into one total; it fixes the largest
            term that is accepted, so that refusal never depends on what arrived before.
    """

    sections: Sections
    capacity: int

    def limit(self, section: Section) -> float:
        """Largest absolute weighted term that is accepted in ``section``."""
        return min(2.0**52 * section.quantum / self.capacity, 2.0**51 * section.quantum)

    def slices(self) -> dict[str, slice]:
        """Where each section stands in the accumulator's buffer: vectors first, then scalars."""
        places, position = {}, 0
        for section in self.sections.vectors + self.sections.scalars:
            places[section.name] = slice(position, position + section.length)
            position += section.length
        return places


class _Vectors(NamedTuple):
    """One vector section as `Accumulator.add` needs it: looked up once, not for each client."""

    section: Section
    target: Statistics
    weighted: bool
    limit: float


class _Scalar(NamedTuple):
    """One scalar section, alike."""

    section: Section
    weighted: bool
    limit: float


class Accumulator:
    """A running exact sum of updates in one float64 buffer.

    Args:
        plan: sections and capacity.
        buffer: float64 array of ``plan.sections.size`` zeros to work in (for example shared
            memory); a new one by default.

    Raises:
        ValueError: the buffer has another shape or type.
    """

    def __init__(self, plan: FoldPlan, buffer: Statistics | None = None) -> None:
        size = plan.sections.size
        self.plan = plan
        self.buffer = np.zeros(size) if buffer is None else buffer
        if self.buffer.shape != (size,) or self.buffer.dtype != np.float64:
            raise ValueError(f"the buffer must be float64 of shape ({size},)")
        self.contributors = 0
        self._scratch = np.empty(min(_CHUNK, size))
        places, scalars = plan.slices(), plan.sections.scalars
        self._vectors = [
            _Vectors(s, self.buffer[places[s.name]], _weighted(s), plan.limit(s))
            for s in plan.sections.vectors
            if s.length
        ]
        self._scalars = [_Scalar(s, _weighted(s), plan.limit(s)) for s in scalars]
        self._scalar_sums = self.buffer[size - len(scalars) :]
        self._weight = next((s for s in self._scalars if s.section.name == WEIGHT), None)

    def add(self, update: Update, client: str) -> None:
        """Fold one update; on refusal nothing was added.

        Raises:
            AnabranchError: AB-502 when a value is not finite, AB-503 when a weighted term is
                outside the exact range or the section's bound, a weight is not above zero or a
                count is not an integer, AB-501 when sections differ.
            ValueError: the plan's capacity is used up.
        """
        if self.contributors >= self.plan.capacity:
            raise ValueError(f"the fold was planned for {self.plan.capacity} updates")
        update.check(self.plan.sections, client)
        weight = self._rounded_weight(update, client)
        terms = self._checked_scalars(update, weight, client)
        values = {**update.vectors, **update.levels} if update.levels else update.vectors
        for vector in self._vectors:
            self._check_vector(vector, values[vector.section.name], weight, client)
        for section, target, weighted, _ in self._vectors:
            factor = weight if weighted else 1.0
            _add_rounded(target, values[section.name], factor, section.quantum, self._scratch)
        if terms:
            self._scalar_sums += terms
        self.contributors += 1

    def _rounded_weight(self, update: Update, client: str) -> float:
        """The weight as it enters its own sum, so that equal values have exactly that mean."""
        if self._weight is None:
            return 1.0
        section, _, limit = self._weight
        weight = float(update.scalars[WEIGHT])
        if not (abs(weight) <= limit and abs(weight) <= section.bound):
            raise _outside(section, abs(weight), abs(weight), limit, client)
        weight = _rounded(weight, section.quantum)
        if weight <= 0:
            raise _unfit(client, section, "is not above zero")
        return weight

    def _checked_scalars(self, update: Update, weight: float, client: str) -> list[float]:
        terms = []
        for section, weighted, limit in self._scalars:
            value = float(update.scalars[section.name])
            term = value * weight if weighted else value
            if not (abs(term) <= limit and abs(value) <= section.bound):
                raise _outside(section, abs(value), abs(term), limit, client)
            if section.kind is Kind.COUNT and not value.is_integer():
                raise _unfit(client, section, "is a count but not an integer")
            terms.append(_rounded(term, section.quantum))
        return terms

    def _check_vector(self, vector: _Vectors, value: Values, weight: float, client: str) -> None:
        section, _, weighted, limit = vector
        largest = _largest(value)
        term = largest * weight if weighted else largest
        if not (term <= limit and largest <= section.bound):
            raise _outside(section, largest, term, limit, client)
        if section.kind is Kind.COUNT and not _whole(value):
            raise _unfit(client, section, "holds counts that are not integers")

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of the same plan (exact, any order).

        Raises:
            ValueError: the plans differ, or together they hold more than the plan's capacity.
        """
        if other.plan != self.plan:
            raise ValueError("accumulators of different plans cannot be merged")
        if self.contributors + other.contributors > self.plan.capacity:
            raise ValueError(f"the fold was planned for {self.plan.capacity} updates")
        self.buffer += other.buffer
        self.contributors += other.contributors

    def reset(self) -> None:
        """Empty the accumulator for the next round."""
        self.buffer[:] = 0.0
        self.contributors = 0

    def absorb(self, total: Total) -> None:
        """Add a finished total of the same sections (exact, any order).

        Raises:
            ValueError: the sections differ, or together they hold more than the plan's capacity.
        """
        if total.sections != self.plan.sections:
            raise ValueError("a total of different sections cannot be added")
        if self.contributors + total.contributors > self.plan.capacity:
            raise ValueError(f"the fold was planned for {self.plan.capacity} updates")
        for name, place in self.plan.slices().items():
            self.buffer[place] += total.sums[name]
        self.contributors += total.contributors

    def total(self, copy: bool = True) -> Total:
        """The sums so far, as copies or, when the caller is done adding, as views."""
        places = self.plan.slices()
        sums = {n: self.buffer[p].copy() if copy else self.buffer[p] for n, p in places.items()}
        return Total(self.plan.sections, sums, self.contributors)


def _weighted(section: Section) -> bool:
    return section.weighting is Weighting.BY_WEIGHT and section.name != WEIGHT


def _rounded(term: float, quantum: float) -> float:
    """`round_to_quantum` for terms inside the exact range, as the vectors are rounded."""
    magic = _MAGIC * quantum
    return (term + magic) - magic


def _largest(value: Values) -> float:
    """The largest absolute number."""
    if isinstance(value, Levels):
        return value.largest
    # The reductions hand on NaN, and every comparison with it is false: it is refused by callers.
    return max(float(np.maximum.reduce(value)), -float(np.minimum.reduce(value)))


def _whole(value: Values) -> bool:
    numbers = value.vector() if isinstance(value, Levels) else value
    return np.array_equal(numbers, np.rint(numbers))


def _piece(value: Values, start: int) -> Vector | Statistics:
    """The next chunk; levels are multiplied out here, so the whole vector never exists."""
    if isinstance(value, Levels):
        return value.piece(start, start + _CHUNK)
    return value[start : start + _CHUNK]


def _add_rounded(
    target: Statistics,
    value: Values,
    factor: float,
    quantum: float,
    scratch: Statistics,
) -> None:
    """target += round_q(factor * value), in chunks that stay in the cache."""
    magic = _MAGIC * quantum
    for start in range(0, len(target), _CHUNK):
        part = target[start : start + _CHUNK]
        term = scratch[: len(part)]
        # Conversion and product apart: twice as fast as one ufunc that casts its input.
        np.copyto(term, _piece(value, start))
        if factor != 1.0:
            term *= factor
        term += magic
        term -= magic
        part += term


def _outside(
    section: Section, largest: float, term: float, limit: float, client: str
) -> AnabranchError:
    finite = math.isfinite(largest)
    reason = (
        f"has a weighted value of {term:.3g}, above the largest accepted {limit:.3g} "
        f"(bound {section.bound:g})."
        if finite
        else "contains a value that is not finite (NaN or infinity)."
    )
    return AnabranchError(
        "AB-503" if finite else "AB-502",
        f"client {client!r}: section {section.name!r} {reason}",
        fix="lower the local learning rate, clip gradients (local.clip_norm) or updates "
        "(stage 'clip'); look at this client's data.",
        kept="The update was refused; the round goes on without it.",
    )


def _unfit(client: str, section: Section, reason: str) -> AnabranchError:
    return AnabranchError(
        "AB-503",
        f"client {client!r}: section {section.name!r} {reason}.",
        fix="use the same plan and software version at the client and the coordinator; look at "
        "the plan's weight rule and this client's data.",
        kept="The update was refused; the round goes on without it.",
    )
