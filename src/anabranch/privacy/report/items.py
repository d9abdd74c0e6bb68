"""The report's items, in the order of the evaluation pyramid of NIST SP 800-226 (2025).

Top: the guarantee (epsilon, delta, unit). Middle: algorithms, utility and bias, implementation.
Base: trust, security and access, exposure by data collection. Every number comes from the ledger or
from the run's own records; nothing is typed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anabranch.privacy.accounting import account
from anabranch.privacy.events import GaussianEvent, PoissonSampling
from anabranch.privacy.ledger import Balance, RunBalance, epsilon_of
from anabranch.privacy.ledger.matrix import MatrixEvent
from anabranch.privacy.report.facts import RunFacts
from anabranch.privacy.report.item import Item, Rows
from anabranch.privacy.report.limits import not_covered
from anabranch.privacy.report.released import releases_item, rounds_item, sampling_item
from anabranch.privacy.report.sentence import Claim, claim_sentence

__all__ = ["Item", "Report", "Rows", "report_of"]

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Report:
    """The whole report.

    Attributes:
        run: its id.
        population: its name.
        sentence: the claim with all that qualifies it.
        trust_line: who can read what.
        head: sequence and digest of the ledger that it was made from.
        items: in order.
    """

    run: str
    population: str
    sentence: str
    trust_line: str
    head: tuple[int, str]
    items: tuple[Item, ...]


def report_of(balance: Balance, facts: RunFacts, head: tuple[int, str]) -> Report:
    """The report of a run.

    Args:
        balance: of the population's ledger.
        facts: of the run.
        head: sequence and digest of the ledger.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
        KeyError: the run is not in the ledger.
    """
    run, opened = balance.runs[facts.run], balance.opened
    delta = run.allotted.delta
    events = _events(balance, run)
    epsilon = epsilon_of(events, delta)
    claim = Claim(epsilon, delta, opened.unit.value, opened.relation.value, opened.size)
    return Report(
        run=facts.run,
        population=opened.population,
        sentence=claim_sentence(claim, facts),
        trust_line=facts.trust_line,
        head=head,
        items=(
            _guarantee(balance, run, events),
            _unit(balance),
            _mechanism(run, facts),
            rounds_item(run, facts),
            sampling_item(run, facts),
            releases_item(run),
            _population(balance),
            _utility(facts),
            _implementation(facts),
            _trust(facts),
            not_covered_item(balance, run, facts),
        ),
    )


def _events(balance: Balance, run: RunBalance) -> tuple[GaussianEvent, ...]:
    """What counts for the run alone; the dearest site where units are disjoint."""
    if not balance.sites:
        return run.events()
    if balance.opened.disjoint:
        mine = {line.site for line in run.allotted.lines} - {""}
        found = [run.events(site) for site in sorted(mine)] or [run.events()]
        return max(found, key=lambda events: epsilon_of(events, run.allotted.delta))
    return tuple(event for line in run.allotted.lines for event in run.on(line))


def _guarantee(balance: Balance, run: RunBalance, events: tuple[GaussianEvent, ...]) -> Item:
    delta = run.allotted.delta
    rows = []
    for at in (delta, max(delta / 10, _SMALLEST), max(delta / 100, _SMALLEST)):
        if events:
            found = account(events, at)
            values = (found.claim, found.lower_bound, found.rdp)
        else:
            values = (0.0, 0.0, 0.0)
        rows.append((f"{at:g}", *(f"{value:.6g}" for value in values)))
    return Item(
        "guarantee",
        "The privacy guarantee: epsilon and delta",
        facts=(
            ("promised by the plan", f"epsilon {run.allotted.epsilon:g} at delta {delta:g}"),
            ("counted by the ledger", f"epsilon {rows[0][1]} at delta {delta:g}"),
            ("state", _state(run)),
            *_zcdp(events),
        ),
        tables=(
            Rows(
                "Epsilon of the run at three deltas",
                ("delta", "claim (upper bound)", "lower bound", "by Rényi divergences"),
                tuple(rows),
            ),
        ),
    )


def _zcdp(events: tuple[GaussianEvent, ...]) -> Iterator[tuple[str, str]]:
    """The whole curve in one number, where nothing is claimed from sampling."""
    if events and not any(isinstance(event.sampling, PoissonSampling) for event in events):
        share = sum(event.rounds / event.noise_to_sensitivity**2 for event in events)
        yield "Gaussian differential privacy", f"mu {share**0.5:.6g}"
        yield "zero-concentrated differential privacy", f"rho {share / 2:.6g}"


def _state(run: RunBalance) -> str:
    if run.closed is None:
        return "open: its whole allotment counts"
    return f"closed ({run.closed.reason}): what it released counts"


def _unit(balance: Balance) -> Item:
    opened = balance.opened
    meaning = {
        "zero-out": "one unit's contribution is replaced by nothing; their number is public",
        "add-or-remove": "one unit is there or is not",
        "replace-one": "one unit is replaced by another",
    }[opened.relation.value]
    exposed = f"{opened.delta * opened.size:.3g}" if opened.size else "not known"
    return Item(
        "unit",
        "Unit of privacy and neighbouring data sets",
        facts=(
            ("unit", opened.unit.value),
            ("units in the population", str(opened.size) if opened.size else "not stated"),
            ("neighbouring relation", f"{opened.relation.value}: {meaning}"),
            ("delta x units", exposed),
        ),
    )


def _mechanism(run: RunBalance, facts: RunFacts) -> Item:
    rows = []
    for line in run.allotted.lines:
        for charge in line.charges:
            correlated = isinstance(charge, MatrixEvent)
            rows.append(
                (
                    line.purpose + (f" at {line.site}" if line.site else ""),
                    "correlated (banded Toeplitz)" if correlated else "fresh",
                    f"{charge.noise_multiplier:.6g}",
                    str(charge.rounds),
                    str(charge.participations)
                    if isinstance(charge, MatrixEvent)
                    else str(line.participations or "all"),
                )
            )
    header = ("released", "noise", "noise multiplier", "releases", "participations counted")
    return Item(
        "mechanism",
        "Algorithms: mechanism, sensitivity, composition",
        facts=(
            ("mechanism", facts.mechanism),
            ("bound on one contribution", facts.clip),
            ("denominator", _denominator(facts)),
            ("composition", "all lines of all runs of the population together"),
        ),
        tables=(Rows("What the run was allotted", header, tuple(rows)),),
    )


def _denominator(facts: RunFacts) -> str:
    if facts.mechanism == "dp-sgd":
        return f"fixed: the planned batch inside a site, {facts.cohort} sites outside"
    return f"fixed: {facts.cohort}"


def _population(balance: Balance) -> Item:
    delta = balance.opened.delta
    rows = []
    for run in balance.runs.values():
        events = _events(balance, run)
        counted = epsilon_of(events, delta)
        rows.append((run.allotted.run, run.allotted.label or "–", f"{counted:.4g}", _state(run)))
    return Item(
        "population",
        "Composition over all runs on the same people, tuning included",
        facts=(
            ("budget of the population", f"epsilon {balance.opened.epsilon:g} at {delta:g}"),
            ("spent", f"epsilon {balance.epsilon():.6g}"),
        ),
        tables=(Rows("Runs", ("run", "label", "epsilon alone", "state"), tuple(rows)),),
    )


def _utility(facts: RunFacts) -> Item:
    without = dict(facts.metrics_without)
    rows = tuple(
        (name, f"{value:.4g}", f"{without[name]:.4g}" if name in without else "–")
        for name, value in facts.metrics
    )
    texts = () if without else ("The store holds no run of this plan without privacy.",)
    header = ("metric", "with privacy", "without")
    return Item(
        "utility",
        "Utility and bias",
        tables=(Rows("Last evaluation", header, rows),),
        texts=(
            *texts,
            "Clipping and noise cost rare groups more than common ones; metrics by subgroup would "
            "be releases of their own and were not made.",
        ),
    )


def _implementation(facts: RunFacts) -> Item:
    return Item(
        "implementation",
        "Implementation: arithmetic, randomness, side channels",
        facts=(
            ("arithmetic of noise and sums", "integers on a public lattice; no floating point"),
            ("noise", "tables of the discrete distribution; their bias is part of delta"),
            ("randomness", "AES-CTR keyed from 32 bytes of the operating system a run"),
            ("accountant", "privacy loss distributions, pessimistic; Rényi as second opinion"),
            *((f"version of {name}", version) for name, version in facts.versions),
        ),
    )


def _trust(facts: RunFacts) -> Item:
    sees = "sums of updates" if facts.secure_aggregation else "every update"
    if facts.mechanism == "distributed":
        coordinator = f"{sees}, with noise"
    elif facts.mechanism == "dp-sgd":
        coordinator = f"{sees}; they are private already when they leave a site"
    else:
        coordinator = f"{sees}, without noise"
    rows = (
        ("coordinator", coordinator),
        ("clients", "the models they are sent; no other client's update"),
        ("who is given the model", "the released models, all versions"),
        ("the network", "who talks to the coordinator, when, and how much"),
    )
    return Item(
        "trust",
        "Trust model, threat model and access",
        facts=(
            ("corrupt clients provided for", f"{facts.corrupt_share:.0%} of a cohort"),
            ("dropouts provided for", f"{facts.dropout_share:.0%} of a cohort"),
        ),
        tables=(Rows("Who sees what", ("who", "sees"), rows),),
    )


def not_covered_item(balance: Balance, run: RunBalance, facts: RunFacts) -> Item:
    """What the guarantee says nothing about, from how the run was made."""
    return Item(
        "not-covered",
        "Data collection exposure, and what is not covered",
        texts=tuple(not_covered(balance, run, facts)),
    )
