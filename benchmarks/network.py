"""What the network costs: ``make bench-network`` writes ``benchmarks/results/network.json``.

Empty rounds (nobody trains) with few and many clients, a large model there and back through the
library's own client, an upload over a poor line. Over plain HTTP and over TLS with a roster,
sessions and signatures, in one run. The load of the machine is written down with the figures.

    python -m benchmarks.network [--only rounds|transfer|line|flower] [--huge] [--patient]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.fleet.pki import (
    CA_CERTIFICATE,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    issue,
    make_authority,
)
from anabranch.fleet.roster import Roster, RosterEntry
from anabranch.runtimes.http import Credentials, JoinOptions, Route
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.client.transfer import Traffic, download, upload
from benchmarks.harness import RESULTS, load_average, machine
from benchmarks.net.coordinator import Served, prepared_update, run_server
from benchmarks.net.light import LightClient, attend
from benchmarks.net.poor_line import PoorLine

CONTEXT = multiprocessing.get_context("spawn")
SMALL = 10_000
LIGHT_PROCESSES = 2
Figures = dict[str, object]


class Fleet:
    """Names, keys and certificates of a fleet of one kind."""

    def __init__(self, folder: Path, count: int, *, secure: bool) -> None:
        self.folder, self.secure = folder, secure
        self.names = tuple(f"client-{number:04d}" for number in range(count))
        self.identities: list[Identity | None] = [None] * count
        self.key, self.ca = "", ""
        folder.mkdir(parents=True)
        if secure:
            made = FleetFolder.create(folder / "fleet", "bench")
            keys = [Identity.generate() for _ in self.names]
            entries = tuple(
                RosterEntry(name=name, key=identity.public_key.hex())
                for name, identity in zip(self.names, keys, strict=True)
            )
            roster = Roster(fleet="bench", version=1, entries=entries)
            made.publish(roster, made.federation())
            self.identities = [*keys]
            self.key = made.coordinator().public_key.hex()
            make_authority(folder / "tls", "bench", 2)
            issue(folder / "tls", folder / "tls", ["127.0.0.1", "localhost"], 2)
            self.ca = str(folder / "tls" / CA_CERTIFICATE)

    def served(self, dim: int) -> Served:
        spool = self.folder / "spool"
        if not self.secure:
            return Served(self.names, dim, spool)
        tls = self.folder / "tls"
        return Served(
            self.names,
            dim,
            spool,
            self.folder / "fleet",
            tls / SERVER_CERTIFICATE,
            tls / SERVER_KEY,
        )

    def credentials(self, number: int) -> Credentials | None:
        identity = self.identities[number]
        return Credentials(identity, bytes.fromhex(self.key)) if identity is not None else None


@contextmanager
def coordinator(served: Served) -> Iterator[tuple[str, Connection, psutil.Process]]:
    """A coordinator process: its address, the pipe to it, and the process."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=run_server, args=(served, theirs))
    process.start()
    try:
        yield ours.recv(), ours, psutil.Process(process.pid)
    finally:
        ours.send(("close",))
        process.join(20)
        process.kill()


def light_process(
    url: str,
    names: tuple[str, ...],
    secrets: tuple[bytes | None, ...],
    key: str,
    ca: str,
    update: bytes,
) -> None:
    """Many light clients."""
    clients = [
        LightClient(url, name, update, Identity.from_secret(s) if s else None, key)
        for name, s in zip(names, secrets, strict=True)
    ]
    asyncio.run(attend(clients, ca, asyncio.Event()))


@contextmanager
def light_clients(url: str, fleet: Fleet) -> Iterator[None]:
    """The whole fleet as light clients, in a few processes."""
    update, processes = prepared_update(SMALL), []
    for part in range(LIGHT_PROCESSES):
        names = fleet.names[part::LIGHT_PROCESSES]
        secret = tuple(i.secret if i else None for i in fleet.identities[part::LIGHT_PROCESSES])
        args = (url, names, secret, fleet.key, fleet.ca, update)
        processes.append(CONTEXT.Process(target=light_process, args=args))
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def empty_rounds(folder: Path, connected: int, cohort: int, *, secure: bool) -> Figures:
    """Seconds of a round in which nobody computes, median of many."""
    fleet = Fleet(folder, connected, secure=secure)
    with coordinator(fleet.served(SMALL)) as (url, pipe, _), light_clients(url, fleet):
        _until_waiting(pipe, connected)
        draw, seconds, last = np.random.default_rng(0), [], {}
        for _ in range(5 if connected > 500 else 20):
            clients = tuple(sorted(draw.choice(connected, cohort, replace=False).tolist()))
            pipe.send(("round", clients))
            last = pipe.recv()
            seconds.append(last["seconds"])
            time.sleep(0.05)
    return {
        "connected": connected,
        "cohort": cohort,
        "transport": "TLS, sessions, signatures" if secure else "plain",
        "median_ms": round(1000 * statistics.median(seconds), 1),
        "best_ms": round(1000 * min(seconds), 1),
        "coordinator_rss_mb": round(last["rss"]),
        "coordinator_peak_rss_mb": round(last["peak_rss"]),
        "load": load_average(),
    }


def _until_waiting(pipe: Connection, connected: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        pipe.send(("waiting",))
        if pipe.recv() >= connected:
            return
        time.sleep(0.1)
    raise RuntimeError("the clients did not all connect")


def transfer(folder: Path, megabytes: int, *, secure: bool) -> Figures:
    """A model there and back, hashed at both ends and durable before it is acknowledged."""
    dim = megabytes * 1_000_000 // 4
    fleet, update = Fleet(folder, 1, secure=secure), prepared_update(dim)
    down, up, anonymous = [], [], 0.0
    processor: dict[str, list[float]] = {"down": [], "up": []}
    with coordinator(fleet.served(dim)) as (url, pipe, process):
        route = Route(ca=Path(fleet.ca) if fleet.ca else None, environment=False)
        line = Line(url, fleet.names[0], JoinOptions(), fleet.credentials(0), route)
        heard: list[str] = []
        for _ in range(5 if megabytes <= 200 else 1):
            pipe.send(("round", (0,)))
            offer = None
            while offer is None:
                contact = line.contact(heard)
                offer, heard = contact.task, [fate.task for fate in contact.fates]
            begun, busy = time.perf_counter(), _processor(process)
            content = download(line, offer.broadcast, offer.bytes)
            down.append(len(content) / 1e6 / (time.perf_counter() - begun))
            processor["down"].append(_processor(process) - busy)
            del content
            begun, busy = time.perf_counter(), _processor(process)
            upload(line, offer.task, (update,))
            up.append(len(update) / 1e6 / (time.perf_counter() - begun))
            processor["up"].append(_processor(process) - busy)
            anonymous = max(anonymous, pipe.recv()["most_anonymous"])
        line.close()
    return {
        "megabytes": megabytes,
        "transport": "TLS, sessions, signatures" if secure else "plain",
        "down_mb_s": round(statistics.median(down)),
        "up_mb_s": round(statistics.median(up)),
        "best_down_mb_s": round(max(down)),
        "best_up_mb_s": round(max(up)),
        "processor_seconds_down": round(min(processor["down"]), 2),
        "processor_seconds_up": round(min(processor["up"]), 2),
        "coordinator_anonymous_mb": round(anonymous),
        "allowed_anonymous_mb": 150 + 4 * megabytes,
        "load": load_average(),
    }


def _processor(coordinator_: psutil.Process) -> float:
    """Processor seconds of both ends so far: on a machine with other work the fairer figure."""
    times = coordinator_.cpu_times()
    return float(times.user + times.system) + time.process_time()


def poor_line(folder: Path, rate: int) -> Figures:
    """10 MB upwards at ``rate`` bytes a second with a cut every 200 kB."""
    dim = 2_500_000
    fleet, update = Fleet(folder, 1, secure=False), prepared_update(dim)
    with coordinator(fleet.served(dim)) as (url, pipe, _):
        proxy = PoorLine(int(url.rsplit(":", 1)[1]), rate, 200_000)
        pipe.send(("round", (0,)))
        direct = Line(url, fleet.names[0], JoinOptions())
        offer = direct.contact([]).task
        assert offer is not None
        line = Line(f"http://127.0.0.1:{proxy.port}", fleet.names[0], JoinOptions())
        begun, traffic = time.perf_counter(), Traffic()
        upload(line, offer.task, (update,), traffic)
        seconds = time.perf_counter() - begun
        pipe.recv()
    return {
        "bytes": len(update),
        "rate_bytes_s": rate,
        "cuts": proxy.cuts,
        "seconds": round(seconds, 1),
        "resent_share": round(proxy.up / len(update) - 1, 4),
        "sha256": hashlib.sha256(update).hexdigest()[:16],
        "load": load_average(),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("rounds", "transfer", "line", "flower"))
    parser.add_argument("--huge", action="store_true", help="also a model of 1 GB")
    parser.add_argument("--patient", action="store_true", help="the poor line at 20 kB/s (9 min)")
    given = parser.parse_args()
    path = RESULTS / "network.json"
    results: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    results |= {"machine": machine(), "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    with tempfile.TemporaryDirectory(dir=os.environ.get("ANABRANCH_BENCH")) as name:
        folder = Path(name)
        if given.only in (None, "rounds"):
            results["empty_rounds"] = _rounds(folder)
        if given.only in (None, "transfer"):
            sizes = [100, 1000] if given.huge else [100]
            results["transfer"] = [
                _shown(transfer(folder / f"transfer-{size}-{secure}", size, secure=secure))
                for size in sizes
                for secure in (False, True)
            ]
        if given.only in (None, "line"):
            rate = 20_000 if given.patient else 200_000
            results["poor_line"] = _shown(poor_line(folder / "line", rate))
        if given.only in (None, "flower"):
            from benchmarks.net.flower_peer import flower_rounds

            results["flower"] = _shown(flower_rounds(folder / "flower"))
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(path)


def _rounds(folder: Path) -> list[Figures]:
    sizes = ((3, 3), (100, 100), (1000, 100))
    return [
        _shown(empty_rounds(folder / f"{connected}-{secure}", connected, cohort, secure=secure))
        for connected, cohort in sizes
        for secure in (False, True)
    ]


def _shown(figures: Figures) -> Figures:
    print(json.dumps(figures), flush=True)
    return figures


if __name__ == "__main__":
    main()
