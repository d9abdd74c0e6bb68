"""Between the sum of a round and the server update: what may leave.

Without ``[privacy]`` a sum passes the door and is counted (`OpenReleases`). With it the same
interface adds noise and pays for it: see `private_releases` (noise of the coordinator) and
`site_releases` (noise of the sites).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from anabranch.algorithms.base import Broadcast
from anabranch.coordinator.store.records import Arrays
from anabranch.privacy.door import Admission, ReleaseDoor
from anabranch.updates.sections import Vector
from anabranch.updates.total import Total

__all__ = ["PROGRESS", "OpenReleases", "Passed", "Releases"]

PROGRESS: Final = "privacy.progress"
"""The watched validation metric so far, more is better: an adaptive budget follows it."""


@dataclass(frozen=True)
class Passed:
    """What the door let through.

    Attributes:
        total: what the algorithm may see; None when nothing may leave.
        admissions: for the run's record of releases.
        facts: public numbers about the release, for the round's metrics.
        extra: what the run must remember for the next release.
        reason: why nothing may leave; empty otherwise.
    """

    total: Total | None
    admissions: tuple[Admission, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    extra: Arrays = field(default_factory=dict)
    reason: str = ""


class Releases(Protocol):
    """Decides about the sums of a run's rounds."""

    @property
    def ended(self) -> str:
        """Why no further round may be released; empty while one may."""
        ...

    def broadcast(self, extra: Arrays) -> Broadcast:
        """What clients are sent for this, besides the algorithm's vectors."""
        ...

    def release(
        self,
        round_: int,
        total: Total,
        contributors: Sequence[int],
        model: Vector,
        extra: Arrays,
    ) -> Passed:
        """Judge the sum of a round; the caller uses nothing but what is returned."""
        ...

    def kept(self, extra: Arrays) -> Arrays:
        """What must be remembered even when a round fails."""
        ...

    def declined(self, round_: int, clients: Sequence[int]) -> None:
        """These clients say that they never computed anything for the run."""
        ...

    def failed(self, round_: int) -> None:
        """The round failed before a release: nobody took part in it."""
        ...

    def committed(self) -> None:
        """Everything that was released so far is durable."""
        ...


@dataclass
class OpenReleases:
    """Releases without protection: counted, and withheld below the minimum of contributors.

    Attributes:
        door: decides.
    """

    door: ReleaseDoor
    ended: str = ""

    def broadcast(self, extra: Arrays) -> Broadcast:
        return {}

    def release(
        self,
        round_: int,
        total: Total,
        contributors: Sequence[int],
        model: Vector,
        extra: Arrays,
    ) -> Passed:
        admission = self.door.admit("model", round_, total)
        if not admission.admitted:
            reason = f"{total.contributors} contributors are fewer than a release needs"
            return Passed(None, (admission,), reason=reason)
        return Passed(total, (admission,))

    def kept(self, extra: Arrays) -> Arrays:
        return {}

    def declined(self, round_: int, clients: Sequence[int]) -> None:
        """Nothing was reserved."""

    def failed(self, round_: int) -> None:
        """Nothing was reserved."""

    def committed(self) -> None:
        """Nothing is to be settled."""
