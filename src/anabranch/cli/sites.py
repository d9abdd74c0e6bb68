"""Commands of a site: look into a kit, agree to a contract, verify what was done, withdraw."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.endings import ExitCode
from anabranch.cli.options import AsJson
from anabranch.cli.output import print_json, print_table, say, write_text
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.client.contracts import ContractShelf
    from anabranch.client.home import ClientHome
    from anabranch.client.kit import Kit
    from anabranch.client.proof import Proof
    from anabranch.client.vault import Vault, VaultKey
    from anabranch.fleet.receipts import Head

__all__ = ["approve", "check_kit", "home_key", "verify", "withdraw"]

Home = Annotated[
    Path, typer.Argument(help="Folder of the client (--home of join).", metavar="HOME")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="Opens the client's vault.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="Its first line opens the vault."),
]
Keyring = Annotated[bool, typer.Option("--keyring", help="The system's keyring opens the vault.")]


def home_key(
    home: Path, key_file: Path | None, passphrase_file: Path | None, *, keyring: bool
) -> VaultKey:
    """What opens a client's vault: as said, as in the environment, or as it was made."""
    from anabranch.client.keys import choose_key, read_passphrase

    passphrase = read_passphrase(passphrase_file, os.environ) if passphrase_file else None
    return choose_key(home, os.environ, passphrase=passphrase, key_file=key_file, keyring=keyring)


@contextmanager
def _opened(
    home: Path, key_file: Path | None, passphrase_file: Path | None, *, keyring: bool
) -> Iterator[ClientHome]:
    from anabranch.client.home import LOG_FILE, ClientHome

    if not (home / LOG_FILE).exists():
        raise AnabranchError(
            "AB-737",
            f"{home} is not the folder of a client.",
            fix="give the folder that `anabranch join` was given with --home.",
        )
    key = home_key(home, key_file, passphrase_file, keyring=keyring)
    with ClientHome(home, key) as opened:
        yield opened


def check_kit(path: Path, data: Path, policy: Path | None, *, as_json: bool) -> None:
    """Check a kit and a site's data against each other, offline."""
    from anabranch.cli.sources import schema_of
    from anabranch.client.contract import plan_of_contract
    from anabranch.client.kit import read_kit
    from anabranch.client.policy import load_policy
    from anabranch.data.check import check_site
    from anabranch.plan import explain

    kit = read_kit(path)
    plan = plan_of_contract(kit.contract, kit.facts.contract)
    site = check_site(schema_of(plan), data, minimum=plan.data.min_count)
    members = len(list(kit.roster.roster.active())) if kit.roster is not None else 0
    decision = load_policy(policy).judge(plan, members or None) if policy is not None else None
    fits = site.fits and (decision is None or decision.accepted)
    if as_json:
        print_json(
            {
                "fits": fits,
                "contract": kit.facts.contract,
                "coordinator": kit.coordinator,
                "federation": kit.facts.federation,
                "members": members,
                "code": list(kit.code),
                "data": json.loads(site.json()),
                "policy": None if decision is None else decision.reason or "accepted",
            }
        )
    else:
        _print_kit(kit)
        say()
        say(explain(plan).rstrip("\n"))
        say()
        say(site.text())
        if decision is not None:
            say(f"Policy: {'accepted' if decision.accepted else decision.reason}.")
            if decision.accepted and not members:
                say("How small a round may be is judged again when the members are known.")
    if not fits:
        raise typer.Exit(ExitCode.ERROR)


def _print_kit(kit: Kit) -> None:
    facts, roster = kit.facts, kit.roster
    members = tuple(roster.roster.active()) if roster is not None else ()
    say(f"Kit of fleet {facts.fleet!r} for {facts.url or 'no address'}: whole and signed.")
    say(f"Coordinator key: {kit.coordinator}  (compare it by another channel)")
    say(f"Federation key:  {facts.federation}, {len(members)} members")
    for entry in members:
        say(f"  member {entry.name}  {entry.fingerprint}")
    for name in kit.code:
        say(f"Own code to review: {name}")


def approve(
    home: Home,
    digest: Annotated[
        str, typer.Argument(help="A contract's digest, or its beginning.", metavar="DIGEST")
    ] = "",
    kit: Annotated[
        Path | None, typer.Option("--kit", metavar="FILE", help="Show the contract of this kit.")
    ] = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    keyring: Keyring = False,
) -> None:
    """Agree to a contract that this client was shown; without a digest, list them.

    A contract is run only after a person of the site agreed, unless its policy says otherwise.
    """
    from anabranch.client.contracts import ContractShelf
    from anabranch.client.kit import read_kit

    try:
        with _opened(home, key_file, passphrase_file, keyring=keyring) as opened:
            book = opened.contracts
            if kit is not None:
                found = read_kit(kit)
                book.learn(found.contract, found.facts.contract)
            if digest:
                say(f"Approved: {book.approve(digest)}")
            else:
                _list_contracts(book)
    except AnabranchError as error:
        if error.code != "AB-739" or kit is not None:
            raise
        shelf = ContractShelf(_vault(home, key_file, passphrase_file, keyring=keyring))
        if digest:
            say(f"Approved: {shelf.leave(digest)}")
            say("The client at work takes it up within half a minute.")
        else:
            _list_contracts(shelf)


def _vault(
    home: Path, key_file: Path | None, passphrase_file: Path | None, *, keyring: bool
) -> Vault:
    """Of a client that is at work."""
    from anabranch.client.vault import open_vault

    return open_vault(home / "vault", home_key(home, key_file, passphrase_file, keyring=keyring))


def _list_contracts(shelf: ContractShelf) -> None:
    rows = [
        (shown, "approved" if agreed else "waiting", str((shelf.read(shown) or {}).get("name")))
        for shown, agreed in shelf.shown().items()
    ]
    print_table(("contract", "status", "run"), rows)
    for changed in shelf.changes():
        say(changed)


def verify(
    home: Home,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="Heads of another client (--export)."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write heads for others.")
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    keyring: Keyring = False,
) -> None:
    """Prove from this client's own files that each update counted exactly once.

    Also that the rounds it was shown are one history: signed, never rolled back or forked. The
    client must not be at work meanwhile (AB-739).
    """
    from anabranch.client.proof import same_history

    with _opened(home, key_file, passphrase_file, keyring=keyring) as opened:
        evidence = opened.evidence
        proofs = evidence.verify()
        heads = [signed.head for signed in evidence.every_head()]
        log_head, name = opened.log.head, opened.pins.name
        if export is not None:
            write_text(export, evidence.exported())
        others = evidence.foreign(compare) if compare is not None else ()
    forked = same_history(heads, [signed.head for signed in others])
    holds = all(proof.holds for proof in proofs) and not forked
    if as_json:
        updates = [_proof_json(proof) for proof in proofs]
        print_json(
            {
                "client": name,
                "holds": holds,
                "log_head": log_head,
                "rounds_seen": len(heads),
                "forked": [{"run": head.run, "round": head.round} for head in forked],
                "updates": updates,
            }
        )
    else:
        _print_proofs(name, proofs, forked)
        say(f"{len(heads)} rounds seen. Head of the log: {log_head}")
    if not holds:
        raise AnabranchError(
            "AB-748",
            "what the coordinator says of its rounds does not hold: see the verdicts above.",
            fix="keep the client's folder as evidence and ask the operator for the rounds' "
            "records.",
            kept="The client's own log is unchanged.",
        )


def _proof_json(proof: Proof) -> dict[str, object]:
    part = proof.contribution
    return {
        "run": part.run,
        "round": part.round,
        "task": part.task,
        "verdict": proof.verdict.value,
        "reason": proof.reason,
    }


def _print_proofs(name: str, proofs: Sequence[Proof], forked: Sequence[Head]) -> None:
    rows = [
        (p.contribution.run, str(p.contribution.round), p.verdict.value, p.reason) for p in proofs
    ]
    print_table(("run", "round", "verdict", "reason"), rows, title=f"Updates of {name}")
    for head in forked:
        say(f"FORKED: the other client was shown another round {head.round} of {head.run}.")


def withdraw(
    home: Home,
    undo: Annotated[bool, typer.Option("--undo", help="Take part again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop this site, also a client that is running, and list the rounds it contributed to.

    No task is done and nothing is sent from now on. What was merged stays in the model.
    """
    from anabranch.client.evidence import receipted
    from anabranch.client.home import LOG_FILE, WITHDRAWN_FILE
    from anabranch.client.log import read_log
    from anabranch.client.proof import contributions

    marker = home / WITHDRAWN_FILE
    if not (home / LOG_FILE).exists():
        raise AnabranchError(
            "AB-737",
            f"{home} is not the folder of a client.",
            fix="give the folder that `anabranch join` was given with --home.",
        )
    if undo:
        marker.unlink(missing_ok=True)
        say("Not withdrawn: the client takes part when it is started.")
        return
    write_text(marker, f"withdrawn {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
    left, proved = contributions(read_log(home / LOG_FILE)), receipted(home)
    parts = [
        replace(part, fate=part.fate or ("merged" if part.task in proved else ""))
        for part in left
        if part.kind == "train"
    ]
    if as_json:
        print_json([asdict(part) for part in parts])
        return
    say("Withdrawn: no task is done and nothing is sent from now on.")
    rows = [
        (p.run, str(p.round), p.fate or "not told", f"{datetime.fromtimestamp(p.at, UTC):%Y-%m-%d}")
        for p in parts
    ]
    print_table(("run", "round", "fate", "sent"), rows, title="Updates that left this site")
    others = len(left) - len(parts)
    say(f"Besides, {others} answers left that are no part of a model (metrics, statistics).")
    merged = sorted({part.run for part in parts if part.fate.startswith("merged")})
    if merged:
        say(f"Models that learnt from this site: the runs {', '.join(merged)}.")
