"""`anabranch privacy plan`: before training, what a promise costs and whether it can be learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import AsJson, Changes, PlanFile
from anabranch.cli.output import print_json, print_table, say, write_text
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.plan import Plan
    from anabranch.plan.dealing import Dealt
    from anabranch.plan.promise import Promise
    from anabranch.privacy.planning import Question, Tradeoff

__all__ = ["plan_privacy"]


def plan_privacy(
    plan: PlanFile,
    changes: Changes = None,
    clients: Annotated[
        int | None,
        typer.Option("--clients", metavar="N", min=1, help="Fleet (default: that of the data)."),
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option(
            "--parameters", metavar="D", min=1, help="Shared parameters (default: the model's)."
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write a page with pictures."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Noise, cohort, rounds and model size against each other; a recommendation."""
    import os

    from anabranch.plan import plan_of, read_plan
    from anabranch.privacy.planning import tradeoff

    loaded = plan_of(read_plan(plan, changes or (), os.environ))
    if _noise_inside(loaded):
        _inside(loaded, parameters, page, as_json=as_json)
        return
    question = _question(loaded, clients, parameters)
    found, budgets = tradeoff(question), _budgets(loaded, question.clients)
    if page is not None:
        from anabranch.observe.pages import render_page
        from anabranch.observe.privacy_plan import plan_page
        from anabranch.plan.trust import trust_line

        write_text(page, render_page(plan_page(found, loaded.name, trust_line(loaded), budgets)))
    if as_json:
        print_json(_facts(found, budgets))
    else:
        _print(found, budgets)


def _noise_inside(plan: Plan) -> bool:
    from anabranch.plan.privacy import LocalDpSgd

    return plan.privacy is not None and isinstance(plan.privacy.mechanism, LocalDpSgd)


def _inside(plan: Plan, parameters: int | None, page: Path | None, *, as_json: bool) -> None:
    """Sites make the noise: what each of them needs follows from its units, not from the fleet."""
    from anabranch.observe.privacy_plan import SITES, inside_page, site_rows
    from anabranch.plan.inside import site_steps

    promise, dim = _inside_promise(plan, parameters)
    sites = site_steps(plan, promise, dim)
    assert plan.privacy is not None  # `_noise_inside`
    words = (
        f"epsilon {plan.privacy.epsilon:g} at delta {plan.privacy.delta:g} for one "
        f"{plan.privacy.unit.value}, with noise that each site adds; {dim} trained parameters"
    )
    if page is not None:
        from anabranch.observe.pages import render_page
        from anabranch.plan.trust import trust_line

        shown = inside_page(sites, plan.name, trust_line(plan), words)
        write_text(page, render_page(shown))
    if as_json:
        print_json({"parameters": dim, "sites": [asdict(one) for one in sites]})
        return
    say(words)
    print_table(SITES, site_rows(sites))
    say(
        "C is the clip norm of one unit; the mean gradient of a step is at most 1 C long. Steps "
        "add up, and their noise does so more slowly: larger batches and more units lower it."
    )


def _inside_promise(plan: Plan, parameters: int | None) -> tuple[Promise, int]:
    """From the contract where it declares the units of every site, else from the data at hand."""
    from anabranch.plan.promise import promise_of
    from anabranch.plan.site_units import declared_units

    declared = declared_units(plan, ())  # a table names its sites; one number none
    if declared and parameters is not None:
        return promise_of(plan, len(declared), declared), parameters
    from anabranch.api.prepare import prepare
    from anabranch.api.private import checked_promise

    prepared = prepare(plan)
    return checked_promise(prepared), parameters or prepared.program.dim


def _question(plan: Plan, clients: int | None, parameters: int | None) -> Question:
    from anabranch.plan import check
    from anabranch.privacy.planning import Question

    if plan.privacy is None:
        raise AnabranchError(
            "AB-913",
            "the plan has no table [privacy], so that it promises nothing.",
            fix="state epsilon, delta, population and a mechanism in [privacy].",
        )
    if clients is None or parameters is None:
        report = check(plan)
        clients = clients or report.facts.clients
        parameters = parameters or report.facts.dim
        if clients is None or parameters is None:
            raise report.errors[0]
    return Question(
        epsilon=plan.privacy.epsilon
        * (1 - plan.privacy.evaluation_share - plan.privacy.statistics_share),
        delta=plan.privacy.delta,
        clients=clients,
        cohort=plan.rounds.wanted(clients),
        rounds=plan.rounds.count,
        dim=parameters,
        relation=plan.privacy.relation,
    )


def _budgets(plan: Plan, clients: int) -> dict[str, tuple[Dealt, ...]]:
    """How the plan deals its budget to rounds, by what is supposed of validation."""
    from anabranch.plan.dealing import dealt
    from anabranch.plan.promise import promise_of

    if plan.privacy is None:
        return {}
    promise, kind = promise_of(plan, clients), plan.privacy.allocation.kind
    if kind != "adaptive":
        return {f"{plan.privacy.mechanism.kind}, {kind}": dealt(plan, promise)}
    return {
        "adaptive, validation never rests": dealt(plan, promise),
        "adaptive, validation rests at once": dealt(plan, promise, resting=True),
    }


def _facts(found: Tradeoff, budgets: Mapping[str, Sequence[Dealt]]) -> dict[str, object]:
    return {
        "reachable": found.reachable,
        "recommendation": found.recommendation,
        "question": asdict(found.question),
        "routes": [asdict(route) | {"useful": route.useful} for route in found.routes],
        "changes": [asdict(change) for change in found.changes],
        "noise_ratio": {
            "by_cohort": found.cohorts,
            "by_rounds": found.lengths,
            "by_parameters": found.sizes,
        },
        "budget": {words: [asdict(one) for one in rounds] for words, rounds in budgets.items()},
    }


def _print(found: Tradeoff, budgets: Mapping[str, Sequence[Dealt]]) -> None:
    from anabranch.observe.privacy_plan import BUDGET, ROUTES, budget_rows, route_rows

    ask = found.question
    say(
        f"epsilon {ask.epsilon:g} at delta {ask.delta:g}: {ask.rounds} rounds of {ask.cohort} out "
        f"of {ask.clients} clients, {ask.dim} shared parameters"
    )
    print_table(ROUTES, route_rows(found))
    say(found.recommendation)
    for words, rounds in budgets.items():
        say(f"This plan ({words}) deals its budget so:")
        print_table(BUDGET, budget_rows(rounds))
