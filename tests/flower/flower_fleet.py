"""A real Flower fleet on loopback: a SuperLink over TLS, SuperNodes with keys.

Every process is ended by its id. Telemetry and update checks are off.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anabranch.coordinator.store import Store
from anabranch.fleet.pki import (
    CA_CERTIFICATE,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    issue,
    make_authority,
)

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class FlowerFleet:
    """A SuperLink and its SuperNodes.

    Attributes:
        folder: for certificates, keys, logs and Flower's own state.
        names: clients; one SuperNode each.
    """

    folder: Path
    names: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> FlowerFleet:
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        self._certify()
        self._start_link()
        for name in self.names:
            self.register(name)
            self.start_node(name)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _certify(self) -> None:
        pki = self.folder / "pki"
        make_authority(pki, "test", 30)
        issue(pki, pki, ["127.0.0.1", "localhost"], 30)
        self.ca, self.certificate = pki / CA_CERTIFICATE, pki / SERVER_CERTIFICATE
        self.key = pki / SERVER_KEY
        connection = f'address = "{self.address}"\nroot-certificates = "{self.ca}"\n'
        text = f'[superlink]\ndefault = "lo"\n[superlink.lo]\n{connection}'
        (self.folder / "home" / "config.toml").write_text(text, "utf-8")

    def _start_link(self) -> None:
        tls = ["--ssl-ca-certfile", self.ca, "--ssl-certfile", self.certificate]
        tls += ["--ssl-keyfile", self.key]
        self._spawn(
            "superlink",
            [
                "flower-superlink",
                *tls,
                "--enable-supernode-auth",
                "--host",
                "127.0.0.1",
                "--port",
                self.port,
                "--disable-runtime-dependency-installation",
            ],
        )
        self._await_link()

    def _await_link(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"no SuperLink: {self.log('superlink')}")

    def register(self, name: str) -> None:
        """Make the node's key known; Flower refuses unknown ones and does not ask again."""
        key = self.folder / f"key-{name.replace(' ', '-')}"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)], check=True
        )
        done = self.flwr(["supernode", "register", f"{key}.pub", "lo"])
        assert done.returncode == 0, done.stdout + done.stderr

    def start_node(self, name: str) -> None:
        """A SuperNode for one client."""
        key = self.folder / f"key-{name.replace(' ', '-')}"
        state = self.folder / "state" / name.replace(" ", "-")
        place = f"partition-id={list(self.names).index(name)} num-partitions={len(self.names)}"
        config = f'client="{name}" state="{state}" {place}'
        self._spawn(
            name,
            [
                "flower-supernode",
                "--superlink",
                self.address,
                "--root-certificates",
                self.ca,
                "--auth-supernode-private-key",
                key,
                "--port",
                free_port(),
                "--node-config",
                config,
            ],
        )

    def kill_node(self, name: str) -> None:
        """As if its machine lost power: the process and what it started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, 9)
        process.wait()

    def _spawn(self, name: str, command: Sequence[object]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [str(part) for part in command],
            stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True,
        )  # fmt: skip
        log.close()

    def log(self, name: str) -> str:
        """What a process printed."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")[-4000:]

    def flwr(
        self, arguments: Sequence[str], seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the ``flwr`` command."""
        return subprocess.run(
            [str(BIN / "flwr"), *arguments],
            env=self.environment, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def run(self, app: Path, *more: str) -> str:
        """Start an app; the id of the Flower run."""
        done = self.flwr(["run", str(app), "lo", "--format", "json", *more], 120)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(json.loads(done.stdout)["run-id"])

    def stop(self, run: str) -> None:
        """Ask Flower to end a run."""
        done = self.flwr(["stop", run, "lo", "--format", "json"])
        assert done.returncode == 0, done.stdout + done.stderr

    def gone(self, store: Path, seconds: float) -> None:
        """Until no process holds a run of a store."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with Store.open(store, create=False) as opened:
                if not any(opened.is_open(run.id) for run in opened.runs()):
                    return
            time.sleep(0.5)
        raise TimeoutError("the ServerApp goes on")

    def wait(self, run: str, seconds: float) -> str:
        """Until a run ends; its status as Flower tells it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                done = self.flwr(["ls", "--run-id", run, "lo", "--format", "json"])
            except subprocess.TimeoutExpired:  # a busy machine; how long is said by the caller
                continue
            if done.returncode == 0:
                (found,) = json.loads(done.stdout)["runs"]
                if str(found["status"]).startswith("finished"):
                    return str(found["status"])
            time.sleep(2.0)
        raise TimeoutError(self.log("superlink"))


class FlowerSimulation(FlowerFleet):
    """A SuperLink that simulates its nodes with Ray; it has no SuperNodes of its own."""

    def _certify(self) -> None:
        connection = f'address = "{self.address}"\ninsecure = true\n'
        text = f'[superlink]\ndefault = "lo"\n[superlink.lo]\n{connection}'
        (self.folder / "home" / "config.toml").write_text(text, "utf-8")

    def _start_link(self) -> None:
        where = ["--host", "127.0.0.1", "--port", self.port]
        plain = ["--insecure", "--disable-runtime-dependency-installation"]
        self._spawn("superlink", ["flower-superlink", "--simulation", *where, *plain])
        self._await_link()
