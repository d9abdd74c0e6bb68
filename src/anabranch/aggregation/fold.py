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

from dataclasses import dataclass

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.updates.sections import WEIGHT, Section, Sections, Statistics, Update, Weighting
from anabranch.updates.total import Total

__all__ = ["Accumulator", "FoldPlan", "round_to_quantum"]

_CHUNK = 1 << 15  # float64 scratch of 256 KiB stays in a core's second-level cache
_MAGIC = 1.5 * 2.0**52


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


class Accumulator:
    """A running exact sum of updates in one float64 buffer.

    Args:
        plan: sections and capacity.
        buffer: float64 array of ``plan.sections.size`` zeros to work in (for example shared
            memory); a new one by default.
    """

    def __init__(self, plan: FoldPlan, buffer: Statistics | None = None) -> None:
        self.plan = plan
        self.buffer = np.zeros(plan.sections.size) if buffer is None else buffer
        self.contributors = 0
        self._scratch = np.empty(min(_CHUNK, max(plan.sections.size, 1)))
        places = plan.slices()
        self._vectors = [
            (s, self.buffer[places[s.name]], plan.limit(s)) for s in plan.sections.vectors
        ]
        first = places[plan.sections.scalars[0].name].start if plan.sections.scalars else 0
        self._scalars = self.buffer[first:] if plan.sections.scalars else self.buffer[:0]
        self._scalar_limits = [(s, plan.limit(s)) for s in plan.sections.scalars]

    def add(self, update: Update, client: str) -> None:
        """Fold one update; on refusal nothing was added.

        Raises:
            AnabranchError: AB-502 when a value is not finite, AB-503 when a weighted term is
                outside the exact range or the section's bound, AB-501 when sections differ.
        """
        update.check(self.plan.sections, client)
        weight = update.weight
        terms = self._checked_scalars(update, weight, client)
        for section, _, limit in self._vectors:
            factor = weight if section.weighting is Weighting.BY_WEIGHT else 1.0
            value = update.vectors[section.name]
            largest = max(float(value.max()), -float(value.min())) if value.size else 0.0
            self._refuse_if_outside(section, largest, largest * abs(factor), limit, client)
        for section, target, _ in self._vectors:
            factor = weight if section.weighting is Weighting.BY_WEIGHT else 1.0
            self._add_vector(target, update.vectors[section.name], factor, section.quantum)
        if terms:
            self._scalars += terms
        self.contributors += 1

    def _checked_scalars(self, update: Update, weight: float, client: str) -> list[float]:
        terms = []
        for section, limit in self._scalar_limits:
            value = update.scalars[section.name]
            weighted = section.weighting is Weighting.BY_WEIGHT and section.name != WEIGHT
            term = value * weight if weighted else value
            self._refuse_if_outside(section, abs(value), abs(term), limit, client)
            terms.append(round_to_quantum(term, section.quantum))
        return terms

    def _add_vector(
        self, target: Statistics, value: np.ndarray, factor: float, quantum: float
    ) -> None:
        magic = _MAGIC * quantum
        for start in range(0, len(target), _CHUNK):
            stop = min(start + _CHUNK, len(target))
            term = self._scratch[: stop - start]
            np.multiply(value[start:stop], factor, out=term, dtype=np.float64)
            term += magic
            term -= magic
            target[start:stop] += term

    @staticmethod
    def _refuse_if_outside(
        section: Section, largest: float, term: float, limit: float, client: str
    ) -> None:
        if term <= limit and largest <= section.bound:
            return
        finite = np.isfinite(largest)
        raise AnabranchError(
            "AB-503" if finite else "AB-502",
            f"client {client!r}: section {section.name!r} "
            + (
                f"has a weighted value of {term:.3g}, above the largest accepted {limit:.3g} "
                f"(bound {section.bound:g})."
                if finite
                else "contains a value that is not finite (NaN or infinity)."
            ),
            fix="lower the local learning rate, clip gradients (local.clip_norm) or updates "
            "(stage 'clip'); look at this client's data.",
            kept="The update was refused; the round goes on without it.",
        )

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of the same plan (exact, any order)."""
        if other.plan.sections != self.plan.sections:
            raise ValueError("accumulators of different sections cannot be merged")
        self.buffer += other.buffer
        self.contributors += other.contributors

    def reset(self) -> None:
        """Empty the accumulator for the next round."""
        self.buffer[:] = 0.0
        self.contributors = 0

    def total(self) -> Total:
        """The sums so far, as copies."""
        places = self.plan.slices()
        sums = {name: self.buffer[place].copy() for name, place in places.items()}
        return Total(self.plan.sections, sums, self.contributors)
