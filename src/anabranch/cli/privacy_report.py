"""`anabranch privacy report`: what a run promised, what it spent, and what that does not cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.ledgers import ledger_folder
from anabranch.cli.options import RunName, StoreFolder
from anabranch.cli.output import chosen_run, opened_store, say, write_text

__all__ = ["report"]


def report(
    run: RunName = "last",
    store: StoreFolder = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where (default: STORE/RUN-privacy.html)."
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help='Only as JSON, into FILE ("-": to stdout).'),
    ] = None,
) -> None:
    """The privacy report of a run, from its ledger, in the order of NIST SP 800-226."""
    from anabranch.observe.privacy_report import privacy_report, report_document, report_page

    with opened_store(store) as opened:
        run_id = chosen_run(opened, run)
        folder = opened.path
        served = (folder / "served" / "runs" / run_id).exists()
        found = privacy_report(opened, run_id, ledger_folder(store), simulated=not served)
    if json_file is not None:
        write_text(json_file, json.dumps(report_document(found), indent=2) + "\n")
        return
    from anabranch.observe.pages import render_page

    target = output if output is not None else folder / f"{run_id}-privacy.html"
    write_text(target, render_page(report_page(found)))
    say(found.sentence)
    say(str(target))
