"""An epsilon and everything that it means nothing without, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from anabranch.privacy.report.facts import MechanismKind, RunFacts

__all__ = ["Claim", "claim_sentence"]

_MECHANISMS: dict[MechanismKind, str] = {
    "ftrl": "DP-FTRL with banded Toeplitz noise on integers",
    "gaussian": "clipped sums with discrete Gaussian noise",
    "distributed": "clipped sums with discrete noise in parts",
    "dp-sgd": "DP-SGD inside each site",
}


@dataclass(frozen=True)
class Claim:
    """What is claimed.

    Attributes:
        epsilon: upper bound.
        delta: of the bound.
        unit: whose presence is protected.
        relation: when two populations are neighbours.
        size: units in the population; 0 if not known.
    """

    epsilon: float
    delta: float
    unit: str
    relation: str
    size: int


def claim_sentence(claim: Claim, facts: RunFacts) -> str:
    """The claim with unit, relation, mechanism, who adds the noise and who could remove it, the
    sampling assumption, participations, what the clients are, and delta times the population."""
    victims = (
        f"delta x N = {claim.delta * claim.size:.2g} for N = {claim.size}"
        if claim.size
        else "N is not stated"
    )
    return (
        f"epsilon {claim.epsilon:.4g} at delta {claim.delta:g} ({victims}) for one "
        f"{claim.unit} under {claim.relation}, by {_MECHANISMS[facts.mechanism]}; "
        f"{_noise(facts)}; {_sampling(facts)}; {_participations(facts, claim.unit)}; "
        f"{_clients(facts)}."
    )


def _noise(facts: RunFacts) -> str:
    if facts.mechanism == "distributed":
        return (
            "the clients add the noise in parts, and nobody could remove it short of "
            f"{facts.corrupt_share:.0%} of a cohort working together with the coordinator"
        )
    if facts.mechanism == "dp-sgd":
        return "each site adds the noise for its own people and could remove it"
    seen = "sums only" if facts.secure_aggregation else "every update"
    return f"the coordinator adds the noise, sees {seen} without it, and could remove it"


def _sampling(facts: RunFacts) -> str:
    if facts.mechanism == "dp-sgd":
        return "batches inside a site are drawn by independent secret coins, which is claimed"
    if facts.sampling == "poisson":
        return (
            "an independent secret coin for every enrolled client is claimed, and that nobody "
            "whom the promise is against sees who takes part"
        )
    return "no assumption on who takes part"


def _participations(facts: RunFacts, unit: str) -> str:
    if not facts.participations:
        article = "an" if unit[0] in "aeiou" else "a"
        return f"{article} {unit} may take part in every round"
    apart = f", at least {facts.separation} rounds apart" if facts.separation > 1 else ""
    times = "round" if facts.participations == 1 else "rounds"
    return f"at most {facts.participations} {times} a client{apart}"


def _clients(facts: RunFacts) -> str:
    where = "simulated in one place" if facts.simulated else "on machines of their own"
    if facts.natural_clients is None:
        return f"{facts.clients} clients {where}"
    kind = "natural clients" if facts.natural_clients else "synthetic clients"
    return f"{facts.clients} {kind} {where}"
