"""What survives: answers, fates and half an upload, when the server is gone and comes back."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from anabranch.aggregation.fold import FoldPlan
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Payload, Work
from anabranch.errors import AnabranchError
from anabranch.runtimes.http import FleetServer, HttpLimits, HttpRuntime, JoinOptions
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.client.transfer import Traffic, download, letter, upload
from anabranch.runtimes.http.messages import TaskOffer, content_digest
from anabranch.runtimes.http.server.desk import RunFacts
from anabranch.testing.faults import DiskFull
from anabranch.updates.container import joined, parts_of
from anabranch.updates.sections import WEIGHT, Section, Sections, Update
from anabranch.updates.wire import pack, unpack

DIM = 400_000
SECTIONS = Sections((Section.vector("delta", DIM), Section.count(WEIGHT)))
MODEL = Sections((Section.vector("model", DIM),))
TASK = "5a" * 16
LIMITS = HttpLimits(poll_seconds=2.0, farewell_seconds=0.0, come_seconds=0.0)

Start = Callable[[], HttpRuntime]


def work(clients: tuple[int, ...] = (0, 1), task: str = TASK, round_: int = 1) -> Work:
    broadcast = {"model": np.arange(DIM, dtype=np.float32)}
    return Work(TaskKind.TRAIN, round_, clients, broadcast, FoldPlan(SECTIONS, 2), task=task)


def answer(seed: int = 0) -> bytes:
    delta = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return pack(Update({"delta": delta}, {WEIGHT: 2.0}), SECTIONS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the server of one folder; the one before is closed, as a kill would leave it."""
    open_: list[HttpRuntime] = []

    def started() -> HttpRuntime:
        for runtime in open_:
            runtime.server.close()
        server = FleetServer(directory=tmp_path / "spool", limits=LIMITS)
        runtime = HttpRuntime(("a", "b"), MODEL, server=server, facts=RunFacts("run", ("a", "b")))
        open_.append(runtime)
        return runtime

    yield started
    for runtime in open_:
        runtime.server.close()


def line(runtime: HttpRuntime, name: str = "a", port: int | None = None) -> Line:
    return Line(runtime.url, name, JoinOptions(wait=1.0, timeout=5.0, patience=5.0))


def test_an_acknowledged_answer_is_not_asked_again_after_a_restart(start: Start) -> None:
    runtime, content = start(), answer()
    runtime.submit(work())
    assert line(runtime).contact([]).task is not None
    assert not upload(line(runtime), TASK, (content,)).repeated
    assert upload(line(runtime), TASK, (content,)).repeated
    runtime = start()
    runtime.submit(work())
    events = runtime.poll(0.0)
    assert [type(event) for event in events] == [Payload, Outcome]
    payload, outcome = events
    assert isinstance(payload, Payload)
    assert isinstance(outcome, Outcome)
    assert unpack(payload.content, SECTIONS, "a").scalars == {WEIGHT: 2.0}
    assert bytes(payload.content) == content
    assert (outcome.client, outcome.fate, outcome.task) == (0, Fate.MERGED, TASK)
    assert line(runtime).contact([]).task is None
    assert line(runtime, "b").contact([]).task is not None


def test_an_upload_goes_on_where_it_was_when_the_server_went(start: Start) -> None:
    runtime, content = start(), answer()
    runtime.submit(work())
    asked = {"sha256": hashlib.sha256(content).hexdigest(), "length": len(content)}
    half = len(content) // 2
    with httpx.Client(base_url=f"{runtime.url}/v1", params={"client": "a"}) as http:
        begun = http.post(f"/tasks/{TASK}/uploads", json=asked).json()
        sent = http.patch(
            f"/uploads/{begun['upload']}", content=content[:half], headers={"Upload-Offset": "0"}
        )
        assert sent.json()["offset"] == half
    runtime = start()
    runtime.submit(work())
    traffic = Traffic()
    assert not upload(line(runtime), TASK, (content,), traffic).repeated
    assert traffic.up == len(content) - half
    payload = runtime.poll(2.0)[0]
    assert isinstance(payload, Payload)
    assert bytes(payload.content) == content


def test_fates_are_told_exactly_when_their_round_was_committed(start: Start) -> None:
    for round_, committed in ((1, True), (2, False)):
        task = f"{round_:032x}"
        runtime = start()
        runtime.recover(round_ - 1)
        states = runtime.two_phase()
        runtime.submit(work((0,), task, round_))
        told = line(runtime).contact([])
        assert told.task is not None
        assert [f.fate for f in told.fates] == ([] if round_ == 1 else [Fate.MERGED])
        upload(line(runtime), task, (answer(round_),))
        runtime.poll(1.0)
        runtime.settle(task, {0: Fate.MERGED})
        states.sync()  # and then the coordinator is gone, before or after the store's commit
        runtime = start()
        runtime.recover(round_ if committed else round_ - 1)
        unsure = line(runtime).contact([], [f"run/{task}"])
        wanted = {f"{1:032x}"} | ({task} if committed else set())
        assert {fate.task for fate in unsure.fates} == wanted
        assert all(fate.fate is Fate.MERGED for fate in unsure.fates)
    runtime.submit(work((0,), task, 2))  # the round is done again: the answer is in the spool
    assert [type(event) for event in runtime.poll(1.0)] == [Payload, Outcome]


def test_a_task_that_nobody_knows_was_too_late_once_the_run_goes_on(start: Start) -> None:
    runtime = start()
    runtime.recover(0)
    lost = "ee" * 16
    assert line(runtime).contact([], [f"run/{lost}"]).fates == ()  # it may still be given out again
    runtime.submit(work((1,)))
    runtime.poll(0.0)
    told = line(runtime).contact([], [f"run/{lost}"]).fates
    assert [(fate.task, fate.fate) for fate in told] == [(lost, Fate.TOO_LATE)]


def test_a_fate_is_told_until_it_was_heard_also_over_restarts(start: Start) -> None:
    runtime = start()
    runtime.submit(work((0,)))
    line(runtime).contact([])
    runtime.abandon(TASK)
    runtime.settle(TASK, {0: Fate.TOO_LATE})
    assert [fate.task for fate in line(runtime).contact([]).fates] == [TASK]
    runtime.server.counter.spool.flush()
    runtime = start()
    runtime.recover(1)
    assert [fate.task for fate in line(runtime).contact([]).fates] == [TASK]
    assert line(runtime).contact([TASK]).fates == ()
    runtime.server.counter.spool.flush()
    runtime = start()
    runtime.recover(1)
    assert line(runtime).contact([]).fates == ()


def test_merged_answers_leave_the_disk_with_the_commit(start: Start, tmp_path: Path) -> None:
    runtime = start()
    states = runtime.two_phase()
    runtime.submit(work((0,)))
    line(runtime).contact([])
    upload(line(runtime), TASK, (answer(),))
    runtime.poll(1.0)
    files = tmp_path / "spool" / "answers"
    assert len(list(files.iterdir())) == 1
    runtime.settle(TASK, {0: Fate.MERGED})
    states.sync()
    assert len(list(files.iterdir())) == 1
    states.committed()
    runtime.server.counter.spool.flush()
    assert list(files.iterdir()) == []
    assert upload(line(runtime), TASK, (answer(),)).repeated  # its digest is still known
    with pytest.raises(AnabranchError, match="AB-716"):
        upload(line(runtime), TASK, (answer(1),))


def test_an_upload_with_a_wrong_checksum_is_dropped_whole(start: Start) -> None:
    runtime, content = start(), answer()
    runtime.submit(work())
    asked = {"sha256": "0" * 64, "length": len(content)}
    with httpx.Client(base_url=f"{runtime.url}/v1", params={"client": "a"}) as http:
        begun = http.post(f"/tasks/{TASK}/uploads", json=asked).json()
        path, at = f"/uploads/{begun['upload']}", {"Upload-Offset": "0"}
        wrong = http.patch(path, content=content, headers=at)
        assert (wrong.status_code, wrong.json()["code"]) == (400, "AB-714")
        assert http.get(path).json()["code"] == "AB-752"
        begun = {}
        for more in range(LIMITS.uploads + 1):  # the oldest one goes
            asked["length"] = len(content) - more
            begun[more] = http.post(f"/tasks/{TASK}/uploads", json=asked).json()["upload"]
        kept = [http.get(f"/uploads/{upload}").status_code for upload in begun.values()]
        assert kept == [404, *[200] * LIMITS.uploads]
    assert not upload(line(runtime), TASK, (content,)).repeated


def test_a_part_longer_than_announced_is_refused(start: Start) -> None:
    runtime, content = start(), answer()
    runtime.submit(work())
    asked = {"sha256": "0" * 64, "length": 10}
    with httpx.Client(base_url=f"{runtime.url}/v1", params={"client": "a"}) as http:
        begun = http.post(f"/tasks/{TASK}/uploads", json=asked).json()
        path, at = f"/uploads/{begun['upload']}", {"Upload-Offset": "0"}
        longer = http.patch(path, content=content, headers=at)
        assert (longer.status_code, longer.json()["code"]) == (413, "AB-715")
        for offset in ("-1", "x", "", "9" * 16):
            bad = http.patch(path, content=b"", headers={"Upload-Offset": offset})
            assert bad.json()["code"] == "AB-717"


def test_large_messages_are_streamed_and_equal(start: Start) -> None:
    runtime, content = start(), answer()
    runtime.submit(work())
    offer = line(runtime).contact([]).task
    assert offer is not None
    got = download(line(runtime), offer.broadcast, offer.bytes)
    assert bytes(got) == joined(parts_of({"model": np.arange(DIM, dtype=np.float32)}))
    headers = {"Content-Digest": content_digest(content)}
    url = f"{runtime.url}/v1/tasks/{TASK}/update?client=b"
    assert httpx.put(url, content=content, headers=headers).json()["repeated"] is False


class Broken(httpx.BaseTransport):
    """Breaks off after a few bytes of a download, until what is left is short."""

    def __init__(self, content: bytes, step: int) -> None:
        self.content, self.step = content, step
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = request.headers.get("range", "")
        self.asked.append(asked)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first or 0), int(last or len(self.content)) + bool(last)
        end = min(end, len(self.content))
        piece = self.content[start : min(end, start + self.step)]
        whole = start + self.step >= end

        def stream() -> Iterator[bytes]:
            yield piece
            if not whole:
                raise httpx.ReadError("cut")

        headers = {"Content-Length": str(end - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(self.content)}"
        return httpx.Response(206 if asked else 200, headers=headers, content=stream())


def test_a_download_goes_on_behind_the_bytes_that_came() -> None:
    content = bytes(range(256)) * 40
    digest = hashlib.sha256(content).hexdigest()
    cut = line_with(Broken(content, 3000))
    traffic = Traffic()
    assert bytes(download(cut, digest, len(content), traffic)) == content
    assert traffic.down == len(content)
    with pytest.raises(AnabranchError, match="AB-714"):
        download(line_with(Broken(content[::-1], 1 << 20)), digest, len(content))
    with pytest.raises(AnabranchError, match="AB-714"):
        download(line_with(Broken(content, 1 << 20)), digest, len(content) - 1)


@pytest.mark.parametrize("step", [0, 3000])
def test_a_letter_goes_on_behind_the_bytes_that_came(step: int) -> None:
    content = bytes(range(256)) * 40
    silent = TaskOffer(task=TASK, kind=TaskKind.EXCHANGE, round=1, broadcast="0" * 64, bytes=0)
    offer = silent.model_copy(update={"letter": hashlib.sha256(content).hexdigest()})
    broken = Broken(content, step or 1 << 20)
    assert letter(line_with(broken), offer) == content
    assert len(broken.asked) == (4 if step else 1)
    with pytest.raises(AnabranchError, match="AB-714"):
        letter(line_with(Broken(content[::-1], 1 << 20)), offer)
    assert letter(line_with(broken), silent) == b""


class Rangeless(Broken):
    """Begins anew whatever is asked for, and always breaks off."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers.pop("range", None)
        return super().handle_request(request)


def test_a_server_that_always_begins_anew_is_given_up() -> None:
    """The same first bytes over and over are no progress."""
    content = bytes(range(256)) * 40
    digest = hashlib.sha256(content).hexdigest()
    cut = Rangeless(content, 3000)
    with pytest.raises(AnabranchError, match="AB-718"):
        download(line_with(cut, patience=0.5), digest, len(content))
    assert len(cut.asked) < 10  # with pauses


def line_with(transport: Broken, patience: float = 5.0) -> Line:
    made = Line("http://127.0.0.1:1", "a", JoinOptions(patience=patience))
    made.http = httpx.Client(base_url="http://127.0.0.1:1", transport=transport)
    return made


def test_who_did_not_come_is_not_waited_for_again_until_it_comes_back(start: Start) -> None:
    runtime = start()

    def lost(number: int) -> list[int]:
        """Clients that are given up as soon as the task is open."""
        runtime.submit(work(task=f"{number:032x}", round_=number))
        events = runtime.poll(0.0)
        return [e.client for e in events if isinstance(e, Outcome) and e.fate is Fate.LOST]

    assert lost(1) == []
    assert line(runtime).contact([]).task is not None  # a fetches it, b does not
    runtime.abandon()
    assert lost(2) == [1]
    assert line(runtime).contact([]).task is not None
    runtime.abandon()
    line(runtime, "b").contact([])  # there is nothing to do, but it is here
    assert lost(3) == []
    runtime.abandon()  # nobody came
    assert lost(4) == []  # both would be lost: they are given time


def test_bytes_that_a_full_disk_did_not_take_are_sent_again(tmp_path: Path) -> None:
    """Neither counted nor hashed: the same upload goes on once there is space."""
    server = FleetServer(directory=tmp_path, limits=LIMITS, faults=DiskFull("upload.write.before"))
    runtime = HttpRuntime(("a", "b"), MODEL, server=server, facts=RunFacts("run", ("a", "b")))
    runtime.submit(work())
    asked = line(runtime)
    content, sent = answer(), []
    headers = {"Content-Digest": content_digest(content)}
    for _ in range(2):
        request = asked.request("PUT", f"/tasks/{TASK}/update", content=content, headers=headers)
        sent.append(asked.http.send(request))
    assert [reply.status_code for reply in sent] == [507, 200]
    assert sent[0].json()["code"] == "AB-602"
    assert sent[0].headers["retry-after"] == "5"
    payload = runtime.poll(2.0)[0]
    assert isinstance(payload, Payload)
    assert bytes(payload.content) == content
    server.close()


class FullAtFirst:
    """No space for the first three pieces of uploads."""

    refused = 0

    def reach(self, point: str) -> None:
        if point == "upload.write.before" and self.refused < 3:
            self.refused += 1
            raise OSError(errno.ENOSPC, "no space left")


@pytest.mark.parametrize("size", [DIM, 8_000])
def test_a_client_sends_again_until_the_disk_has_space(tmp_path: Path, size: int) -> None:
    """Whole at first, or in parts from the start: neither gives up at the first refusal."""
    limits = replace(LIMITS, small_bytes=1000)
    full = FullAtFirst()
    server = FleetServer(directory=tmp_path, limits=limits, faults=full)
    runtime = HttpRuntime(("a", "b"), MODEL, server=server, facts=RunFacts("run", ("a", "b")))
    sections = Sections((Section.vector("delta", size), Section.count(WEIGHT)))
    runtime.submit(replace(work(), fold=FoldPlan(sections, 2)))
    content = pack(Update({"delta": np.ones(size, np.float32)}, {WEIGHT: 2.0}), sections)
    assert not upload(line(runtime), TASK, (content,)).repeated
    assert full.refused == 3
    payload = runtime.poll(2.0)[0]
    assert isinstance(payload, Payload)
    assert bytes(payload.content) == content
    server.close()


def test_a_fate_that_becomes_true_while_a_client_asks_is_not_too_late(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit falls between two looks: at the spool, and at what is held in memory."""
    runtime, content = start(), answer()
    states = runtime.two_phase()
    runtime.submit(work((0,)))
    assert line(runtime).contact([]).task is not None
    upload(line(runtime), TASK, (content,))
    runtime.poll(0.0)
    runtime.settle(TASK, {0: Fate.MERGED})
    states.sync()
    spool = runtime.server.counter.spool
    look = spool.fate

    def slowly(task: str, client: str) -> Fate | None:
        found = look(task, client)
        monkeypatch.setattr(spool, "fate", look)
        states.committed()
        return found

    monkeypatch.setattr(spool, "fate", slowly)
    told = runtime.desk.fate(TASK, "a")
    assert told is None or told.fate is Fate.MERGED
    assert runtime.desk.fate(TASK, "a") is not None
    line(runtime).contact([TASK])  # heard: only the spool knows it now
    spool.flush()
    again = runtime.desk.fate(TASK, "a")
    assert again is not None
    assert again.fate is Fate.MERGED


def test_work_that_was_open_for_a_moment_says_nothing_of_who_did_not_come(tmp_path: Path) -> None:
    limits = replace(LIMITS, come_seconds=60.0)
    server = FleetServer(directory=tmp_path, limits=limits)
    runtime = HttpRuntime(("a", "b"), MODEL, server=server, facts=RunFacts("run", ("a", "b")))
    runtime.submit(work(task="1" * 32))
    assert line(runtime).contact([]).task is not None  # a fetches it, b had no time to
    runtime.abandon()
    runtime.submit(work(task="2" * 32, round_=2))
    assert not runtime.poll(0.0)
    server.close()
