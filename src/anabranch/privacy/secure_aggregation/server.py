"""The coordinator of a round, as states and steps between them.

::

    CollectingKeys -> CollectingNonces -> CollectingShares -> CollectingInputs
                   -> CollectingSignatures -> CollectingReveals -> Finished

Each state takes messages of one kind (``receive_...``) and is closed when enough have come or time
is up (``close_...``). Closing gives the next state or ``Abandoned`` with a named outcome. A message
that is refused raises and changes nothing. States are values: save the new one before the next
message goes out. After ``close_signatures`` the context counts as opened, whatever happens.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import TypeVar

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.client import already_opened
from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.group import (
    accept_keys,
    active_fault,
    check_signature,
    check_usable,
    form_group,
    opening_fault,
    survivors_fault,
    told_fits,
)
from anabranch.privacy.secure_aggregation.key_messages import (
    KeyAdvert,
    KeyList,
    NonceList,
    NonceOpening,
)
from anabranch.privacy.secure_aggregation.message import SignedMessage
from anabranch.privacy.secure_aggregation.messages import (
    MaskedInput,
    RevealedShare,
    SealedShare,
    ShareBundle,
    ShareDelivery,
    ShareKind,
    SurvivorSet,
    SurvivorSignature,
    UnmaskReply,
    UnmaskRequest,
)
from anabranch.privacy.secure_aggregation.packing import unpack
from anabranch.privacy.secure_aggregation.primitives import (
    Verify,
    require_cryptography,
    require_kem,
    verify,
)
from anabranch.privacy.secure_aggregation.refusals import (
    nonces_refused,
    out_of_order,
    shares_refused,
    survivors_refused,
    twice,
)
from anabranch.privacy.secure_aggregation.server_states import (
    Abandoned,
    CollectingInputs,
    CollectingKeys,
    CollectingNonces,
    CollectingReveals,
    CollectingShares,
    CollectingSignatures,
    Finished,
    Outcome,
    ServerState,
)
from anabranch.privacy.secure_aggregation.sharing import commit_share
from anabranch.privacy.secure_aggregation.streams import lane_dtype, reduce_lanes
from anabranch.privacy.secure_aggregation.unmasking import Revealed, UnrecoverableError, unmask

__all__ = [
    "Abandoned",
    "CollectingInputs",
    "CollectingKeys",
    "CollectingNonces",
    "CollectingReveals",
    "CollectingShares",
    "CollectingSignatures",
    "Finished",
    "Outcome",
    "ServerState",
    "close_inputs",
    "close_keys",
    "close_nonces",
    "close_reveals",
    "close_shares",
    "close_signatures",
    "dealt_shares",
    "delivery_for",
    "open_round",
    "receive_input",
    "receive_keys",
    "receive_nonce",
    "receive_reveal",
    "receive_shares",
    "receive_signature",
    "survivors_for",
]


T = TypeVar("T")


def _expect(state: object, kind: type[T], step: str) -> T:
    if not isinstance(state, kind):
        raise out_of_order(type(state).__name__, step)
    return state


def _admit(
    context: RoundContext,
    message: SignedMessage,
    done: Container[str],
    allowed: Container[str],
    check: Verify,
) -> None:
    """A signed message of this round, from somebody who may send it, for the first time."""
    check_signature(context, message, check)
    if message.sender not in allowed:
        raise out_of_order("a client that left the round", type(message).__name__)
    if message.sender in done:
        raise twice(message.sender, type(message).__name__)


def open_round(context: RoundContext) -> CollectingKeys:
    """Begin to collect keys.

    Raises:
        AnabranchError: AB-950 without cryptography, AB-971 without ML-KEM where it is asked for.
    """
    require_cryptography()
    if context.hybrid:
        require_kem()
    return CollectingKeys(context)


def receive_keys(
    state: ServerState, advert: KeyAdvert, *, check: Verify = verify
) -> CollectingKeys:
    """Take a client's advert.

    Raises:
        AnabranchError: AB-955 to AB-959.
    """
    here = _expect(state, CollectingKeys, "receive_keys")
    _admit(here.context, advert, here.adverts, here.context.roster, check)
    check_usable([advert])
    return replace(here, adverts={**here.adverts, advert.sender: advert})


def close_keys(state: ServerState, *, check: Verify = verify) -> CollectingNonces | Abandoned:
    """Fix the key list: ``state.key_list`` goes to everybody in it."""
    here = _expect(state, CollectingKeys, "close_keys")
    adverts = tuple(here.adverts[name] for name in sorted(here.adverts))
    key_list = KeyList(context=here.context.digest, adverts=adverts)
    if len(adverts) < here.context.quorum:
        return Abandoned(here.context, Outcome.TOO_FEW_KEYS, f"{len(adverts)} clients sent keys")
    try:
        ring = accept_keys(here.context, key_list, check)
    except AnabranchError as error:
        if error.code != "AB-953":
            raise
        return Abandoned(here.context, Outcome.TOO_FEW_KEYS, error.message)
    return CollectingNonces(ring, key_list)


def receive_nonce(
    state: ServerState, opening: NonceOpening, *, check: Verify = verify
) -> CollectingNonces:
    """Take a client's opened nonce.

    Raises:
        AnabranchError: AB-955 to AB-958; AB-965 if it is not the one the client committed to.
    """
    here = _expect(state, CollectingNonces, "receive_nonce")
    _admit(here.ring.context, opening, here.openings, here.ring.adverts, check)
    if fault := opening_fault(here.ring, opening):
        raise nonces_refused(fault)
    return replace(here, openings={**here.openings, opening.sender: opening})


def close_nonces(state: ServerState, *, check: Verify = verify) -> CollectingShares | Abandoned:
    """Fix the nonces, and with them cohort and graph: ``state.nonces`` goes to the cohort."""
    here = _expect(state, CollectingNonces, "close_nonces")
    context = here.ring.context
    opened = tuple(here.openings[name] for name in sorted(here.openings))
    nonces = NonceList(context=context.digest, openings=opened)
    try:
        group = form_group(here.ring, nonces, check)
    except AnabranchError as error:
        if error.code not in ("AB-953", "AB-965"):
            raise
        return Abandoned(context, Outcome.TOO_FEW_NONCES, error.message)
    return CollectingShares(group, here.key_list, nonces)


def receive_shares(
    state: ServerState, bundle: ShareBundle, *, check: Verify = verify
) -> CollectingShares:
    """Take a client's sealed shares.

    Raises:
        AnabranchError: AB-955 to AB-958; AB-961 unless there is one share for each neighbour.
    """
    here = _expect(state, CollectingShares, "receive_shares")
    _admit(here.group.context, bundle, here.bundles, here.group.adverts, check)
    recipients = [share.recipient for share in bundle.shares]
    dealt = all(
        share.dealer == bundle.sender and told_fits(here.group.context, share)
        for share in bundle.shares
    )
    if not dealt or recipients != sorted(here.group.graph[bundle.sender]):
        raise shares_refused(f"{bundle.sender} did not deal one share to each neighbour")
    return replace(here, bundles={**here.bundles, bundle.sender: bundle})


def close_shares(state: ServerState) -> CollectingInputs | Abandoned:
    """Fix who takes part: ``delivery_for`` says what each of them is sent."""
    here = _expect(state, CollectingShares, "close_shares")
    context = here.group.context
    active = here.group.activate(here.bundles)
    if fault := active_fault(here.group, active):
        return Abandoned(context, Outcome.TOO_FEW_SHARES, fault)
    total = np.zeros(context.length, lane_dtype(context.encoding.bits))
    return CollectingInputs(here.group, active, here.bundles, total)


def delivery_for(state: ServerState, name: str) -> ShareDelivery:
    """The shares that the neighbours of ``name`` dealt to it."""
    here = _expect(state, CollectingInputs, "delivery_for")
    shares = [
        share
        for dealer in sorted(here.active.graph[name])
        for share in here.bundles[dealer].shares
        if share.recipient == name
    ]
    return ShareDelivery(
        context=here.group.context.digest,
        recipient=name,
        participants=here.active.participants,
        shares=tuple(shares),
    )


def receive_input(
    state: ServerState, sent: MaskedInput, *, check: Verify = verify
) -> CollectingInputs:
    """Add a client's masked vector.

    Raises:
        AnabranchError: AB-954 for a vector of another size, AB-955 to AB-958; AB-961 if the client
            masked for other participants.
    """
    here = _expect(state, CollectingInputs, "receive_input")
    context = here.group.context
    _admit(context, sent, here.proofs, here.active.graph, check)
    if sent.active != here.active.digest:
        raise shares_refused(f"{sent.sender} masked for other participants")
    vector = unpack(sent.payload, context.length, context.encoding.bits)
    np.add(vector, here.total, out=vector)
    reduce_lanes(vector, context.encoding.bits)
    return replace(here, total=vector, proofs={**here.proofs, sent.sender: sent.proof()})


def close_inputs(state: ServerState) -> CollectingSignatures | Abandoned:
    """Fix the survivors: ``survivors_for`` says what each of them is sent."""
    here = _expect(state, CollectingInputs, "close_inputs")
    survivors = tuple(sorted(here.proofs))
    if fault := survivors_fault(here.group, here.active, survivors):
        return Abandoned(here.group.context, Outcome.TOO_FEW_INPUTS, fault)
    return CollectingSignatures(here, survivors)


def survivors_for(state: ServerState, name: str) -> SurvivorSet:
    """The set that ``name`` is to sign, with the proofs of its neighbours."""
    here = _expect(state, CollectingSignatures, "survivors_for")
    inputs = here.inputs
    neighbours = sorted(inputs.active.graph[name] & frozenset(here.survivors))
    return SurvivorSet(
        context=inputs.group.context.digest,
        survivors=here.survivors,
        proofs=tuple(inputs.proofs[peer] for peer in neighbours),
    )


def receive_signature(
    state: ServerState, signature: SurvivorSignature, *, check: Verify = verify
) -> CollectingSignatures:
    """Take a survivor's signature.

    Raises:
        AnabranchError: AB-955 to AB-958; AB-962 if another set was signed.
    """
    here = _expect(state, CollectingSignatures, "receive_signature")
    context = here.inputs.group.context
    _admit(context, signature, here.signatures, here.inputs.proofs, check)
    if signature.view != here.inputs.active.view(here.survivors):
        raise survivors_refused(f"{signature.sender} signed another set")
    return replace(here, signatures={**here.signatures, signature.sender: signature.signature})


def close_signatures(
    state: ServerState, *, opened: Container[bytes] = ()
) -> CollectingReveals | Abandoned:
    """Ask for the shares: ``state.request`` goes to everybody who signed.

    Raises:
        AnabranchError: AB-963 if the context was unmasked before.
    """
    here = _expect(state, CollectingSignatures, "close_signatures")
    inputs, context = here.inputs, here.inputs.group.context
    already_opened(context, opened)
    quorum = inputs.group.quorum
    if len(here.signatures) < quorum:
        detail = f"{len(here.signatures)} of {quorum} clients signed"
        return Abandoned(context, Outcome.TOO_FEW_SIGNATURES, detail)
    request = UnmaskRequest(
        context=context.digest,
        survivors=here.survivors,
        dropped=tuple(name for name in inputs.active.participants if name not in inputs.proofs),
        signatures=tuple(sorted(here.signatures.items())),
    )
    return CollectingReveals(inputs, request, dealt_shares(inputs))


def dealt_shares(inputs: CollectingInputs) -> dict[tuple[str, str], SealedShare]:
    """Every share that a participant dealt, by dealer and recipient."""
    return {
        (share.dealer, share.recipient): share
        for name in inputs.active.participants
        for share in inputs.bundles[name].shares
    }


def receive_reveal(
    state: ServerState, reply: UnmaskReply, *, check: Verify = verify
) -> CollectingReveals:
    """Take the shares that a client reveals, and leave out those that were not dealt to it.

    Raises:
        AnabranchError: AB-955 to AB-958; AB-961 if a share is not of a neighbour or of the kind
            that was asked for.
    """
    here = _expect(state, CollectingReveals, "receive_reveal")
    group, active = here.inputs.group, here.inputs.active
    signers = {name for name, _ in here.request.signatures}
    _admit(group.context, reply, here.replied, signers, check)
    dealers = [share.dealer for share in reply.shares]
    if dealers != sorted(set(dealers)) or not set(dealers) <= active.graph[reply.sender]:
        raise shares_refused(f"{reply.sender} revealed shares that are not of its neighbours")
    shares, blamed = dict(here.shares), here.blamed
    for share in reply.shares:
        wanted = ShareKind.SEED if share.dealer in here.inputs.proofs else ShareKind.KEY
        if share.kind is not wanted:
            raise shares_refused(f"{reply.sender} revealed the other secret of {share.dealer}")
        if _is_dealt(here, reply.sender, share):
            shares[share.dealer] = {**shares.get(share.dealer, {}), reply.sender: share.value}
        elif reply.sender not in blamed:
            blamed = (*blamed, reply.sender)
    return replace(here, shares=shares, replied=here.replied | {reply.sender}, blamed=blamed)


def _is_dealt(here: CollectingReveals, sender: str, share: RevealedShare) -> bool:
    dealt = here.commitments[share.dealer, sender]
    seed = share.kind is ShareKind.SEED
    published = dealt.seed_commitment if seed else dealt.key_commitment
    made = commit_share(here.inputs.group.digest, share.dealer, sender, share.kind, share.value)
    return made == published


def close_reveals(state: ServerState, *, threads: int = 1) -> Finished | Abandoned:
    """Reconstruct one secret of each client, take off the masks and give the sum.

    Args:
        threads: cores that may make streams.
    """
    here = _expect(state, CollectingReveals, "close_reveals")
    inputs, context = here.inputs, here.inputs.group.context
    survivors = here.request.survivors
    try:
        told = {pair: share.pair_kem for pair, share in here.commitments.items()}
        revealed = Revealed(survivors, here.shares, told)
        total = unmask(inputs.group, inputs.active, inputs.total, revealed, threads=threads)
    except UnrecoverableError as lost:
        outcome = Outcome.BAD_DEALER if lost.lied else Outcome.TOO_FEW_REVEALS
        return Abandoned(context, outcome, str(lost))
    return Finished(context, total, survivors, here.blamed)
