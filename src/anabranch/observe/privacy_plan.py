"""The page of `anabranch privacy plan`: the trade-off as words, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from anabranch.observe.pages import Page, PageSection, PageTable
from anabranch.observe.svg import MUTED, SERIES, Picture, drawing
from anabranch.plan.dealing import Dealt
from anabranch.plan.inside import SiteSteps
from anabranch.privacy.planning import USEFUL, Tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BUDGET",
    "ROUTES",
    "SITES",
    "budget_rows",
    "inside_page",
    "plan_page",
    "route_rows",
    "site_rows",
]

ROUTES = ("route", "noise a round", "noise ratio", "participations", "expected to learn")
"""Header of `route_rows`."""


BUDGET = ("round", "noise", "epsilon so far")
"""Header of `budget_rows`."""

SITES = ("site", "coin of a unit", "steps", "noise", "noise in a mean step")
"""Header of `site_rows`."""

Budgets: TypeAlias = Mapping[str, Sequence[Dealt]]
"""How a budget is dealt to rounds, by what is supposed."""


def budget_rows(rounds: Sequence[Dealt]) -> tuple[tuple[str, ...], ...]:
    """One row for each shown round."""
    return tuple((str(one.round), f"{one.noise:.3g} C", f"{one.epsilon:.3g}") for one in rounds)


def route_rows(found: Tradeoff) -> tuple[tuple[str, ...], ...]:
    """One row for each way to keep the promise."""
    return tuple(
        (
            route.kind,
            f"{route.noise:.3g} C",
            f"{route.ratio:.3g}",
            str(route.participations),
            "yes" if route.useful else "no",
        )
        for route in found.routes
    )


def site_rows(sites: Sequence[SiteSteps]) -> tuple[tuple[str, ...], ...]:
    """One row for each site that makes the noise."""
    return tuple(
        (one.site, f"{one.rate:.3g}", str(one.steps), f"{one.noise:.3g} C", f"{one.ratio:.3g} C")
        for one in sites
    )


def inside_page(sites: Sequence[SiteSteps], name: str, trust_line: str, words: str) -> Page:
    """The page of a plan whose sites make the noise.

    Args:
        sites: their steps.
        name: of the plan.
        trust_line: of the plan.
        words: the promise in a sentence.
    """
    table = PageTable("Steps inside each site", SITES, site_rows(sites), words=False)
    section = PageSection("sites", "Noise inside sites", texts=(words,), tables=(table,))
    return Page(f"Privacy plan: {name}", trust_line, (), (section,), "anabranch privacy plan")


def plan_page(found: Tradeoff, name: str, trust_line: str, budgets: Budgets | None = None) -> Page:
    """The page of a trade-off.

    Args:
        found: the trade-off.
        name: of the plan.
        trust_line: of the plan.
        budgets: how the plan deals its budget to the rounds.

    Raises:
        AnabranchError: AB-807 matplotlib is not installed.
    """
    ask = found.question
    facts = (
        ("epsilon", f"{ask.epsilon:g}"),
        ("delta", f"{ask.delta:g}; delta x clients {ask.delta * ask.clients:.2g}"),
        ("clients", str(ask.clients)),
        ("cohort", str(ask.cohort)),
        ("rounds", str(ask.rounds)),
        ("shared parameters", str(ask.dim)),
    )
    changes = tuple((change.key, change.words) for change in found.changes)
    sections = [
        PageSection("asked", "What is asked", facts=facts),
        PageSection(
            "routes",
            "Ways to keep the promise",
            tables=(PageTable("Noise by mechanism", ROUTES, route_rows(found), words=False),),
            texts=tuple(f"{route.kind}: needs {route.words}." for route in found.routes),
        ),
    ]
    if changes:
        header = ("what changes", "to")
        table = PageTable("Each of these alone", header, changes)
        sections.append(PageSection("changes", "What would make it reachable", tables=(table,)))
    for field, title, points in _curves(found):
        sections.append(
            PageSection(field, title, picture=_picture(field, title, points, found.best.kind))
        )
    if budgets:
        sections.append(_budget_section(budgets))
    return Page(
        title=f"Privacy plan of {name}",
        trust_line=trust_line,
        lead=(found.recommendation,),
        sections=tuple(sections),
        footer="Noise is accounted (sampled rounds within two percent); that a ratio of one is "
        "enough is a rule of thumb.",
    )


def _budget_section(budgets: Budgets) -> PageSection:
    tables = tuple(
        PageTable(words, BUDGET, budget_rows(rounds), words=False)
        for words, rounds in budgets.items()
    )

    def draw(axes: Axes) -> None:
        for colour, (words, rounds) in zip(SERIES, budgets.items(), strict=False):
            values = [(one.round, one.epsilon) for one in rounds]
            axes.plot(*zip(*values, strict=True), color=colour, marker="o", label=words)
        axes.set_xlabel("round")
        axes.set_ylabel("epsilon so far")
        axes.legend()

    ends = "; ".join(
        f"{words}: {rounds[-1].epsilon:.3g} after round {rounds[-1].round}"
        for words, rounds in budgets.items()
    )
    words = f"Epsilon that the unit in the dearest rounds has spent. {ends}."
    picture = Picture("p-budget", "Budget by round", drawing("p-budget", words, draw), words)
    return PageSection("budget", "How this plan deals its budget", tables=tables, picture=picture)


def _curves(found: Tradeoff) -> tuple[tuple[str, str, Sequence[tuple[int, float]]], ...]:
    return (
        ("cohort", "Noise by cohort", found.cohorts),
        ("rounds", "Noise by rounds", found.lengths),
        ("parameters", "Noise by model size", found.sizes),
    )


def _picture(field: str, title: str, points: Sequence[tuple[int, float]], kind: str) -> Picture:
    def draw(axes: Axes) -> None:
        values, ratios = zip(*points, strict=True)
        axes.loglog(values, ratios, color=SERIES[0], marker="o")
        axes.axhline(USEFUL, color=MUTED, linestyle="--", linewidth=1.4)
        axes.set_xlabel(field)
        axes.set_ylabel("noise ratio")

    first, last = points[0], points[-1]
    words = (
        f"The noise ratio goes from {first[1]:.2g} at {first[0]} to {last[1]:.2g} at {last[0]} "
        f"({field}); below the dashed line at 1 models are learnt."
    )
    caption = f"{words} Route: {kind}; everything else as asked."
    return Picture(f"p-{field}", title, drawing(f"p-{field}", words, draw), caption)
