"""Flower beside it: an official SuperLink with three SuperNodes, rounds in which nobody computes.

Uses the environment ``.venvs/flower`` (``make bench-peers`` makes it); without one nothing is
measured. The ServerApp pushes 10 k parameters and pulls the answers with Flower's own call, as its
strategies do. Telemetry is off.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.harness import ROOT, load_average

__all__ = ["flower_rounds"]

BIN = ROOT / ".venvs" / "flower" / "bin"
NODES, ROUNDS, SIZE = 3, 4, 10_000

PROJECT = """
[project]
name = "emptyround"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "emptyround.app:server"
clientapp = "emptyround.app:client"
"""

APP = """
import json, time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()

@client.train()
def train(message, context):
    return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

@server.main()
def main(grid, context):
    while len(list(grid.get_node_ids())) < NODES:
        time.sleep(0.2)
    nodes, seconds = list(grid.get_node_ids()), []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        record = ArrayRecord({"model": Array(np.zeros(SIZE, np.float32))})
        sent = [Message(RecordDict({"arrays": record}), n, "train") for n in nodes]
        got = list(grid.send_and_receive(sent))
        assert len(got) == len(nodes)
        seconds.append(time.perf_counter() - begun)
    open(RESULT, "w").write(json.dumps(seconds))
"""


def flower_rounds(folder: Path) -> dict[str, object]:
    """Seconds of Flower's empty rounds with three official nodes."""
    if not (BIN / "flower-superlink").exists():
        return {"measured": False, "why": f"{BIN} has no Flower"}
    folder.mkdir(parents=True)
    result, port = folder / "seconds.json", _free_port()
    home, app = folder / "home", folder / "app"
    (app / "emptyround").mkdir(parents=True)
    home.mkdir()
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "emptyround" / "__init__.py").write_text("")
    values = f"NODES, ROUNDS, SIZE, RESULT = {NODES}, {ROUNDS}, {SIZE}, {str(result)!r}\n"
    (app / "emptyround" / "app.py").write_text(values + APP)
    address = f"127.0.0.1:{port}"
    link = f'[superlink]\ndefault = "lo"\n[superlink.lo]\naddress = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(link)
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        log = (folder / f"log-{len(processes)}").open("wb")
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        )

    try:
        start(
            "flower-superlink",
            "--insecure",
            "--disable-runtime-dependency-installation",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        )
        _wait_for(port)
        for _ in range(NODES):
            start(
                "flower-supernode",
                "--insecure",
                "--superlink",
                address,
                "--port",
                str(_free_port()),
            )
        start("flwr", "run", str(app), "lo", "--stream")
        until = time.monotonic() + 240
        while not result.exists() and time.monotonic() < until:
            time.sleep(0.2)
        if not result.exists():
            return {"measured": False, "why": (folder / "log-4").read_text()[-500:]}
        time.sleep(0.2)
        seconds = json.loads(result.read_text())
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {
        "measured": True,
        "nodes": NODES,
        "transport": "plain",
        "median_ms": round(1000 * statistics.median(seconds)),
        "best_ms": round(1000 * min(seconds)),
        "load": load_average(),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
