"""What codecs cost in accuracy: paired runs of the plan in ``examples/lean``, one file a cell.

    python -m benchmarks.accuracy                      every cell that is not there yet
    python -m benchmarks.accuracy --cells dense ecq-6 --seeds 0 1 --until 04:00

Fashion-MNIST, a network of 1,217,738 parameters, label skew Dirichlet(0.3), 100 clients, 10 a
round, one epoch of batches of 32 at rate 0.05. A seed fixes the partition, the cohorts, the initial
parameters and the order of the examples for every codec, so differences are paired. A cell is one
run of one codec with one seed, about four minutes on one core. It is written to ``cache/accuracy``
when it is complete; ``python -m benchmarks.updates`` merges what is there into its results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import anabranch as ab
from anabranch.plan import changed

__all__ = ["CELLS", "FOLDER", "Cell", "paired", "read_cells"]

PLAN = Path(__file__).parent.parent / "examples" / "lean" / "plan.toml"
FOLDER = Path(__file__).parent / "cache" / "accuracy"
ROUNDS = 100
LAST = (5, 20)
"""Scores are means over this many last rounds."""

MEMORY = {"clients.memory": True}
CELLS: dict[str, dict[str, object]] = {
    "dense": {},
    "ecq-6": {"updates.stages": [{"kind": "ecq"}]},
    "ecq-4-nearest": {
        "updates.stages": [{"kind": "ecq", "coarseness": 4.0, "rounding": "nearest"}]
    },
    "ecq-12": {"updates.stages": [{"kind": "ecq", "coarseness": 12.0}]},
    "lattice-8-11bit": {"updates.stages": [{"kind": "lattice"}]},
    "lowrank-8-feedback": {"updates.stages": [{"kind": "lowrank"}], **MEMORY},
    "downlink-delta": {"updates.downlink": {"kind": "delta"}, **MEMORY},
    "both": {
        "updates.stages": [{"kind": "ecq"}],
        "updates.downlink": {"kind": "delta"},
        **MEMORY,
    },
    "topk-5-feedback": {"updates.stages": [{"kind": "topk", "fraction": 0.05}], **MEMORY},
}
"""What is changed in the plan, by the name of the cell; the first one is what others are compared
with."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        codec: name in `CELLS`.
        seed: of the plan.
        rounds: rounds done.
        parameters: of the model.
        curve: accuracy on the 10,000 test examples after each round.
        bytes_up: mean bytes of a merged update, encoded.
        bytes_down: mean bytes that a client asked received.
        seconds: wall time of the run.
    """

    codec: str
    seed: int
    rounds: int
    parameters: int
    curve: tuple[float, ...]
    bytes_up: float
    bytes_down: float
    seconds: float

    def score(self, last: int = LAST[0]) -> float:
        """Mean accuracy of the last rounds, in per cent."""
        tail = self.curve[-last:]
        return 100 * sum(tail) / len(tail)

    @property
    def ratio_up(self) -> float:
        """Bytes of the float32 vector over those of an update."""
        return 4 * self.parameters / self.bytes_up

    @property
    def ratio_down(self) -> float:
        """Bytes of the float32 vector over those of a broadcast."""
        return 4 * self.parameters / self.bytes_down


def run_cell(codec: str, seed: int, rounds: int, deadline: float) -> Cell | None:
    """Run one cell; None when the deadline (seconds since the epoch) came first."""
    plain: dict[str, object] = {"updates": {}, "clients.memory": None, "limits": {}}
    wanted = {**CELLS[codec], "seed": seed, "rounds.count": rounds}
    fixed = {"evaluation.every": 1, "runtime.kind": "inline", "runtime.commit_seconds": 60}
    plan = changed(changed(ab.load_plan(PLAN), plain), {**wanted, **fixed})
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as store:
        run = ab.run_plan(plan, store=store, stopped=lambda: time.time() > deadline)
        history = [stored for stored in run.history if stored.round]
    if run.status != "complete":
        return None
    fates = [fate for stored in history for fate in stored.client_columns["fate"]]
    return Cell(
        codec=codec,
        seed=seed,
        rounds=run.rounds,
        parameters=run.learner.layout.averaged,
        curve=tuple(round(stored.metrics["accuracy"], 4) for stored in history),
        bytes_up=sum(stored.bytes_up for stored in history) / fates.count("merged"),
        bytes_down=sum(stored.bytes_down for stored in history) / len(fates),
        seconds=round(time.monotonic() - started, 1),
    )


def read_cells(folder: Path = FOLDER) -> dict[tuple[str, int], Cell]:
    """Every complete cell that was written."""
    cells: dict[tuple[str, int], Cell] = {}
    for path in sorted(folder.glob("*.json")):
        fields = json.loads(path.read_text("utf-8"))
        cell = Cell(**{**fields, "curve": tuple(fields["curve"])})
        cells[cell.codec, cell.seed] = cell
    return cells


def paired(cells: dict[tuple[str, int], Cell]) -> dict[str, dict[str, object]]:
    """For each codec: mean score, loss against the dense run of the same seed, bytes."""
    dense = next(iter(CELLS))
    table: dict[str, dict[str, object]] = {}
    for codec in CELLS:
        own = [cell for (name, _), cell in sorted(cells.items()) if name == codec]
        if not own:
            continue
        table[codec] = {
            "seeds": [cell.seed for cell in own],
            "rounds": own[0].rounds,
            "ratio_up": round(_mean(cell.ratio_up for cell in own), 2),
            "ratio_down": round(_mean(cell.ratio_down for cell in own), 2),
            **{
                f"accuracy_last_{last}": round(_mean(cell.score(last) for cell in own), 2)
                for last in LAST
            },
            **{
                f"against_dense_last_{last}": [
                    round(cell.score(last) - cells[dense, cell.seed].score(last), 2)
                    for cell in own
                    if (dense, cell.seed) in cells
                ]
                for last in LAST
            },
        }
    return table


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def run_missing(codecs: Sequence[str], seeds: Sequence[int], rounds: int, deadline: float) -> None:
    """Every cell that is not there, seed by seed, until the deadline."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for codec in codecs:
            path = FOLDER / f"{codec}-{seed}.json"
            if path.exists() or time.time() > deadline:
                continue
            cell = run_cell(codec, seed, rounds, deadline)
            if cell is None:
                print(f"{codec} seed {seed}: stopped before its end, not written", flush=True)
                continue
            part = path.with_suffix(".part")
            part.write_text(json.dumps(asdict(cell)) + "\n", "utf-8")
            part.replace(path)
            print(
                f"{codec:18} seed {seed}: {cell.score():6.2f} %, up {cell.ratio_up:6.1f}x, down "
                f"{cell.ratio_down:5.1f}x, {cell.seconds:.0f} s",
                flush=True,
            )


def _deadline(clock: str | None) -> float:
    """Seconds since the epoch of the next time the clock shows ``HH:MM``."""
    if clock is None:
        return float("inf")
    hours, minutes = (int(part) for part in clock.split(":"))
    now = datetime.now()
    then = now.replace(hour=hours, minute=minutes, second=0, microsecond=0)
    return then.timestamp() + (86_400 if then <= now else 0)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--until", metavar="HH:MM", help="write nothing that ends later")
    asked = parser.parse_args()
    run_missing(asked.cells, asked.seeds, asked.rounds, _deadline(asked.until))
    for codec, figures in paired(read_cells()).items():
        print(f"{codec:18}", json.dumps(figures))


if __name__ == "__main__":
    main()
