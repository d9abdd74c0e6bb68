"""`anabranch privacy status | verify | export`: what a population spent, and whether it is so."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import AsJson, StoreFolder
from anabranch.cli.output import opened_store, print_json, print_table, say, write_text
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.privacy.ledger import Balance, Document
    from anabranch.privacy.ledger.statement import Statement

__all__ = ["export", "ledger_folder", "status", "verify"]

PopulationName = Annotated[
    str,
    typer.Argument(help="A population, as plans name it in [privacy].", metavar="POPULATION"),
]


def ledger_folder(store: Path | None) -> Path:
    """Where the ledgers of a store are."""
    return (store if store is not None else Path("runs")) / "ledgers"


def status(
    population: Annotated[
        str | None,
        typer.Argument(help="A population; left out: all of them.", metavar="POPULATION"),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """What is left of a population's budget over all runs."""
    from anabranch.coordinator.store.ledger import PopulationLedger, populations
    from anabranch.privacy.ledger.statement import statement

    folder = ledger_folder(store)
    names = [population] if population else list(populations(folder))
    found = []
    for name in names:
        with PopulationLedger.existing(folder, name) as ledger:
            found.append(statement(ledger.balance()))
    if as_json:
        facts = [asdict(one) for one in found]
        print_json(facts[0] if population else facts)
        return
    if not found:
        say("No population has a ledger yet. A run whose plan has [privacy] opens one.")
    for one in found:
        _print(one)


def _print(one: Statement) -> None:
    size = f" of {one.size}" if one.size else ""
    say(f"population {one.population}: unit {one.unit}{size}, relation {one.relation}")
    say(
        f"epsilon {one.spent:.4g} of {one.budget:g} spent at delta {one.delta:g}; one more run "
        f"may have epsilon {one.left:.4g}"
    )
    for site, epsilon in one.sites:
        say(f"site {site}: epsilon {epsilon:.4g}")
    if not one.runs:
        return
    rows = [
        (
            run.run,
            run.state,
            f"{run.promised:g}",
            f"{run.counted:.4g}",
            str(run.releases),
            str(run.unsettled),
            run.reason or (f"lasts to round {run.lasts}" if run.lasts else run.label),
        )
        for run in one.runs
    ]
    header = ("run", "state", "promised", "counted", "releases", "unsettled", "note")
    print_table(header, rows)


def verify(
    population: Annotated[
        str,
        typer.Argument(
            help="A population, or the file of an exported ledger.", metavar="POPULATION"
        ),
    ],
    store: StoreFolder = None,
    head: Annotated[
        str,
        typer.Option(
            "--head",
            metavar="SEQUENCE:DIGEST",
            help="An entry that somebody kept (a client, a receipt): it must still be there.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Compute every digest of a ledger again, and compare it with the runs of the store."""
    from anabranch.coordinator.store.ledger import PopulationLedger
    from anabranch.privacy.ledger.export import balance_of, imported

    if Path(population).is_file():
        name, links = imported(_document(Path(population)))
    else:
        with PopulationLedger.existing(ledger_folder(store), population) as ledger:
            name, links = ledger.population, ledger.links()
    balance = balance_of(links)
    _holds(name, [link.digest for link in links], head)
    compared = _compared(store, balance)
    releases = sum(len(run.releases) for run in balance.runs.values())
    last = links[-1]
    if as_json:
        print_json(
            {
                "population": name,
                "entries": len(links),
                "runs": len(balance.runs),
                "releases": releases,
                "runs_compared": compared,
                "head": {"sequence": last.sequence, "digest": last.digest},
                "epsilon": balance.epsilon(),
            }
        )
        return
    say(
        f"population {name}: {len(links)} entries of {len(balance.runs)} runs with {releases} "
        f"releases; every digest is right. Compared with {compared} runs of the store."
    )
    say(f"head {last.sequence}:{last.digest}")
    say("Keep the head: `--head` will show whether entries were removed from the end.")


def _compared(store: Path | None, balance: Balance) -> int:
    """Runs of the store whose releases were compared with the ledger; none where there is no store.

    Raises:
        AnabranchError: AB-914 a run released what the ledger does not know, or something else.
    """
    from anabranch.privacy.ledger.documents import unreadable

    folder = store if store is not None else Path("runs")
    if not (folder / "store.sqlite").is_file():
        return 0
    with opened_store(folder) as opened:
        held = {run.id for run in opened.runs()} & set(balance.runs)
        for run in sorted(held):
            for stored in opened.releases(run):
                if stored.entry.what != "model" or stored.entry.mechanism == "unprotected":
                    continue
                output = str(stored.entry.details.get("sha256", ""))
                if not balance.runs[run].knows(stored.round, output):
                    raise unreadable(
                        f"run {run!r} released the model of round {stored.round}, and the ledger "
                        "has no such release"
                    )
    return len(held)


def _document(path: Path) -> dict[str, Document]:
    from anabranch.privacy.ledger.documents import unreadable

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(f"{path} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise unreadable(f"{path} holds no table")
    return found


def _holds(population: str, digests: list[str], head: str) -> None:
    """Refuse a ledger that lost an entry that somebody kept."""
    if not head:
        return
    number, _, digest = head.partition(":")
    if not number.isdecimal() or not digest:
        raise AnabranchError(
            "AB-913",
            f"--head {head!r} is not of the form SEQUENCE:DIGEST.",
            fix="give it as `anabranch privacy verify` prints it.",
        )
    if int(number) >= len(digests) or digests[int(number)] != digest:
        from anabranch.privacy.ledger.documents import unreadable

        raise unreadable(
            f"entry {number} of population {population!r} is not the one that was kept: the ledger "
            "was turned back or forked"
        )


def export(
    population: PopulationName,
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help='Where to ("-": to stdout).')
    ] = Path("-"),
    store: StoreFolder = None,
) -> None:
    """A ledger as JSON, which `anabranch privacy verify FILE` checks anywhere."""
    from anabranch.coordinator.store.ledger import PopulationLedger
    from anabranch.privacy.ledger.export import exported

    with PopulationLedger.existing(ledger_folder(store), population) as ledger:
        document = exported(ledger.population, ledger.links())
    write_text(to, json.dumps(document, indent=1) + "\n")
