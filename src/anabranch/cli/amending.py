"""`anabranch amend`: more rounds, time, budget or sites for a run that is served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.options import Changes, StoreFolder
from anabranch.cli.output import chosen_run, say

__all__ = ["amend"]


def amend(
    run: Annotated[str, typer.Argument(help="The run, or the beginning of its id.")],
    plan: Annotated[
        Path | None,
        typer.Argument(help="The plan as it shall be (default: as it is).", metavar="[PLAN]"),
    ] = None,
    changes: Changes = None,
    sites: Annotated[
        list[str] | None,
        typer.Option("--add-site", metavar="NAME", help="Takes part from now on; repeatable."),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; every site reads it in the contract.")
    ] = "",
    store: StoreFolder = None,
) -> None:
    """Amend the contract of a served run: more rounds, time, privacy budget or sites.

    It holds after the round that is open. Each site accepts it again, by its policy or by
    `anabranch approve`, and is given no work before; `anabranch status` says who has not.
    """
    import tomli_w

    from anabranch.coordinator.store import Store
    from anabranch.plan import PLAN_SCHEMA, Plan, dump_toml, plan_of, read_plan
    from anabranch.plan.document import parse_toml
    from anabranch.plan.load import parse_plan
    from anabranch.plan.overrides import apply_overrides
    from anabranch.runtimes.http.client.operator import Operator

    folder = store or Path("runs")
    with Operator(folder) as operator:
        with Store.open(folder, create=False) as opened:
            record = opened.run(chosen_run(opened, run))
        if plan is not None:
            document = read_plan(plan, changes or (), os.environ)
            plan_of(document)  # what is wrong with it is said here, with its lines
            text = tomli_w.dumps({"schema": PLAN_SCHEMA, **document.tables})
        else:
            stored = dump_toml(Plan.model_validate(record.plan))
            text = tomli_w.dumps(
                apply_overrides(parse_toml(stored, "the run's plan"), changes or ())
            )
            parse_plan(text, "the amended plan")
        status = operator.amend(record.id, text, sites or (), reason)
    say(f"Run {status.run}: {status.reason or 'goes on under the amended contract'}.")
    say("`anabranch status` says which sites have not accepted it.")
