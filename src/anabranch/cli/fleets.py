"""Commands of a fleet's operator: certificates, the roster, tokens."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import AsJson
from anabranch.cli.output import print_json, print_table, say, write_text

if TYPE_CHECKING:
    from anabranch.fleet.folder import FleetFolder
    from anabranch.fleet.roster import Role
    from anabranch.fleet.rotation import SignedRotation

__all__ = [
    "Federation",
    "Fleet",
    "PassphraseFile",
    "enrol_app",
    "fleet_folder",
    "given_passphrase",
    "pki",
    "roster_app",
]

roster_app = typer.Typer(no_args_is_help=True, help="Who may take part: the signed list.")
enrol_app = typer.Typer(no_args_is_help=True, help="One-time tokens for new clients.")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(r"[0-9a-f]{64}")


class RoleName(StrEnum):
    """What a member may do."""

    CLIENT = "client"
    EDGE = "edge"
    AUDITOR = "auditor"


Fleet = Annotated[Path, typer.Argument(help="Folder of the fleet.", metavar="FLEET")]
Member = Annotated[str, typer.Argument(help="Name of a member.", metavar="NAME")]
Roles = Annotated[
    list[RoleName] | None,
    typer.Option("--role", help="What the member may do; repeatable (default: client)."),
]
Federation = Annotated[
    Path | None,
    typer.Option("--federation", metavar="FILE", help="The federation key (default: FLEET's own)."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="Its first line opens the keys."),
]


def pki(
    folder: Annotated[Path, typer.Argument(help="Where the files go.", metavar="DIR")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address of the server; repeatable."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the authority.")] = "Anabranch trial CA",
    days: Annotated[int, typer.Option("--days", min=1, help="How long the server's counts.")] = 90,
) -> None:
    """Make a trial certificate authority and a server certificate.

    Clients are given ca.crt (`--ca`); server.crt and server.key stay at the server. Run again with
    another DIR/server folder for a new server certificate of the same authority.
    """
    from anabranch.fleet.pki import (
        CA_CERTIFICATE,
        CA_KEY,
        SERVER_CERTIFICATE,
        issue,
        make_authority,
    )

    hosts = host or ["localhost", "127.0.0.1"]
    if not (folder / CA_KEY).exists():
        make_authority(folder, name, max(days, 365))
        say(f"Authority: {folder / CA_CERTIFICATE} (for the clients)")
    issue(folder, folder / "server", hosts, days)
    say(f"Server: {folder / 'server' / SERVER_CERTIFICATE} for {', '.join(hosts)}, {days} days")


@roster_app.command("init")
def init_fleet(
    fleet: Fleet,
    name: Annotated[str, typer.Option("--name", help="Small letters, digits, dots, dashes.")],
    url: Annotated[str, typer.Option("--url", help="Where clients will find the server.")] = "",
    federation: Annotated[
        str, typer.Option("--federation", metavar="FINGERPRINT", help="Of a key kept elsewhere.")
    ] = "",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a fleet: the coordinator's key, and a federation key unless one is kept elsewhere."""
    from anabranch.fleet.folder import FleetFolder

    if not _NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r}: small letters, digits, dots, dashes", param_hint="--name"
        )
    passphrase = given_passphrase(passphrase_file)
    made = FleetFolder.create(fleet, name, url, federation=federation, passphrase=passphrase)
    say(f"Fleet {name!r} in {fleet}.")
    say(f"Coordinator key: {made.coordinator(passphrase).fingerprint}")
    say(f"Federation key:  {made.settings.federation}")
    if made.signs_its_roster:
        say("The federation key lies with the coordinator: members must trust it for the roster.")


@roster_app.command("key")
def make_key(
    file: Annotated[Path, typer.Argument(help="Where the key goes.", metavar="FILE")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a federation key, best on a machine that stays offline."""
    from anabranch.fleet.identity import Identity

    made = Identity.generate()
    made.save(file, given_passphrase(passphrase_file))
    say(f"Federation key: {made.fingerprint}")


@roster_app.command("list")
def list_members(fleet: Fleet, as_json: AsJson = False) -> None:
    """Members, suspended keys, and who waits for a signature."""
    folder = fleet_folder(fleet)
    members = folder.membership()
    roster, suspended, waiting = members.roster, members.suspended, folder.waiting()
    rows = [
        (
            entry.name,
            "suspended" if entry.active and entry.key in suspended else entry.status.value,
            ",".join(entry.roles),
            entry.fingerprint,
            suspended.get(entry.key, entry.reason),
        )
        for entry in roster.entries
    ]
    rows += [
        (one.name, "waiting", ",".join(one.roles), _fingerprint(one.key), "") for one in waiting
    ]
    header = ("member", "status", "roles", "key", "reason")
    if as_json:
        members_json = [dict(zip(header, row, strict=True)) for row in rows]
        print_json({"fleet": roster.fleet, "version": roster.version, "members": members_json})
        return
    print_table(header, rows, title=f"Fleet {roster.fleet!r}, roster version {roster.version}")


@roster_app.command("add")
def add_member(
    fleet: Fleet,
    name: Member,
    key: Annotated[str, typer.Argument(help="Public key, hexadecimal.", metavar="KEY")],
    role: Roles = None,
    federation: Federation = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """List a member whose key was handed over in person, without a token."""
    if not _KEY.fullmatch(key):
        raise typer.BadParameter("a public key is 64 hexadecimal digits", param_hint="KEY")
    folder = fleet_folder(fleet)
    identity = folder.federation(federation, given_passphrase(passphrase_file))
    with folder.changing():
        roster = folder.membership().roster.added(name, key, _roles(role))
        folder.publish(roster, identity)
    say(f"{name} is listed with the key {_fingerprint(key)}; roster version {roster.version}.")


@roster_app.command("revoke")
def revoke(
    fleet: Fleet,
    name: Member,
    reason: Annotated[str, typer.Option("--reason", help="Why; members read it.")] = "",
    federation: Federation = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """End a member's key, at once.

    Without the federation key the coordinator suspends the member by itself; the roster follows
    when it is signed.
    """
    folder = fleet_folder(fleet)
    entry = folder.membership().roster.of_name(name)
    roster = folder.membership().roster.revoked(name, reason)  # says when there is no such member
    if entry is not None:
        folder.membership().suspend(entry.key, reason or "revoked")
    if federation is None and not folder.signs_its_roster:
        say(f"{name} is suspended from now on. Sign the roster to revoke the key for good:")
        say(f"  anabranch roster draft {fleet} --revoke {name}")
        return
    identity = folder.federation(federation, given_passphrase(passphrase_file))
    with folder.changing():
        folder.publish(roster, identity)
    say(f"The key of {name} is revoked; roster version {roster.version}.")


@roster_app.command("resume")
def resume_member(fleet: Fleet, name: Member) -> None:
    """End a suspension; what the roster says counts again."""
    members = fleet_folder(fleet).membership()
    entry = members.roster.of_name(name)
    if entry is not None:
        members.resume(entry.key)
    say(f"{name} is not suspended.")


@roster_app.command("draft")
def draft(
    fleet: Fleet,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where (default: stdout).")
    ] = Path("-"),
    revoked: Annotated[
        list[str] | None, typer.Option("--revoke", metavar="NAME", help="Also end this key.")
    ] = None,
) -> None:
    """Write the next roster, unsigned, to carry it to the federation key."""
    roster, _ = fleet_folder(fleet).draft(revoked or (), "revoked")
    write_text(output, roster.model_dump_json(indent=1) + "\n")


@roster_app.command("sign")
def sign(
    target: Annotated[
        Path, typer.Argument(help="A fleet, or the file of a draft.", metavar="FLEET|DRAFT")
    ],
    federation: Federation = None,
    retire: Annotated[
        Path | None,
        typer.Option("--retire", metavar="FILE", help="For a draft: the key that it replaces."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="For a draft (default: stdout).")
    ] = Path("-"),
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign: a fleet's roster with everybody who waits, or a draft that was carried here."""
    if target.is_dir():
        if retire is not None:
            raise typer.BadParameter("for a fleet: anabranch roster rotate", param_hint="--retire")
        folder = fleet_folder(target)
        admitted = folder.admit(folder.federation(federation, given_passphrase(passphrase_file)))
        for one in admitted:
            say(f"admitted {one.name}  {_fingerprint(one.key)}")
        say(f"Roster version {folder.membership().roster.version}, {len(admitted)} new.")
        return
    from anabranch.fleet.identity import Identity
    from anabranch.fleet.roster import read_draft, sign_roster
    from anabranch.fleet.rotation import sign_rotation

    passphrase, roster = given_passphrase(passphrase_file), read_draft(target)
    identity = Identity.load(federation or Path("federation.key"), passphrase)
    rotations: tuple[SignedRotation, ...] = ()
    if retire is not None:
        rotations = (sign_rotation(roster.fleet, Identity.load(retire, passphrase), identity),)
    signed = sign_roster(roster, identity, rotations)
    write_text(output, signed.model_dump_json(indent=1) + "\n")
    if str(output) != "-":
        for entry in roster.entries:
            say(f"{entry.status.value:8} {entry.name}  {entry.fingerprint}")
        say(f"Signed version {roster.version} of {roster.fleet!r}.")


@roster_app.command("publish")
def publish(
    fleet: Fleet,
    file: Annotated[Path, typer.Argument(help="A signed roster.", metavar="FILE")],
) -> None:
    """Put a roster in force that was signed elsewhere."""
    from anabranch.fleet.roster import read_roster

    folder = fleet_folder(fleet)
    before = folder.settings.federation
    roster = folder.publish_signed(read_roster(file))
    if folder.settings.federation != before:
        say(f"Federation key: {folder.settings.federation}, which {before} named.")
    say(f"Roster version {roster.version} of {roster.fleet!r} is in force.")


@enrol_app.command("invite")
def invite(
    fleet: Fleet,
    name: Annotated[str, typer.Option("--name", help="The name that the client must take.")] = "",
    hours: Annotated[int, typer.Option("--hours", min=1, help="How long it counts.")] = 48,
    role: Roles = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """A one-time token for one client; hand it over as you would a password."""
    folder = fleet_folder(fleet)
    coordinator = folder.coordinator(given_passphrase(passphrase_file)).fingerprint
    say(folder.invite(coordinator, 3600 * hours, name=name, roles=_roles(role)))


@enrol_app.command("list")
def list_tokens(fleet: Fleet) -> None:
    """Who redeemed a token, and whether the roster lists the key."""
    folder = fleet_folder(fleet)
    roster = folder.membership().roster
    rows = []
    for one in folder.enrolments().candidates():
        entry = roster.of_key(one.key)
        status = "waiting" if entry is None else entry.status.value
        rows.append((one.name, status, _fingerprint(one.key)))
    print_table(("name", "status", "key"), rows)


def fleet_folder(path: Path) -> FleetFolder:
    """The fleet in a folder."""
    from anabranch.fleet.folder import FleetFolder

    return FleetFolder(path)


def given_passphrase(path: Path | None) -> bytes | None:
    """From a file, else from the environment."""
    from anabranch.client.keys import read_passphrase

    return read_passphrase(path, os.environ)


def _fingerprint(key: str) -> str:
    from anabranch.fleet.identity import fingerprint

    return fingerprint(bytes.fromhex(key))


def _roles(given: list[RoleName] | None) -> tuple[Role, ...]:
    from anabranch.fleet.roster import Role

    return tuple(Role(name.value) for name in given or [RoleName.CLIENT])
