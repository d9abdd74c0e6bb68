"""From what a round collected to the next server state, or the reason why it failed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from anabranch.algorithms.base import RoundContext, ServerState
from anabranch.client.program import ClientProgram
from anabranch.coordinator.collect import Collected, TaskKey
from anabranch.coordinator.releasing import Passed
from anabranch.coordinator.runtime import Fate
from anabranch.coordinator.store import Arrays, RoundOutcome
from anabranch.privacy.door import Admission
from anabranch.updates.total import Total

__all__ = ["Aggregated", "aggregate"]


@dataclass(frozen=True)
class Aggregated:
    """How the updates of a round became a model.

    Attributes:
        server: the next state; the same one when the round failed.
        outcome: ``complete``, ``partial`` or ``failed``.
        fates: what clients are told of their tasks; nobody is merged into a failed round.
        releases: the door's decisions.
        reason: why the round failed; empty otherwise.
        facts: public numbers about the release.
        extra: what the release must remember.
    """

    server: ServerState
    outcome: RoundOutcome
    fates: Mapping[TaskKey, Fate]
    releases: tuple[Admission, ...] = ()
    reason: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    extra: Arrays = field(default_factory=dict)


def aggregate(
    program: ClientProgram,
    server: ServerState,
    collected: Collected,
    *,
    context: RoundContext,
    needed: int,
    release: Callable[[Total, Sequence[int]], Passed],
) -> Aggregated:
    """Decode, release and apply the sum of a round.

    Args:
        program: algorithm and stages.
        server: the state that the round started from.
        collected: the folded updates and the outcome of each client.
        context: round, fleet and schedule.
        needed: fewest updates that make a round.
        release: from the sum and its contributors to what may leave.
    """
    fates = {key: outcome.fate for key, outcome in collected.outcomes.items()}
    dropped = {key: Fate.TOO_LATE if fate.counts else fate for key, fate in fates.items()}
    if collected.contributors < needed:
        reason = f"{collected.contributors} of the {needed} updates that make a round (quorum)"
        return Aggregated(server, "failed", dropped, reason=_first_trouble(reason, collected))
    pipeline = program.pipeline
    total = pipeline.decode_sum(collected.total())
    passed = release(total, [key.client for key, fate in fates.items() if fate.counts])
    if passed.total is None:
        return Aggregated(
            server, "failed", dropped, passed.admissions, passed.reason, extra=passed.extra
        )
    with np.errstate(all="ignore"):  # judged by the finiteness of the result, just below
        after = program.algorithm.server_update(server, passed.total, context)
    if not all(np.isfinite(array).all() for array in after.arrays().values()):
        reason = "the new model is not finite: the run diverges (AB-504)"
        return Aggregated(server, "failed", dropped, passed.admissions, reason, extra=passed.extra)
    everyone = all(fate.counts for fate in fates.values())
    outcome: RoundOutcome = "complete" if everyone else "partial"
    return Aggregated(
        after, outcome, fates, passed.admissions, facts=passed.facts, extra=passed.extra
    )


def _first_trouble(reason: str, collected: Collected) -> str:
    """The reason with the first client's own words, which usually are everybody's."""
    details = (o.detail for o in collected.outcomes.values() if o.detail)
    first = next(details, "")
    return f"{reason}; first trouble: {first}" if first else reason
