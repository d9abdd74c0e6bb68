"""`anabranch plan`: what a plan says, whether its options go together, what may stand in one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.endings import ExitCode
from anabranch.cli.options import AsJson, Changes, PlanFile
from anabranch.cli.output import print_json, print_table, say, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anabranch.plan import Finding, Verdict

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Explain, check and migrate plans.")


@app.command("explain")
def explain_plan(
    plan: PlanFile,
    changes: Changes = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Every key of the resolved plan and who set it.")
    ] = False,
) -> None:
    """A plan in words: what is learnt, who takes part, what leaves a client."""
    from anabranch.plan import explain, origins, plan_of, read_plan

    document = read_plan(plan, changes or (), os.environ)
    loaded = plan_of(document)
    if not keys:
        say(explain(loaded).rstrip("\n"))
        return
    from anabranch.observe.plans import flattened

    resolved = loaded.resolved().model_dump(mode="json")
    set_by = origins(document, loaded)
    rows = [
        (key, str(value), set_by.get(key, "default"))
        for key, value in flattened(resolved).items()
        if value is not None
    ]
    print_table(("key", "value", "set by"), rows)


@app.command("schema")
def schema() -> None:
    """The JSON schema of a plan file, for editors and checkers."""
    from anabranch.plan import schema_json

    sys.stdout.write(schema_json())


@app.command("migrate")
def migrate_plan(
    plan: PlanFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where (default: stdout).")
    ] = Path("-"),
) -> None:
    """An old plan in the present schema; comments are not carried over."""
    import tomli_w

    from anabranch.plan import PLAN_SCHEMA, plan_of, read_plan

    document = read_plan(plan)
    plan_of(document)  # what comes out is a plan that works
    write_text(output, tomli_w.dumps({"schema": PLAN_SCHEMA, **document.tables}))


@app.command("check")
def check_plan(
    plan: PlanFile,
    changes: Changes = None,
    without_data: Annotated[
        bool,
        typer.Option("--without-data", help="Options only: the data are elsewhere."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Whether a plan would start: options, data, fleet, model, metrics.

    Nothing is trained. With --without-data only the options are checked.
    """
    from anabranch.plan import check, judge, load_plan

    loaded = load_plan(plan, changes or (), os.environ)
    verdict = judge(loaded)
    findings = () if without_data else check(loaded).findings
    checks = [finding for finding in findings if finding.part != "options"]
    accepted = verdict.accepted and not any(finding.error for finding in checks)
    if as_json:
        print_json(_as_json(accepted, loaded.contract_digest, verdict, checks))
    else:
        say(f"{'Accepted' if accepted else 'Refused'}. Contract {loaded.contract_digest}.")
        _print_verdict(verdict)
        _print_checks(checks)
    if not accepted:
        raise typer.Exit(ExitCode.ERROR)


def _as_json(
    accepted: bool, digest: str, verdict: Verdict, checks: Sequence[Finding]
) -> dict[str, object]:
    return {
        "accepted": accepted,
        "contract_digest": digest,
        "notes": [{"options": list(n.options), "text": n.text} for n in verdict.notes],
        "refusals": [
            {
                "code": refusal.code,
                "title": refusal.title,
                "reason": refusal.reason,
                "alternatives": [a.words for a in refusal.alternatives],
            }
            for refusal in verdict.refusals
        ],
        "checks": [
            {
                "part": found.part,
                "fits": found.error is None,
                "text": found.text,
                "code": found.error.code if found.error else None,
                "fix": found.error.fix if found.error else None,
            }
            for found in checks
        ],
    }


def _print_verdict(verdict: Verdict) -> None:
    for note in verdict.notes:
        say(f"Note on {', '.join(note.options)}: {note.text}")
    for refusal in verdict.refusals:
        say(f"{refusal.code} {refusal.title}: {refusal.reason}")
        for alternative in refusal.alternatives:
            say(f"  instead: {alternative.words} ({alternative.settings})")
    if verdict.accepted:
        say("fits   options: they go together")


def _print_checks(checks: Sequence[Finding]) -> None:
    for found in checks:
        verdict = "wrong" if found.error else "fits "
        say(f"{verdict}  {found.part}: {found.error or found.text}")
