"""Updates as integers modulo 2^b: the exact fold of design idea 4, behind masks.

A client folds its own update alone, with the accumulator that a coordinator would use in the clear.
What comes out are multiples of public quanta, that is integers; their sum modulo 2^b is the sum of
the clear fold, bit for bit, because no sum can leave the range:

- a coordinate of a vector takes one lane. Its bound is public, and the quantum is the finest power
  of two at which n clients fit the modulus, but never finer than the plan's own;
- counts and statistics are exact in any modulus: each is written in limbs of l bits, with the sign
  on every limb, and n limbs fit one lane.

With enough bits all quanta are the plan's own, and the model is that of the same plan in the clear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.fixed_point import FixedPoint
from anabranch.privacy.secure_aggregation.refusals import bad_parameters
from anabranch.privacy.secure_aggregation.streams import Lanes, lane_dtype
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

__all__ = ["SectionCodec"]

_STATISTIC_BITS = 52
"""Bits of the largest term that the fold accepts, in quanta."""
_EXACT = (1 << 52) - 1

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class SectionCodec:
    """Between updates of declared sections and lanes; public and equal at all who take part.

    Attributes:
        sections: of an update.
        clients: the most updates in a sum.
        bits: b of the modulus.
        bound: largest absolute coordinate of a vector section, before its weight, where the
            section's own bound is not smaller; what exceeds it is cut off.
        weight_bound: largest weight of a client.
        norm_bound: largest Euclidean norm of section ``delta``, before its weight, that the sum
            test grants each client; ``inf`` for none.
        wraps: whether vectors are residues modulo 2^b already (noise from clients).
        exact: whether the sections' own quanta must be kept, because a promise relies on them.

    Raises:
        AnabranchError: AB-951 if the modulus holds no step for so many clients, or not the quanta
            that must be kept; AB-952 if a bound
            is not above zero and finite.
    """

    sections: Sections
    clients: int
    bits: int
    bound: float
    weight_bound: float = 1.0
    norm_bound: float = math.inf
    wraps: bool = False
    exact: bool = False
    folded: Sections = field(init=False, repr=False, compare=False)
    """The sections with the quanta and bounds of the masked fold."""

    def __post_init__(self) -> None:
        lane_dtype(self.bits)
        bounds = [min(self.bound, s.bound) for s in self.sections if self._one_lane(s)]
        for number in (self.weight_bound, *bounds):
            if not 0 < number < math.inf:
                raise bad_parameters(f"A bound of {number} can not be kept.")
        if self.largest < 1:
            FixedPoint(1.0, 1.0, self.bits).check(self.clients)
        items = tuple(self._fitted(section) for section in self.sections)
        object.__setattr__(self, "folded", Sections(items))

    @cached_property
    def largest(self) -> int:
        """The largest absolute integer that a client may put into a lane."""
        return min(((1 << (self.bits - 1)) - 1) // self.clients, _EXACT)

    @property
    def encoding(self) -> FixedPoint:
        """What the context of a round says of the lanes."""
        if self.wraps:
            return FixedPoint(1.0, 1.0, self.bits, wraps=True)
        return FixedPoint(1.0, float(self.largest), self.bits)

    @cached_property
    def limb_bits(self) -> int:
        """l: bits of a limb."""
        return (self.largest + 1).bit_length() - 1

    @cached_property
    def limbs(self) -> int:
        """Limbs of a count or statistic."""
        return -(-_STATISTIC_BITS // self.limb_bits) if self.limb_bits else 0

    @cached_property
    def length(self) -> int:
        """Lanes of an update."""
        return sum(s.length * (1 if self._one_lane(s) else self.limbs) for s in self.sections)

    def encode(self, update: Update, client: str) -> Lanes:
        """One client's update as lanes.

        Raises:
            AnabranchError: AB-501 to AB-503 as the fold in the clear.
        """
        alone = Accumulator(FoldPlan(self.folded, self.clients))
        alone.add(self._cut(update), client)
        parts = []
        for section, place in self._places():
            whole = np.rint(alone.buffer[place] / section.quantum).astype(np.int64)
            if self._one_lane(section):
                parts.append(whole)
            else:
                parts.extend(self._split(whole))
        return _as_lanes(np.concatenate(parts), self.bits)

    def decode(self, lanes: Lanes, contributors: int) -> Total:
        """The sums, from the sum of the lanes.

        Raises:
            AnabranchError: AB-976 if no honest clients could have made them.
        """
        signed = _as_signed(lanes, self.bits)
        self._test_lanes(signed, contributors)
        sums: dict[str, Statistics] = {}
        at = 0
        for section, _ in self._places():
            width = section.length * (1 if self._one_lane(section) else self.limbs)
            part = signed[at : at + width]
            at += width
            whole = part if self._one_lane(section) else self._join(part, section.length)
            sums[section.name] = whole.astype(np.float64) * section.quantum
        total = Total(self.sections, sums, contributors)
        self._test_sums(total)
        return total

    def _fitted(self, section: Section) -> Section:
        if not self._one_lane(section):
            if self.wraps:
                raise bad_parameters(f"Section {section.name!r} can not be a residue.")
            bound = self.weight_bound if section.name == WEIGHT else section.bound
            return replace(section, bound=min(section.bound, bound))
        if self.wraps:
            return section
        bound = min(section.bound, self.bound)
        term = bound * self._factor(section)
        quantum = 2.0 ** math.ceil(math.log2(term / self.largest))
        if self.exact and quantum > section.quantum:
            FixedPoint(1 / section.quantum, term, self.bits).check(self.clients)
        return replace(
            section,
            quantum=max(section.quantum, quantum),
            bound=bound,
        )

    def _one_lane(self, section: Section) -> bool:
        return section.kind is Kind.VECTOR or (self.wraps and not section.scalar)

    def _factor(self, section: Section) -> float:
        return self.weight_bound if section.weighting is Weighting.BY_WEIGHT else 1.0

    def _places(self) -> list[tuple[Section, slice]]:
        places = FoldPlan(self.folded, self.clients).slices()
        return [(self.folded[name], place) for name, place in places.items()]

    def _cut(self, update: Update) -> Update:
        if self.wraps:
            return update
        vectors = {name: self._bounded(name, value) for name, value in update.vectors.items()}
        return Update(vectors, update.scalars, update.packed)

    def _bounded(self, name: str, value: Vector | Statistics) -> Vector | Statistics:
        if name not in self.sections or not self._one_lane(self.sections[name]) or not value.size:
            return value
        largest, bound = float(np.max(np.abs(value))), self.folded[name].bound
        # What is not finite stays as it is: the fold refuses it.
        if not bound < largest < math.inf:
            return value
        cut = value.copy()
        np.clip(cut, -bound, bound, out=cut)
        return cut

    def _split(self, whole: Integers) -> list[Integers]:
        """Limbs of each number, all lowest ones first, with the sign on every limb."""
        sign, rest = np.sign(whole), np.abs(whole)
        mask = np.int64((1 << self.limb_bits) - 1)
        return [sign * ((rest >> (self.limb_bits * j)) & mask) for j in range(self.limbs)]

    def _join(self, limbs: Integers, length: int) -> Integers:
        rows = limbs.reshape(self.limbs, length)
        whole = np.zeros(length, np.int64)
        for j in range(self.limbs):
            whole += rows[j] << np.int64(self.limb_bits * j)
        return whole

    # The sum test --------------------------------------------------------------------------

    def _test_lanes(self, signed: Integers, contributors: int) -> None:
        """What one client can put into each lane, times the clients."""
        if self.wraps:
            return
        at = beyond = 0
        for section, _ in self._places():
            for most in self._most(section):
                part = signed[at : at + section.length]
                at += section.length
                beyond += int(np.count_nonzero(np.abs(part) > contributors * most))
        if beyond:
            raise _refused(f"{beyond} of {signed.size} numbers are larger than any of its clients")

    def _most(self, section: Section) -> list[int]:
        """The largest integer of one client, in a lane or in each of the limbs."""
        factor = self._factor(section) if section.name != WEIGHT else 1.0
        term = section.bound * factor
        limit = FoldPlan(self.folded, self.clients).limit(section)
        whole = math.ceil(min(term, limit) / section.quantum)
        if self._one_lane(section):
            return [min(whole, self.largest)]
        limb = (1 << self.limb_bits) - 1
        return [min(limb, whole >> (self.limb_bits * place)) for place in range(self.limbs)]

    def _test_sums(self, total: Total) -> None:
        count = total.contributors
        for section, _ in self._places():
            sums = total.sums[section.name]
            most = (
                count * section.bound * (self._factor(section) if self._one_lane(section) else 1.0)
            )
            room = count * section.quantum
            if math.isfinite(most) and float(np.max(np.abs(sums), initial=0.0)) > most + room:
                raise _refused(f"section {section.name!r} is beyond its public bound")
            if section.kind is Kind.COUNT and float(np.min(sums, initial=0.0)) < 0:
                raise _refused(f"section {section.name!r} counts below zero")
        if WEIGHT in self.sections and not total.weight > 0:
            raise _refused("its weight is not above zero")
        self._test_norm(total)

    def _test_norm(self, total: Total) -> None:
        if not math.isfinite(self.norm_bound) or "delta" not in self.folded:
            return
        section = self.folded["delta"]
        by_weight = section.weighting is Weighting.BY_WEIGHT
        weight = total.weight if by_weight else float(total.contributors)
        rounding = total.contributors * math.sqrt(section.length) * section.quantum / 2
        norm = float(np.linalg.norm(total.sums["delta"]))
        if norm > weight * self.norm_bound * (1 + 1e-6) + rounding:
            raise _refused("its norm is larger than clipped updates can have")


def _as_lanes(signed: Integers, bits: int) -> Lanes:
    dtype = lane_dtype(bits)
    modulus = dtype.type((1 << bits) - 1)
    lanes: Lanes = signed.view(np.uint64).astype(dtype) & modulus
    return lanes


def _as_signed(lanes: Lanes, bits: int) -> Integers:
    spare = np.uint64(64 - bits)
    # Shifted to the top and back as a signed number: the sign bit is extended.
    high = (lanes.astype(np.uint64) << spare).view(np.int64)
    return high >> np.int64(64 - bits)


def _refused(what: str) -> AnabranchError:
    return AnabranchError(
        "AB-976",
        f"The sum of a group was refused: {what}.",
        fix="repeat the round with other clients. At least one client of the group sent a vector "
        "that is out of range or not the one it masked for; masks hide which.",
        kept="The model is unchanged; the sum was thrown away.",
    )
