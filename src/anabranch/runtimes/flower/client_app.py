"""The ClientApp of an exported app: a thin caller of the client code that every runtime uses.

The node's configuration says who it is and where its data are::

    flower-supernode ... --node-config 'client="va" data="/srv/heart/va.csv" state="/srv/anabranch"'

``partition-id`` may stand for ``client`` where the plan's clients are numbered. Memory between
rounds lies in the folder ``state``, in two phases, with a copy in Flower's Context
(`anabranch.runtimes.flower.remembered`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from anabranch.client.answers import Answers
from anabranch.errors import AnabranchError
from anabranch.learners.threads import one_thread
from anabranch.runtimes.flower.parcels import Answer, Parcel
from anabranch.runtimes.flower.remembered import keep, restore
from anabranch.runtimes.http.client.joining import DECLINED
from anabranch.runtimes.http.client.places import MemberPlaces
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.messages import Failure

if TYPE_CHECKING:
    from anabranch.runtimes.http.client.line import Line

__all__ = ["client", "handle", "hello"]


@dataclass(frozen=True)
class _Document:
    content: bytes


@dataclass(frozen=True)
class _Carried:
    """Stands where a client has its line to the coordinator: documents came with the message."""

    parcel: Parcel

    def send(self, method: str, path: str) -> _Document:
        """A document by its path, as the line would download it."""
        return _Document(self.parcel.document(path.rpartition("/")[2]))


def hello(message: Message, context: Context) -> Message:
    """Which client this node is."""
    config = context.node_config
    known = {
        "client": str(config.get("client", "")),
        "partition": int(cast("int", config.get("partition-id", -1))),
    }
    return Message(RecordDict({"hello": ConfigRecord(known)}), reply_to=message)


def handle(message: Message, context: Context) -> Message:
    """Do a task and answer; whatever goes wrong is told in words, never with values of the data."""
    started = time.monotonic()
    try:
        parcel = Parcel.of(message.content)
        with one_thread():
            answer = _answered(parcel, context)
    except AnabranchError as error:
        declined = error.code in DECLINED
        failure = Failure(code=error.code, detail=error.message[:2000], declined=declined)
        answer = Answer(failure=failure)
    except Exception as error:
        # A user's module may raise anything. The text could quote data, so the class must do.
        answer = Answer(failure=Failure(code="", detail=type(error).__name__))
    seconds = time.monotonic() - started
    return Message(Answer(answer.parts, answer.failure, seconds).content(), reply_to=message)


def _answered(parcel: Parcel, context: Context) -> Answer:
    offer, name = parcel.offer, _name(parcel, context)
    config = context.node_config
    data = config.get("data", "")
    state = Path(str(config.get("state", ""))) if config.get("state") else _home()
    places = MemberPlaces(name, Path(str(data)) if data else None, state / name, differences=False)
    folder = state / name / offer.run
    restore(context, offer.run, folder)
    try:
        _hear(parcel, folder)
        place = places.place(offer, cast("Line", _Carried(parcel)))
        parts = place.answer(offer, name, parcel.broadcast, parcel.letter)
    finally:
        keep(context, offer.run, folder)
    return Answer(parts)


def _name(parcel: Parcel, context: Context) -> str:
    """The client that the task is for, which the node must be."""
    named = str(context.node_config.get("client", ""))
    if named in ("", parcel.client):
        return parcel.client
    raise AnabranchError(
        "AB-783",
        f"the task is for client {parcel.client!r}, and this node is {named!r}.",
        fix="start each node with its own --node-config 'client=\"<name>\"'.",
        kept="Nothing was computed and nothing was sent.",
    )


def _home() -> Path:
    return Path.home() / ".anabranch" / "flower"


def _hear(parcel: Parcel, folder: Path) -> None:
    """Promote or drop what earlier tasks left, before anything is read."""
    if not folder.is_dir():
        return
    memory = ClientMemory(folder, 1)  # hearing a fate renames files; it reads none
    answers = Answers(folder)
    for fate in parcel.fates:
        memory.hear(fate.task, fate.fate)
        answers.settled(fate.task)


client = ClientApp()
client.train()(handle)
client.evaluate()(handle)
client.query("hello")(hello)
client.query("exchange")(handle)
client.query("mask")(handle)
client.query("statistics")(handle)
