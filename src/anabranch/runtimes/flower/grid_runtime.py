"""`GridRuntime`: carries the work of one run to the nodes of a Flower fleet.

It pushes messages and pulls replies in a loop of its own; `send_and_receive` would wait seconds
between looks. Which node is which client is asked with a query, because Flower knows nodes by
numbers that change when a node without a key starts again. A message cannot be called back: it
carries its time to live, and what comes after the round is dropped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal

from flwr.app import ConfigRecord, Message, RecordDict

from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.runtime import Outcome, Payload, Runtime, RuntimeEvent, Work
from anabranch.errors import AnabranchError
from anabranch.runtimes.flower.fates import FatesFile
from anabranch.runtimes.flower.parcels import Answer, Parcel
from anabranch.runtimes.http.broadcasts import pack_work
from anabranch.runtimes.http.messages import TaskFate, TaskOffer
from anabranch.updates.sections import Sections

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["HELLO", "GridRuntime", "message_type"]

HELLO: Final = "query.hello"
_PULL: Final = 0.05
_PATIENCE: Final = 0.5
_STAGE: Final = 180.0
"""Official nodes need 5 to 30 s for an exchange, and Flower 50 s to notice that one is dead."""
_LOST: Final = frozenset({3, 4, 5, 7, 8})
"""Error codes of Flower: message or reply expired, node or app not available, process died."""
_TYPES: Final = {
    TaskKind.TRAIN: "train",
    TaskKind.EVALUATE: "evaluate",
    TaskKind.EXCHANGE: "query.exchange",
    TaskKind.MASK: "query.mask",
    TaskKind.STATISTICS: "query.statistics",
}


def message_type(kind: TaskKind) -> str:
    """The Flower message type of a task."""
    return _TYPES[kind]


@dataclass(frozen=True)
class _Sent:
    """A message that has no reply."""

    client: int
    task: str
    at: float
    told: tuple[TaskFate, ...]


class GridRuntime:
    """Carries work over a Grid.

    Args:
        grid: of the ServerApp.
        run: identifier of the run.
        names: client identifiers by number.
        contract: the contract's document.
        fates: where fates of tasks are kept.
        seconds: time to live of a message whose work has no limit.
        stage_seconds: longest time for one exchange of a secure sum.
    """

    framed: Literal["whole"] = "whole"
    """Whole models, encoded: a node that does not hold a base could not ask again."""

    def __init__(
        self,
        grid: Grid,
        run: str,
        names: Sequence[str],
        contract: bytes,
        fates: FatesFile,
        seconds: float = 3600.0,
        stage_seconds: float | None = None,
    ) -> None:
        self._grid, self._run, self._names, self._seconds = grid, run, tuple(names), seconds
        self.stage_seconds = _STAGE if stage_seconds is None else stage_seconds
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._fates = fates
        self._documents = {_sha256(contract): contract}
        self._contract, self._equipment = _sha256(contract), ""
        self._sections = Sections(())
        self._own_open = False
        self._nodes: dict[int, int] = {}
        self._greeted: dict[int, str] = {}
        self._sent: dict[str, _Sent] = {}
        self._lost: list[Outcome] = []
        self._own: Runtime | None = None

    # Before the rounds -------------------------------------------------------------------------

    def equip(self, content: bytes) -> None:
        """What clients need besides the contract: shapes and preprocessing."""
        self._documents = {self._contract: self._documents[self._contract]}
        self._equipment = _sha256(content)
        self._documents[self._equipment] = content

    def ready(self, broadcast: Sections, own: Runtime | None) -> None:
        """What became known since the run was opened: the program's broadcast, and own data."""
        self._sections, self._own = broadcast, own

    def gather(self, needed: int, patience: float, quiet: float) -> int:
        """Wait for the clients; how many are there.

        Args:
            needed: clients without which no round can succeed.
            patience: seconds to wait for them.
            quiet: seconds without a new one after which those that are there must do.

        Raises:
            AnabranchError: AB-782 too few after ``patience`` seconds.
        """
        begun = changed = time.monotonic()
        while len(self._nodes) < len(self._names):
            known = len(self._nodes)
            self._greet()
            self._pull()
            now = time.monotonic()
            changed = now if len(self._nodes) > known else changed
            enough = known >= needed and now - changed > quiet
            if enough or now - begun > patience:
                break
            time.sleep(_PULL)
        if len(self._nodes) < needed:
            there = sorted(self._names[client] for client in self._nodes)
            raise AnabranchError(
                "AB-782",
                f"{len(there)} of the {needed} clients that a round needs are connected as nodes"
                f"{': ' + ', '.join(there) if there else ''}.",
                fix="start a SuperNode for each client with "
                "--node-config 'client=\"<name>\"', and look at their logs.",
                kept="No round was begun; the run can be resumed.",
            )
        return len(self._nodes)

    # The runtime -------------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        if work.kind is TaskKind.HOLDOUT:
            if self._own is None:
                raise RuntimeError("hold-out tasks need the coordinator's own data")
            self._own.submit(work)
            self._own_open = True
            return
        self._greet()
        online = set(self._grid.get_node_ids())
        parts, decoded = pack_work(work, self._sections)
        blob = b"".join(parts)
        messages, sent = [], []
        for client in work.clients:
            node = self._nodes.get(client)
            if node is None or node not in online:
                why = "no node of this client is connected"
                self._lost.append(Outcome(client, Fate.LOST, why, task=work.task))
                continue
            told = self._fates.of(self._names[client])
            messages.append(self._message(work, client, node, (blob, decoded), told))
            sent.append(_Sent(client, work.task, time.monotonic(), told))
        ids = list(self._grid.push_messages(messages)) if messages else []
        for message, entry in zip_longest(ids, sent):
            if message:
                self._sent[message] = entry
            else:
                # Flower says so of a node that has gone in the meantime; where messages are too
                # large together, it answers nothing at all.
                why = "the message was not accepted"
                self._lost.append(Outcome(entry.client, Fate.LOST, why, task=work.task))

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        if self._own is not None and self._own_open:
            self._own_open = False
            return self._own.poll(timeout)
        until = time.monotonic() + (_PATIENCE if timeout is None else min(timeout, _PATIENCE))
        while True:
            events: list[RuntimeEvent] = [*self._lost, *self._pull()]
            self._lost.clear()
            if events or time.monotonic() >= until:
                return events
            time.sleep(_PULL)

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        own = self._own.abandon(task) if self._own is not None else ()
        given_up = {m: s for m, s in self._sent.items() if task in (None, s.task)}
        for message in given_up:
            del self._sent[message]
        return [
            *own,
            *(Outcome(s.client, Fate.TOO_LATE, task=s.task) for s in given_up.values()),
        ]

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        """Clients hear of their fate with their next task, at the earliest after the commit."""
        self._fates.settle(task, {self._names[client]: fate for client, fate in fates.items()})

    def now(self) -> float:
        return time.monotonic()

    def two_phase(self) -> FatesFile:
        """For the journal: fates wait for the store."""
        return self._fates

    def close(self) -> None:
        self._sent.clear()
        if self._own is not None:
            self._own.close()

    # Messages ----------------------------------------------------------------------------------

    def _message(
        self,
        work: Work,
        client: int,
        node: int,
        down: tuple[bytes, str],
        told: tuple[TaskFate, ...],
    ) -> Message:
        blob, decoded = down
        fraction = work.fractions.get(client, 1.0)
        offer = TaskOffer(
            task=work.task,
            kind=work.kind,
            round=work.round,
            draw=work.draw,
            update_bytes=work.update_bytes.get(client, 0),
            fraction="" if fraction == 1.0 else repr(fraction),
            broadcast=_sha256(blob),
            bytes=len(blob),
            decoded=decoded,
            run=self._run,
            contract=self._contract,
            equipment=self._equipment,
        )
        letter = work.letters.get(client, b"")
        name = self._names[client]
        content = Parcel(name, offer, blob, self._documents, letter, told).content()
        return Message(
            content,
            dst_node_id=node,
            message_type=message_type(work.kind),
            ttl=self._lifetime(work.kind),
            group_id=str(work.round),
        )

    def _lifetime(self, kind: TaskKind) -> float:
        """Seconds: a stage that is over must not keep a slow node from the next one."""
        stage = kind is TaskKind.EXCHANGE
        return min(self._seconds, self.stage_seconds) if stage else self._seconds

    def _greet(self) -> None:
        """Ask nodes that are new who they are; forget those that have gone."""
        online = set(self._grid.get_node_ids())
        self._nodes = {client: node for client, node in self._nodes.items() if node in online}
        fresh = [node for node in sorted(online) if node not in self._greeted]
        self._greeted = {node: m for node, m in self._greeted.items() if node in online}
        if not fresh:
            return
        messages = [
            Message(
                RecordDict({"hello": ConfigRecord({"run": self._run})}),
                dst_node_id=node,
                message_type=HELLO,
                ttl=self._seconds,
            )
            for node in fresh
        ]
        ids = list(self._grid.push_messages(messages))
        self._greeted.update(zip(fresh, ids, strict=True))

    def _pull(self) -> list[RuntimeEvent]:
        waiting = [*self._sent, *(m for m in self._greeted.values() if m)]
        if not waiting:
            return []
        events: list[RuntimeEvent] = []
        for reply in self._grid.pull_messages(waiting):
            asked = reply.metadata.reply_to_message_id
            if asked in self._sent:
                events += self._answered(reply, self._sent.pop(asked))
            else:
                self._welcome(reply, asked)
        return events

    def _welcome(self, reply: Message, asked: str) -> None:
        node = next((n for n, message in self._greeted.items() if message == asked), None)
        if node is None:
            return
        self._greeted[node] = ""
        if reply.has_error():
            del self._greeted[node]  # asked again as long as it is online
            return
        client = self._client_of(reply.content)
        if client is not None:
            self._nodes[client] = node

    def _client_of(self, content: RecordDict) -> int | None:
        """The client that a node says it is: by name, or by its partition."""
        config = content.get("hello", {})
        name, partition = config.get("client", ""), config.get("partition", -1)
        if name in self._numbers:
            return self._numbers[name]
        known = isinstance(partition, int) and 0 <= partition < len(self._names)
        return partition if known else None

    def _answered(self, reply: Message, sent: _Sent) -> Iterable[RuntimeEvent]:
        seconds = time.monotonic() - sent.at
        if reply.has_error():
            code, reason = reply.error.code, reply.error.reason or ""
            fate = Fate.LOST if code in _LOST else Fate.FAILED
            # The reason may hold a traceback that quotes data: its last word names the error.
            name = reason.strip().splitlines()[-1].split(":")[0][:80] if reason.strip() else ""
            detail = f"Flower error {code} {name}".strip()
            return [Outcome(sent.client, fate, detail, seconds, task=sent.task)]
        try:
            answer = Answer.of(reply.content)
        except AnabranchError as error:
            refused = Outcome(sent.client, Fate.REFUSED, str(error), seconds, task=sent.task)
            return [refused]
        self._fates.heard(self._names[sent.client], sent.told)
        if answer.failure is not None:
            fate = Fate.DECLINED if answer.failure.declined else Fate.FAILED
            detail = f"{answer.failure.code} {answer.failure.detail}".strip()
            return [Outcome(sent.client, fate, detail, seconds, task=sent.task)]
        content = answer.joined
        return [
            Payload(sent.client, content, sent.task),
            Outcome(sent.client, Fate.MERGED, "", seconds, len(content), sent.task),
        ]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
