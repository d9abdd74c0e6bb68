"""Work without a connection: fetch a task as a bundle, train for hours, come back and deliver.

A bundle is a folder with everything that the task needs: the signed offer, the contract, the
equipment and the model. It expires as the offer says, counted by the client's own clock from the
moment it was fetched. What comes too late is merged by the plan's staleness rule where there is
one, or acknowledged and dropped; either way the fate says so, and the client's memory follows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx
from pydantic import Field, ValidationError

from anabranch.client.task import Fate, TaskKind
from anabranch.disk import explained, make_directory, write_durably
from anabranch.errors import AnabranchError
from anabranch.learners.threads import one_thread
from anabranch.runtimes.http.client.joining import Attendance
from anabranch.runtimes.http.client.line import GONE, Line
from anabranch.runtimes.http.client.options import Credentials, JoinOptions
from anabranch.runtimes.http.client.places import MemberPlaces, document
from anabranch.runtimes.http.client.transfer import download, upload
from anabranch.runtimes.http.messages import TaskOffer, sha256
from anabranch.runtimes.http.statements import Checker
from anabranch.runtimes.http.versions import FIRST, read_version
from anabranch.updates.container import joined
from anabranch.values import Value

__all__ = ["deliver", "fetch", "work"]

_OFFER: Final = "bundle.json"
_ANSWER: Final = "answer.bin"

Clock = Callable[[], float]


class _Bundle(Value):
    offer: TaskOffer
    fetched: float = Field(ge=0)
    """Seconds since 1970 by the client's clock; compared with nothing but that clock."""
    url: str
    protocol: str = "1.0"
    """Version in which the coordinator signed the task."""


def fetch(
    line: Line, places: MemberPlaces, folder: Path, url: str, clock: Clock = time.time
) -> TaskOffer | None:
    """Ask for a training task and write its bundle; None when there is none now.

    Fates that come with it are applied first.

    Raises:
        AnabranchError: as `anabranch.runtimes.http.join`; AB-773 the folder holds a bundle already;
            AB-6xx the disk.
    """
    if (folder / _OFFER).exists():
        raise _unusable(folder, "it holds a bundle already, which was not delivered")
    offer = Attendance(line, places).once()
    if offer is None or offer.kind is not TaskKind.TRAIN:
        return None
    parts = {name: document(line, name) for name in (offer.contract, offer.equipment)}
    asked = offer.self_contained()  # what the client holds now may be gone when it does the task
    parts[asked.broadcast] = bytes(download(line, asked.broadcast, asked.bytes))
    with explained(folder, "writing a bundle"):
        make_directory(folder, "bundle")
        for name, content in parts.items():
            write_durably(folder / name, content, "bundle")
        bundle = _Bundle(offer=offer, fetched=clock(), url=url, protocol=str(line.version))
        write_durably(folder / _OFFER, bundle.model_dump_json().encode(), "bundle")
    return offer


def work(
    folder: Path,
    places: MemberPlaces,
    credentials: Credentials | None = None,
    clock: Clock = time.time,
) -> int:
    """Do the task of a bundle, without any connection; the bytes of the answer.

    Doing it again gives the same answer.

    Raises:
        AnabranchError: AB-773 there is no whole bundle, or it has expired; AB-757 the coordinator
            did not sign it; AB-743, AB-744 declined; whatever else hinders the task.
    """
    bundle = _opened(folder, clock)
    offer = bundle.offer
    checker = Checker(places.name, credentials.coordinator if credentials else None)
    checker.version = read_version(bundle.protocol) or FIRST
    checker.require(offer, offer.signature)
    offer = offer.self_contained()
    line = _Disconnected(folder, bundle.url, places.name)
    try:
        with one_thread():
            place = places.place(offer, line)
            content = joined(place.answer(offer, places.name, line.held(offer.broadcast), b""))
    finally:
        line.close()
    with explained(folder, "writing the answer of a bundle"):
        write_durably(folder / _ANSWER, content, "bundle")
    return len(content)


def deliver(line: Line, places: MemberPlaces, folder: Path) -> Fate | None:
    """Send the answer of a bundle, and hear its fate if it is certain already.

    The bundle is deleted once the coordinator has the answer, or has said that it needs none.

    Returns:
        The fate; None while the round is open: a later contact tells it.

    Raises:
        AnabranchError: AB-773 there is no answer yet; as `anabranch.runtimes.http.join`.
    """
    bundle = _read(folder)
    if not (folder / _ANSWER).exists():
        raise _unusable(folder, "its task was not done yet")
    task = bundle.offer.task
    with explained(folder, "reading a bundle"):
        content = (folder / _ANSWER).read_bytes()
    try:
        upload(line, task, (content,))
    except AnabranchError as error:
        if error.code != GONE:
            raise
    heard: dict[str, Fate] = {}
    Attendance(line, places).once(heard, unresolved=(f"{bundle.offer.run}/{task}",))
    with explained(folder, "deleting a bundle"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return heard.get(task)


class _Disconnected(Line):
    """A line that only knows what the bundle holds."""

    def __init__(self, folder: Path, url: str, name: str) -> None:
        super().__init__(url, name, JoinOptions(patience=0.0))
        self._folder = folder

    def held(self, digest: str) -> bytes:
        """A part of the bundle, checked against its name."""
        try:
            content = (self._folder / digest).read_bytes()
        except OSError as error:
            raise _unusable(self._folder, "a part is missing") from error
        if sha256(content) != digest:
            raise _unusable(self._folder, "a part is damaged")
        return content

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | list[str]] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        based: bool = True,
        patience: float | None = None,
    ) -> httpx.Response:
        return httpx.Response(200, content=self.held(path.rpartition("/")[2]))


def _opened(folder: Path, clock: Clock) -> _Bundle:
    bundle = _read(folder)
    passed = 1000 * (clock() - bundle.fetched)
    if bundle.offer.milliseconds and not 0 <= passed <= bundle.offer.milliseconds:
        raise _unusable(folder, "it has expired")
    return bundle


def _read(folder: Path) -> _Bundle:
    try:
        return _Bundle.model_validate_json((folder / _OFFER).read_bytes())
    except (OSError, ValidationError) as error:
        raise _unusable(folder, "it is no bundle") from error


def _unusable(folder: Path, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-773",
        f"the bundle {folder} cannot be used: {why}.",
        fix="deliver what is done (`anabranch offline deliver`), or delete the folder and fetch "
        "a new bundle.",
        kept="Nothing was sent.",
    )
