"""What a Flower message carries: a task, the documents that it names, and byte strings.

A parcel is self-contained, because official nodes start a process for each message: the contract
and the equipment travel with every task, named by their SHA-256, and are checked by the client.
Models and updates are arrays of bytes, which Flower cuts into chunks and stores once however many
nodes they go to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import Failure, TaskFate, TaskOffer
from anabranch.updates.container import Buffer

__all__ = ["Answer", "Parcel", "bytes_of", "record_of"]

_TASK, _DOWN, _ANSWER, _UP = "task", "broadcast", "answer", "update"
_MOST_DOCUMENT: Final = 64 << 20


@dataclass(frozen=True)
class Parcel:
    """A task on its way to a node.

    Attributes:
        client: whom it is for.
        offer: the task.
        broadcast: what goes down; empty for interactive stages.
        documents: contract and equipment by their SHA-256.
        letter: bytes for this client alone.
        fates: of this client's earlier tasks.
    """

    client: str
    offer: TaskOffer
    broadcast: bytes
    documents: Mapping[str, bytes]
    letter: bytes = b""
    fates: tuple[TaskFate, ...] = ()

    def content(self) -> RecordDict:
        """The message's content."""
        config = {
            "client": self.client,
            "offer": self.offer.model_dump_json(),
            "fates": json.dumps([fate.model_dump(mode="json") for fate in self.fates]),
            "letter": self.letter,
            **{f"document-{digest}": text for digest, text in self.documents.items()},
        }
        return RecordDict({_TASK: ConfigRecord(config), _DOWN: record_of([self.broadcast])})

    @staticmethod
    def of(content: RecordDict) -> Parcel:
        """The inverse of `content`.

        Raises:
            AnabranchError: AB-781 this is not a task of Anabranch.
        """
        try:
            config = content[_TASK]
            fates = tuple(TaskFate.model_validate(fate) for fate in json.loads(config["fates"]))
            documents = {
                name.removeprefix("document-"): bytes(value)
                for name, value in config.items()
                if name.startswith("document-")
            }
            offer = TaskOffer.model_validate_json(config["offer"])
            down = bytes_of(content[_DOWN])
            return Parcel(config["client"], offer, down, documents, config["letter"], fates)
        except (KeyError, TypeError, ValueError) as error:
            raise AnabranchError(
                "AB-781",
                f"the message is not a task of Anabranch ({type(error).__name__}).",
                fix="run the exported app with the same version at the server and at the nodes.",
                kept="Nothing was computed and nothing was sent.",
            ) from error

    def document(self, digest: str) -> bytes:
        """A document by its name.

        Raises:
            AnabranchError: AB-781 it is missing, or its bytes are not those of its name.
        """
        found = self.documents.get(digest, b"")
        if len(found) > _MOST_DOCUMENT or hashlib.sha256(found).hexdigest() != digest:
            raise AnabranchError(
                "AB-781",
                "the message lacks a document that its task names, or holds another one.",
                fix="run the exported app with the same version at the server and at the nodes.",
                kept="Nothing was computed and nothing was sent.",
            )
        return found


@dataclass(frozen=True)
class Answer:
    """What comes back.

    Attributes:
        parts: the answer's bytes in parts; empty with a failure.
        failure: why there is none.
        seconds: that the client worked.
    """

    parts: tuple[Buffer, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0

    @property
    def joined(self) -> bytes:
        """The answer's bytes."""
        return b"".join(self.parts)

    def content(self) -> RecordDict:
        """The message's content."""
        failure = self.failure.model_dump_json() if self.failure is not None else ""
        config = ConfigRecord({"failure": failure, "seconds": float(self.seconds)})
        return RecordDict({_ANSWER: config, _UP: record_of(self.parts)})

    @staticmethod
    def of(content: RecordDict) -> Answer:
        """The inverse of `content`.

        Raises:
            AnabranchError: AB-781 this is not an answer of Anabranch.
        """
        try:
            config = content[_ANSWER]
            text = config["failure"]
            failure = Failure.model_validate_json(text) if text else None
            seconds = float(config["seconds"])
            return Answer((bytes_of(content[_UP]),), failure, seconds)
        except (KeyError, TypeError, ValueError) as error:
            raise AnabranchError(
                "AB-781",
                f"a node's answer is not one of Anabranch ({type(error).__name__}).",
                fix="run the exported app with the same version at the server and at the nodes.",
                kept="The answer was dropped; the round goes on.",
            ) from error


def record_of(parts: Iterable[Buffer]) -> ArrayRecord:
    """Bytes as one array."""
    joined = b"".join(parts)
    return ArrayRecord([np.frombuffer(joined, np.uint8)])


def bytes_of(record: ArrayRecord) -> bytes:
    """The inverse of `record_of`."""
    (array,) = record.to_numpy_ndarrays()
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError("not an array of bytes")
    return bytes(array.tobytes())
