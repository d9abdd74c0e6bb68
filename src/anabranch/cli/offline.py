"""`anabranch offline`: fetch a task, work without a connection, come back and deliver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from anabranch.cli.attending import opened_home, vault_key
from anabranch.cli.output import say

if TYPE_CHECKING:
    from anabranch.runtimes.http import Credentials
    from anabranch.runtimes.http.client.line import Line
    from anabranch.runtimes.http.client.places import MemberPlaces

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train without a connection, and deliver later.")

Bundle: TypeAlias = Annotated[Path, typer.Argument(help="Folder of the bundle.", metavar="BUNDLE")]
Url: TypeAlias = Annotated[str, typer.Option("--url", help="Coordinator, unless enrolled.")]
Data: TypeAlias = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="This site's folder or file.")
]
Name: TypeAlias = Annotated[str, typer.Option("--name", help="Of this client, unless enrolled.")]
Home: TypeAlias = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="Identity, memory, log of this client.")
]
Policy: TypeAlias = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="What this site takes part in.")
]
KeyFile: TypeAlias = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="Opens the home.")
]
Authority: TypeAlias = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Trusted authorities (PEM).")
]


@app.command("fetch")
def fetch_bundle(
    bundle: Bundle,
    url: Url = "",
    data: Data = None,
    name: Name = "",
    home: Home = Path("client"),
    policy: Policy = None,
    key_file: KeyFile = None,
    authority: Authority = None,
) -> None:
    """Ask for a training task and write all that it needs into a folder."""
    from anabranch.runtimes.http.client.offline import fetch

    with _member(data, name, home, policy, key_file) as (places, credentials):
        address = url or _pinned(places)
        line = _line(address, places, credentials, authority)
        try:
            offer = fetch(line, places, bundle, address)
        finally:
            line.close()
    if offer is None:
        say("There is no task now.")
        raise typer.Exit(1)
    hours = offer.milliseconds / 3_600_000
    say(f"Round {offer.round} of {offer.run}, to be delivered within {hours:.1f} hours.")


@app.command("work")
def work_on_bundle(
    bundle: Bundle,
    data: Data = None,
    name: Name = "",
    home: Home = Path("client"),
    policy: Policy = None,
    key_file: KeyFile = None,
) -> None:
    """Do the task of a bundle; needs no connection."""
    from anabranch.runtimes.http.client.offline import work

    with _member(data, name, home, policy, key_file) as (places, credentials):
        size = work(bundle, places, credentials)
    say(f"Done: {size} bytes to deliver.")


@app.command("deliver")
def deliver_bundle(
    bundle: Bundle,
    url: Url = "",
    data: Data = None,
    name: Name = "",
    home: Home = Path("client"),
    policy: Policy = None,
    key_file: KeyFile = None,
    authority: Authority = None,
) -> None:
    """Send the answer, and hear what became of it."""
    from anabranch.runtimes.http.client.offline import deliver

    with _member(data, name, home, policy, key_file) as (places, credentials):
        line = _line(url or _pinned(places), places, credentials, authority)
        try:
            fate = deliver(line, places, bundle)
        finally:
            line.close()
    say(
        f"The answer is {fate.value}."
        if fate
        else "Delivered; its fate comes with a later contact."
    )


@contextmanager
def _member(
    data: Path | None, name: str, home: Path, policy: Path | None, key_file: Path | None
) -> Iterator[tuple[MemberPlaces, Credentials | None]]:
    from anabranch.runtimes.http import Credentials
    from anabranch.runtimes.http.client.places import MemberPlaces

    key = vault_key(home, "", key_file, keyring=False)
    if key is None:
        yield MemberPlaces(name, data, home / "runs"), None
        return
    with opened_home(home, key, policy, data) as opened:
        pins = opened.pins
        credentials = Credentials(opened.identity, pins.coordinator_key)
        yield MemberPlaces(pins.name, data, home / "runs", opened), credentials


def _pinned(places: MemberPlaces) -> str:
    if places.home is None:
        raise typer.BadParameter("give the address of the coordinator (--url)")
    return places.home.pins.url


def _line(
    url: str, places: MemberPlaces, credentials: Credentials | None, authority: Path | None
) -> Line:
    from anabranch.runtimes.http import JoinOptions, Route
    from anabranch.runtimes.http.client.line import Line

    line = Line(url, places.name, JoinOptions(wait=2.0), credentials, Route(ca=authority))
    line.hello()
    return line
