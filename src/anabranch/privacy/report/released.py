"""What a run released, round by round and one by one, and who was sampled for it."""

from __future__ import annotations

from collections.abc import Iterator

from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger import RunBalance
from anabranch.privacy.ledger.balance import Release
from anabranch.privacy.report.facts import RunFacts
from anabranch.privacy.report.item import Item, Rows

__all__ = ["releases_item", "rounds_item", "sampling_item"]


def rounds_item(run: RunBalance, facts: RunFacts) -> Item:
    """Every release of the model, with the noise that was really there."""
    recorded = {r.round: r for r in facts.rounds}
    rows = []
    for release in run.releases.values():
        if release.reserved.purpose == "model":
            at = recorded.get(release.reserved.round)
            details = dict(release.reserved.details)
            rows.append(
                (
                    str(release.reserved.round),
                    str(at.asked) if at else "–",
                    str(release.reserved.contributors),
                    _noise(release),
                    details.get("clip norm", "–"),
                    _became(release),
                    release.reserved.site or "all",
                )
            )
    header = ("round", "asked", "inside", "noise, clip norms", "clip norm", "became", "site")
    return Item(
        "rounds",
        "Realised noise and cohorts",
        tables=(Rows("Every release of the model", header, tuple(rows)),),
    )


def _noise(release: Release) -> str:
    charge = release.charge
    if charge is None:
        return "none"
    if isinstance(charge, GaussianEvent) and charge.realised_noise is not None:
        return f"{charge.realised_noise:.6g} (planned {charge.noise_multiplier:.6g})"
    return f"{charge.noise_multiplier:.6g}"


def _became(release: Release) -> str:
    if release.settled is None:
        return "not settled, counted"
    if release.settled.charge is not None and release.reserved.site and not release.settled.output:
        return "asked of the site, counted"
    return "released" if release.settled.charge is not None else "given back, nothing computed"


def sampling_item(run: RunBalance, facts: RunFacts) -> Item:
    """What is claimed of the selection, and what shows that it was so."""
    if facts.mechanism == "dp-sgd":
        return _sampling_inside(run, facts)
    asked = [r.asked for r in facts.rounds if r.asked]
    spread = f"{min(asked)} to {max(asked)}, mean {sum(asked) / len(asked):.4g}" if asked else "–"
    evidence: tuple[tuple[str, str], ...] = (("cohorts that were asked", spread),)
    if facts.sampling == "poisson":
        rate = facts.cohort / max(facts.clients, 1)
        deviation = (facts.clients * rate * (1 - rate)) ** 0.5
        evidence = (
            ("rate", f"{rate:.6g} for each of {facts.clients} enrolled clients"),
            ("expected cohort", f"{facts.cohort} with standard deviation {deviation:.3g}"),
            *evidence,
            ("coins", f"from the run's secret {run.allotted.secret[:16]}…, erased at the end"),
        )
    limit = (
        f"at most {facts.participations}, at least {facts.separation} rounds apart; reserved before"
        " a client is asked and checked before its update is merged"
        if facts.participations
        else "none"
    )
    return Item(
        "sampling",
        "Sampling: what is claimed, and the evidence",
        facts=(
            ("claimed", facts.sampling),
            ("selector", facts.selector),
            ("limit on participations", limit),
            *evidence,
        ),
    )


def _sampling_inside(run: RunBalance, facts: RunFacts) -> Item:
    """Batches inside sites: the rate of each follows from how many units it has."""
    rows = [
        (line.site or "all", str(charge.sampling), str(charge.rounds))
        for line in run.allotted.lines
        for charge in line.charges
        if line.purpose == "model" and isinstance(charge, GaussianEvent)
    ]
    return Item(
        "sampling",
        "Sampling: what is claimed, and the evidence",
        facts=(
            ("claimed", "an independent secret coin for every unit of a site in every step"),
            ("coins", "from the operating system of each site; of the run's secret if simulated"),
            ("selector of sites", f"{facts.selector}; nothing is claimed of it"),
            (
                "units of a site",
                "as the contract declares" if facts.declared_units else "as the site told exactly",
            ),
        ),
        tables=(Rows("Steps inside each site", ("site", "sampling", "steps"), tuple(rows)),),
    )


def releases_item(run: RunBalance) -> Item:
    """All releases: how many of each purpose, and those beside the model one by one."""
    counts: dict[tuple[str, str], int] = {}
    for release in run.releases.values():
        key = (release.reserved.purpose, _became(release))
        counts[key] = counts.get(key, 0) + 1
    rows = tuple((what, became, str(count)) for (what, became), count in counts.items())
    return Item(
        "releases",
        "All releases",
        tables=(
            Rows("By purpose", ("released", "became", "times"), rows),
            *_other_releases(run),
        ),
    )


def _other_releases(run: RunBalance) -> Iterator[Rows]:
    """Statistics, metrics and whatever else is not the model, one by one."""
    rows = tuple(
        (
            release.reserved.purpose,
            str(release.reserved.round),
            release.reserved.site or "all",
            str(release.reserved.contributors),
            _noise(release),
            dict(release.reserved.details).get("bound on one unit", "–"),
            _became(release),
        )
        for release in run.releases.values()
        if release.reserved.purpose != "model"
    )
    header = ("released", "round", "site", "inside", "noise, bounds", "bound on a unit", "became")
    if rows:
        yield Rows("Statistics and metrics", header, rows)
