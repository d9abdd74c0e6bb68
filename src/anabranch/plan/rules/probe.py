"""Does an algorithm's server step average? Asked by running its pure functions on three clients."""

from __future__ import annotations

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.algorithms.base import Algorithm, LocalWork, RoundContext, ServerState
from anabranch.updates.sections import WEIGHT, Kind, Section, Sections, Update, Weighting

__all__ = ["averages", "inferred_memory"]

_MOVES = ((0.5, -0.375, 0.25), (8.0, -4.0, 1.0))
"""What three clients do to one coordinate in two rounds: they disagree, on two scales."""
_STEPS = (1, 2, 8)


def averages(algorithm: Algorithm) -> bool:
    """Whether each round moves every coordinate by one fixed factor <= 1 of the clients' mean.

    Only then may a coordinate be something else than a trained parameter, such as a running
    variance: it stays between the values that the clients sent. Momentum, adaptive steps,
    normalisation by the amount of work, and extrapolation do not.

    >>> from anabranch.algorithms import FedAvg, FedAvgM
    >>> averages(FedAvg()), averages(FedAvgM())
    (True, False)
    """
    state = algorithm.init(np.zeros(1, np.float32))
    factors = []
    for round_, moves in enumerate(_MOVES, start=1):
        after = _round(algorithm, state, round_, moves)
        factors.append(float(after.model[0] - state.model[0]) / float(np.mean(moves)))
        state = after
    return bool(np.isclose(factors[0], factors[1], rtol=1e-5) and 0 < factors[0] <= 1 + 1e-5)


def inferred_memory(algorithm: Algorithm) -> list[str]:
    """What clients keep and the server infers from the delta: it has no section of its own.

    >>> from anabranch.algorithms import FedDyn, Scaffold
    >>> inferred_memory(FedDyn()), inferred_memory(Scaffold())
    (['gradient'], [])
    """
    sent = {section.name for section in algorithm.sections(1)}
    return [s.name for s in algorithm.memory_sections(1) if s.name not in sent]


def _round(
    algorithm: Algorithm, state: ServerState, round_: int, moves: tuple[float, ...]
) -> ServerState:
    weight = Section(WEIGHT, 1, Kind.STATISTIC, Weighting.UNIFORM)
    sections = Sections((*algorithm.sections(1), weight))
    fold = Accumulator(FoldPlan(sections, capacity=len(moves)))
    broadcast = algorithm.broadcast(state)
    memory = {s.name: np.zeros(1, np.float32) for s in algorithm.memory_sections(1)}
    for number, (move, steps) in enumerate(zip(moves, _STEPS, strict=True)):
        work = LocalWork(np.array([move], np.float32), steps, 10, steps * 0.1, float(steps))
        values, _ = algorithm.client_update(broadcast, memory, work)
        vectors = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        scalars = {k: float(v) for k, v in values.items() if not isinstance(v, np.ndarray)}
        fold.add(Update(vectors, {**scalars, WEIGHT: 1.0}), str(number))
    return algorithm.server_update(state, fold.total(), RoundContext(round_, len(moves)))
