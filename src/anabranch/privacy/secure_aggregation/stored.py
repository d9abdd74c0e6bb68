"""States as bytes, so that a round survives the end of a process. One version, no spare byte.

What is stored is what a process would otherwise have in memory: secrets as they are, and the
messages from which the rest follows. The keeper of the bytes protects them (files of one user,
encryption at rest); a state is stored before the answer that it belongs to is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.checking import Checker
from anabranch.privacy.secure_aggregation.client_states import (
    AwaitingKeys,
    AwaitingNonces,
    AwaitingShares,
    AwaitingSignatures,
    AwaitingSurvivors,
    ClientState,
    Done,
)
from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.dealing import Held
from anabranch.privacy.secure_aggregation.group import Group, KeyRing
from anabranch.privacy.secure_aggregation.key_messages import KeyAdvert, KeyList, NonceList
from anabranch.privacy.secure_aggregation.keys import Keys, MaskKey
from anabranch.privacy.secure_aggregation.messages import InputProof, ShareBundle, UnmaskRequest
from anabranch.privacy.secure_aggregation.primitives import (
    DIGEST_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
)
from anabranch.privacy.secure_aggregation.server import dealt_shares
from anabranch.privacy.secure_aggregation.server_states import CollectingInputs, CollectingReveals
from anabranch.privacy.secure_aggregation.streams import lane_dtype
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = [
    "client_state_bytes",
    "read_client_state",
    "read_reveals",
    "reveals_bytes",
    "unreadable",
]

_CLIENT = b"anabranch-secagg-client/1"
_SERVER = b"anabranch-secagg-server/1"
_KINDS: tuple[type[object], ...] = (
    AwaitingKeys,
    AwaitingNonces,
    AwaitingShares,
    AwaitingSurvivors,
    AwaitingSignatures,
    Done,
)
T = TypeVar("T")


class _Trusting(Checker):
    """Takes lists as they are: they were checked before they were stored."""

    def verify(self, public: bytes, signature: bytes, content: bytes) -> bool:
        return True


def unreadable(what: str) -> AnabranchError:
    """A stored state that does not fit."""
    return AnabranchError(
        "AB-969",
        f"A stored state of secure aggregation can not be read: {what}.",
        fix="remove the file; the client stays out of the round that was open, and the next one "
        "begins with fresh keys.",
        kept="Nothing was revealed.",
    )


def client_state_bytes(state: ClientState) -> bytes:
    """A client's state, without its identity."""
    writer = Writer().raw(_CLIENT).number(_KINDS.index(type(state)), 1)
    if isinstance(state, Done):
        return writer.raw(state.opened).blob(state.request).blob(state.reply).finish()
    before = state.before if isinstance(state, AwaitingSignatures) else state
    _write_keys(writer, before.keys)
    if isinstance(before, AwaitingNonces):
        writer.blob(_key_list(before.ring).to_bytes())
    if isinstance(before, (AwaitingShares, AwaitingSurvivors)):
        _write_group(writer, before.group)
    if isinstance(before, AwaitingSurvivors):
        writer.texts(before.active.participants).number(len(before.held), 4)
        for dealer, held in sorted(before.held.items()):
            writer.text(dealer).raw(held.seed).raw(held.key)
        writer.texts(before.complaints)
    if isinstance(state, AwaitingSignatures):
        writer.texts(state.survivors)
    return writer.finish()


def read_client_state(
    content: bytes, identity: bytes, checker: Checker | None = None
) -> ClientState:
    """The state that ``client_state_bytes`` wrote.

    Args:
        identity: the client's 32 secret bytes of Ed25519.
        checker: may know the lists already; they are not verified again.

    Raises:
        AnabranchError: AB-969.
    """
    return _strictly(content, _CLIENT, lambda r: _client(r, identity, checker or _Trusting()))


def _client(reader: Reader, identity: bytes, checker: Checker) -> ClientState:
    number = reader.number(1)
    if number >= len(_KINDS):
        raise unreadable(f"it is of kind {number}")
    kind = _KINDS[number]
    if kind is Done:
        return Done(reader.raw(DIGEST_BYTES), reader.blob(), reader.blob())
    keys = _read_keys(reader, identity, checker)
    if kind is AwaitingKeys:
        return AwaitingKeys(keys)
    if kind is AwaitingNonces:
        return AwaitingNonces(keys, _read_ring(reader, keys.context, checker))
    group = _read_group(reader, keys.context, checker)
    if kind is AwaitingShares:
        return AwaitingShares(keys, group)
    active = group.activate(reader.texts())
    held = {
        reader.text(): Held(reader.raw(KEY_BYTES), reader.raw(KEY_BYTES))
        for _ in range(reader.count())
    }
    masked = AwaitingSurvivors(keys, group, active, held, reader.texts())
    return masked if kind is AwaitingSurvivors else AwaitingSignatures(masked, reader.texts())


def reveals_bytes(state: CollectingReveals) -> bytes:
    """The coordinator's state once the request to unmask is fixed, as it was before any answer.

    Answers are not stored: a coordinator that starts again asks again, and the same request has
    the same answers.
    """
    inputs = state.inputs
    writer = Writer().raw(_SERVER).blob(inputs.group.context.to_bytes())
    _write_group(writer, inputs.group)
    writer.number(len(inputs.bundles), 4)
    for name in sorted(inputs.bundles):
        writer.blob(inputs.bundles[name].to_bytes())
    writer.number(len(inputs.proofs), 4)
    for name, proof in sorted(inputs.proofs.items()):
        writer.text(name).raw(proof.payload_digest).raw(proof.signature)
    return writer.blob(state.request.to_bytes()).blob(inputs.total.tobytes()).finish()


def read_reveals(content: bytes) -> CollectingReveals:
    """The state that ``reveals_bytes`` wrote.

    Raises:
        AnabranchError: AB-969.
    """
    return _strictly(content, _SERVER, _reveals)


def _reveals(reader: Reader) -> CollectingReveals:
    checker = _Trusting()
    context = checker.context(reader.blob())
    group = _read_group(reader, context, checker)
    dealt = [ShareBundle.from_bytes(reader.blob()) for _ in range(reader.count())]
    bundles = {bundle.sender: bundle for bundle in dealt}
    proofs = {proof.sender: proof for proof in (_proof(reader) for _ in range(reader.count()))}
    request = UnmaskRequest.from_bytes(reader.blob())
    total = np.frombuffer(reader.blob(), lane_dtype(context.encoding.bits)).copy()
    if total.shape != (context.length,):
        raise unreadable("its sum has another length")
    active = group.activate(bundles)
    inputs = CollectingInputs(group, active, bundles, total, proofs)
    return CollectingReveals(inputs, request, dealt_shares(inputs))


def _proof(reader: Reader) -> InputProof:
    sender, hashed = reader.text(), reader.raw(DIGEST_BYTES)
    return InputProof(sender=sender, payload_digest=hashed, signature=reader.raw(SIGNATURE_BYTES))


def _strictly(content: bytes, magic: bytes, read: Callable[[Reader], T]) -> T:
    try:
        reader = Reader(content)
        if reader.raw(len(magic)) != magic:
            raise unreadable("it is of another version")
        found = read(reader)
        reader.finish()
    except AnabranchError as error:
        raise error if error.code == "AB-969" else unreadable(error.message) from error
    return found


def _write_keys(writer: Writer, keys: Keys) -> None:
    writer.blob(keys.context.to_bytes()).raw(keys.mask.root).raw(keys.transport_secret)
    writer.raw(keys.seed).raw(keys.nonce).blob(keys.transport_kem)
    writer.blob(keys.advert.to_bytes())


def _read_keys(reader: Reader, identity: bytes, checker: Checker) -> Keys:
    context = checker.context(reader.blob())
    mask = MaskKey(reader.raw(KEY_BYTES), context.hybrid)
    transport, seed, nonce = (reader.raw(KEY_BYTES) for _ in range(3))
    transport_kem = reader.blob()
    advert = KeyAdvert.from_bytes(reader.blob())
    return Keys(context, identity, mask, transport, seed, nonce, advert, transport_kem)


def _key_list(ring: KeyRing) -> KeyList:
    return KeyList(context=ring.context.digest, adverts=tuple(ring.adverts.values()))


def _read_ring(reader: Reader, context: RoundContext, checker: Checker) -> KeyRing:
    return checker.accept_keys(context, checker.message(KeyList, reader.blob()))


def _write_group(writer: Writer, group: Group) -> None:
    writer.blob(_key_list(group.ring).to_bytes()).blob(group.nonces.to_bytes())


def _read_group(reader: Reader, context: RoundContext, checker: Checker) -> Group:
    ring = _read_ring(reader, context, checker)
    return checker.form_group(ring, checker.message(NonceList, reader.blob()))
