"""The messages with which a round begins: keys, commitments, and nonces that are opened after.

The order is the point: a client commits to a nonce beside its keys and opens it only once the list
of keys is fixed, so that nobody can choose a list whose graph suits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from anabranch.privacy.secure_aggregation.message import Message, SignedMessage
from anabranch.privacy.secure_aggregation.primitives import (
    DIGEST_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
)
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = [
    "Hello",
    "Introduction",
    "Invitation",
    "KeyAdvert",
    "KeyList",
    "NonceList",
    "NonceOpening",
]


@dataclass(frozen=True, kw_only=True)
class Hello(Message):
    """Coordinator: which key is yours? Only where there is no roster that says it.

    The context is any 32 bytes that were not used before.
    """

    KIND: ClassVar[int] = 13

    def _write(self, writer: Writer) -> None:
        """There is nothing else to say."""

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(context=context)


@dataclass(frozen=True, kw_only=True)
class Introduction(SignedMessage):
    """Client: its identity, signed with it. Peers pin the first one that they see."""

    KIND: ClassVar[int] = 14
    key: bytes

    def _write_fields(self, writer: Writer) -> None:
        writer.raw(self.key)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        sender, key = reader.text(), reader.raw(KEY_BYTES)
        signature = reader.raw(SIGNATURE_BYTES)
        return cls(context=context, sender=sender, key=key, signature=signature)


@dataclass(frozen=True, kw_only=True)
class Invitation(Message):
    """Coordinator, 0: the context itself, to everybody who is asked."""

    KIND: ClassVar[int] = 12
    content: bytes

    def _write(self, writer: Writer) -> None:
        writer.blob(self.content)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(context=context, content=reader.blob())


@dataclass(frozen=True, kw_only=True)
class KeyAdvert(SignedMessage):
    """Client, 1: fresh public keys, and commitments to the seed of its own mask and to a nonce.

    Attributes:
        mask_kem, transport_kem: ML-KEM-768 public keys beside the X25519 ones in a hybrid round,
            else empty.
    """

    KIND: ClassVar[int] = 1
    mask_key: bytes
    transport_key: bytes
    seed_commitment: bytes
    nonce_commitment: bytes
    mask_kem: bytes = b""
    transport_kem: bytes = b""

    def _write_fields(self, writer: Writer) -> None:
        writer.raw(self.mask_key).raw(self.transport_key)
        writer.raw(self.seed_commitment).raw(self.nonce_commitment)
        writer.blob(self.mask_kem).blob(self.transport_kem)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(
            context=context,
            sender=reader.text(),
            mask_key=reader.raw(KEY_BYTES),
            transport_key=reader.raw(KEY_BYTES),
            seed_commitment=reader.raw(DIGEST_BYTES),
            nonce_commitment=reader.raw(DIGEST_BYTES),
            mask_kem=reader.blob(),
            transport_kem=reader.blob(),
            signature=reader.raw(SIGNATURE_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class KeyList(Message):
    """Coordinator, 1: every advert, sorted by sender, to everybody."""

    KIND: ClassVar[int] = 2
    adverts: tuple[KeyAdvert, ...]

    def _write(self, writer: Writer) -> None:
        writer.number(len(self.adverts), 4)
        for advert in self.adverts:
            writer.blob(advert.to_bytes())

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        adverts = (KeyAdvert.from_bytes(reader.blob()) for _ in range(reader.count()))
        return cls(context=context, adverts=tuple(adverts))


@dataclass(frozen=True, kw_only=True)
class NonceOpening(SignedMessage):
    """Client, 2: its nonce, opened for one key list and no other.

    Attributes:
        listed: digest of the key list that the sender was shown.
    """

    KIND: ClassVar[int] = 10
    listed: bytes
    nonce: bytes

    def _write_fields(self, writer: Writer) -> None:
        writer.raw(self.listed).raw(self.nonce)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(
            context=context,
            sender=reader.text(),
            listed=reader.raw(DIGEST_BYTES),
            nonce=reader.raw(KEY_BYTES),
            signature=reader.raw(SIGNATURE_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class NonceList(Message):
    """Coordinator, 2: every opening, sorted by sender; cohort and graph follow from it."""

    KIND: ClassVar[int] = 11
    openings: tuple[NonceOpening, ...]

    def _write(self, writer: Writer) -> None:
        writer.number(len(self.openings), 4)
        for opening in self.openings:
            writer.blob(opening.to_bytes())

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        openings = (NonceOpening.from_bytes(reader.blob()) for _ in range(reader.count()))
        return cls(context=context, openings=tuple(openings))
