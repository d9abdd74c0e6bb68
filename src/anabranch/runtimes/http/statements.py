"""What the coordinator signs, and how a client checks it.

Every statement is the canonical JSON of the message without its signature, together with the client
that it is for; the kind of the message is the context of the signature. A task, a fate or a receipt
can therefore not be passed on to another client, or shown as something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from anabranch.canonical import canonical_bytes
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import signed_bytes
from anabranch.runtimes.http.messages import (
    Enrolled,
    LedgerShown,
    Receipt,
    Session,
    Summons,
    TaskFate,
    TaskOffer,
)
from anabranch.runtimes.http.versions import SPOKEN, Version, document_as_of
from anabranch.values import Value

if TYPE_CHECKING:
    from anabranch.fleet.identity import Identity
    from anabranch.fleet.receipts import Head, SignedHead

__all__ = ["SESSION", "Checker", "Signer", "session_claim", "statement"]

Message = TypeVar("Message", bound=Value)

SESSION = "session"
"""Context of the signature with which a client opens a session."""

_CONTEXTS: dict[type[Value], str] = {
    TaskOffer: "task",
    TaskFate: "fate",
    Receipt: "receipt",
    Session: "session-granted",
    Enrolled: "enrolled",
    LedgerShown: "ledger",
    Summons: "summons",
}


def statement(
    message: Value, client: str, about: str = "", version: Version = SPOKEN.newest
) -> bytes:
    """The bytes that are signed.

    Args:
        message: its field ``signature`` is left out.
        client: name of the client that it is for.
        about: what the message belongs to, where its fields do not say (a task, a nonce).
        version: of the protocol; fields that are newer are no part of the statement.
    """
    document = document_as_of(message, version)
    document.pop("signature", None)
    return canonical_bytes({"about": about, "client": client, "message": document})


def session_claim(client: str, challenge: str, nonce: str, coordinator: str) -> bytes:
    """What a client signs to open a session; ``coordinator`` is the key that it means to reach."""
    return canonical_bytes(
        {"challenge": challenge, "client": client, "coordinator": coordinator, "nonce": nonce}
    )


class Signer:
    """Signs as the coordinator; without an identity nothing is signed (loopback only)."""

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity
        self._sign: Callable[[bytes], bytes] | None = None

    @property
    def key(self) -> str:
        """The public key, hexadecimal; empty without one."""
        return self._identity.public_key.hex() if self._identity is not None else ""

    def head(self, head: Head) -> SignedHead:
        """The head of a round, signed.

        Raises:
            ValueError: there is no identity.
        """
        from anabranch.fleet.receipts import sign_head

        if self._identity is None:
            raise ValueError("a head needs an identity that signs it")
        return sign_head(head, self._identity)

    def signed(
        self,
        message: Message,
        client: str,
        about: str = "",
        version: Version = SPOKEN.newest,
    ) -> Message:
        """The message with its signature, as a client of this version reads it."""
        if self._identity is None:
            return message
        told = statement(message, client, about, version)
        content = signed_bytes(_CONTEXTS[type(message)], told)
        return message.model_copy(update={"signature": self._signature(content).hex()})

    def _signature(self, content: bytes) -> bytes:
        if self._sign is None:  # loading the key takes as long as signing
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            assert self._identity is not None
            self._sign = Ed25519PrivateKey.from_private_bytes(self._identity.secret).sign
        return self._sign(content)


class Checker:
    """Checks signatures of the coordinator whose key a client has pinned; or none at all.

    Args:
        client: the client's name.
        key: the coordinator's public key; None checks nothing (loopback only).

    Attributes:
        version: of the protocol in which the coordinator answers.
    """

    def __init__(self, client: str, key: bytes | None) -> None:
        self._client, self._key = client, key
        self.version = SPOKEN.newest

    @property
    def key(self) -> str:
        """The pinned key, hexadecimal; empty without one."""
        return self._key.hex() if self._key is not None else ""

    def require(self, message: Value, signature: str, about: str = "") -> None:
        """Refuse a message that the coordinator did not sign for this client.

        Raises:
            AnabranchError: AB-757.
        """
        if self._key is None:
            return
        from anabranch.fleet.identity import verify

        context = _CONTEXTS[type(message)]
        content = statement(message, self._client, about, self.version)
        if not verify(self._key, context, content, bytes.fromhex(signature)):
            raise AnabranchError(
                "AB-757",
                f"a {context} was not signed by the coordinator whose key this client has pinned.",
                fix="ask the coordinator's operator whether its key has changed; enrol again only "
                "after comparing the fingerprint over another channel.",
                kept="Nothing was done and nothing was sent.",
            )
