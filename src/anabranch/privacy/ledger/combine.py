"""Adding charges up: equal events are one, limited participation counts the dearest, lines cover.

A unit that takes part in at most k of a line's releases cannot have been in more than k of them,
whichever they were; so k releases with the least noise bound what the line cost anybody. This needs
no record of who took part and depends on nobody's data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from anabranch.privacy.accounting import claim
from anabranch.privacy.accounting.gaussian import is_plain
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger.entries import Charge, Line
from anabranch.privacy.ledger.matrix import MatrixEvent

__all__ = ["charges_of", "covers", "epsilon_of", "merged", "share_of"]

_SLACK = 1e-9


def charges_of(charges: Sequence[Charge], participations: int = 0) -> tuple[GaussianEvent, ...]:
    """Gaussian events that bound ``charges`` for one unit.

    Args:
        charges: releases of one line; prefix sums of one DP-FTRL run count once, the longest.
        participations: most of them that one unit takes part in; 0: all.

    >>> [event.rounds for event in charges_of([GaussianEvent(2.0, 5), GaussianEvent(1.0)], 3)]
    [2, 1]
    """
    gaussian = merged(c for c in charges if isinstance(c, GaussianEvent))
    counted = _dearest(gaussian, participations) if participations else gaussian
    return merged((*counted, *_matrices(c for c in charges if isinstance(c, MatrixEvent))))


def _matrices(charges: Iterable[MatrixEvent]) -> Iterator[GaussianEvent]:
    """Each DP-FTRL run once, as long as it got; a round that was released again, once more each.

    Repeating a round adds one row of C x with fresh noise, and one unit moves a row by no more than
    the clip norm, because no two of its participations lie within one band.
    """
    lengths: dict[MatrixEvent, list[int]] = {}
    for charge in charges:
        lengths.setdefault(replace(charge, rounds=1), []).append(charge.rounds)
    for same, rounds in lengths.items():
        yield replace(same, rounds=max(rounds)).as_gaussian()
        again = len(rounds) - len(set(rounds))
        if again:
            yield GaussianEvent(
                same.noise_multiplier, again, relation=same.relation, unit=same.unit
            )


def _dearest(events: Sequence[GaussianEvent], most: int) -> tuple[GaussianEvent, ...]:
    """The ``most`` releases with the least noise."""
    left, found = most, []
    for event in sorted(events, key=lambda e: e.noise_to_sensitivity):
        taken = min(left, event.rounds)
        if taken:
            found.append(replace(event, rounds=taken))
        left -= taken
    return tuple(reversed(found))


def merged(events: Iterable[GaussianEvent]) -> tuple[GaussianEvent, ...]:
    """Equal events added up, in the order of first appearance.

    What does not change the cost (clip, cohort) is left out, and the realised noise takes the place
    of the planned one, so that most rounds of a run are equal.
    """
    rounds: dict[GaussianEvent, int] = {}
    for event in events:
        same = GaussianEvent(
            event.noise, sampling=event.sampling, relation=event.relation, unit=event.unit
        )
        rounds[same] = rounds.get(same, 0) + event.rounds
    return tuple(replace(event, rounds=count) for event, count in rounds.items())


def epsilon_of(events: Sequence[GaussianEvent], delta: float) -> float:
    """The claim on ``events``; 0 for none.

    Releases without sampling are one Gaussian release together and are added up exactly first.

    Raises:
        AnabranchError: as :func:`anabranch.privacy.accounting.claim`.
    """
    if not events:
        return 0.0
    plain = [event for event in events if is_plain(event)]
    sampled = [event for event in events if not is_plain(event)]
    if plain and sampled:
        whole = replace(plain[0], noise_multiplier=_whole(plain), rounds=1, realised_noise=None)
        return claim([*sampled, whole], delta).epsilon
    return claim(events, delta).epsilon


def _whole(plain: Sequence[GaussianEvent]) -> float:
    """Noise multiplier of the one release that plain events are together."""
    return plain[0].relation.sensitivity / math.sqrt(share_of(plain))


def share_of(events: Iterable[GaussianEvent]) -> float:
    """Sum of the squares of 1 / noise-to-sensitivity: the cost of plain releases, exactly.

    >>> share_of([GaussianEvent(2.0, rounds=8)])
    2.0
    """
    return math.fsum(event.rounds / event.noise_to_sensitivity**2 for event in events)


def covers(line: Line, released: Sequence[Charge], delta: float) -> bool:
    """Whether ``released`` stays within what ``line`` allots.

    The quick tests are exact for plain releases and sufficient for sampled ones; only what they
    leave open is accounted.

    Raises:
        AnabranchError: as :func:`anabranch.privacy.accounting.claim`.
    """
    if not released:
        return True
    planned = charges_of(line.charges, line.participations)
    spent = charges_of(released, line.participations)
    if any(event.relation is not planned[0].relation for event in spent):
        return False
    if all(map(is_plain, (*planned, *spent))):
        return share_of(spent) <= share_of(planned) * (1 + _SLACK)
    if _dominated(spent, planned):
        return True
    return epsilon_of(spent, delta) <= epsilon_of(planned, delta) * (1 + _SLACK)


def _dominated(spent: Sequence[GaussianEvent], planned: Sequence[GaussianEvent]) -> bool:
    """Whether every release has the planned sampling, no less noise, and there are not more."""
    if len({event.sampling for event in (*spent, *planned)}) != 1:
        return False
    least = max(event.noise for event in planned)
    rounds = sum(event.rounds for event in spent)
    return rounds <= sum(e.rounds for e in planned) and all(e.noise >= least for e in spent)
