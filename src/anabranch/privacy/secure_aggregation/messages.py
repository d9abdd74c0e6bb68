"""The messages of a round after the keys: frozen values of canonical bytes.

A message is ``"anabranch-secagg"``, version (u8), kind (u8), context digest (32 bytes), then its
fields in the order of the class. What a client sends ends with an Ed25519 signature over all bytes
before it; of a masked vector, over its SHA-256 in its place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self

from anabranch.privacy.secure_aggregation.message import Message, SignedMessage, head
from anabranch.privacy.secure_aggregation.primitives import (
    DIGEST_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
)
from anabranch.privacy.secure_aggregation.refusals import malformed
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = [
    "InputProof",
    "MaskedInput",
    "RevealedShare",
    "SealedShare",
    "ShareBundle",
    "ShareDelivery",
    "ShareKind",
    "SurvivorSet",
    "SurvivorSignature",
    "UnmaskReply",
    "UnmaskRequest",
]


class ShareKind(StrEnum):
    """Which secret of a client a share belongs to. Nobody ever gives away both."""

    SEED = "seed"
    KEY = "key"


@dataclass(frozen=True, kw_only=True)
class SealedShare:
    """One share of each secret of ``dealer``, readable by ``recipient`` alone.

    Attributes:
        seed_commitment: hash of the share of the seed.
        key_commitment: hash of the share of the mask key.
        sealed: both shares under AES-GCM; the names and commitments are authenticated with them.
        transport_kem: ML-KEM ciphertext behind the sealing key, in a hybrid round.
        pair_kem: ML-KEM ciphertext behind the masks of the two, from the one that comes first.
    """

    dealer: str
    recipient: str
    seed_commitment: bytes
    key_commitment: bytes
    sealed: bytes
    transport_kem: bytes = b""
    pair_kem: bytes = b""

    def write(self, writer: Writer) -> None:
        """Append the fields."""
        writer.text(self.dealer).text(self.recipient)
        writer.raw(self.seed_commitment).raw(self.key_commitment).blob(self.sealed)
        writer.blob(self.transport_kem).blob(self.pair_kem)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Take the fields."""
        return cls(
            dealer=reader.text(),
            recipient=reader.text(),
            seed_commitment=reader.raw(DIGEST_BYTES),
            key_commitment=reader.raw(DIGEST_BYTES),
            sealed=reader.blob(),
            transport_kem=reader.blob(),
            pair_kem=reader.blob(),
        )


def _write_shares(writer: Writer, shares: tuple[SealedShare, ...]) -> None:
    writer.number(len(shares), 4)
    for share in shares:
        share.write(writer)


def _read_shares(reader: Reader) -> tuple[SealedShare, ...]:
    return tuple(SealedShare.read(reader) for _ in range(reader.count()))


@dataclass(frozen=True, kw_only=True)
class ShareBundle(SignedMessage):
    """Client, 3: a sealed share for each neighbour, sorted by recipient."""

    KIND: ClassVar[int] = 3
    shares: tuple[SealedShare, ...]

    def _write_fields(self, writer: Writer) -> None:
        _write_shares(writer, self.shares)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(
            context=context,
            sender=reader.text(),
            shares=_read_shares(reader),
            signature=reader.raw(SIGNATURE_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class ShareDelivery(Message):
    """Coordinator, 3: who takes part, and the shares that are meant for this recipient."""

    KIND: ClassVar[int] = 4
    recipient: str
    participants: tuple[str, ...]
    shares: tuple[SealedShare, ...]

    def _write(self, writer: Writer) -> None:
        _write_shares(writer.text(self.recipient).texts(self.participants), self.shares)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(
            context=context,
            recipient=reader.text(),
            participants=reader.texts(),
            shares=_read_shares(reader),
        )


@dataclass(frozen=True, kw_only=True)
class InputProof:
    """That ``sender`` sent a masked vector, without the vector: for its neighbours to check.

    Attributes:
        payload_digest: SHA-256 of the payload.
        signature: the one under the masked input.
    """

    sender: str
    payload_digest: bytes
    signature: bytes

    def signed_content(self, context: bytes, active: bytes) -> bytes:
        """What the sender signed, if it masked for these participants."""
        writer = head(MaskedInput.KIND, context).text(self.sender)
        return writer.raw(active).raw(self.payload_digest).finish()


@dataclass(frozen=True, kw_only=True)
class MaskedInput(SignedMessage):
    """Client, 4: its vector under all its masks, packed.

    Attributes:
        active: digest of those who take part, as the sender was told.
    """

    KIND: ClassVar[int] = 5
    active: bytes
    payload: bytes

    def _write_fields(self, writer: Writer) -> None:
        writer.raw(self.active).blob(self.payload)

    def signed_content(self) -> bytes:
        """The payload's digest stands for it: Ed25519 reads its input twice."""
        return self.proof().signed_content(self.context, self.active)

    def proof(self) -> InputProof:
        """The message without the vector."""
        hashed = hashlib.sha256(self.payload).digest()
        return InputProof(sender=self.sender, payload_digest=hashed, signature=self.signature)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(
            context=context,
            sender=reader.text(),
            active=reader.raw(DIGEST_BYTES),
            payload=reader.blob(),
            signature=reader.raw(SIGNATURE_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class SurvivorSet(Message):
    """Coordinator, 4: whose vectors are in the sum, sorted.

    Attributes:
        proofs: of the recipient's surviving neighbours, that they masked for the same participants.
    """

    KIND: ClassVar[int] = 6
    survivors: tuple[str, ...]
    proofs: tuple[InputProof, ...]

    def _write(self, writer: Writer) -> None:
        writer.texts(self.survivors).number(len(self.proofs), 4)
        for proof in self.proofs:
            writer.text(proof.sender).raw(proof.payload_digest).raw(proof.signature)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        survivors = reader.texts()
        proofs = tuple(cls._read_proof(reader) for _ in range(reader.count()))
        return cls(context=context, survivors=survivors, proofs=proofs)

    @staticmethod
    def _read_proof(reader: Reader) -> InputProof:
        sender, hashed = reader.text(), reader.raw(DIGEST_BYTES)
        signature = reader.raw(SIGNATURE_BYTES)
        return InputProof(sender=sender, payload_digest=hashed, signature=signature)


@dataclass(frozen=True, kw_only=True)
class SurvivorSignature(SignedMessage):
    """Client, 5: its only signature under a set of survivors in this context.

    Attributes:
        view: digest of who took part and who survived.
    """

    KIND: ClassVar[int] = 7
    view: bytes

    def _write_fields(self, writer: Writer) -> None:
        writer.raw(self.view)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        return cls(
            context=context,
            sender=reader.text(),
            view=reader.raw(DIGEST_BYTES),
            signature=reader.raw(SIGNATURE_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class UnmaskRequest(Message):
    """Coordinator, 5: whose seeds, whose keys, and who signed that it is so.

    Attributes:
        survivors: clients whose seed is wanted, sorted.
        dropped: clients whose mask key is wanted, sorted.
        signatures: name and signature of ``SurvivorSignature``, sorted by name.
    """

    KIND: ClassVar[int] = 8
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    signatures: tuple[tuple[str, bytes], ...]

    def _write(self, writer: Writer) -> None:
        writer.texts(self.survivors).texts(self.dropped).number(len(self.signatures), 4)
        for name, signature in self.signatures:
            writer.text(name).raw(signature)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        survivors, dropped = reader.texts(), reader.texts()
        count = reader.count()
        pairs = ((reader.text(), reader.raw(SIGNATURE_BYTES)) for _ in range(count))
        return cls(context=context, survivors=survivors, dropped=dropped, signatures=tuple(pairs))


@dataclass(frozen=True, kw_only=True)
class RevealedShare:
    """A share of one secret of ``dealer``."""

    dealer: str
    kind: ShareKind
    value: bytes


@dataclass(frozen=True, kw_only=True)
class UnmaskReply(SignedMessage):
    """Client, 6: one share of each participating neighbour, sorted by dealer."""

    KIND: ClassVar[int] = 9
    shares: tuple[RevealedShare, ...]

    def _write_fields(self, writer: Writer) -> None:
        writer.number(len(self.shares), 4)
        for share in self.shares:
            writer.text(share.dealer).number(share.kind is ShareKind.KEY, 1).raw(share.value)

    @classmethod
    def _read(cls, context: bytes, reader: Reader) -> Self:
        sender, count = reader.text(), reader.count()
        shares = tuple(cls._read_share(reader) for _ in range(count))
        signature = reader.raw(SIGNATURE_BYTES)
        return cls(context=context, sender=sender, shares=shares, signature=signature)

    @staticmethod
    def _read_share(reader: Reader) -> RevealedShare:
        dealer, kind = reader.text(), reader.number(1)
        if kind > 1:
            raise malformed(f"a share is of kind {kind}")
        value = reader.raw(KEY_BYTES)
        return RevealedShare(dealer=dealer, kind=(ShareKind.SEED, ShareKind.KEY)[kind], value=value)
