"""`make bench-peers`: Flower's simulation, Apple's pfl and fedjax beside Anabranch, in one run.

python -m benchmarks.peers                        install what is missing, measure everything
python -m benchmarks.peers --peers pfl --items A
python -m benchmarks.peers --install-only
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness, report
from benchmarks.harness import Contestant
from benchmarks.items import ITEMS, Item, load_initial, load_work
from benchmarks.simulation import ENGINES

__all__ = ["PEERS", "Peer", "install", "main"]

TORCH = "torch==2.13.0"
ENVIRONMENTS = harness.ROOT / ".venvs"


@dataclass(frozen=True)
class Peer:
    """Another simulator.

    Attributes:
        name: contestant and environment.
        requirements: for pip, versions pinned.
        title: for people.
        single: runs in one process, so that item C may use both threads.
    """

    name: str
    requirements: tuple[str, ...]
    title: str
    single: bool = True

    @property
    def python(self) -> Path:
        """Interpreter of its environment."""
        return ENVIRONMENTS / self.name / "bin" / "python"


PEERS = (
    Peer("flower", ("flwr[simulation]==1.41.0", TORCH), "Flower simulation (Ray)", single=False),
    Peer("pfl", ("pfl[pytorch]==0.6.0", TORCH), "Apple pfl"),
    Peer("fedjax", ("fedjax==0.0.17",), "fedjax"),
)


def install(peer: Peer, pip_flags: list[str], timeout: float = 1800.0) -> str:
    """Make the peer's environment; returns why it cannot be used, or nothing.

    PyTorch is pinned in a constraints file, so no peer can pull another one in.
    """
    ready = ENVIRONMENTS / peer.name / ".ready"
    wanted = "\n".join(peer.requirements)
    if ready.exists() and ready.read_text() == wanted:
        return ""
    print(f"Setting up {ready.parent} (some minutes the first time) ...", flush=True)
    ENVIRONMENTS.mkdir(exist_ok=True)
    constraints = ENVIRONMENTS / "constraints.txt"
    constraints.write_text(TORCH + "\n")
    pip: list[str | Path] = [
        peer.python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", str(ready.parent)],
        [*pip, "-c", constraints, *pip_flags, *peer.requirements, "numpy"],
    ]
    for command in commands:
        log = harness.LOGS / f"install-{peer.name}.log"
        code, tail = harness.run_process(command, 0, timeout, log)
        if code:
            return f"installing {peer.title} failed ({log}):\n{tail}"
    ready.write_text(wanted)
    return ""


def contestants(item: Item, peers: list[Peer], engines: bool) -> list[Contestant]:
    """The peers, the plain script and Anabranch's engines, all in one run."""
    ours = ("plain", "tuned", *(ENGINES[item.name] if engines else ()))
    rivals = [
        # Left alone, fedjax uses XLA's threads; a Ray actor has one core by configuration.
        Contestant(
            peer.name,
            peer.name,
            python=peer.python,
            threads=0 if peer.name == "fedjax" else item.threads if peer.single else 1,
        )
        for peer in peers
    ]
    threads = {"plain": item.threads, "tuned": item.threads}
    return [*rivals, *(Contestant(name, name, threads=threads.get(name, 1)) for name in ours)]


def fastest(entries: dict[str, report.Figures], peers: list[Peer]) -> report.Figures:
    """The fastest peer of an item and how much faster each of our engines is."""
    times = {p.name: entries[p.name]["ms"] for p in peers if "ms" in entries.get(p.name, {})}
    best = min(times, key=lambda name: float(str(times[name])), default="")
    if not best:
        return {}
    answer = report.Figures(fastest_peer=best, versions=entries[best]["versions"])
    for label in ("generic", "closed_form", "bf16"):
        ms = entries.get(label, {}).get("ms")
        if isinstance(ms, float):
            answer[f"ratio_of_{label}"] = round(float(str(times[best])) / ms, 2)
    return answer


def main() -> int:
    """Install, measure, print, write `results/peers.json`; 1 when a peer gave no figure."""
    parser = argparse.ArgumentParser(description="The simulator against other simulators")
    parser.add_argument("--items", default="A,B,C,D", help="comma-separated (default: all)")
    parser.add_argument("--peers", default="flower,pfl,fedjax", help="comma-separated")
    parser.add_argument("--turns", type=int, default=3, help="turns of each contestant (default 3)")
    parser.add_argument("--install-only", action="store_true", help="make the environments")
    parser.add_argument("--without-engines", action="store_true", help="leave Anabranch out")
    options = parser.parse_args()
    peers, failed = _ready_peers(options.peers.split(","))
    if options.install_only:
        return int(bool(failed))
    machine, peaks = harness.machine(), harness.peaks()
    items: dict[str, dict[str, object]] = {}
    for name in options.items.split(","):
        item = ITEMS[name]
        rivals = contestants(item, peers, not options.without_engines)
        entries = report.figures(item, harness.side_by_side(item, rivals, options.turns), peaks)
        print(report.table(item, entries))
        best = fastest(entries, peers)
        print(f"  fastest peer: {best}\n", flush=True)
        items[name] = {**entries, "fastest": best}
        failed |= {p.name for p in peers if "error" in entries[p.name]}
    complete = set(items) == set(ITEMS) and len(peers) == len(PEERS)
    path = (harness.RESULTS if complete else harness.CACHE) / "peers.json"
    report.write(path, {"machine": machine | {"gemm_gflops": peaks}, "items": items})
    print(f"Written: {path.relative_to(harness.ROOT)}")
    return int(bool(failed))


def _ready_peers(names: list[str]) -> tuple[list[Peer], set[str]]:
    """Peers whose environment stands, and the names of the others."""
    ready, failed = [], set()
    for name in ITEMS:  # built here, where PyTorch and Anabranch are
        load_work(ITEMS[name]), load_initial(ITEMS[name])
    for peer in PEERS:
        if peer.name not in names:
            continue
        problem = install(peer, os.environ.get("PIP_FLAGS", "").split())
        if problem:
            print(problem, file=sys.stderr)
            failed.add(peer.name)
        else:
            ready.append(peer)
    return ready, failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.SubprocessError as error:
        sys.exit(f"a child process could not be run: {error}")
