"""Commands about whole plans and runs of a fleet: the kit before, the audit after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.fleets import PassphraseFile, fleet_folder, given_passphrase
from anabranch.cli.options import Changes, PlanFile, RunName, StoreFolder
from anabranch.cli.output import chosen_run, opened_store, print_table, say
from anabranch.errors import AnabranchError

__all__ = ["audit", "kit"]


def kit(
    plan: PlanFile,
    fleet: Annotated[Path, typer.Option("--fleet", metavar="FLEET", help="Folder of the fleet.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The kit.")],
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="CA certificate of the server.")
    ] = None,
    changes: Changes = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write what a site needs before it takes part, in one file.

    Contract, roster, fingerprints, sources of own models and rules, CA certificate, a policy to
    fill in. The site reads it with `anabranch check KIT --data DIR`.
    """
    from importlib import metadata

    from anabranch.client.kit import KitContent, make_kit
    from anabranch.fleet.roster import ROSTER_FILE, read_roster
    from anabranch.plan import load_plan, require_accepted, require_servable

    folder = fleet_folder(fleet)
    loaded = load_plan(plan, changes or (), os.environ)
    require_accepted(loaded)
    require_servable(loaded)
    signed = folder.path / ROSTER_FILE
    content = KitContent(
        coordinator=folder.coordinator(given_passphrase(passphrase_file)),
        fleet=folder.settings.name,
        url=folder.settings.url,
        federation=folder.settings.federation,
        roster=read_roster(signed) if signed.exists() else None,
        ca=_read(ca) if ca is not None else b"",
        software=metadata.version("anabranch"),
    )
    _write(output, make_kit(loaded, content))
    say(f"{output}: contract {loaded.contract_digest}")
    say(f"Coordinator key, to compare by another channel: {content.coordinator.fingerprint}")


def audit(
    run: RunName,
    updates: Annotated[
        Path, typer.Option("--updates", metavar="DIR", help="What runtime.keep_updates named.")
    ],
    fleet: Annotated[Path, typer.Option("--fleet", metavar="FLEET", help="Folder of the fleet.")],
    store: StoreFolder = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Compute a served run again from the updates that were kept, and compare every model.

    The heads of its rounds must be one chain that the coordinator signed, and each model the one
    that follows from the updates of its round, bit for bit.
    """
    from anabranch.api.audit import audit as recompute

    key = fleet_folder(fleet).coordinator(given_passphrase(passphrase_file)).public_key
    with opened_store(store) as opened:
        run_id, folder = chosen_run(opened, run), opened.path
    found = list(recompute(folder, run_id, updates, key))
    rows = [
        (str(one.round), str(one.uploads), "holds" if one.holds else "DIFFERS", one.model)
        for one in found
    ]
    print_table(("round", "updates", "model", "sha256 of what follows"), rows, title=run_id)
    wrong = [str(one.round) for one in found if not one.holds]
    if wrong:
        raise AnabranchError(
            "AB-748",
            f"the models of rounds {', '.join(wrong[:5])} do not follow from their updates.",
            fix="compare software versions and threads with those of the run; then ask its "
            "operator.",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AnabranchError(
            "AB-740",
            f"the CA certificate {path} cannot be read ({error.strerror or error}).",
            fix="give the file ca.crt that `anabranch pki` wrote.",
            kept="No kit was made.",
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise AnabranchError(
            "AB-806",
            f"{path} cannot be written: {error.strerror or error}.",
            fix="choose another place, or make room and give yourself the right to write there.",
        ) from error
