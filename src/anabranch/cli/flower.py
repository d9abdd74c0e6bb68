"""``anabranch flower``: run a plan on an existing Flower fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.output import say
from anabranch.errors import AnabranchError

__all__ = ["app"]

app = typer.Typer(help="Run a plan on an existing Flower fleet.", no_args_is_help=True)

_PROJECT = """\
# Made by `anabranch flower export`. It holds no code: both components are part of the package
# `anabranch`, which must be installed beside Flower wherever the app runs. Keep `dependencies`
# empty: Flower would install what it lists.
[project]
name = "{name}"
version = "1.0.0"
description = "The plan {name} of Anabranch"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "anabranch"

[tool.flwr.app.components]
serverapp = "anabranch.api.flower_app:server"
clientapp = "anabranch.runtimes.flower.client_app:client"

[tool.flwr.app.config]
plan = {plan}
store = {store}
resume = ""
clients = {clients}
patience = 600.0
quiet = 60.0
task-seconds = 3600.0
"""


@app.callback()
def main() -> None:
    """Run a plan on an existing Flower fleet."""


@app.command()
def export(
    plan: Annotated[Path, typer.Argument(help="The plan file.")],
    directory: Annotated[Path, typer.Argument(help="A new or empty folder for the app.")],
    store: Annotated[
        str, typer.Option(help="Folder of the run store, on the machine of the ServerApp.")
    ] = "runs",
    clients: Annotated[
        str, typer.Option(help="Names of the clients, comma-separated, where data lie at sites.")
    ] = "",
) -> None:
    """Write a Flower app that runs PLAN: `flwr run DIRECTORY` starts it."""
    from anabranch.plan import load_plan

    loaded = load_plan(plan)
    text = plan.read_text("utf-8")
    if directory.exists() and any(directory.iterdir()):
        raise AnabranchError(
            "AB-780",
            f"the folder {directory} is not empty.",
            fix="name a new folder, or empty this one.",
            kept="Nothing was written.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    project = _PROJECT.format(
        name=_package_name(loaded.name),
        plan=_toml_text(text),
        store=_toml_text(str(Path(store).resolve())),
        clients=_toml_text(clients),
    )
    (directory / "pyproject.toml").write_text(project, "utf-8")
    say(f"Wrote {directory / 'pyproject.toml'}. Start it with: flwr run {directory} <connection>")


def _package_name(name: str) -> str:
    """A name that Flower accepts: letters, digits and dashes."""
    cleaned = "".join(sign if sign.isalnum() else "-" for sign in name).strip("-")
    return cleaned or "plan"


def _toml_text(text: str) -> str:
    """A basic TOML string on one line."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(sign, sign) for sign in text) + '"'
