"""`anabranch data`: which sources there are, where they come from, how clients differ; `check`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.endings import ExitCode
from anabranch.cli.options import AsJson, Changes
from anabranch.cli.output import print_json, print_table, say, write_text
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.data.federation import Card
    from anabranch.data.plan import DataPlan
    from anabranch.data.schema import DataSchema
    from anabranch.plan import Plan

__all__ = ["app", "check", "schema_of"]

app = typer.Typer(no_args_is_help=True, help="Sources of data, their provenance, their clients.")


@app.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """Every named source, and what it needs to be installed."""
    from anabranch.data.sources import SOURCES

    if as_json:
        print_json([asdict(entry) for entry in SOURCES.values()])
        return
    rows = [(e.name, e.title, e.clients, e.needs) for e in SOURCES.values()]
    print_table(("source", "what", "clients", "needs"), rows)


@app.command("card")
def card(
    source: Annotated[str, typer.Argument(help="A named source.", metavar="SOURCE")],
    as_json: AsJson = False,
) -> None:
    """Where a source's data come from: origin, licence, citation, digest, known flaws."""
    from anabranch.data.sources import open_source

    found: Card = open_source(source).load(0).card
    if as_json:
        print_json(asdict(found))
        return
    say(found.title)
    for label, text in asdict(found).items():
        if label == "notes":
            for note in found.notes:
                say(f"  note: {note}")
        elif label != "title":
            say(f"  {label}: {text if not isinstance(text, bool) else 'yes' if text else 'no'}")


@app.command("describe")
def describe_clients(
    target: Annotated[
        str, typer.Argument(help="A named source, or a plan file.", metavar="SOURCE|PLAN")
    ],
    changes: Changes = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Also draw it, as SVG.")
    ] = None,
) -> None:
    """How clients differ: counts, labels, missing cells, an index of heterogeneity."""
    from anabranch.data.describe import describe
    from anabranch.data.describe import picture as drawn
    from anabranch.data.load import load_federation

    plan, seed = _data_plan(target, changes or [])
    description = describe(load_federation(plan, seed).federation)
    say(description.text())
    if picture is not None:
        write_text(picture, drawn(description))
        say(f"Picture: {picture}")


def _data_plan(target: str, changes: list[str]) -> tuple[DataPlan, int]:
    """The table ``[data]`` that is meant, and the seed that goes with it."""
    from anabranch.data.sources import SOURCES

    meant_as_source = not Path(target).suffix and not Path(target).exists()
    if target in SOURCES or meant_as_source:  # a misspelt source is told which there are
        from anabranch.plan import PlanDocument, apply_overrides, plan_of

        tables = {"data": {"source": target}, "model": {"name": "logistic"}}
        plan = plan_of(PlanDocument(apply_overrides(tables, changes), target))
    else:
        from anabranch.plan import load_plan

        plan = load_plan(target, changes, os.environ)
    return plan.data, plan.seed


def check(
    plan: Annotated[Path, typer.Argument(help="A plan, or a kit.", metavar="PLAN|KIT")],
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="A site's folder (data, site.toml) or file."),
    ],
    changes: Changes = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="With a kit: the site's own policy."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check offline whether a site's data fit a plan or a kit.

    Of a kit also its signature, its contract in words, own code, and the site's policy. Nothing is
    sent, and the report holds no value of a person.
    """
    import zipfile

    if zipfile.is_zipfile(plan):
        from anabranch.cli.sites import check_kit

        check_kit(plan, data, policy, as_json=as_json)
        return
    from anabranch.data.check import check_site
    from anabranch.plan import load_plan

    loaded = load_plan(plan, changes or (), os.environ)
    found = check_site(schema_of(loaded), data, minimum=loaded.data.min_count)
    say(found.json() if as_json else found.text())
    if not found.fits:
        raise typer.Exit(ExitCode.ERROR)


def schema_of(plan: Plan) -> DataSchema:
    """The plan's own data schema, else that of its source.

    Raises:
        AnabranchError: AB-809 neither has one.
    """
    from anabranch.data.load import load_pool
    from anabranch.data.table import Table

    if plan.data.table is not None:
        return plan.data.table
    if plan.data.source not in ("folder", "table", "arrays"):
        features = load_pool(plan.data, plan.seed).x
        if isinstance(features, Table):
            return features.schema
    raise AnabranchError(
        "AB-809",
        f"plan {plan.name!r} has no data schema, so there is nothing to check a site against.",
        fix="describe the columns in the plan's table [data.table].",
        kept="Nothing was sent.",
    )
