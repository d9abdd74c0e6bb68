"""A cohort of fixed size, drawn without replacement: our own dominating pair.

The neighbouring relation is replace-one. For e >= 0 the hockey-stick divergence of a release is at
most that of ((1-q) Q + q P, Q) with P, Q = N(shift), N(0) and a shift of twice the clip norm; for a
negative e it is at most that of the reverse (Balle, Barthe and Gaboardi 2018; Zhu, Dong and Wang
2022). Composing either half alone is not a valid bound (Lebeda, Regehr, Kamath and Steinke 2024,
"Avoiding Pitfalls for Privacy Accounting of Subsampled Mechanisms under Composition"). So the two
halves are glued into one curve

    delta(e)  = divergence of ((1-q) Q + q P, Q) at e,        e >= 0
    delta(-e) = 1 - exp(-e) + exp(-e) delta(e)

which belongs to one symmetric pair that dominates in both directions, and that pair is composed.

The truth lies between this bound and Poisson sampling of the same rate and shift, which is attained
when all other units contribute the same extreme vector; the lower bound of the accounting is that
one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anabranch.privacy.accounting.pairs import Floats, Masses, Removed

__all__ = ["FixedSize"]


@dataclass(frozen=True)
class FixedSize:
    """The symmetric pair. ``shift`` is that of replacing a unit: 2 / noise multiplier.

    Edges given to :meth:`masses` are symmetric around zero and contain it.
    """

    shift: float
    rate: float

    def span(self) -> tuple[float, float]:
        high = Removed(self.shift, self.rate).span()[1]
        return -high, high

    def masses(self, edges: Floats) -> Masses:
        middle = len(edges) // 2
        right = Removed(self.shift, self.rate).masses(edges[middle:])
        # The loss of a symmetric pair has under P at -L the mass that it has under Q at L.
        p = np.concatenate([right.q[::-1], right.p])
        q = np.concatenate([right.p[::-1], right.q])
        at_zero = max(0.0, 1 - float(p.sum()) - right.above)
        return Masses(p, q, 0.0, right.above, at_zero)
