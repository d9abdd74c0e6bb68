"""The coordinator that is measured, in a process of its own: rounds, memory, large models."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.asking import task_name
from anabranch.coordinator.runtime import Outcome, Payload, Work
from anabranch.fleet.folder import FleetFolder
from anabranch.runtimes.http import FleetServer, HttpLimits, HttpRuntime, Tls
from anabranch.runtimes.http.server.desk import RunFacts
from anabranch.updates.sections import WEIGHT, Section, Sections, Update
from anabranch.updates.wire import pack, unpack

__all__ = ["Served", "memory", "prepared_update", "run_server", "sections_of"]


def sections_of(dim: int) -> Sections:
    """Sections of a plain update of ``dim`` parameters."""
    return Sections((Section.vector("delta", dim), Section.count(WEIGHT)))


def prepared_update(dim: int) -> bytes:
    """One update."""
    delta = np.random.default_rng(1).normal(size=dim).astype(np.float32) * 1e-3
    return pack(Update({"delta": delta}, {WEIGHT: 1.0}), sections_of(dim))


def memory() -> dict[str, float]:
    """Resident megabytes of this process: all, and what no file backs."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        name: int(lines[key].split()[0]) / 1024
        for name, key in (("rss", "VmRSS"), ("anonymous", "RssAnon"), ("peak_rss", "VmHWM"))
    }


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        names: of the clients.
        dim: parameters of the model.
        folder: for the spool.
        fleet: folder with the roster; None believes every name.
        certificate: PEM file; None for plain HTTP.
        key: PEM file.
    """

    names: tuple[str, ...]
    dim: int
    folder: Path
    fleet: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def run_server(served: Served, pipe: Connection) -> None:
    """Serve; each message ``("round", clients)`` does a round, ``("close",)`` ends.

    ``("waiting",)`` tells how many requests wait.
    """
    tls = None
    if served.certificate is not None and served.key is not None:
        tls = Tls(served.certificate, served.key)
    folder = FleetFolder(served.fleet) if served.fleet is not None else None
    server = FleetServer(
        directory=served.folder, tls=tls, members=folder, limits=HttpLimits(farewell_seconds=0.1)
    )
    broadcast = Sections((Section.vector("model", served.dim),))
    facts = RunFacts("bench", served.names)
    runtime = HttpRuntime(served.names, broadcast, server=server, facts=facts)
    model = np.zeros(served.dim, np.float32)
    sections = sections_of(served.dim)
    pipe.send(server.url)
    number = 0
    while (asked := pipe.recv())[0] != "close":
        if asked[0] == "waiting":
            pipe.send(len(server.counter.bell.waiting))
            continue
        number += 1
        pipe.send(_round(runtime, model, sections, number, asked[1]))
    runtime.close()
    server.close()
    os._exit(0)


def _round(
    runtime: HttpRuntime,
    model: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    sections: Sections,
    number: int,
    clients: Sequence[int],
) -> dict[str, float]:
    begun = time.perf_counter()
    model[number % len(model)] = number  # another model, another download
    fold = Accumulator(FoldPlan(sections, len(clients)))
    task = task_name("bench", TaskKind.TRAIN, number)
    work = Work(
        TaskKind.TRAIN, number, tuple(clients), {"model": model}, fold.plan, task=task, draw=number
    )
    runtime.submit(work)
    fates: dict[int, Fate] = {}
    most = memory()["anonymous"]
    while len(fates) < len(clients):
        for event in runtime.poll(1.0):
            if isinstance(event, Payload):
                fold.add(unpack(event.content, sections, str(event.client)), str(event.client))
                most = max(most, memory()["anonymous"])
            elif isinstance(event, Outcome):
                fates[event.client] = event.fate
    runtime.settle(task, fates)
    seconds = time.perf_counter() - begun
    assert fold.contributors == len(clients), fates
    return {"seconds": seconds, **memory(), "most_anonymous": most}
