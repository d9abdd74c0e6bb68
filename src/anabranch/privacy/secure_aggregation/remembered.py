"""What a client remembers between rounds, and as bytes for its disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.checking import Checker
from anabranch.privacy.secure_aggregation.client_states import ClientState
from anabranch.privacy.secure_aggregation.primitives import DIGEST_BYTES, KEY_BYTES
from anabranch.privacy.secure_aggregation.stored import (
    client_state_bytes,
    read_client_state,
    unreadable,
)
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = ["Remembered", "Track", "read_remembered", "remembered_bytes"]

_MAGIC = b"anabranch-secagg-memory/2"
_FIRST = b"anabranch-secagg-memory/1"
"""Of earlier versions, which kept no answers."""


@dataclass(frozen=True)
class Track:
    """What a client remembers of one purpose of one run.

    Attributes:
        round, attempt: the newest that it joined; -1 before the first.
        ledger_length, ledger_head: the newest of the population's ledger that it was shown.
        opened: digests of models whose sum it helped to open.
        context, model: digests of the open round and of its model.
        state: of the open round.
        asked, answer: digest of the letter that was answered last, and the answer: a client that is
            killed before the answer has arrived gives the same one to the same letter.
    """

    round: int = -1
    attempt: int = -1
    ledger_length: int = 0
    ledger_head: bytes = bytes(DIGEST_BYTES)
    opened: tuple[bytes, ...] = ()
    context: bytes = bytes(DIGEST_BYTES)
    model: bytes = bytes(DIGEST_BYTES)
    state: ClientState | None = field(default=None, repr=False)
    asked: bytes = bytes(DIGEST_BYTES)
    answer: bytes = b""


@dataclass(frozen=True)
class Remembered:
    """All that a client keeps.

    Attributes:
        pins: public keys of peers as they were first seen, by name.
        tracks: by run and purpose.
    """

    pins: Mapping[str, bytes] = field(default_factory=dict)
    tracks: Mapping[tuple[str, str], Track] = field(default_factory=dict)


def remembered_bytes(kept: Remembered) -> bytes:
    """For the disk; it holds secrets of the open rounds, but not the identity."""
    writer = Writer().raw(_MAGIC).number(len(kept.pins), 4)
    for name, key in sorted(kept.pins.items()):
        writer.text(name).raw(key)
    writer.number(len(kept.tracks), 4)
    for (run, purpose), track in sorted(kept.tracks.items()):
        writer.text(run).text(purpose)
        _write_track(writer, track)
    return writer.finish()


def read_remembered(content: bytes, identity: bytes, checker: Checker | None = None) -> Remembered:
    """The inverse of `remembered_bytes`.

    Args:
        identity: the client's 32 secret bytes of Ed25519.
        checker: may know the lists of open rounds already.

    Raises:
        AnabranchError: AB-969 if it is damaged or of another version.
    """
    try:
        reader = Reader(content)
        version = reader.raw(len(_MAGIC))
        if version not in (_MAGIC, _FIRST):
            raise unreadable("it is of another version")
        pins = {reader.text(): reader.raw(KEY_BYTES) for _ in range(reader.count())}
        tracks = {}
        for _ in range(reader.count()):
            key = (reader.text(), reader.text())
            track = _read_track(reader, identity, checker)
            if version == _MAGIC:
                track = replace(track, asked=reader.raw(DIGEST_BYTES), answer=reader.blob())
            tracks[key] = track
        reader.finish()
    except AnabranchError as error:
        raise error if error.code == "AB-969" else unreadable(error.message) from error
    return Remembered(pins, tracks)


def _write_track(writer: Writer, track: Track) -> None:
    writer.number(track.round + 1).number(track.attempt + 1, 2)
    writer.number(track.ledger_length).raw(track.ledger_head)
    writer.number(len(track.opened), 4)
    for digest in track.opened:
        writer.raw(digest)
    writer.raw(track.context).raw(track.model)
    writer.blob(b"" if track.state is None else client_state_bytes(track.state))
    writer.raw(track.asked).blob(track.answer)


def _read_track(reader: Reader, identity: bytes, checker: Checker | None) -> Track:
    round_, attempt = reader.number() - 1, reader.number(2) - 1
    length, head = reader.number(), reader.raw(DIGEST_BYTES)
    opened = tuple(reader.raw(DIGEST_BYTES) for _ in range(reader.count()))
    context, model, held = reader.raw(DIGEST_BYTES), reader.raw(DIGEST_BYTES), reader.blob()
    state = read_client_state(held, identity, checker) if held else None
    return Track(round_, attempt, length, head, opened, context, model, state)
