"""The release door: models, metrics and statistics pass it, or they do not leave.

Every release is described, counted and recorded. Until a plan has a privacy mechanism its entries
say ``unprotected``; a sum over fewer contributors than the minimum is withheld even then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from anabranch.updates.total import Total

__all__ = ["Admission", "ReleaseDoor", "digest_of"]


@dataclass(frozen=True)
class Admission:
    """The door's decision on one sum, to be written to the run's releases.

    Attributes:
        what: in words (``model``, ``metrics on test data``, ``statistics of column age``).
        round: the round it belongs to; 0 before the first.
        contributors: clients inside the sum.
        sections: names of what is released.
        mechanism: how it is protected; ``unprotected`` until a plan has privacy.
        admitted: whether it may leave.
        digest: SHA-256 of the released sums; empty when withheld.
    """

    what: str
    round: int
    contributors: int
    sections: tuple[str, ...]
    mechanism: str
    admitted: bool
    digest: str


@dataclass(frozen=True)
class ReleaseDoor:
    """Decides what may leave.

    Attributes:
        minimum: fewest contributors of a sum that is released.
    """

    minimum: int = 1

    def admit(self, what: str, round_: int, total: Total) -> Admission:
        """Judge one sum; the caller releases it only when it was admitted."""
        admitted = total.contributors >= self.minimum
        names = tuple(section.name for section in total.sections)
        digest = digest_of(total) if admitted else ""
        return Admission(what, round_, total.contributors, names, "unprotected", admitted, digest)


def digest_of(total: Total) -> str:
    """SHA-256 over the names and sums of a total."""
    digest = hashlib.sha256()
    for section in total.sections:
        digest.update(section.name.encode())
        digest.update(np.ascontiguousarray(total.sums[section.name]).data)
    return digest.hexdigest()
