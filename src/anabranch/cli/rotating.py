"""`anabranch roster rotate`: another federation key signs from now on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.fleets import Federation, Fleet, PassphraseFile, fleet_folder, given_passphrase
from anabranch.cli.output import say

__all__ = ["rotate"]


def rotate(
    fleet: Fleet,
    successor: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="The new key (default: one is made in FLEET, for a trial)."
        ),
    ] = None,
    federation: Federation = None,
    lost: Annotated[
        bool,
        typer.Option("--lost", help="The old key is lost or stolen: members enrol again."),
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; members read it.")] = "",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Let another federation key sign the roster; the old key names it, and members follow.

    For keys that stay offline: `anabranch roster sign DRAFT --federation NEW --retire OLD`, then
    `anabranch roster publish`.
    """
    from anabranch.fleet.identity import Identity

    folder, passphrase = fleet_folder(fleet), given_passphrase(passphrase_file)
    if lost and federation is not None:
        raise typer.BadParameter("--federation is the key that --lost says is lost")
    if successor is None and federation is not None:
        raise typer.BadParameter("name the new key, which is kept elsewhere too", param_hint="--to")
    retiring = None if lost else Identity.load(federation or folder.key_file.path, passphrase)
    following = (
        Identity.load(successor, passphrase)
        if successor is not None
        else folder.key_file.following(passphrase)
    )
    roster = folder.rotate(following, retiring, reason)
    aside = folder.key_file.retire(replaced=successor is None)
    say(f"Federation key: {following.fingerprint}, which signed roster version {roster.version}.")
    if aside is not None:
        say(f"The old key is now {aside}: destroy it, nothing needs it any more.")
    if lost:
        say("Nobody can follow: start `anabranch serve` again, and give every member a new token.")
    else:
        say("Members pin it when they next fetch the roster.")
