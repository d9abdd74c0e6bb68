"""The client of a round, as states and steps between them.

::

    begin -> AwaitingKeys -> open_nonce -> AwaitingNonces -> share_keys -> AwaitingShares
          -> mask_input -> AwaitingSurvivors -> sign_survivors -> AwaitingSignatures
          -> reveal -> Done

A state is a value; a step takes a state and a message and gives the next state and the answer. A
step that refuses raises, and the caller still has the state it had. A client that gives up simply
stops: without its further messages nothing of it can be opened that was not open before.

A caller that survives crashes must save the new state before it sends the answer, must not repeat
a step from an old state, and keeps the digests of opened contexts for good.
"""

from __future__ import annotations

import os
from collections.abc import Container
from typing import TypeVar

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
from anabranch.privacy.secure_aggregation.dealing import deal, open_delivery
from anabranch.privacy.secure_aggregation.group import (
    check_context,
    check_usable,
    commit_nonce,
    survivors_fault,
)
from anabranch.privacy.secure_aggregation.key_messages import (
    KeyAdvert,
    KeyList,
    NonceList,
    NonceOpening,
)
from anabranch.privacy.secure_aggregation.keys import (
    Keys,
    bound_seed,
    commit_seed,
    new_mask_root,
    self_seed,
    told_contribution,
)
from anabranch.privacy.secure_aggregation.message import signed
from anabranch.privacy.secure_aggregation.messages import (
    MaskedInput,
    RevealedShare,
    ShareBundle,
    ShareDelivery,
    ShareKind,
    SurvivorSet,
    SurvivorSignature,
    UnmaskReply,
    UnmaskRequest,
)
from anabranch.privacy.secure_aggregation.packing import pack
from anabranch.privacy.secure_aggregation.primitives import (
    KEY_BYTES,
    Entropy,
    agreeing,
    digest,
    kem_public,
    new_agreement_key,
    public_agreement_key,
    public_identity,
    require_cryptography,
    require_kem,
)
from anabranch.privacy.secure_aggregation.refusals import (
    bad_signature,
    key_list_refused,
    nonces_refused,
    out_of_order,
    survivors_refused,
)
from anabranch.privacy.secure_aggregation.sharing import new_secret
from anabranch.privacy.secure_aggregation.streams import Lanes, add_streams, lane_dtype

__all__ = [
    "AwaitingKeys",
    "AwaitingNonces",
    "AwaitingShares",
    "AwaitingSignatures",
    "AwaitingSurvivors",
    "ClientState",
    "Done",
    "already_opened",
    "begin",
    "mask_input",
    "open_nonce",
    "reveal",
    "share_keys",
    "sign_survivors",
]


T = TypeVar("T")
_PLAIN = Checker()


def _expect(state: object, kind: type[T], step: str) -> T:
    if not isinstance(state, kind):
        raise out_of_order(type(state).__name__, step)
    return state


def already_opened(context: RoundContext, opened: Container[bytes]) -> None:
    """Refuse a context that was unmasked before.

    Raises:
        AnabranchError: AB-963.
    """
    if context.digest in opened:
        raise AnabranchError(
            "AB-963",
            f"Round {context.round}, attempt {context.attempt} of {context.run} was already "
            "unmasked.",
            fix="repeat the round with a new attempt number.",
            kept="Nothing was revealed.",
        )


def begin(
    context: RoundContext,
    name: str,
    identity: bytes,
    *,
    opened: Container[bytes] = (),
    entropy: Entropy = os.urandom,
) -> tuple[AwaitingKeys, KeyAdvert]:
    """Make fresh secrets and advertise their public halves.

    Args:
        context: the round, from sources that the client trusts as much as its roster.
        name: this client.
        identity: its 32 secret bytes of Ed25519, enrolled in the roster.
        opened: digests of contexts that were unmasked before.
        entropy: secret randomness; the operating system's by default.

    Raises:
        AnabranchError: AB-950 without cryptography, AB-958 if the roster knows another identity,
            AB-963 if the context was unmasked before.
    """
    require_cryptography()
    if context.hybrid:
        require_kem()
    already_opened(context, opened)
    if context.roster.get(name) != public_identity(identity):
        raise bad_signature(name, "the roster's entry")
    mask, transport = new_mask_root(context.hybrid, entropy), new_agreement_key(entropy)
    transport_kem = entropy(2 * KEY_BYTES) if context.hybrid else b""
    seed, nonce = new_secret(entropy), entropy(KEY_BYTES)
    mask_key, mask_kem = mask.public()
    advert = KeyAdvert(
        context=context.digest,
        sender=name,
        mask_key=mask_key,
        transport_key=public_agreement_key(transport),
        seed_commitment=commit_seed(context.digest, name, seed),
        nonce_commitment=commit_nonce(context.digest, name, nonce),
        mask_kem=mask_kem,
        transport_kem=kem_public(transport_kem) if context.hybrid else b"",
    )
    advert = signed(advert, identity)
    keys = Keys(context, identity, mask, transport, seed, nonce, advert, transport_kem)
    return AwaitingKeys(keys), advert


def open_nonce(
    state: ClientState, key_list: KeyList, *, check: Checker = _PLAIN
) -> tuple[AwaitingNonces, NonceOpening]:
    """Check the key list and open the nonce for it: once, and for no other list.

    Args:
        check: makes the checks that all clients make alike.

    Raises:
        AnabranchError: AB-953 to AB-959, see ``accept_keys``; AB-956 in another state.
    """
    keys = _expect(state, AwaitingKeys, "open_nonce").keys
    ring = check.accept_keys(keys.context, key_list)
    if ring.adverts.get(keys.name) != keys.advert:
        raise key_list_refused(f"the keys of {keys.name} itself are missing or changed")
    opening = NonceOpening(
        context=keys.context.digest, sender=keys.name, listed=ring.digest, nonce=keys.nonce
    )
    return AwaitingNonces(keys, ring), signed(opening, keys.identity)


def share_keys(
    state: ClientState,
    nonces: NonceList,
    *,
    check: Checker = _PLAIN,
    entropy: Entropy = os.urandom,
) -> tuple[AwaitingShares, ShareBundle]:
    """Derive cohort and graph from the nonces, and deal shares of both secrets to the neighbours.

    Raises:
        AnabranchError: AB-953 to AB-959 and AB-965, see ``form_group``; AB-956 in another state.
    """
    before = _expect(state, AwaitingNonces, "share_keys")
    keys, group = before.keys, check.form_group(before.ring, nonces)
    if keys.name not in group.adverts:
        raise nonces_refused(f"{keys.name} is not in the cohort that they draw")
    check_usable(group.adverts[name] for name in group.graph[keys.name])
    bundle = ShareBundle(
        context=keys.context.digest, sender=keys.name, shares=deal(keys, group, entropy)
    )
    return AwaitingShares(keys, group), signed(bundle, keys.identity)


def mask_input(
    state: ClientState, delivery: ShareDelivery, vector: Lanes
) -> tuple[AwaitingSurvivors, MaskedInput]:
    """Open the neighbours' shares and send the vector under its masks.

    Args:
        state: after ``share_keys``.
        delivery: who takes part, and their shares.
        vector: ``FixedPoint.encode`` of this client's vector; it is not changed.

    Raises:
        AnabranchError: AB-955, AB-956, AB-960, AB-961 as they say; AB-964 if the vector is not one
            of the round's length within the public bound.
    """
    waiting = _expect(state, AwaitingShares, "mask_input")
    keys, group = waiting.keys, waiting.group
    _check_vector(keys.context, vector)
    active, held, complaints = open_delivery(keys, group, delivery)
    bits = keys.context.encoding.bits
    masked = vector.copy()
    plus = [self_seed(keys.seed, active, keys.name)]
    minus: list[bytes] = []
    told = {share.dealer: share.pair_kem for share in delivery.shares}
    exchange = agreeing(keys.mask_secret)
    for peer in sorted(active.graph[keys.name]):
        more = told_contribution(keys.mask, keys.name, peer, told[peer])
        shared = exchange(group.adverts[peer].mask_key) + more
        seed = bound_seed(shared, active, keys.name, peer)
        (plus if peer < keys.name else minus).append(seed)
    add_streams(masked, plus, minus, bits)
    sent = MaskedInput(
        context=keys.context.digest,
        sender=keys.name,
        active=active.digest,
        payload=pack(masked, bits),
    )
    after = AwaitingSurvivors(keys, group, active, held, complaints)
    return after, signed(sent, keys.identity)


def _check_vector(context: RoundContext, vector: Lanes) -> None:
    bits, largest = context.encoding.bits, context.encoding.largest
    wanted = lane_dtype(bits)
    fits = vector.dtype == wanted and vector.shape == (context.length,)
    if fits:
        modulus = wanted.type((1 << bits) - 1)
        centred = (vector + wanted.type(largest)) & modulus
        fits = int(vector.max()) <= int(modulus)
        fits = fits and (context.encoding.wraps or int(centred.max()) <= 2 * largest)
    if not fits:
        raise AnabranchError(
            "AB-964",
            f"The vector is not {context.length} integers of {bits} bits within +-{largest}.",
            fix="encode the vector with the round's FixedPoint.",
            kept="Nothing was sent.",
        )


def sign_survivors(
    state: ClientState, proposed: SurvivorSet, *, check: Checker = _PLAIN
) -> tuple[AwaitingSignatures, SurvivorSignature]:
    """Sign the set of survivors: once, and only one that hides every member.

    Raises:
        AnabranchError: AB-955, AB-956; AB-962 if the set is too small, is no subset of those who
            take part, lacks this client, leaves a client with too few neighbours, or if a surviving
            neighbour did not mask for the same participants.
    """
    before = _expect(state, AwaitingSurvivors, "sign_survivors")
    keys = before.keys
    check_context(keys.context, proposed, "the coordinator")
    fault = survivors_fault(before.group, before.active, proposed.survivors)
    if fault is None and keys.name not in proposed.survivors:
        fault = f"it lacks {keys.name}, which sent its vector"
    if fault is not None:
        raise survivors_refused(fault)
    _check_proofs(before, proposed, check)
    signature = SurvivorSignature(
        context=keys.context.digest,
        sender=keys.name,
        view=before.active.view(proposed.survivors),
    )
    return AwaitingSignatures(before, proposed.survivors), signed(signature, keys.identity)


def _check_proofs(state: AwaitingSurvivors, proposed: SurvivorSet, check: Checker) -> None:
    """A neighbour that was told of other participants has other masks: its seed stays closed."""
    context, active = state.keys.context, state.active
    wanted = active.graph[state.keys.name] & frozenset(proposed.survivors)
    if [proof.sender for proof in proposed.proofs] != sorted(wanted):
        raise survivors_refused("it does not prove the input of each surviving neighbour")
    for proof in proposed.proofs:
        content = proof.signed_content(context.digest, active.digest)
        if not check.verify(context.roster[proof.sender], proof.signature, content):
            raise survivors_refused(f"{proof.sender} did not mask for the same participants")


def reveal(
    state: ClientState,
    request: UnmaskRequest,
    *,
    opened: Container[bytes] = (),
    check: Checker = _PLAIN,
) -> tuple[Done, UnmaskReply]:
    """Reveal one share of each neighbour: of a survivor's seed, of a dropped client's key.

    A client that is done gives the same answer to the same request, and no answer to another.

    Raises:
        AnabranchError: AB-955, AB-956; AB-962 if the request is not the signed set, asks for both
            secrets of a client, or has fewer valid signatures than the quorum; AB-963 if the
            context was unmasked before.
    """
    if isinstance(state, Done) and state.request == digest("request", request.to_bytes()):
        return state, UnmaskReply.from_bytes(state.reply)
    waiting = _expect(state, AwaitingSignatures, "reveal")
    before, keys = waiting.before, waiting.before.keys
    check_context(keys.context, request, "the coordinator")
    already_opened(keys.context, opened)
    _check_request(waiting, request, check)
    survivors = frozenset(request.survivors)
    shares = []
    for dealer, held in sorted(before.held.items()):
        kind = ShareKind.SEED if dealer in survivors else ShareKind.KEY
        value = held.seed if kind is ShareKind.SEED else held.key
        shares.append(RevealedShare(dealer=dealer, kind=kind, value=value))
    reply = UnmaskReply(context=keys.context.digest, sender=keys.name, shares=tuple(shares))
    reply = signed(reply, keys.identity)
    asked = digest("request", request.to_bytes())
    return Done(keys.context.digest, asked, reply.to_bytes()), reply


def _check_request(state: AwaitingSignatures, request: UnmaskRequest, check: Checker) -> None:
    active, context = state.before.active, state.before.keys.context
    if both := sorted(set(request.survivors) & set(request.dropped)):
        raise survivors_refused(f"it asks for both secrets of {both[0]}")
    if request.survivors != state.survivors:
        raise survivors_refused("its survivors are not those that this client signed")
    rest = set(active.participants) - set(request.survivors)
    if request.dropped != tuple(sorted(rest)):
        raise survivors_refused("its dropped clients are not all the others that take part")
    names = [name for name, _ in request.signatures]
    if names != sorted(set(names)) or not set(names) <= set(request.survivors):
        raise survivors_refused("its signatures are not of distinct survivors")
    quorum = state.before.group.quorum
    if len(names) < quorum:
        raise survivors_refused(f"{len(names)} clients signed, {quorum} must")
    view = active.view(request.survivors)
    for name, signature in request.signatures:
        content = SurvivorSignature(context=context.digest, sender=name, view=view)
        if not check.verify(context.roster[name], signature, content.signed_content()):
            raise survivors_refused(f"{name} did not sign this set")
