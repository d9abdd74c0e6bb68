"""A daemon over TLS on a bad line: what was accepted counts once, and the model is the same.

The short ones run always; the long ones (random kills of both ends, ten thousand requests) are slow
tests.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from fault_proxy import FaultProxy, Weather
from safetensors.numpy import load_file
from served_fleets import MASKED, NAMES, PLAN, ServedFleet, free_port, sites_plan

from anabranch.api import run_plan
from anabranch.coordinator.store import Store
from anabranch.plan import parse_plan

ROOT = Path(__file__).parent.parent.parent
DESCRIBED = sorted(json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))["paths"])


EVERY_LINE_IS_CUT = Weather(cut=(2_000, 30_000), delay=0.005)
"""Nobody's answer to the request for statistics (100 kB) goes up in fewer than four connections."""


class ProxiedFleet(ServedFleet):
    """Clients reach the daemon through a proxy."""

    proxy: FaultProxy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.outer, self.port = self.port, free_port()  # the url keeps the outer port

    def through(self, weather: Weather, seed: int = 1) -> FaultProxy:
        self.proxy = FaultProxy(self.outer, self.port, weather, seed)
        return self.proxy

    def close(self) -> None:
        super().close()
        if self.proxy is not None:
            self.proxy.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ProxiedFleet]:
    made = ProxiedFleet(tmp_path / "f")
    yield made
    made.close()


def plan_text(fleet: ServedFleet, rounds: int, algorithm: str = "scaffold") -> str:
    return PLAN.format(sites=fleet.sites, rounds=rounds, algorithm=algorithm)


def simulated(fleet: ServedFleet, rounds: int) -> dict[str, bytes]:
    folder = fleet.folder / "simulated"
    run = run_plan(sites_plan(fleet.sites, rounds, "scaffold"), store=folder)
    return model(folder, run.id)


def model(store: Path, run: str) -> dict[str, bytes]:
    arrays = load_file(store / "models" / f"{run}.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


def require_all_merged_once(store: Path, run: str, rounds: int) -> None:
    with Store.open(store, create=False) as opened:
        stored = [r for r in opened.rounds(run) if r.round]
    assert [r.round for r in stored] == list(range(1, rounds + 1))
    for one in stored:
        assert sorted(one.client_columns["client"]) == sorted(NAMES)
        assert set(one.client_columns["fate"]) == {"merged"}


def test_connections_that_are_cut_and_late_change_no_bit(fleet: ProxiedFleet) -> None:
    wanted = simulated(fleet, 6)
    fleet.start_daemon()
    proxy = fleet.through(EVERY_LINE_IS_CUT)
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 6))
    assert fleet.ended(run).state == "complete"
    assert proxy.cuts > 10  # otherwise nothing of this was tested
    require_all_merged_once(fleet.store, run, 6)
    assert model(fleet.store, run) == wanted


def test_a_sum_behind_masks_is_exact_on_a_line_that_is_cut(fleet: ProxiedFleet) -> None:
    """Every stage has an answer, and all but the first a letter: each may break off anywhere."""
    text = plan_text(fleet, 2, "fedavg") + MASKED
    wanted = run_plan(parse_plan(text), store=fleet.folder / "simulated")
    fleet.start_daemon()
    proxy = fleet.through(EVERY_LINE_IS_CUT)
    fleet.start_clients()
    run = fleet.submit(text)
    assert fleet.ended(run).state == "complete"
    assert proxy.cuts > 10
    require_all_merged_once(fleet.store, run, 2)
    assert model(fleet.store, run) == model(fleet.folder / "simulated", wanted.id)


def test_silent_connections_hold_nobody_up_and_are_let_go(fleet: ProxiedFleet) -> None:
    """Two hundred that connect and say nothing, some of them in the middle of a handshake."""
    fleet.start_daemon()
    fleet.through(Weather())
    fleet.start_clients()
    assert fleet.daemon is not None
    daemon = psutil.Process(fleet.daemon.pid)
    before = daemon.num_fds()
    with ExitStack() as stack:
        for number in range(200):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", fleet.port)))
            if number % 4 == 0:
                line.sendall(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a TLS greeting
        run = fleet.submit(plan_text(fleet, 2))
        assert fleet.ended(run).state == "complete"
        require_all_merged_once(fleet.store, run, 2)
    fleet.until(lambda status: daemon.num_fds() < before + 50)


def secure(fleet: ServedFleet) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(fleet.authority))
    base = f"https://127.0.0.1:{fleet.port}"
    return httpx.Client(base_url=base, verify=context, trust_env=False, timeout=20.0)


def strange_request(draw: np.random.Generator) -> tuple[str, str, dict[str, str], bytes]:
    """A request that nobody sensible sends: routes that exist, with everything else made up."""
    task = "".join(draw.choice(list("0123456789abcdef"), 32))
    digest = "".join(draw.choice(list("0123456789abcdef"), 64))
    filled = {"{task}": task, "{upload}": task, "{digest}": digest, "{run}": "sites-1"}
    routes = [*DESCRIBED, "/control/runs", "/v1/%00", "/v1/tasks/../../x", "/", f"/v9/{task}"]
    path = str(draw.choice(routes))
    for name, value in filled.items():
        path = path.replace(name, value)
    method = str(draw.choice(["GET", "PUT", "POST", "HEAD", "PATCH", "DELETE", "OPTIONS"]))
    query = draw.choice(["", "?client=north", "?client=%ff&wait=nan", "?wait=-1", "?wait=1e999"])
    size = int(draw.choice([0, 1, 17, 400]))
    bodies = [b"", draw.bytes(size), b"{}", b'{"client": null}', b"[" * size, b'{"a":' * size]
    body = bodies[int(draw.integers(len(bodies)))]
    ranges = ["bytes=0-", "bytes=-1", "bytes=9-3", "items=x", "bytes=99999999999999999999-"]
    headers = {
        "Content-Digest": str(draw.choice(["", "sha-256=:x:", "sha-256=::", "md5=:AAAA:"])),
        "Authorization": str(draw.choice(["", "Bearer", f"Bearer {digest}", "Basic eA=="])),
        "Range": str(draw.choice(ranges)),
        "Upload-Offset": str(draw.choice(["", "-1", "0", "x", "99999999999999999999"])),
        "Content-Encoding": str(draw.choice(["", "zstd", "gzip"])),
    }
    chosen = {name: value for name, value in headers.items() if draw.random() < 0.5}
    return method, path + str(query), chosen, body


def hammered(fleet: ServedFleet, count: int, seed: int) -> dict[int, int]:
    """Statuses of so many strange requests; a traceback or an unknown error fails the test."""
    draw, seen = np.random.default_rng(seed), dict[int, int]()
    with secure(fleet) as http:
        for _ in range(count):
            method, path, headers, body = strange_request(draw)
            try:
                answer = http.request(method, path, headers=headers, content=body)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.LocalProtocolError):
                continue  # turned away before a request could be read, or not sendable at all
            assert answer.status_code != 500, (method, path, headers, body[:80])
            assert b"Traceback" not in answer.content
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    return seen


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_request_makes_the_daemon_stumble(fleet: ProxiedFleet, count: int) -> None:
    fleet.start_daemon()
    assert fleet.daemon is not None
    daemon = psutil.Process(fleet.daemon.pid)
    hammered(fleet, 100, 1)
    fds, memory = daemon.num_fds(), daemon.memory_info().rss
    seen = hammered(fleet, count, 2)
    assert sum(seen.values()) > count // 2
    assert len(seen) > 3
    assert daemon.num_fds() < fds + 20
    assert daemon.memory_info().rss < memory + 60e6
    assert fleet.status() is not None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_both_ends_killed_at_random_instants(fleet: ProxiedFleet, seed: int) -> None:
    """Five kills a run, of the daemon, of a client, or of both; on a line that is cut as well."""
    draw = np.random.default_rng(seed)
    wanted = simulated(fleet, 12)
    fleet.start_daemon()
    fleet.through(Weather(cut=(5_000, 90_000), share=0.3, delay=0.002), seed)
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 12))
    for _ in range(5):
        time.sleep(float(draw.uniform(0.2, 1.5)))
        victim = str(draw.choice([*NAMES, "daemon", "both"]))
        if victim in ("daemon", "both"):
            fleet.kill_daemon()
        if victim != "daemon":
            name = victim if victim in NAMES else str(draw.choice(NAMES))
            fleet.clients[name].kill()
            fleet.clients[name].join()
        if victim in ("daemon", "both"):
            fleet.start_daemon()
        if victim != "daemon":
            fleet.start_client(name)
    fleet.until(lambda s: any(r.state == "complete" for r in s.runs), 180.0)
    require_all_merged_once(fleet.store, run, 12)
    assert model(fleet.store, run) == wanted
