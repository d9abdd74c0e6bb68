"""Before training: which noise a promise needs, whether a model can be learnt under it, and if not,
what would have to be different.

The rule is one number. Noise of deviation z C on every coordinate of a sum of m updates of norm at
most C gives the mean update noise of norm z C sqrt(d) / m. Where that is as large as the updates
themselves, rounds undo each other:

    noise ratio = z sqrt(d) / m,      useful up to about 1,      that is: cohort >= z sqrt(d)

For DP-FTRL the z of a round is what the noise of the last prefix sum is worth per round, its
deviation divided by sqrt(rounds). The rule is a rule of thumb (it was measured on linear models and
small networks), the noise behind it is accounted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting import banded_toeplitz, exact_noise
from anabranch.privacy.accounting.pld import quick_bound
from anabranch.privacy.events import GaussianEvent, PoissonSampling, Relation

__all__ = ["Change", "Question", "Route", "Tradeoff", "noise_of", "tradeoff"]

Kind: TypeAlias = Literal["ftrl", "poisson", "limited", "every round"]

USEFUL = 1.0
"""Largest noise ratio at which learning is expected to work."""

Field: TypeAlias = Literal["cohort", "rounds", "dim"]

_PRECISION = 0.02
_LEAST_NOISE = 0.3
_PARTS = 16
_LARGEST_FLEET = 16 * 10**9
_LARGEST_EPSILON = 64
_FEW_SITES = 200


@dataclass(frozen=True)
class Question:
    """What is to be promised, and with what.

    Attributes:
        epsilon: budget of the run for the model.
        delta: of the promise.
        clients: enrolled clients (units).
        cohort: updates wanted in a round.
        rounds: of the run.
        dim: trained parameters that are shared.
        relation: stated relation; None lets every route use its own.
    """

    epsilon: float
    delta: float
    clients: int
    cohort: int
    rounds: int
    dim: int
    relation: Relation | None = None

    @property
    def participations(self) -> int:
        """Rounds that a client must take part in at least, for all cohorts to be filled."""
        return math.ceil(self.rounds * self.cohort / self.clients)

    def relation_of(self, kind: Kind) -> Relation:
        """The neighbouring relation of a route."""
        own = Relation.ADD_OR_REMOVE if kind == "poisson" else Relation.ZERO_OUT
        return self.relation or own


@dataclass(frozen=True)
class Route:
    """One way to keep the promise.

    Attributes:
        kind: ``ftrl``; ``poisson``: fresh noise, secret coins; ``limited``: fresh noise, limited
            participation; ``every round``: fresh noise, everybody may come every time.
        noise: deviation of a round's noise in clip norms (DP-FTRL: what it is worth a round).
        multiplier: what the plan would state as the noise multiplier.
        ratio: noise norm of the mean update, in clip norms.
        participations: rounds a client takes part in at most.
        words: what it needs, and who must be trusted.
    """

    kind: Kind
    noise: float
    multiplier: float
    ratio: float
    participations: int
    words: str

    @property
    def useful(self) -> bool:
        """Whether learning is expected to work."""
        return self.ratio <= USEFUL * (1 + 1e-9)


@dataclass(frozen=True)
class Change:
    """One thing that would make the promise reachable, all else as asked.

    Attributes:
        key: of the plan.
        value: what it would have to be.
        words: in a sentence.
    """

    key: str
    value: float
    words: str


@dataclass(frozen=True)
class Tradeoff:
    """The answer.

    Attributes:
        question: as asked.
        routes: all ways, the least noise first.
        changes: what would make the best route useful; empty where it is.
        cohorts: noise ratio of the best route by cohort, for the picture.
        lengths: noise ratio by number of rounds.
        sizes: noise ratio by number of parameters.
    """

    question: Question
    routes: tuple[Route, ...]
    changes: tuple[Change, ...]
    cohorts: tuple[tuple[int, float], ...]
    lengths: tuple[tuple[int, float], ...]
    sizes: tuple[tuple[int, float], ...]

    @property
    def best(self) -> Route:
        """The route with the least noise."""
        return self.routes[0]

    @property
    def reachable(self) -> bool:
        """Whether learning is expected to work as asked."""
        return self.best.useful

    @property
    def recommendation(self) -> str:
        """One paragraph for people."""
        ask, best = self.question, self.best
        noise = (
            f"The least noise has {_NAMES[best.kind]}: {best.noise:.3g} clip norms a round, so the "
            f"mean of {ask.cohort} updates with {ask.dim} parameters carries noise of "
            f"{best.ratio:.2g} times the clip norm."
        )
        if self.reachable:
            return f"Reachable. {noise} Up to about 1 models are learnt. It needs {best.words}."
        ways = "; or ".join(change.words for change in self.changes)
        return (
            f"Not reachable with this many clients. {noise} Above about 1 rounds undo each other. "
            f"What would make it reachable: {ways}."
        )


_NAMES = {
    "ftrl": "DP-FTRL",
    "poisson": "fresh noise with secret coins (Poisson sampling)",
    "limited": "fresh noise with limited participation",
    "every round": "fresh noise without a limit",
}
_WORDS = {
    "ftrl": "a coordinator that adds the noise and is trusted with the sums, and a limit on "
    "participations that it and the clients keep",
    "poisson": "an independent secret coin for every enrolled client in every round, and that "
    "nobody whom the promise is against sees who takes part",
    "limited": "a limit on participations that coordinator and clients keep; the clients can add "
    "the noise themselves",
    "every round": "nothing about who takes part; the clients can add the noise themselves",
}


def tradeoff(question: Question) -> Tradeoff:
    """All routes to a promise, what they cost, and what would make it reachable.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed; AB-913 the numbers make no fleet.
    """
    if not 1 <= question.cohort <= question.clients or min(question.rounds, question.dim) < 1:
        raise AnabranchError(
            "AB-913",
            f"{question.rounds} rounds of {question.cohort} clients out of {question.clients}, "
            f"{question.dim} parameters.",
            fix="give positive numbers, and a cohort of at most the fleet.",
        )
    routes = tuple(sorted(_routes(question), key=lambda route: route.ratio))
    kind = routes[0].kind
    return Tradeoff(
        question=question,
        routes=routes,
        changes=() if routes[0].useful else tuple(_changes(question, kind)),
        cohorts=tuple(_along(question, kind, "cohort")),
        lengths=tuple(_along(question, kind, "rounds")),
        sizes=tuple(_along(question, kind, "dim")),
    )


def _routes(question: Question) -> Iterator[Route]:
    kinds: list[Kind] = ["ftrl", "limited"]
    if question.cohort < question.clients:
        kinds.append("poisson")
    for kind in kinds:
        found = noise_of(question, kind)
        everybody = kind == "limited" and question.participations >= question.rounds
        name: Kind = "every round" if everybody else kind
        most = question.rounds if kind == "poisson" else question.participations
        noise, multiplier = found
        yield Route(name, noise, multiplier, _ratio(question, noise), most, _WORDS[name])


def _ratio(question: Question, noise: float) -> float:
    return noise * math.sqrt(question.dim) / question.cohort


def noise_of(question: Question, kind: Kind) -> tuple[float, float]:
    """Noise of a round in clip norms, and the multiplier that a plan would state.

    Within two percent for sampled rounds; exact for all others.
    """
    relation = question.relation_of(kind)
    if kind == "poisson":
        noise = _sampled_noise(question)
        return noise, noise
    whole = exact_noise(question.epsilon, question.delta) * relation.sensitivity
    most = question.participations
    if kind != "ftrl":
        noise = whole * math.sqrt(min(most, question.rounds))
        return noise, noise
    separation = max(1, question.rounds // most)
    matrix = banded_toeplitz(question.rounds, separation, most)
    each = whole * matrix.max_error / math.sqrt(question.rounds)
    return each, whole * matrix.sensitivity


@lru_cache(maxsize=4096)
def _sampled_epsilon(
    noise: float, rate: float, rounds: int, delta: float, relation: Relation
) -> float:
    """On a coarse grid: this is a plan, not a claim."""
    event = GaussianEvent(noise, rounds, PoissonSampling(rate), relation)
    return quick_bound([event], delta)


def _epsilon_at(question: Question, noise: float) -> float:
    # Equal quotients are equal questions, whatever rounding made of them.
    rate = float(f"{min(1.0, question.cohort / question.clients):.6g}")
    relation = question.relation_of("poisson")
    return _sampled_epsilon(noise, rate, question.rounds, question.delta, relation)


def _sampled_noise(question: Question) -> float:
    """A secant on logarithms, where epsilon falls almost like a power of the noise."""

    def excess(log_noise: float) -> float:
        found = max(_epsilon_at(question, math.exp(log_noise)), 1e-9)
        return math.log(found / question.epsilon)

    before = math.log(_LEAST_NOISE)
    at_before = excess(before)
    if at_before <= 0:
        return _LEAST_NOISE
    here = before + min(at_before, 1.0)
    for _ in range(12):
        at_here = excess(here)
        if -_PRECISION <= at_here <= 0:
            break
        slope = (at_here - at_before) / (here - before)
        before, at_before = here, at_here
        # A little beyond the root, so that the last step ends where the budget is kept.
        here -= max(-1.0, min((at_here + _PRECISION / 2) / slope, 1.0))
    return math.exp(here)


def _is_useful(question: Question, kind: Kind) -> bool:
    """Whether the noise that would be just useful keeps the promise."""
    if kind != "poisson":
        return _ratio(question, noise_of(question, kind)[0]) <= USEFUL
    noise = USEFUL * question.cohort / math.sqrt(question.dim)
    return noise >= _LEAST_NOISE and _epsilon_at(question, noise) <= question.epsilon


def _changes(question: Question, kind: Kind) -> Iterator[Change]:
    """Each alone would do; those that are impossible are left out."""
    clients, cohort = question.clients, question.cohort
    larger = _least(lambda m: _is_useful(replace(question, cohort=m), kind), cohort, clients)
    if larger is not None:
        yield Change("rounds.cohort", larger, f"cohorts of {larger} of the same clients")
    grown = _least(
        lambda n: _is_useful(_grown(question, n), kind), _PARTS, _LARGEST_FLEET // clients
    )
    if grown is not None:
        other = _grown(question, grown)
        words = f"{other.clients} clients with cohorts of {other.cohort}"
        yield Change("clients", other.clients, words)
    dim = math.floor((cohort / noise_of(question, kind)[0]) ** 2)
    if dim >= 1:
        words = f"a model with at most {dim} trained parameters"
        yield Change("model", dim, words)
    fewer = _most(lambda t: _is_useful(replace(question, rounds=t), kind), 1, question.rounds)
    if fewer is not None:
        yield Change("rounds.count", fewer, f"{fewer} rounds")
    epsilon = _epsilon_needed(question, kind)
    if epsilon is not None:
        yield Change("privacy.epsilon", epsilon, f"epsilon {epsilon:.3g}")
    if clients <= _FEW_SITES:
        words = "protecting single examples inside each site instead, which is another promise"
        yield Change("privacy.unit", 0, f"{words} (unit example, DP-SGD)")


def _grown(question: Question, parts: int) -> Question:
    """The fleet and its cohorts, larger by the same factor ``parts / 16``."""
    cohort, clients = question.cohort * parts / _PARTS, question.clients * parts / _PARTS
    return replace(question, cohort=math.ceil(cohort), clients=math.ceil(clients))


def _epsilon_needed(question: Question, kind: Kind) -> float | None:
    """Epsilon at which the noise that would be just useful is enough."""
    noise = USEFUL * question.cohort / math.sqrt(question.dim)
    if kind == "poisson":
        found = _epsilon_at(question, max(noise, _LEAST_NOISE))
        return found if noise >= _LEAST_NOISE and found <= _LARGEST_EPSILON else None
    sixteenths = _least(
        lambda e: _is_useful(replace(question, epsilon=e / _PARTS), kind),
        math.ceil(_PARTS * question.epsilon),
        _PARTS * _LARGEST_EPSILON,
    )
    return None if sixteenths is None else sixteenths / _PARTS


def _least(works: Callable[[int], bool], low: int, most: int) -> int | None:
    """About the least number that works (within two percent); None when the most does not."""
    high = min(max(2 * low, 1), most)
    while not works(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def _most(works: Callable[[int], bool], low: int, high: int) -> int | None:
    """About the largest number that works (within two percent); None when the least does not."""
    if not works(low):
        return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def _along(question: Question, kind: Kind, field: Field) -> Iterator[tuple[int, float]]:
    """The noise ratio for other values of one field, a factor 10 around what was asked."""
    asked = {"cohort": question.cohort, "rounds": question.rounds, "dim": question.dim}[field]
    most = question.clients if field == "cohort" else 10**9
    for power in range(-3, 4):
        value = round(asked * 10 ** (power / 3))
        if 1 <= value <= most:
            other = _with(question, field, value)
            yield value, _ratio(other, noise_of(other, kind)[0])


def _with(question: Question, field: Field, value: int) -> Question:
    if field == "cohort":
        return replace(question, cohort=value)
    return replace(question, rounds=value) if field == "rounds" else replace(question, dim=value)
