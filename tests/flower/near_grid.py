"""A Grid in this process: every message is answered by our ClientApp at once, or not at all.

It stands for a SuperLink where the question is what our two ends do, not what Flower does between
them. Nothing of ours lives from one message to the next but files and the Context's state, as with
official nodes, which start a process for each message.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from anabranch.runtimes.flower.client_app import handle, hello

_UNAVAILABLE = 5


def inside_an_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower makes messages only where it knows which run they belong to."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)


@dataclass
class NearGrid:
    """Nodes of a fleet, by number.

    Attributes:
        names: clients; node 100 is the first one's.
        folder: for what clients keep.
        lost: asked for every message: (client, message type, messages so far) -> it is not
            answered, as if its node had died.
        error: what Flower answers instead of a lost node: its code and reason.
        silent: clients that never answer a training task.
        spoil: may change a reply on its way: (client, message type, reply).
        configs: more of a node's configuration.
        online: nodes that are there, all when None.
        seen: what was asked: (client, message type).
        last: the last message that was answered, with its Context.
    """

    names: tuple[str, ...]
    folder: Path
    lost: Callable[[str, str, int], bool] = lambda client, kind, number: False
    error: tuple[int, str] = (_UNAVAILABLE, "Node Unavailable")
    silent: frozenset[str] = frozenset()
    spoil: Callable[[str, str, Message], None] = lambda client, kind, reply: None
    configs: Mapping[str, object] = field(default_factory=dict)
    online: int | None = None
    last: tuple[Message, Context] | None = None
    states: dict[int, RecordDict] = field(default_factory=dict)
    replies: dict[str, Message] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    _number: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def get_node_ids(self) -> list[int]:
        there = len(self.names) if self.online is None else self.online
        return [100 + number for number in range(there)]

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        return [self._take(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.replies.pop(asked) for asked in list(message_ids) if asked in self.replies]

    def _take(self, message: Message) -> str:
        number = next(self._number)
        name = f"message-{number}"
        message.metadata.__dict__["_message_id"] = name
        node = message.metadata.dst_node_id
        client, kind = self.names[node - 100], message.metadata.message_type
        self.seen.append((client, kind))
        if self.lost(client, kind, number):
            self.replies[name] = Message(Error(*self.error), reply_to=message)
        elif client not in self.silent or kind != "train":
            self.replies[name] = self._answer(message, node, client, kind)
        return name

    def _answer(self, message: Message, node: int, client: str, kind: str) -> Message:
        config = {"client": client, "state": str(self.folder), **self.configs}
        state = RecordDict(dict(self.states.get(node, RecordDict())))
        context = Context(1, node, config, state, {})
        reply: Message = (hello if kind == "query.hello" else handle)(message, context)
        self.states[node], self.last = context.state, (message, context)
        self.spoil(client, kind, reply)
        return reply
