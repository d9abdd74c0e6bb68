"""All commands in one tree."""

from __future__ import annotations

from typing import Annotated

import typer

from anabranch.cli import (
    fleets,
    flower,
    kits,
    offline,
    plans,
    privacy,
    rotating,
    runs,
    sites,
    sources,
)
from anabranch.cli.amending import amend
from anabranch.cli.demo import demo
from anabranch.cli.devices import device
from anabranch.cli.explaining import explain
from anabranch.cli.guard import GuardedGroup
from anabranch.cli.init import init
from anabranch.cli.joining import join
from anabranch.cli.output import say
from anabranch.cli.running import report, resume, simulate
from anabranch.cli.serving import drain, serve, stop, submit
from anabranch.cli.status import status

__all__ = ["app"]

app = typer.Typer(
    name="anabranch",
    cls=GuardedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated learning: one plan, simulated or deployed.",
    epilog="Every command takes --debug: show the traceback of an error. What an error code means: "
    "anabranch explain CODE.",
)


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks of errors.")] = False,
) -> None:
    """Federated learning: one plan, simulated or deployed."""


@app.command("version")
def version() -> None:
    """Versions of Anabranch and of what computes."""
    import platform
    from importlib import metadata

    say(f"anabranch {metadata.version('anabranch')}")
    say(f"python {platform.python_version()}")
    for name in ("numpy", "torch"):
        try:
            say(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            say(f"{name} not installed")


app.command("demo")(demo)
app.command("simulate")(simulate)
app.command("resume")(resume)
app.command("report")(report)
app.command("serve")(serve)
app.command("join")(join)
app.add_typer(offline.app, name="offline")
app.command("submit")(submit)
app.command("status")(status)
app.command("amend")(amend)
app.command("stop")(stop)
app.command("drain")(drain)
app.add_typer(runs.app, name="runs")
app.add_typer(plans.app, name="plan")
app.add_typer(sources.app, name="data")
app.add_typer(privacy.app, name="privacy")
app.command("check")(sources.check)
app.command("pki")(fleets.pki)
fleets.roster_app.command("rotate")(rotating.rotate)
app.add_typer(fleets.roster_app, name="roster")
app.add_typer(fleets.enrol_app, name="enrol")
app.command("kit")(kits.kit)
app.command("approve")(sites.approve)
app.command("verify")(sites.verify)
app.command("audit")(kits.audit)
app.command("withdraw")(sites.withdraw)
app.add_typer(flower.app, name="flower")
app.command("device")(device)
app.command("explain")(explain)
app.command("init")(init)
