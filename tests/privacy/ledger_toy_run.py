"""A small private run in one process, to be killed and resumed.

Every round: reserve, compute the noisy output, show it to somebody, commit it to the run's own
record, settle. What was shown is written down before the commit, as an adversary would.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from ledger_parts import ONE, OPENED, allotment, gaussian, request

from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.disk import Faults, no_faults
from anabranch.privacy.budget import ParticipationLimit
from anabranch.privacy.ledger import Settled

ROUNDS = 3
KILLED = 9
LIMIT = ParticipationLimit(most=ROUNDS)
CHARGE = gaussian(ONE * ROUNDS**0.5)


@dataclass(frozen=True)
class End:
    """What must be the same whatever was killed."""

    rounds: int
    releases: int
    settled: int
    spent: float
    outputs: tuple[bytes, ...]


def run_toy(folder: Path, faults: Faults = no_faults) -> None:
    """The run, or what is left of it."""
    folder.mkdir(parents=True, exist_ok=True)
    done = _committed(folder)
    with PopulationLedger.open(folder / "ledgers", OPENED, faults) as ledger:
        if len(done) == ROUNDS and not (folder / "ledgers" / "icu.secrets" / "r.key").exists():
            return
        run = ledger.begin(allotment(rounds=ROUNDS))
        for number in range(1, ROUNDS + 1):
            run.participations.reserve(["a", "b"], number, LIMIT)
            reservation = run.reserve(request(number, CHARGE))
            output = hashlib.sha256(b"sum" + reservation.noise_key).digest()
            if len(done) < number:
                _append(folder / "shown", output)
                _append(folder / "committed", output)
                done.append(output)
            run.settle(reservation.release, CHARGE, output.hex())
        run.finish("complete")


def _append(path: Path, output: bytes) -> None:
    with path.open("ab") as file:
        file.write(output)


def _committed(folder: Path) -> list[bytes]:
    path = folder / "committed"
    data = path.read_bytes() if path.exists() else b""
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def end_of(folder: Path) -> End:
    """How it ended; also checks the whole chain."""
    with PopulationLedger.existing(folder / "ledgers", "icu") as ledger:
        ledger.links()
        balance = ledger.balance()
    releases = balance.runs["r"].releases.values()
    return End(
        len(_committed(folder)),
        len(releases),
        sum(isinstance(release.settled, Settled) for release in releases),
        balance.epsilon(),
        tuple(_committed(folder)),
    )


def in_child(folder: Path, faults: Faults) -> int | None:
    """Run in a child; the signal that ended it, or None."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_toy(folder, faults)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return None


def shown(folder: Path) -> set[bytes]:
    """Everything that somebody has seen."""
    path = folder / "shown"
    data = path.read_bytes() if path.exists() else b""
    return {data[start : start + 32] for start in range(0, len(data), 32)}


def other_inputs(folder: Path, faults: Faults = no_faults) -> int:
    """The same round with another client: how many reservations count afterwards."""
    with PopulationLedger.open(folder / "ledgers", OPENED, faults) as ledger:
        run = ledger.begin(allotment(rounds=ROUNDS))
        run.reserve(replace(request(1, CHARGE), contributors=("a", "c")))
        return len(ledger.balance().runs["r"].releases)
