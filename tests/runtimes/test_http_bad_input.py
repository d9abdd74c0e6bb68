"""What a broken or hostile client may send: the server says why, and the round goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from http_fleets import QUICK, server

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms import FedAvg, Scaffold
from anabranch.client.execute import execute
from anabranch.client.task import Fate, Task, TaskKind
from anabranch.coordinator.collect import Collected, collect
from anabranch.coordinator.runtime import Outcome, Payload, Work
from anabranch.errors import AnabranchError
from anabranch.runtimes.http import ClientData, ClientMemory, HttpRuntime, JoinOptions, join
from anabranch.runtimes.http.messages import (
    content_digest,
    pack_broadcast,
    sha256,
    unpack_broadcast,
)
from anabranch.testing.runtime import SmallFleet
from anabranch.updates import container
from anabranch.updates.wire import pack

FLEET = SmallFleet(FedAvg()).build()
TASK = "0" * 32


@pytest.fixture
def runtime() -> Iterator[HttpRuntime]:
    served = server(FedAvg(), replace(QUICK, farewell_seconds=0.0))
    yield served
    served.close()


@pytest.fixture
def http(runtime: HttpRuntime) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{runtime.url}/v1", timeout=10.0) as client:
        yield client


def work(clients: tuple[int, ...] = (0, 1)) -> Work:
    program = FLEET.program
    broadcast = program.algorithm.broadcast(program.algorithm.init(program.base))
    return Work(TaskKind.TRAIN, 1, clients, broadcast, FoldPlan(program.sections, len(clients)))


def answer(asked: Work, client: int) -> bytes:
    task = Task(asked.kind, asked.round, client, f"client-{client}", asked.round)
    data = FLEET.federation.train.of(client)
    reply = execute(FLEET.program, task, asked.broadcast, None, data)
    return pack(reply.update, asked.fold.sections)


def offered(http: httpx.Client, name: str) -> str:
    contact = http.get("/tasks", params={"client": name, "wait": "2"}).json()
    return str(contact["task"]["task"])


def put(http: httpx.Client, task: str, name: str, content: bytes) -> httpx.Response:
    headers = {"Content-Digest": content_digest(content)}
    return http.put(
        f"/tasks/{task}/update", params={"client": name}, content=content, headers=headers
    )


def code(response: httpx.Response) -> tuple[int, str]:
    problem = response.json()
    assert problem["message"]
    assert problem["fix"]
    return response.status_code, problem["code"]


def collected(runtime: HttpRuntime, asked: Work, seconds: float = 0.0) -> Collected:
    """What the coordinator makes of the answers to work that was submitted before."""
    outcome = Collected.of(asked, runtime.now())
    for event in [*runtime.poll(seconds), *runtime.abandon()]:
        outcome.absorb(event, "client-{}".format, runtime.now())
    return outcome


def test_a_repeated_upload_counts_once(runtime: HttpRuntime, http: httpx.Client) -> None:
    asked = work()
    runtime.submit(asked)
    task, content = offered(http, "client-0"), answer(asked, 0)
    assert put(http, task, "client-0", content).json()["repeated"] is False
    assert put(http, task, "client-0", content).json()["repeated"] is True
    assert code(put(http, task, "client-0", content + b" ")) == (409, "AB-716")
    events = runtime.poll(1.0)
    assert [type(event) for event in events] == [Payload, Outcome]
    assert put(http, task, "client-1", answer(asked, 1)).status_code == 200
    # All have answered: the same bytes are still known, and nothing new comes of them.
    assert put(http, task, "client-0", content).json()["repeated"] is True
    assert len(runtime.poll(1.0)) == 2
    assert list(runtime.poll(0.0)) == []


def test_garbage_is_refused_and_named(runtime: HttpRuntime, http: httpx.Client) -> None:
    asked = work()
    runtime.submit(asked)
    task = offered(http, "client-0")
    assert put(http, task, "client-0", b"\xff" * 300).status_code == 200  # judged by the fold
    assert put(http, task, "client-1", answer(asked, 1)).status_code == 200
    got = collected(runtime, asked)
    assert got.by_client[0].fate is Fate.REFUSED
    assert "AB-501" in got.by_client[0].detail
    assert got.by_client[1].fate is Fate.MERGED
    assert got.contributors == 1


def test_an_oversized_upload_is_refused_before_it_is_read(
    runtime: HttpRuntime, http: httpx.Client
) -> None:
    asked = work()
    runtime.submit(asked)
    task = offered(http, "client-0")
    assert code(put(http, task, "client-0", b"\0" * 200_000)) == (413, "AB-715")
    # The same without a stated length: the server stops reading at the limit.
    parts = (b"\0" * 10_000 for _ in range(20))
    chunked = http.put(f"/tasks/{task}/update", params={"client": "client-1"}, content=parts)
    assert code(chunked) == (413, "AB-715")
    got = collected(runtime, asked)
    assert [got.by_client[client].fate for client in (0, 1)] == [Fate.REFUSED, Fate.REFUSED]


def test_a_wrong_checksum_takes_nothing(runtime: HttpRuntime, http: httpx.Client) -> None:
    asked = work()
    runtime.submit(asked)
    task, content = offered(http, "client-0"), answer(asked, 0)
    for header in ({}, {"Content-Digest": content_digest(b"other")}, {"Content-Digest": "x"}):
        response = http.put(
            f"/tasks/{task}/update", params={"client": "client-0"}, content=content, headers=header
        )
        assert code(response) == (400, "AB-714")
    assert put(http, task, "client-0", content).json()["repeated"] is False


def test_strangers_and_strange_requests(runtime: HttpRuntime, http: httpx.Client) -> None:
    runtime.submit(work())
    task = offered(http, "client-0")
    assert code(http.get("/tasks", params={"client": "nobody"})) == (404, "AB-712")
    assert code(http.get("/tasks")) == (404, "AB-712")
    for wait in ("soon", "nan", "-1"):
        response = http.get("/tasks", params={"client": "client-4", "wait": wait})
        assert code(response) == (400, "AB-717")
    assert code(put(http, TASK, "client-0", b"")) == (410, "AB-713")
    assert code(put(http, task, "client-3", b"")) == (410, "AB-713")  # was not asked
    assert code(put(http, task, "nobody", b"")) == (404, "AB-712")
    assert code(http.get(f"/blobs/{TASK}")) == (410, "AB-713")
    path = f"/tasks/{task}/failure?client=client-0"
    for body in (b"", b"[]", b'{"code": 1}', b"\xff"):
        assert code(http.post(path, content=body)) == (400, "AB-717")
    assert code(http.post(path, content=b" " * 20_000)) == (413, "AB-715")
    assert http.get("/elsewhere").status_code == 404
    assert http.get("/tasks", headers={"Host": "evil.example"}).status_code == 400


def test_a_late_answer_is_dropped(runtime: HttpRuntime, http: httpx.Client) -> None:
    asked = work()
    got = {}

    def coordinate() -> None:
        got["round"] = collect(asked, runtime, str, 0.4)

    thread = threading.Thread(target=coordinate)
    thread.start()
    task = offered(http, "client-0")
    thread.join(10.0)
    assert {outcome.fate for outcome in got["round"].outcomes.values()} == {Fate.TOO_LATE}
    assert code(put(http, task, "client-0", answer(asked, 0))) == (410, "AB-713")


def test_fates_are_told_until_heard_and_do_not_pile_up(
    runtime: HttpRuntime, http: httpx.Client
) -> None:
    heard: list[str] = []
    for _ in range(QUICK.remembered + 3):
        runtime.submit(work())
        heard.append(offered(http, "client-0"))
        runtime.abandon()
        runtime.settle("", {0: Fate.TOO_LATE, 1: Fate.TOO_LATE})
    assert runtime.unheard == QUICK.remembered  # client 1 never heard of its tasks
    for _ in range(2):
        told = http.get("/tasks", params={"client": "client-0", "wait": "0"}).json()["fates"]
        assert [fate["task"] for fate in told] == heard[-QUICK.remembered :]
        assert {fate["fate"] for fate in told} == {"too late"}
    query: dict[str, str | list[str]] = {"client": "client-0", "wait": "0", "heard": heard}
    assert http.get("/tasks", params=query).json()["fates"] == []
    assert runtime.unheard == 0


def test_fates_wait_for_the_commit(runtime: HttpRuntime, http: httpx.Client) -> None:
    states = runtime.two_phase()
    runtime.submit(work((0,)))
    task = offered(http, "client-0")
    runtime.abandon()
    runtime.settle("", {0: Fate.MERGED})
    query = {"client": "client-0", "wait": "0"}
    assert http.get("/tasks", params=query).json()["fates"] == []
    states.sync()
    assert states.durable() == {}
    states.committed()
    told = http.get("/tasks", params=query).json()["fates"]
    assert told == [{"task": task, "fate": "merged", "signature": ""}]


def test_without_a_deadline_a_silent_client_is_lost() -> None:
    runtime = server(FedAvg(), replace(QUICK, task_seconds=0.2))
    try:
        got = collect(work(), runtime, str)
    finally:
        runtime.close()
    assert {outcome.fate for outcome in got.outcomes.values()} == {Fate.LOST}


def test_silent_connections_do_not_hold_up_the_others(
    runtime: HttpRuntime, http: httpx.Client
) -> None:
    address = ("127.0.0.1", httpx.URL(runtime.url).port or 0)
    silent = [socket.create_connection(address) for _ in range(50)]
    try:
        runtime.submit(work())
        assert len(offered(http, "client-0")) == 32
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(AnabranchError, match="AB-710"):
        HttpRuntime(["a"], FLEET.program.broadcast_sections, host=host)


def test_a_port_in_use_is_named(runtime: HttpRuntime) -> None:
    port = httpx.URL(runtime.url).port or 0
    with pytest.raises(AnabranchError, match="AB-711"):
        HttpRuntime(["a"], FLEET.program.broadcast_sections, port=port)
    with pytest.raises(AnabranchError, match="AB-711"):
        HttpRuntime(["a"], FLEET.program.broadcast_sections, port=70_000)


def joined(url: str, name: str, folder: Path, algorithm: FedAvg | Scaffold | None = None) -> int:
    simulant = SmallFleet(algorithm or FedAvg()).build()
    data = ClientData.of(simulant.federation, "client-0")
    options = JoinOptions(wait=0.2, timeout=2.0, patience=0.2)
    return join(url, name, simulant.program, data, folder, options)


def test_the_client_says_what_is_wrong_with_its_address(
    runtime: HttpRuntime, tmp_path: Path
) -> None:
    with pytest.raises(AnabranchError, match="AB-712"):
        joined(runtime.url, "nobody", tmp_path)
    with pytest.raises(AnabranchError, match="AB-718"):
        joined("http://127.0.0.1:1", "client-0", tmp_path)
    with pytest.raises(AnabranchError, match="AB-719"):
        joined(f"{runtime.url}/elsewhere", "client-0", tmp_path)
    for url in ("", "127.0.0.1:80", "https://", "http://", "ftp://x"):
        with pytest.raises(AnabranchError, match="AB-719"):
            joined(url, "client-0", tmp_path)
    with pytest.raises(AnabranchError, match="AB-710"):
        joined("http://192.0.2.1:80", "client-0", tmp_path)


def test_no_request_makes_the_server_stumble(runtime: HttpRuntime, http: httpx.Client) -> None:
    draw = np.random.default_rng(11)
    runtime.submit(work())
    task = offered(http, "client-0")
    paths = ["/tasks", f"/tasks/{task}/update", f"/tasks/{task}/failure", f"/blobs/{task}", "/"]
    names = ["client-0", "client-1", "nobody", "", "\0", "é" * 50, "../.."]
    headers = [{}, {"Content-Digest": "sha-256=::"}, {"Content-Digest": "sha-256=:é:".encode()}]
    for _ in range(150):
        body = draw.bytes(int(draw.integers(0, 400)))
        header = headers[draw.integers(len(headers))]
        if draw.random() < 0.2:
            header = {"Content-Digest": content_digest(body)}
        response = http.request(
            ["GET", "PUT", "POST", "DELETE", "HEAD"][draw.integers(5)],
            paths[draw.integers(len(paths))],
            params={"client": names[draw.integers(len(names))], "wait": "0"},
            content=body,
            headers=header,
        )
        assert response.status_code < 500
        assert b"Traceback" not in response.content


def test_another_plan_at_the_client_is_reported(runtime: HttpRuntime, tmp_path: Path) -> None:
    asked = work((0,))
    runtime.submit(asked)
    thread = threading.Thread(
        target=joined, args=(runtime.url, "client-0", tmp_path, Scaffold()), daemon=True
    )
    thread.start()
    events = runtime.poll(5.0) or runtime.poll(5.0)
    assert [(e.fate, e.detail[:6]) for e in events if isinstance(e, Outcome)] == [
        (Fate.FAILED, "AB-720")
    ]
    runtime.close()
    thread.join(10.0)
    assert not thread.is_alive()


def test_a_broadcast_survives_the_wire() -> None:
    sections = FLEET.program.broadcast_sections
    asked = work()
    content = container.joined(pack_broadcast(asked.broadcast, sections))
    assert sha256(content) == sha256(container.joined(pack_broadcast(asked.broadcast, sections)))
    got = unpack_broadcast(content, sections)
    assert {k: v.tobytes() for k, v in got.items()} == {
        k: v.tobytes() for k, v in asked.broadcast.items()
    }
    with pytest.raises(AnabranchError, match="AB-720"):
        unpack_broadcast(content[:-1], sections)


class TestMemory:
    """Two files, two phases."""

    def test_a_fate_counts_once(self, tmp_path: Path) -> None:
        memory = ClientMemory(tmp_path / "m", 3)
        assert memory.read() is None
        memory.write_pending("a" * 32, np.ones(3, np.float32))
        assert memory.read() is None
        assert memory.pending() == "a" * 32
        memory.hear("b" * 32, Fate.MERGED)  # of another task
        assert memory.read() is None
        for _ in range(2):
            memory.hear("a" * 32, Fate.MERGED)
            np.testing.assert_array_equal(memory.read(), np.ones(3, np.float32))
        memory.write_pending("c" * 32, np.zeros(3, np.float32))
        memory.hear("c" * 32, Fate.TOO_LATE)
        assert memory.pending() is None
        np.testing.assert_array_equal(memory.read(), np.ones(3, np.float32))

    def test_a_memory_that_counts_takes_older_pending_ones_with_it(self, tmp_path: Path) -> None:
        memory = ClientMemory(tmp_path, 2)
        memory.write_pending("a" * 32, np.ones(2, np.float32))
        memory.write_pending("b" * 32, np.zeros(2, np.float32))
        memory.write_pending("c" * 32, np.full(2, 7, np.float32))
        assert memory.unresolved() == ["a" * 32, "b" * 32, "c" * 32]
        memory.hear("b" * 32, Fate.MERGED_LATE)
        np.testing.assert_array_equal(memory.read(), np.zeros(2, np.float32))
        assert memory.unresolved() == ["c" * 32]
        memory.hear("a" * 32, Fate.MERGED)
        np.testing.assert_array_equal(memory.read(), np.zeros(2, np.float32))

    def test_only_a_few_open_tasks_are_kept(self, tmp_path: Path) -> None:
        memory = ClientMemory(tmp_path, 1)
        tasks = [f"{number:032x}" for number in range(6)]
        for task in tasks:
            memory.write_pending(task, np.ones(1, np.float32))
        assert memory.unresolved() == tasks[-4:]

    @pytest.mark.parametrize("content", [b"", b"garbage" * 20])
    def test_a_damaged_or_foreign_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "committed.safetensors").write_bytes(content)
        with pytest.raises(AnabranchError, match="AB-721"):
            ClientMemory(tmp_path, 3).read()
        memory = ClientMemory(tmp_path, 2)
        memory.write_pending("a" * 32, np.ones(2, np.float32))
        memory.hear("a" * 32, Fate.MERGED)
        with pytest.raises(AnabranchError, match="AB-721"):
            ClientMemory(tmp_path, 3).read()
