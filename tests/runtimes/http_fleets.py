"""Clients for the tests: threads for small questions, forked processes for real runs."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from anabranch.algorithms.base import Algorithm
from anabranch.api.prepare import Prepared
from anabranch.client.program import ClientProgram
from anabranch.client.task import Fate
from anabranch.coordinator.runtime import Outcome, RuntimeEvent, Work
from anabranch.data.federation import Federation
from anabranch.errors import AnabranchError
from anabranch.learners.threads import use_one_thread
from anabranch.runtimes.http import ClientData, HttpLimits, HttpRuntime, JoinOptions, join
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.runtimes.local import InlineRuntime
from anabranch.testing.runtime import SmallFleet

QUICK = HttpLimits(poll_seconds=5.0, farewell_seconds=4.0)
OPTIONS = JoinOptions(wait=5.0, timeout=10.0, patience=5.0)


def server(algorithm: Algorithm, limits: HttpLimits = QUICK) -> HttpRuntime:
    """A server for the small fleet, to which nobody has come yet."""
    simulant = SmallFleet(algorithm).build()
    sections = simulant.program.broadcast_sections
    return HttpRuntime(simulant.federation.names, sections, limits=limits)


@dataclass
class Deployed:
    """A server and one thread for each of its clients; a `Runtime` itself."""

    fleet: SmallFleet
    directory: Path
    wait: float = 5.0
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        simulant = self.fleet.build()
        names = simulant.federation.names
        own = InlineRuntime(simulant)
        self.http = HttpRuntime(names, simulant.program.broadcast_sections, own=own, limits=QUICK)
        for name in names:
            thread = threading.Thread(target=self._work, args=(name,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _work(self, name: str) -> None:
        simulant = self.fleet.build()  # a learner has buffers of its own
        data = ClientData.of(simulant.federation, name)
        options = JoinOptions(wait=self.wait, timeout=10.0, patience=0.5)
        with suppress(AnabranchError):  # the server may go before the client has heard of it
            join(self.http.url, name, simulant.program, data, self.directory / name, options)

    def submit(self, work: Work) -> None:
        self.http.submit(work)

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        return self.http.poll(timeout)

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        return self.http.abandon(task)

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        self.http.settle(task, fates)

    def now(self) -> float:
        return self.http.now()

    def close(self) -> None:
        self.http.close()
        for thread in self.threads:
            thread.join(10.0)


Listener = Callable[[TaskOffer], None]


class ClientProcesses:
    """Forked clients; they wait for the address, because no fork may follow the server's thread.

    Args:
        prepared: plan, program and data.
        directory: for their memories.
        listeners: told about every task of a client, in its process.
        restless: clients leave after every task, before they know its fate, and come back.
    """

    def __init__(
        self,
        prepared: Prepared,
        directory: Path,
        listeners: Mapping[str, Listener] | None = None,
        *,
        restless: bool = False,
    ) -> None:
        self.prepared, self.directory = prepared, directory
        context = multiprocessing.get_context("fork")
        self._pipes: list[Connection] = []
        self.processes = []
        for name in prepared.federation.names:
            ours, theirs = context.Pipe()
            on_task = (listeners or {}).get(name, lambda offer: None)
            program, federation = prepared.program, prepared.federation
            args = (theirs, name, program, federation, directory, on_task, restless)
            process = context.Process(target=_client, args=args, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)

    def serve(self, prepared: Prepared, way: Callable[[str], str] = lambda url: url) -> HttpRuntime:
        """Start the server and tell the clients where it is; for `conduct`.

        Args:
            prepared: the run.
            way: from the server's address to the one that the clients are told.
        """
        own = InlineRuntime(prepared.simulant(None))
        sections = prepared.program.broadcast_sections
        runtime = HttpRuntime(prepared.federation.names, sections, own=own, limits=QUICK)
        for pipe in self._pipes:
            pipe.send(way(runtime.url))
        return runtime

    def join(self) -> list[int | None]:
        """Wait for the clients to end; their exit codes."""
        for process in self.processes:
            process.join(15.0)
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]


def _client(
    pipe: Connection,
    name: str,
    program: ClientProgram,
    federation: Federation,
    directory: Path,
    on_task: Listener,
    restless: bool,
) -> None:
    use_one_thread()
    if not pipe.poll(30.0):
        return
    url, data, here = pipe.recv(), ClientData.of(federation, name), True

    def arrived(offer: TaskOffer) -> None:
        nonlocal here
        here = not restless
        on_task(offer)

    options = replace(OPTIONS, on_task=arrived, running=lambda: here)
    while join(url, name, program, data, directory / name, options) and restless:
        here = True
