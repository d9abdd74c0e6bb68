"""`anabranch serve`, `submit`, `stop` and `drain`: the coordinator's side of the network."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import Changes, PlanFile, StoreFolder
from anabranch.cli.output import say

if TYPE_CHECKING:
    from anabranch.api.serve import Daemon
    from anabranch.coordinator.events import Event

__all__ = ["drain", "serve", "stop", "submit"]

_PASSPHRASE = "ANABRANCH_PASSPHRASE"

FirstPlan = Annotated[
    Path | None, typer.Argument(help="Submit this plan at once.", metavar="[PLAN]")
]
FleetFolder = Annotated[
    Path | None,
    typer.Option("--fleet", metavar="DIR", help="Folder of the fleet (anabranch roster init)."),
]
Host = Annotated[
    str, typer.Option("--host", help="Address to listen on; beyond loopback needs TLS.")
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any.")]
Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain (PEM).")
]
CertificateKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key (PEM).")
]
ClientNames = Annotated[
    str, typer.Option("--clients", help="Names a,b,c, without a fleet (loopback only).")
]
Once = Annotated[bool, typer.Option("--once", help="End when the plan's run has ended.")]


def serve(
    plan: FirstPlan = None,
    changes: Changes = None,
    store: StoreFolder = None,
    fleet: FleetFolder = None,
    host: Host = "127.0.0.1",
    port: Port = 8443,
    certificate: Certificate = None,
    key: CertificateKey = None,
    clients: ClientNames = "",
    once: Once = False,
) -> None:
    """Serve the clients of one fleet and run the plans that are submitted.

    A daemon that was killed goes on with its runs when it is started again.
    """
    from anabranch.api.serve import Daemon, ServeOptions
    from anabranch.plan import load_plan
    from anabranch.runtimes.http import Tls

    if (certificate is None) != (key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    loaded = load_plan(plan, changes or (), os.environ) if plan is not None else None
    passphrase = os.environ.get(_PASSPHRASE)
    options = ServeOptions(
        store=store or Path("runs"),
        fleet=fleet,
        host=host,
        port=port,
        tls=Tls(certificate, key) if certificate is not None and key is not None else None,
        clients=tuple(name.strip() for name in clients.split(",") if name.strip()),
        passphrase=passphrase.encode() if passphrase else None,
    )
    daemon = Daemon(options, _told)
    _handle_signals(daemon)
    try:
        say(f"Serving at {daemon.url}")
        run = daemon.submit(loaded) if loaded is not None else None
        if run is not None:
            say(f"Run {run}")
        sys.stdout.flush()
        if run is not None and once:
            _until_ended(daemon, run)
        else:
            while not daemon.ended.wait(0.5):
                pass
    finally:
        daemon.close()


def _until_ended(daemon: Daemon, run: str) -> None:
    while not daemon.ended.is_set():
        status = daemon.wait(run, 0.5)
        if status.over:
            say(f"Run {run}: {status.state}, {status.reason}")
            time.sleep(1.0)  # clients hear of their last fates
            if status.state in ("failed", "dead"):
                raise typer.Exit(1)
            return


def _handle_signals(daemon: Daemon) -> None:
    """The first signal drains, the second ends at once; either way runs can go on later."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        sys.stderr.write("Draining: every round may end; press Ctrl-C again to end at once.\n")
        daemon.drain()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def _told(run: str, event: Event) -> None:
    """One line of the log for what an operator wants to know."""
    from anabranch.coordinator.events import ClientTrouble, RoundCommitted, RunEnded, RunStarted

    at = time.strftime("%H:%M:%S")
    if isinstance(event, RunStarted):
        line = f"run {run}: {event.clients} clients, {event.rounds} rounds. {event.trust_line}"
    elif isinstance(event, RoundCommitted):
        line = (
            f"run {run}: round {event.round} {event.outcome}, {event.contributors} of "
            f"{event.cohort}, {event.seconds:.2f} s"
        )
    elif isinstance(event, ClientTrouble):
        line = f"run {run}: round {event.round}, {event.client} {event.fate} {event.reason}"
    elif isinstance(event, RunEnded):
        line = f"run {run}: {event.status}, {event.reason}"
    else:
        return
    sys.stderr.write(f"{at} {line}\n")
    sys.stderr.flush()


def submit(plan: PlanFile, changes: Changes = None, store: StoreFolder = None) -> None:
    """Run a plan on the daemon of this store; prints the run's id."""
    import tomli_w

    from anabranch.plan import PLAN_SCHEMA, plan_of, read_plan
    from anabranch.runtimes.http.client.operator import Operator

    document = read_plan(plan, changes or (), os.environ)
    plan_of(document)  # what is wrong with it is said here, with its lines
    text = tomli_w.dumps({"schema": PLAN_SCHEMA, **document.tables})
    with Operator(store or Path("runs")) as operator:
        say(operator.submit(text))


def stop(
    run: Annotated[str, typer.Argument(help="The run, or the beginning of its id.")],
    store: StoreFolder = None,
) -> None:
    """End a served run in good order, after its round."""
    from anabranch.runtimes.http.client.operator import Operator

    with Operator(store or Path("runs")) as operator:
        status = operator.stop(run)
    if status.over:
        say(f"Run {status.run} is over already: {status.state} after round {status.round}.")
    else:
        say(f"Run {status.run} ends after round {status.round + 1}.")


def drain(store: StoreFolder = None) -> None:
    """Let every round end, then end the daemon; runs go on when it starts again."""
    from anabranch.runtimes.http.client.operator import Operator

    with Operator(store or Path("runs")) as operator:
        operator.drain()
    say("Draining.")
