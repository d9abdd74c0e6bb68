"""Runs contestants side by side, each in a process of its own, and turns their times into figures.

All contestants of an item take turns, several times over, so a machine that slows down for a
minute slows all of them. The figure is the median over turns of the median round.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchmarks.items import Item, load_initial, load_work
from benchmarks.outcome import Outcome

__all__ = [
    "CACHE",
    "RESULTS",
    "Contestant",
    "Measurement",
    "environment",
    "load_average",
    "machine",
    "peaks",
    "run_process",
    "side_by_side",
]

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent / "cache"
LOGS = CACHE / "logs"
MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Set on some machines; they force an old kernel and slow a current NumPy."""


@dataclass(frozen=True)
class Contestant:
    """One way of doing the work.

    Attributes:
        name: as in `benchmarks.contestant.NAMES`.
        label: key in the results; differs from the name for the engine alone.
        python: interpreter that runs it.
        engine_only: without the round loop and its store.
        threads: threads a process may use for arithmetic; 0 leaves it to the contestant.
        longer: timed rounds as a multiple of the item's, to see what rarely happens (commits).
        timeout: seconds for one run.
    """

    name: str
    label: str
    python: Path = Path(sys.executable)
    engine_only: bool = False
    threads: int = 1
    longer: int = 1
    timeout: float = 600.0


@dataclass
class Measurement:
    """What was measured of a contestant on one item.

    Attributes:
        runs: median milliseconds of the item's rounds after warm-up, for each turn.
        later: mean milliseconds of the rounds after those, for each turn (longer runs only).
        start_up: seconds before the first round, for each turn.
        final: parameters after the timed rounds of the last turn.
        equal: parameters after the rounds that are compared.
        step: parameters after a round of one step a client (chaotic items only).
        cores: how many it computes with.
        versions: what was measured.
        error: why there is no figure.
    """

    runs: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    start_up: list[float] = field(default_factory=list)
    final: NDArray[np.float32] | None = None
    equal: NDArray[np.float32] | None = None
    step: NDArray[np.float32] | None = None
    cores: int = 1
    versions: str = ""
    error: str = ""

    @property
    def ms(self) -> float | None:
        """Milliseconds a round, or None when there is no figure."""
        return float(np.median(self.runs)) if self.runs and not self.error else None

    def add(self, outcome: Outcome, item: Item) -> None:
        """Take the times of one turn."""
        timed, later = np.split(outcome.seconds[item.warm_up :], [item.rounds - item.warm_up])
        self.runs.append(float(np.median(timed)) * 1e3)
        if len(later) > 1:  # the last round also measures the model
            self.later.append(float(later[:-1].mean()) * 1e3)
        self.start_up.append(outcome.start_up)
        self.final, self.cores, self.versions = outcome.final, outcome.cores, outcome.versions
        if item.equal_rounds == len(outcome.seconds):
            self.equal = outcome.final


def environment(threads: int) -> dict[str, str]:
    """The environment of a child: this repository importable, thread counts fixed."""
    inherited = {k: v for k, v in os.environ.items() if k not in MISLEADING}
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in counts:
        inherited.pop(name, None)
    fixed = dict.fromkeys(counts, str(threads)) if threads else {}
    return {**inherited, **fixed, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}


def run_process(
    command: Sequence[str | Path], threads: int, timeout: float, log: Path
) -> tuple[int, str]:
    """Run a child with its output in ``log``; returns its exit code and the end of its output.

    A child that takes longer than ``timeout`` seconds is ended with all its descendants.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment(threads),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            _end(child)
            return -signal.SIGKILL, f"no result within {timeout:.0f} s (log: {log})"
        except KeyboardInterrupt:
            _end(child)
            raise
    return code, "\n".join(log.read_text(errors="replace").strip().splitlines()[-12:])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and everything it started, also what left its process group."""
    descendants = psutil.Process(child.pid).children(recursive=True)
    os.killpg(child.pid, signal.SIGKILL)
    for process in descendants:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait()


def _one_run(contestant: Contestant, item: Item, rounds: int, *more: str) -> Outcome | str:
    """Run once with ``more`` arguments; the outcome, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "outcome.npz"
        command: list[str | Path] = [contestant.python, "-m", "benchmarks.contestant"]
        command += [contestant.name, item.name, str(rounds), out, *more]
        command += ["--engine-only"] if contestant.engine_only else []
        log = LOGS / f"{contestant.label}-{item.name}.log"
        code, tail = run_process(command, contestant.threads, contestant.timeout, log)
        if code == 0 and out.exists():
            return Outcome.read(out)
        last = tail.splitlines()[-1] if tail else "no output"
        return f"exit code {code}: {last} ({log.relative_to(ROOT)})"


def side_by_side(
    item: Item, contestants: Sequence[Contestant], turns: int
) -> dict[str, Measurement]:
    """Let all contestants do ``item`` in turns; results by label.

    A contestant that fails once is left out from then on; the others go on.
    """
    load_work(item), load_initial(item)  # build the cache before anything is timed
    found = {contestant.label: Measurement() for contestant in contestants}
    for turn in range(turns):
        shift = turn % len(contestants)
        for contestant in (*contestants[shift:], *contestants[:shift]):
            measurement = found[contestant.label]
            if not measurement.error:
                _take_turn(contestant, item, measurement)
                _say(item, contestant, turn, measurement)
    return found


def _take_turn(contestant: Contestant, item: Item, measurement: Measurement) -> None:
    outcome = _one_run(contestant, item, item.rounds * contestant.longer)
    if isinstance(outcome, str):
        measurement.error = outcome
        return
    measurement.add(outcome, item)
    if measurement.equal is None:
        compared = _one_run(contestant, item, item.equal_rounds)
        if isinstance(compared, str):
            measurement.error = compared
            return
        measurement.equal = compared.final
    if item.chaotic and measurement.step is None:
        compared = _one_run(contestant, item, 1, "--first-batches")
        if isinstance(compared, str):
            measurement.error = compared
            return
        measurement.step = compared.final


def _say(item: Item, contestant: Contestant, turn: int, measurement: Measurement) -> None:
    what = measurement.error or f"{measurement.runs[-1]:9.1f} ms a round"
    print(
        f"  {item.name} turn {turn + 1} {contestant.label:<18} {what}", file=sys.stderr, flush=True
    )


def peaks() -> dict[str, float]:
    """GFLOP/s by ``f32_1``, ``bf16_2``, ...: type and threads.

    Raises:
        RuntimeError: the measuring process failed.
    """
    log = LOGS / "peak.log"
    code, tail = run_process([sys.executable, "-m", "benchmarks.peak"], 0, 120, log)
    if code:
        raise RuntimeError(f"measuring the peak failed: {tail}")
    values: dict[str, float] = json.loads(tail.splitlines()[-1])
    return values


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": load_average(),
    }


def load_average() -> float:
    """Processes that wanted a core, mean of the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
