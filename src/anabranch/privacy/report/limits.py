"""What a guarantee does not say, generated from how the run was made."""

from __future__ import annotations

from collections.abc import Iterator

from anabranch.privacy.events import Unit
from anabranch.privacy.ledger import Balance, RunBalance
from anabranch.privacy.report.facts import RunFacts

__all__ = ["not_covered"]


def not_covered(balance: Balance, run: RunBalance, facts: RunFacts) -> Iterator[str]:
    """One sentence for each limit."""
    yield from _who(balance, facts)
    yield from _how(balance, run, facts)
    yield (
        "Differential privacy bounds what a release tells about one unit. What is true of the "
        "population as a whole is learnt on purpose."
    )
    yield (
        "Times, sizes and failures of answers, and that a client takes part at all, are seen by "
        "the coordinator and by the network."
    )
    yield "Data stay exposed where they are collected and stored: at the clients."
    yield (
        "Differential privacy is evidence for a legal assessment, not a replacement for it (GDPR "
        "Art. 25 and 35, HIPAA 164.514(b)(1), EU AI Act Art. 10 and 15)."
    )


def _who(balance: Balance, facts: RunFacts) -> Iterator[str]:
    unit = balance.opened.unit
    if unit is Unit.CLIENT:
        yield (
            "The unit is a client. A person with several clients is protected less, by composition "
            "over them; a group of k clients about k times less."
        )
    if unit is Unit.SITE:
        yield "The unit is a site. It covers the people inside it only as part of the whole site."
    if unit is Unit.EXAMPLE:
        yield (
            "The unit is one example (a row). A person with several rows is protected less: this "
            "is not a guarantee for people."
        )
    if unit is Unit.SUBJECT and not balance.opened.disjoint:
        yield "People may have data at several sites: the sites' costs are added, not maximised."
    if facts.holdout_from_clients:
        yield (
            "The evaluation used rows that were taken from the clients (data.holdout_fraction). "
            "Those rows are not protected."
        )


def _how(balance: Balance, run: RunBalance, facts: RunFacts) -> Iterator[str]:
    if facts.mechanism in ("ftrl", "gaussian"):
        seen = "sums of updates" if facts.secure_aggregation else "every update"
        yield (
            f"The coordinator is trusted: it sees {seen} without noise. The guarantee is against "
            "everybody who sees released models, not against it."
        )
    if facts.mechanism == "dp-sgd":
        yield (
            "The claimed amplification rests on batches that nobody outside a site sees, not even "
            "by how long a step takes."
        )
        yield (
            "How many units each site has is declared in the contract, and batches and noise "
            "follow from that: no site told a number of its own."
            if facts.declared_units
            else "How many examples each site has is told to the coordinator exactly, and the "
            "noise follows from it: sizes of sites count as public."
        )
    elif facts.sampling == "poisson":
        yield (
            "The claimed amplification fails against anybody who sees who takes part, the "
            "coordinator and the network among them, and if dropping out depends on the data."
        )
    if facts.mechanism == "distributed" and not facts.secure_aggregation:
        yield "Updates were not masked: the coordinator saw each one with its own small noise only."
    if facts.simulated:
        yield (
            "The clients were simulated: one machine held all data and all secrets. The numbers "
            "are those of the algorithm, not of a deployment."
        )
    if len(balance.runs) > 1:
        yield (
            "Other runs used the same population. Where their settings were chosen from private "
            "results, the composition is adaptive; for sampled runs the bound by Rényi divergences "
            "is the one proved for that (Feldman and Zrnic 2021)."
        )
    for what in facts.unprotected:
        yield (
            f"Left without noise before training, with a minimum count but outside epsilon: {what}."
        )
    unsettled = sum(r.settled is None for r in run.releases.values())
    if unsettled:
        yield f"{unsettled} releases are not settled; they are counted as planned."
    yield (
        "Settings that were tuned on other data, or outside the ledger, are not in these numbers."
    )
