"""`join`: the loop of a client. It asks for a task, executes it, answers, and asks again."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
from pydantic import ValidationError

from anabranch.algorithms.base import Broadcast
from anabranch.client.execute import execute
from anabranch.client.program import ClientProgram
from anabranch.client.task import Reply, Task, TaskKind
from anabranch.data.federation import Examples, Federation
from anabranch.errors import AnabranchError
from anabranch.learners.threads import one_thread
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.messages import (
    PROTOCOL,
    Contact,
    Failure,
    Problem,
    Receipt,
    TaskOffer,
    content_digest,
    sha256,
    unpack_broadcast,
)
from anabranch.updates.wire import pack
from anabranch.values import Value

__all__ = ["ClientData", "JoinOptions", "join"]

Message = TypeVar("Message", bound=Value)
_GONE = "AB-713"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


@dataclass(frozen=True)
class ClientData:
    """The examples of one client.

    Attributes:
        train: for training.
        test: for evaluation; the training examples when None.
    """

    train: Examples
    test: Examples | None = None

    @staticmethod
    def of(federation: Federation, name: str) -> ClientData:
        """One client's part of a federation."""
        number = federation.names.index(name)
        test = federation.test.of(number) if federation.test is not None else None
        return ClientData(federation.train.of(number), test)

    def asked(self, kind: TaskKind) -> Examples:
        """The examples that a task of this kind is about."""
        return self.train if kind is TaskKind.TRAIN or self.test is None else self.test


def _silent(offer: TaskOffer) -> None:
    """The listener of a client that nobody watches."""


@dataclass(frozen=True)
class JoinOptions:
    """How patient a client is.

    Attributes:
        wait: seconds that it lets the coordinator hold a request for a task.
        timeout: seconds that connecting, and each read or write, may take beyond that.
        patience: seconds without any contact after which the client gives up.
        on_task: told about every task before it is done.
        running: asked between tasks; false ends the client in good order.
    """

    wait: float = 20.0
    timeout: float = 30.0
    patience: float = 300.0
    on_task: Callable[[TaskOffer], None] = _silent
    running: Callable[[], bool] = lambda: True


def join(
    url: str,
    name: str,
    program: ClientProgram,
    data: ClientData,
    directory: Path,
    options: JoinOptions | None = None,
) -> int:
    """Work for the coordinator at ``url`` until it says that the run is over.

    Args:
        url: such as ``http://127.0.0.1:8080``.
        name: identifier of this client.
        program: built from the same plan as the coordinator's.
        data: this client's examples; they never leave.
        directory: for the client's memory between rounds.
        options: how patient.

    Returns:
        The number of answers that were taken.

    Raises:
        AnabranchError: AB-712 the federation has no such client, AB-718 the coordinator was not
            reached for longer than the patience, AB-719 it does not speak this protocol, AB-721
            the memory is another program's, AB-6xx the disk.
    """
    options = options or JoinOptions()
    _require_http(url)
    memory = ClientMemory(directory, program.memory.size)
    timeout = httpx.Timeout(options.timeout, read=options.wait + options.timeout)
    http = httpx.Client(
        base_url=f"{url}/v{PROTOCOL}",
        timeout=timeout,
        trust_env=False,  # a proxy of the environment has no business on loopback
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # plain HTTP: trusts no certificate
    )
    with one_thread(), http:
        line = _Line(http, name, options)
        return _Client(line, name, program, data, memory, options).work()


class _Line:
    """The connection: repeats what may be repeated, until the patience is over."""

    def __init__(self, http: httpx.Client, name: str, options: JoinOptions) -> None:
        self._http, self._name, self._options = http, name, options

    def contact(self, heard: list[str]) -> Contact:
        params: dict[str, str | list[str]] = {"wait": str(self._options.wait), "heard": heard}
        return _parsed(Contact, self._send("GET", "/tasks", params=params))

    def download(self, offer: TaskOffer) -> bytes:
        content = self._send("GET", f"/blobs/{offer.broadcast}").content
        if sha256(content) != offer.broadcast:
            raise _not_the_protocol("the download has another checksum than it was named by")
        return content

    def upload(self, offer: TaskOffer, content: bytes) -> Receipt:
        headers = {"Content-Digest": content_digest(content)}
        path = f"/tasks/{offer.task}/update"
        return _parsed(Receipt, self._send("PUT", path, content=content, headers=headers))

    def report(self, offer: TaskOffer, failure: Failure) -> None:
        content = failure.model_dump_json().encode()
        self._send("POST", f"/tasks/{offer.task}/failure", content=content)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | list[str]] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Every request is idempotent, so a lost reply is answered by sending it again."""
        query = {**(params or {}), "client": self._name}
        until, pause = time.monotonic() + self._options.patience, _FIRST_PAUSE
        while True:
            try:
                response = self._http.request(
                    method, path, params=query, content=content, headers=headers
                )
            except httpx.TransportError as error:
                trouble = type(error).__name__
            else:
                if response.status_code < 500:
                    return _checked(response)
                trouble = f"status {response.status_code}"
            if time.monotonic() + pause > until or not self._options.running():
                raise _unreachable(trouble)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


@dataclass
class _Client:
    line: _Line
    name: str
    program: ClientProgram
    data: ClientData
    memory: ClientMemory
    options: JoinOptions
    _down: tuple[str, Broadcast] | None = None

    def work(self) -> int:
        """Tasks until the run is over; the number of answers that were taken."""
        heard: list[str] = []
        taken = 0
        while self.options.running():
            contact = self.line.contact(heard)
            for fate in contact.fates:
                self.memory.hear(fate.task, fate.fate)
            heard = [fate.task for fate in contact.fates]
            if contact.task is not None:
                taken += self._do(contact.task)
            elif contact.closed:
                break  # what was just heard cannot be confirmed any more, and need not be
        return taken

    def _do(self, offer: TaskOffer) -> int:
        self.options.on_task(offer)
        try:
            self._answer(offer)
        except AnabranchError as error:
            if error.code == _GONE:
                return 0  # closed in the meantime
            raise
        return 1

    def _answer(self, offer: TaskOffer) -> None:
        try:
            broadcast = self._broadcast(offer)
            reply = self._executed(offer, broadcast)
        except AnabranchError as error:
            if error.code in (_GONE, "AB-718", "AB-719", "AB-721"):
                raise  # of this client and its line, not of the task
            self.line.report(offer, Failure(code=error.code, detail=error.message[:2000]))
            return
        except Exception as error:
            # A user's module may raise anything. The text could quote data, so the class must do.
            self.line.report(offer, Failure(code="", detail=type(error).__name__))
            return
        if offer.kind is TaskKind.TRAIN and reply.memory is not None:
            self.memory.write_pending(offer.task, reply.memory)
        train = offer.kind is TaskKind.TRAIN
        sections = self.program.sections if train else self.program.metrics.sections()
        self.line.upload(offer, pack(reply.update, sections))

    def _executed(self, offer: TaskOffer, broadcast: Broadcast) -> Reply:
        task = Task(offer.kind, offer.round, 0, self.name, offer.round, offer.task)
        data, memory = self.data.asked(offer.kind), self.memory.read()
        with np.errstate(over="ignore", invalid="ignore"):  # the fold names such updates
            return execute(self.program, task, broadcast, memory, data)

    def _broadcast(self, offer: TaskOffer) -> Broadcast:
        """What the task refers to; the last download is kept, for it may be asked again."""
        if self._down is None or self._down[0] != offer.broadcast:
            content = self.line.download(offer)
            vectors = unpack_broadcast(content, self.program.broadcast_sections)
            self._down = (offer.broadcast, vectors)
        return self._down[1]


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        raise _not_the_protocol(f"it answered with status {response.status_code}") from error
    raise AnabranchError(problem.code, problem.message, fix=problem.fix)


def _parsed(kind: type[Message], response: httpx.Response) -> Message:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise _not_the_protocol(f"its answer is not a {kind.__name__}") from error


def _not_the_protocol(what: str) -> AnabranchError:
    return AnabranchError(
        "AB-719",
        f"the server does not speak this protocol: {what}.",
        fix="check the address, and the software versions at both ends.",
        kept="Nothing was sent.",
    )


def _require_http(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _not_the_protocol(f"{url!r} is not an address") from error
    if parsed.scheme != "http" or not parsed.host:
        raise _not_the_protocol(f"{url!r} is not an address like http://127.0.0.1:8080")


def _unreachable(trouble: str) -> AnabranchError:
    return AnabranchError(
        "AB-718",
        f"the coordinator cannot be reached ({trouble}).",
        fix="check the address and the network, then join again: unfinished tasks are offered "
        "again.",
        kept="The client's memory is intact.",
    )
