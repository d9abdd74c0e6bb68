"""What all messages have: a head, canonical bytes, and for those of a client a signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self, TypeVar

from anabranch.privacy.secure_aggregation.primitives import DIGEST_BYTES, digest, sign
from anabranch.privacy.secure_aggregation.refusals import malformed
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = ["Message", "SignedMessage", "head", "kind_of", "signed"]

_MAGIC = b"anabranch-secagg"
_VERSION = 1


def head(kind: int, context: bytes) -> Writer:
    """The first bytes of a message: what it is, and of which round."""
    return Writer().raw(_MAGIC).number(_VERSION, 1).number(kind, 1).raw(context)


def kind_of(content: bytes) -> int:
    """Which kind of message these bytes begin as.

    Raises:
        AnabranchError: AB-954 if they do not.
    """
    reader = Reader(content)
    if reader.raw(len(_MAGIC)) != _MAGIC or reader.number(1) != _VERSION:
        raise malformed("it does not begin as a message of this version")
    return reader.number(1)


@dataclass(frozen=True, kw_only=True)
class Message(ABC):
    """Anything that is sent.

    Attributes:
        context: digest of the round's context.
    """

    KIND: ClassVar[int]
    context: bytes

    def _head(self) -> Writer:
        return head(self.KIND, self.context)

    @abstractmethod
    def _write(self, writer: Writer) -> None:
        """Append the fields."""

    @classmethod
    @abstractmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        """Take the fields."""

    def to_bytes(self) -> bytes:
        """The message as it travels."""
        writer = self._head()
        self._write(writer)
        return writer.finish()

    @cached_property
    def fingerprint(self) -> bytes:
        """Digest of the message."""
        return digest("message", self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The message that ``to_bytes`` wrote.

        Raises:
            AnabranchError: AB-954 if the bytes are not exactly one message of this kind.
        """
        reader = Reader(content)
        if reader.raw(len(_MAGIC)) != _MAGIC or reader.number(1) != _VERSION:
            raise malformed("it does not begin as a message of this version")
        if (kind := reader.number(1)) != cls.KIND:
            raise malformed(f"it is of kind {kind}, wanted {cls.KIND}")
        message = cls._read(reader.raw(DIGEST_BYTES), reader)
        reader.finish()
        return message


@dataclass(frozen=True, kw_only=True)
class SignedMessage(Message):
    """What a client sends.

    Attributes:
        sender: the client's name.
        signature: Ed25519 over ``signed_content``.
    """

    sender: str
    signature: bytes = b""

    def _write(self, writer: Writer) -> None:
        writer.text(self.sender)
        self._write_fields(writer)
        writer.raw(self.signature)

    @abstractmethod
    def _write_fields(self, writer: Writer) -> None:
        """Append what stands between the sender and the signature."""

    def signed_content(self) -> bytes:
        """The bytes that the sender signs."""
        return replace(self, signature=b"").to_bytes()


S = TypeVar("S", bound=SignedMessage)


def signed(message: S, identity: bytes) -> S:
    """The message under the signature of ``identity``, 32 secret bytes of Ed25519."""
    return replace(message, signature=sign(identity, message.signed_content()))
