"""What a population's ledger is made of: five kinds of entries, frozen, with one text each.

- `Opened`, once, first: whose ledger it is, what one unit is, and how much may be spent over all
  runs.
- `Allotted`: a run begins; its lines say all that it may release.
- `Reserved`: one release is about to be computed. From here on it counts as spent.
- `Settled`: what that release really was; or that nothing can have been computed.
- `Closed`: the run is over; what it did not use returns to the population.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from anabranch.privacy.events import GaussianEvent, Relation, Unit
from anabranch.privacy.ledger.matrix import MatrixEvent

__all__ = [
    "Allotted",
    "Charge",
    "Closed",
    "Entry",
    "Line",
    "Opened",
    "Purpose",
    "Request",
    "Reserved",
    "Settled",
]

Charge: TypeAlias = GaussianEvent | MatrixEvent
"""What a release costs."""

Purpose: TypeAlias = Literal["model", "metrics", "evaluation", "statistics", "clipping", "audit"]
"""What a line is for. Everything that leaves has one."""


@dataclass(frozen=True)
class Opened:
    """The first entry: whose budget it is.

    Attributes:
        population: its name.
        unit: whose presence is protected.
        relation: when two populations are neighbours; one for all runs.
        epsilon: budget of all runs together.
        delta: of the budget.
        size: units in the population; 0 if not known.
        disjoint: whether the contract declares that no unit has data at two sites; only then do
            charges of different sites combine by their maximum.
    """

    population: str
    unit: Unit
    relation: Relation
    epsilon: float
    delta: float
    size: int = 0
    disjoint: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a run's allotment: some releases of the same purpose.

    Attributes:
        purpose: what is released.
        charges: all that may be released on this line, as planned. Equal rounds are one charge.
        participations: most releases of this line that one unit takes part in, enforced; 0: all.
        site: where the noise is added, for budgets of single sites; empty: everywhere.
    """

    purpose: Purpose
    charges: tuple[Charge, ...]
    participations: int = 0
    site: str = ""


@dataclass(frozen=True)
class Allotted:
    """A run begins.

    Attributes:
        run: its id.
        lines: all that it may release.
        epsilon: what the plan promises.
        delta: of that promise.
        label: what the run is part of (a trial of a search, a fold), for people.
        plan_digest: of the contract.
        secret: fingerprint of the run's secret; releases under another secret are other releases.
    """

    run: str
    lines: tuple[Line, ...]
    epsilon: float
    delta: float
    label: str = ""
    plan_digest: str = ""
    secret: str = ""


@dataclass(frozen=True)
class Request:
    """One release, before it is computed.

    Attributes:
        purpose: its line.
        round: round of the run.
        version: digest of the model that the contributions were computed on.
        contributors: who is inside, sorted.
        payloads: digest over what they sent; sums under masks have the digest of the masked sum.
        charge: what it costs: for one round, with the noise that will really be there.
        site: of the line.
        details: facts for the report: mechanism, arithmetic, clip norm, cohort.
    """

    purpose: Purpose
    round: int
    version: str
    contributors: tuple[str, ...]
    payloads: str
    charge: Charge
    site: str = ""
    details: tuple[tuple[str, str], ...] = ()

    @property
    def contributors_digest(self) -> str:
        """SHA-256 over the contributors; their names do not enter the ledger.

        They are hashed together, and with the payloads, so that nobody can look for one of them.
        """
        return _digest("contributors", self.payloads, *sorted(self.contributors))

    def release_id(self, run: str, secret: str) -> str:
        """The same for the same inputs under the same secret, else another one.

        Args:
            run: id of the run.
            secret: fingerprint of the run's secret: with another secret the noise would differ,
                and so would the release.
        """
        words = (self.purpose, str(self.round), self.version, self.contributors_digest)
        return _digest("release", run, secret, *words, self.payloads, repr(self.charge), self.site)


@dataclass(frozen=True)
class Reserved:
    """One release is about to be computed and counts as spent.

    Attributes:
        release: its id, see :meth:`Request.release_id`.
        run: of which run.
        purpose: its line.
        round: round of the run.
        contributors: how many.
        contributors_digest: which, without their names.
        charge: what it costs.
        site: of the line.
        details: facts for the report.
    """

    release: str
    run: str
    purpose: Purpose
    round: int
    contributors: int
    contributors_digest: str
    charge: Charge
    site: str = ""
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settled:
    """What became of a reservation.

    Attributes:
        release: its id.
        charge: what it really cost; None if nothing can have been computed.
        output: SHA-256 of what was released; empty if nothing was.
        reason: why nothing was; empty otherwise.
    """

    release: str
    charge: Charge | None
    output: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Closed:
    """A run is over.

    Attributes:
        run: its id.
        reason: how it ended.
        final: whether it never goes on: its secret is erased.
    """

    run: str
    reason: str = ""
    final: bool = True


Entry: TypeAlias = Opened | Allotted | Reserved | Settled | Closed


def _digest(*words: str) -> str:
    digest = hashlib.sha256(b"anabranch ledger 1")
    for word in words:
        data = word.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
