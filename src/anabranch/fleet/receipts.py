"""Receipts: what lets a client prove at home that its update counted exactly once.

Every committed round has a *head*: the digest of the model that the round made, the Merkle root
over the uploads that made it, and the digest of the head before. The coordinator signs heads. A
client is given the head of its round and the path from its own upload to the root (its *receipt*),
and the heads in between. Whoever keeps the latest head notices a history that was rolled back; two
clients that compare heads notice one that was forked.

A leaf says (client, task, SHA-256 of the upload). Leaves are ordered by client and task, without
doubles. Others see the hash of a leaf only, which tells them nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import Field

from anabranch.canonical import Document, canonical_bytes, digest_of
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import SIGNATURE, Identity, verify
from anabranch.merkle import inclusion_path, leaf_hash, root_of, root_of_path
from anabranch.values import Value

__all__ = [
    "FIRST_HEAD",
    "Head",
    "Leaf",
    "Receipt",
    "RoundTree",
    "SignedHead",
    "check_heads",
    "counted",
    "sign_head",
]

FIRST_HEAD: Final = "0" * 64
"""What the first head of a run names as the one before."""

_CONTEXT: Final = "head"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TaskName = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Leaf(Value):
    """One accepted upload."""

    client: str = Field(max_length=200)
    """Name of the client."""
    task: TaskName
    """The task that it answered."""
    upload: Sha256
    """SHA-256 of the bytes that it sent."""

    @property
    def hash(self) -> bytes:
        """The leaf in the tree: 32 bytes."""
        document: Document = self.model_dump(mode="json")
        return leaf_hash(canonical_bytes(document))


class Head(Value):
    """What a round did, and what it follows."""

    run: str = Field(min_length=1, max_length=200)
    round: Count
    """Number of the round."""
    model: Sha256
    """SHA-256 of the model that the round left: float32, little-endian, in the order of its
    layout."""
    uploads: Sha256
    """Merkle root over the accepted uploads."""
    count: Count
    """How many uploads."""
    previous: Sha256
    """Digest of the head before; zeros for the first."""

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return digest_of(self.document())

    def document(self) -> Document:
        """What is signed and hashed."""
        document: Document = self.model_dump(mode="json")
        return document


class SignedHead(Value):
    """A head with the coordinator's signature (context ``head``)."""

    head: Head
    signature: str = Field(pattern=SIGNATURE)

    def verified(self, coordinator: bytes) -> Head:
        """The head, after checking the signature.

        Args:
            coordinator: the pinned public key.

        Raises:
            AnabranchError: AB-748 the coordinator did not sign this.
        """
        message = canonical_bytes(self.head.document())
        if not verify(coordinator, _CONTEXT, message, bytes.fromhex(self.signature)):
            raise _distrust(f"the head of round {self.head.round} is not signed by it")
        return self.head


class Receipt(Value):
    """Proof that one upload is among those of a round."""

    leaf: Leaf
    index: Count
    path: tuple[Sha256, ...] = Field(max_length=64)
    head: SignedHead

    def verified(self, coordinator: bytes) -> Head:
        """The head of the round, after checking that the upload is part of it.

        Raises:
            AnabranchError: AB-748 a wrong signature or path.
        """
        head = self.head.verified(coordinator)
        path = [bytes.fromhex(node) for node in self.path]
        root = root_of_path(self.leaf.hash, self.index, head.count, path)
        if root is None or root.hex() != head.uploads:
            raise _distrust(f"the upload is not among those that made round {head.round}")
        return head


class RoundTree:
    """The uploads of one round as a tree.

    Args:
        leaves: in any order.

    Raises:
        ValueError: a client's task is there twice: no round counts it twice.

    Attributes:
        leaves: ordered by client and task.
    """

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        self.leaves = tuple(sorted(leaves, key=lambda leaf: (leaf.client, leaf.task)))
        places = [(leaf.client, leaf.task) for leaf in self.leaves]
        if len(set(places)) < len(places):
            raise ValueError("a task of a client is counted twice in a round")
        self._hashes = [leaf.hash for leaf in self.leaves]
        self._places = {place: index for index, place in enumerate(places)}

    @property
    def root(self) -> str:
        """Merkle root, hexadecimal."""
        return root_of(self._hashes).hex()

    @property
    def hashes(self) -> tuple[str, ...]:
        """The leaf hashes in order: with them a client counts its own leaf in the whole tree."""
        return tuple(leaf.hex() for leaf in self._hashes)

    def head(self, run: str, number: int, model: str, previous: str) -> Head:
        """The head of the round."""
        return Head(
            run=run,
            round=number,
            model=model,
            uploads=self.root,
            count=len(self.leaves),
            previous=previous,
        )

    def receipt(self, client: str, task: str, head: SignedHead) -> Receipt | None:
        """The receipt of one upload; None when it is not in the tree."""
        index = self._places.get((client, task))
        if index is None:
            return None
        path = tuple(node.hex() for node in inclusion_path(self._hashes, index))
        return Receipt(leaf=self.leaves[index], index=index, path=path, head=head)


def sign_head(head: Head, coordinator: Identity) -> SignedHead:
    """The head, signed by the coordinator."""
    signature = coordinator.sign(_CONTEXT, canonical_bytes(head.document()))
    return SignedHead(head=head, signature=signature.hex())


def counted(hashes: Sequence[str], receipt: Receipt) -> int:
    """How often the receipt's upload stands in the whole tree of its round.

    Args:
        hashes: every leaf hash of the round, in order (`RoundTree.hashes`).

    Raises:
        AnabranchError: AB-748 these are not the leaves of that round.
    """
    head = receipt.head.head
    if (
        len(hashes) != head.count
        or root_of([bytes.fromhex(h) for h in hashes]).hex() != head.uploads
    ):
        raise _distrust(f"the list of uploads is not that of round {head.round}")
    return hashes.count(receipt.leaf.hash.hex())


def check_heads(known: Head | None, shown: Sequence[SignedHead], coordinator: bytes) -> Head | None:
    """The latest head, after checking that ``shown`` goes on from ``known`` one by one.

    Args:
        known: the latest head that was seen before; None at the first contact with a run, when any
            head may begin.
        shown: consecutive heads; those up to ``known`` may be repeated.
        coordinator: the pinned public key.

    Raises:
        AnabranchError: AB-748 a wrong signature, a gap, a second head of a known round, a head that
            does not follow from the one before, or another run.
    """
    before: Head | None = None
    for signed in shown:
        head = signed.verified(coordinator)
        for earlier in (known, before):
            if earlier is not None and earlier.round <= head.round:
                _check_step(earlier, head)
        before = head
        if known is None or head.round > known.round:
            known = head
    if known is not None and before is not None and before.round < known.round:
        raise _distrust(f"its history ends at round {before.round}, but it told {known.round}")
    return known


def _check_step(known: Head, head: Head) -> None:
    if head.run != known.run:
        raise _distrust(f"it shows run {head.run!r} as {known.run!r}")
    if head.round == known.round and head != known:
        raise _distrust(f"there are two histories: round {head.round} has two heads")
    if head.round == known.round + 1 and head.previous != known.digest:
        raise _distrust(f"round {head.round} does not follow from the round {known.round} it told")
    if head.round > known.round + 1:
        raise _distrust(f"the heads between rounds {known.round} and {head.round} are missing")


def _distrust(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-748",
        f"what the coordinator says of its rounds does not hold: {why}.",
        fix="keep the files, take part no more, and ask the operator for the round's record; "
        "compare heads with other clients (`anabranch verify --compare`).",
        kept="The client's own log is unchanged.",
    )
