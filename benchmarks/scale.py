"""Scale: 100,000 clients, 1,000 a round, 200 rounds. Is the memory flat, and below 2 GB in all?

    python -m benchmarks.scale                       FedAvg, then SCAFFOLD (state on disk)
    python -m benchmarks.scale --rounds 20 --algorithms fedavg

The run is a child process; its parent adds up the proportional memory (PSS) of all its processes
twice a second. `results/scale.json` gets the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks import harness, report

__all__ = ["Trace", "main", "watch"]

CLIENTS, COHORT, FEATURES, EXAMPLES, ROUNDS = 100_000, 1_000, 60, 20, 200
LIMIT_MIB, START_UP_S, FLAT = 2048.0, 3.0, 1.05
"""Wanted: at most this memory, start of a small run in this time, growth below 5 %."""


@dataclass
class Trace:
    """What was seen of one run.

    Attributes:
        seconds, mib: time since the start and memory of all processes then.
        marks: seconds since the start at which the run started and each round was committed.
        error: end of the child's output when it failed.
        state_mib: size of the store's folder at the end.
    """

    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    error: str = ""
    state_mib: float = 0.0

    def figures(self) -> report.Figures:
        """Peak, growth from the first to the last quarter of the rounds, speed, start-up."""
        if self.error or len(self.marks) < 5:
            return report.Figures(error=self.error or "the run told of too few rounds")
        rounds = np.diff(self.marks)
        first, last = (self._median(a, b) for a, b in ((0.1, 0.3), (0.8, 1.0)))
        return report.Figures(
            peak_mib=round(max(self.mib), 1),
            under_limit=max(self.mib) < LIMIT_MIB,
            early_mib=round(first, 1),
            late_mib=round(last, 1),
            flat=last < first * FLAT,
            start_up_s=round(self.marks[0], 2),
            first_round_s=round(float(rounds[0]), 3),
            round_ms=round(float(np.median(rounds[1:])) * 1e3, 2),
            rounds=len(rounds),
            total_s=round(self.seconds[-1], 1),
            store_mib=round(self.state_mib, 1),
        )

    def _median(self, start: float, stop: float) -> float:
        """Median memory between two shares of the time of the rounds."""
        begin, end = self.marks[0], self.marks[-1]
        inside = [
            mib
            for second, mib in zip(self.seconds, self.mib, strict=True)
            if begin + start * (end - begin) <= second <= begin + stop * (end - begin)
        ]
        return float(np.median(inside or self.mib))


def proportional_mib(root: int) -> float:
    """PSS of a process and its descendants in MiB: shared pages count once in all."""
    total = 0
    for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        lines = (line.split() for line in text.splitlines())
        total += next(int(words[1]) for words in lines if words[0] == "Pss:")
    return total / 1024


def watch(arguments: list[str], timeout: float) -> Trace:
    """Run ``python -m benchmarks.scale_run ARGUMENTS`` and trace its memory until it ends."""
    trace = Trace()
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        out = Path(folder) / "out"
        with out.open("w") as file:
            started, wall = time.perf_counter(), time.time()
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.scale_run", folder, *arguments],
                cwd=harness.ROOT,
                env=harness.environment(1),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            while child.poll() is None:
                _sample(trace, child, time.perf_counter() - started)
                if time.perf_counter() - started > timeout:
                    child.terminate()
                    trace.error = f"no end within {timeout:.0f} s"
                time.sleep(0.5)
        lines = out.read_text().splitlines()
        if child.returncode and not trace.error:
            trace.error = "\n".join(lines[-8:])
        trace.marks = [float(line[5:]) - wall for line in lines if line.startswith("mark ")]
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        trace.state_mib = sum(path.stat().st_blocks * 512 for path in files) / 2**20
    return trace


def _sample(trace: Trace, child: subprocess.Popen[bytes], second: float) -> None:
    try:
        mib = proportional_mib(child.pid)
    except (psutil.NoSuchProcess, StopIteration):
        return  # it ends just now
    trace.seconds.append(second)
    trace.mib.append(mib)


def main() -> int:
    """Trace, print, write `results/scale.json`; 1 when a limit was missed."""
    parser = argparse.ArgumentParser(description="Memory and speed with very many clients")
    parser.add_argument("--algorithms", default="fedavg,scaffold", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds a run")
    options = parser.parse_args()
    runs: dict[str, report.Figures] = {}
    small = watch(["fedavg", "1000", "100", "8"], options.timeout).figures()
    runs["start"] = small
    print(f"start of a small run: {small.get('start_up_s')} s (wanted: < {START_UP_S})", flush=True)
    for name in options.algorithms.split(","):
        cohort = min(COHORT, options.clients)
        trace = watch(
            [name, str(options.clients), str(cohort), str(options.rounds)], options.timeout
        )
        runs[name] = trace.figures()
        print(f"{name}: {json.dumps(runs[name])}", flush=True)
    complete = options.rounds == ROUNDS and options.clients == CLIENTS
    path = (harness.RESULTS if complete else harness.CACHE) / "scale.json"
    report.write(path, {"machine": harness.machine(), "runs": runs})
    start = small.get("start_up_s")
    good = isinstance(start, float) and start < START_UP_S
    good &= all(
        run.get("under_limit") and run.get("flat") for n, run in runs.items() if n != "start"
    )
    print("Every limit holds." if good else "A limit was missed.")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
