"""`anabranch join`: the client's side of the network."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.output import say
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.client.home import ClientHome
    from anabranch.client.measuring import DeviceMeter
    from anabranch.client.vault import VaultKey
    from anabranch.runtimes.http import JoinOptions, Route
    from anabranch.runtimes.http.messages import TaskOffer

__all__ = ["join", "opened_home", "vault_key"]


def join(
    url: Annotated[
        str, typer.Argument(help="Of the coordinator; the one enrolled with, when left out.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="This site's folder or file.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="What this site takes part in.")
    ] = None,
    token: Annotated[str, typer.Option("--token", help="Enrol first, with this token.")] = "",
    name: Annotated[str, typer.Option("--name", help="Of this client, unless enrolled.")] = "",
    home: Annotated[
        Path, typer.Option("--home", metavar="DIR", help="Identity, memory, log of this client.")
    ] = Path("client"),
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="Opens the home; not beside the data."),
    ] = None,
    keyring: Annotated[
        bool, typer.Option("--keyring", help="The system's keyring opens the home.")
    ] = False,
    approve: Annotated[
        list[str] | None,
        typer.Option("--approve", metavar="DIGEST", help="Agree to this contract; repeatable."),
    ] = None,
    authority: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Trusted authorities (PEM).")
    ] = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", metavar="URL", help="HTTP(S) proxy.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="How models are trained here.")] = "auto",
    patience: Annotated[
        float | None,
        typer.Option("--patience", metavar="SECONDS", help="Give up without contact (never)."),
    ] = None,
    report_device: Annotated[
        bool,
        typer.Option("--report-device", help="Tell times, energy, battery and speed of tasks."),
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="With it: this device's class, such as entry.")
    ] = "",
    network: Annotated[
        str, typer.Option("--network", help="With it: 2g, 3g, 4g, 5g or wifi.")
    ] = "",
) -> None:
    """Work for every run of a fleet, with this site's own data. Rows never leave.

    The home is opened with what it was made with: a passphrase (variable ANABRANCH_PASSPHRASE), the
    keyring, or a key file, which goes with the user's settings unless you say where. Ctrl-C ends
    the client after its task.
    """
    from anabranch.runtimes.http import JoinOptions, Route
    from anabranch.runtimes.http.client.member import attend
    from anabranch.runtimes.http.client.places import MemberPlaces

    key = vault_key(home, token, key_file, keyring=keyring)
    with ExitStack() as stack:
        running = stack.enter_context(_until_interrupted())
        options = JoinOptions(
            patience=float("inf") if patience is None else patience,
            on_task=_told,
            on_trouble=_trouble,
            running=running,
            meter=_meter(report_device, device, network),
        )
        route = Route(ca=authority, proxy=proxy)
        place = None
        if key is not None:
            place = stack.enter_context(opened_home(home, key, policy, data))
            _enrolled(place, token, name, options, route)
            _approved(place, approve or [])
            name = place.pins.name
        if not url and place is None:
            raise typer.BadParameter("give the address of the coordinator")
        places = MemberPlaces(name, data, home / "runs", place, engine)
        taken = attend(url, places, options, route)
    say(f"{taken} answers were taken.")


def _meter(report: bool, device: str, network: str) -> DeviceMeter | None:
    """What the client tells of its device; nothing unless it was asked to."""
    from anabranch.client.measuring import DeviceMeter
    from anabranch.fleet.devices.report import device_report

    if not report:
        return None
    said = {name: word for name, word in (("device", device), ("network", network)) if word}
    return DeviceMeter(device_report(said, "this client"))


def vault_key(home: Path, token: str, key_file: Path | None, *, keyring: bool) -> VaultKey | None:
    """What opens the home; None for a client without an identity (loopback only)."""
    from anabranch.client.keys import PASSPHRASE, choose_key
    from anabranch.client.vault import HEADER

    made = (home / "vault" / HEADER).exists()
    if not (made or token or key_file or keyring or os.environ.get(PASSPHRASE)):
        return None
    return choose_key(home, os.environ, key_file=key_file, keyring=keyring)


def opened_home(home: Path, key: VaultKey, policy: Path | None, data: Path | None) -> ClientHome:
    """The client's folder, opened.

    Raises:
        AnabranchError: AB-731 the key, AB-739 in use, AB-742 the policy, AB-747, AB-749.
    """
    from anabranch.client.home import ClientHome
    from anabranch.client.policy import load_policy

    rules = load_policy(policy) if policy is not None else None
    return ClientHome(home, key, rules, data=[data] if data is not None else [])


def _enrolled(home: ClientHome, token: str, name: str, options: JoinOptions, route: Route) -> None:
    from anabranch.runtimes.http.client.member import enrol

    if not token:
        return
    pins, admitted = enrol(token, home, name, options, route)
    say(f"Enrolled as {pins.name!r}, key {home.identity.fingerprint}.")
    if not admitted:
        say("The roster does not list this client yet: it waits for the federation's signature.")


def _approved(home: ClientHome, digests: list[str]) -> None:
    for digest in digests:
        say(f"Approved contract {home.contracts.approve(digest)}.")


def _told(offer: TaskOffer) -> None:
    sys.stderr.write(f"run {offer.run}: {offer.kind.value}, round {offer.round}\n")
    sys.stderr.flush()


def _trouble(error: Exception) -> None:
    """The site's own screen may show everything; the coordinator is told less."""
    known = isinstance(error, AnabranchError)
    sys.stderr.write(f"{error if known else f'{type(error).__name__}: {error}'}\n")
    sys.stderr.flush()


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        sys.stderr.write("Ending after this task; press Ctrl-C again to end at once.\n")

    before = {which: signal.signal(which, ask) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: not asked
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
