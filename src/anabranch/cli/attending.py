"""What `anabranch join` does, without a word of how it was asked: Typer or a plain parser.

A site that only joins needs neither Typer nor Rich (`anabranch.cli.lean`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from anabranch.cli.output import say
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.client.home import ClientHome
    from anabranch.client.measuring import DeviceMeter
    from anabranch.client.vault import VaultKey
    from anabranch.runtimes.http import JoinOptions, Route
    from anabranch.runtimes.http.messages import Acceptance, Summons, TaskOffer

__all__ = ["Joining", "join_fleet", "opened_home", "vault_key"]


@dataclass(frozen=True)
class Joining:
    """The options of `anabranch join`, under their names.

    Attributes:
        url: of the coordinator; the one enrolled with, when empty.
        data: this site's folder or file.
        policy: file of what this site takes part in.
        token: to enrol first.
        name: of this client, unless enrolled.
        home: identity, memory and log of this client.
        key_file: opens the home.
        keyring: the system's keyring opens it.
        approve: digests of contracts to agree to.
        authority: trusted authorities (PEM).
        proxy: HTTP(S) proxy.
        engine: how models are trained here.
        patience: seconds without contact after which to give up; None for never.
        report_device: tell times, energy, battery and speed of tasks.
        device: with it: this device's class.
        network: with it: 2g, 3g, 4g, 5g or wifi.
    """

    url: str = ""
    data: Path | None = None
    policy: Path | None = None
    token: str = ""
    name: str = ""
    home: Path = Path("client")
    key_file: Path | None = None
    keyring: bool = False
    approve: tuple[str, ...] = ()
    authority: Path | None = None
    proxy: str | None = None
    engine: str = "auto"
    patience: float | None = None
    report_device: bool = False
    device: str = ""
    network: str = ""

    @property
    def key(self) -> VaultKey | None:
        """What opens the home."""
        return vault_key(self.home, self.token, self.key_file, keyring=self.keyring)


def join_fleet(asked: Joining, usage: Callable[[str], Exception]) -> None:
    """Work for every run of a fleet until told to stop.

    Args:
        asked: the options.
        usage: makes the exception of wrong usage out of its words.

    Raises:
        AnabranchError: as `opened_home` and `attend`.
    """
    from anabranch.runtimes.http import JoinOptions, Route
    from anabranch.runtimes.http.client.member import attend
    from anabranch.runtimes.http.client.places import MemberPlaces

    key, name = asked.key, asked.name
    with ExitStack() as stack:
        running = stack.enter_context(_until_interrupted())
        options = JoinOptions(
            patience=float("inf") if asked.patience is None else asked.patience,
            on_task=_told,
            on_trouble=_trouble,
            on_summons=_summoned(asked.home),
            running=running,
            meter=_meter(asked.report_device, asked.device, asked.network),
        )
        route = Route(ca=asked.authority, proxy=asked.proxy)
        place = None
        if key is not None:
            place = stack.enter_context(opened_home(asked.home, key, asked.policy, asked.data))
            _enrolled(place, asked.token, name, options, route)
            _approved(place, asked.approve)
            name = place.pins.name
        if not asked.url and place is None:
            raise usage("give the address of the coordinator")
        if asked.policy is not None and place is None:
            # Without a home nothing would ask the policy: it must not look as if it held.
            raise usage("a policy needs a home of its own: enrol with --token first")
        places = MemberPlaces(name, asked.data, asked.home / "runs", place, asked.engine)
        taken = attend(asked.url, places, options, route)
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
        say("No signed roster lists this client yet; it waits until one does.")


def _approved(home: ClientHome, digests: tuple[str, ...]) -> None:
    for digest in digests:
        say(f"Approved contract {home.contracts.approve(digest)}.")


def _summoned(home: Path) -> Callable[[Summons, Acceptance], None]:
    """A contract was accepted by the site's rules, or waits for somebody here, or is declined.

    The coordinator asks again and again after a no; it is told here once.
    """
    last: dict[str, Acceptance] = {}

    def tell(summons: Summons, told: Acceptance) -> None:
        if last.get(summons.run) == told:
            return
        last[summons.run] = told
        what = f"run {summons.run}: its contract {summons.contract[:16]}"
        if told.accepted:
            sys.stderr.write(f"{what} is accepted\n")
        else:
            sys.stderr.write(f"{what} is not accepted: {told.code} {told.reason}\n")
            if told.code == "AB-744":
                sys.stderr.write(f"  to agree: anabranch approve {home} {summons.contract[:16]}\n")
        sys.stderr.flush()

    return tell


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
