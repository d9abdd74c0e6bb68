"""The cryptography that the protocol stands on, all of it from PyCA ``cryptography``.

Keys, seeds and digests are byte strings here. Secret randomness is an argument, a function from a
number of bytes to that many bytes; the default everywhere is the operating system's generator.
The package is imported when it is first needed, so that plans without masks start without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from anabranch.errors import AnabranchError

__all__ = [
    "DIGEST_BYTES",
    "KEY_BYTES",
    "SIGNATURE_BYTES",
    "Agree",
    "Entropy",
    "Verify",
    "agree",
    "agreeing",
    "clamped",
    "decapsulate",
    "derive",
    "digest",
    "encapsulate",
    "kem_public",
    "new_agreement_key",
    "open_sealed",
    "public_agreement_key",
    "public_identity",
    "require_cryptography",
    "require_kem",
    "seal",
    "sign",
    "verify",
    "remembering",
]

Entropy = Callable[[int], bytes]
"""Gives that many bytes nobody can predict, such as ``os.urandom``."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""Whether a public key made a signature over a content, as ``verify`` does."""

Agree = Callable[[bytes], bytes]
"""Gives what the owner of one secret key shares with the owner of a public one."""

KEY_BYTES = 32
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
_NONCE_BYTES = 12
_DOMAIN = b"anabranch/secure-aggregation/v1/"


def require_cryptography() -> None:
    """Check that the package is there, before a round begins.

    Raises:
        AnabranchError: AB-950 if ``cryptography`` can not be imported.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise AnabranchError(
            "AB-950",
            "Secure aggregation needs the package cryptography, which can not be imported.",
            fix='install it again: pip install "anabranch".',
        ) from error


def digest(purpose: str, *parts: bytes) -> bytes:
    """SHA-256 under a purpose; parts carry their lengths, so that no two lists collide.

    >>> digest("a", b"xy", b"z") == digest("a", b"x", b"yz")
    False
    """
    state = hashlib.sha256(_DOMAIN + purpose.encode())
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def new_agreement_key(entropy: Entropy) -> bytes:
    """A secret X25519 key, clamped as RFC 7748 does: below 2^255, so that it can be shared."""
    return clamped(entropy(KEY_BYTES))


def clamped(drawn: bytes) -> bytes:
    """32 bytes as a secret key of X25519 (RFC 7748, section 5)."""
    key = bytearray(drawn)
    key[0] &= 248
    key[31] = (key[31] & 127) | 64
    return bytes(key)


def public_agreement_key(secret: bytes) -> bytes:
    """The public half of an X25519 key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: bytes, public: bytes) -> bytes:
    """What two parties share by X25519 (RFC 7748).

    Raises:
        ValueError: ``public`` is a point of small order, which an honest party never has.
    """
    return agreeing(secret)(public)


def agreeing(secret: bytes) -> Agree:
    """``agree`` with many others: loading a secret key takes as long as using it."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    exchange = X25519PrivateKey.from_private_bytes(secret).exchange
    return lambda public: exchange(X25519PublicKey.from_public_bytes(public))


def derive(secret: bytes, info: bytes, size: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt: ``size`` bytes that are bound to ``info``."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(secret)


def seal(key: bytes, content: bytes, bound_to: bytes, entropy: Entropy) -> bytes:
    """AES-256-GCM: a fresh nonce, then the ciphertext, authenticated together with ``bound_to``."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = entropy(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, bound_to)


def open_sealed(key: bytes, sealed: bytes, bound_to: bytes) -> bytes | None:
    """What was sealed, or None if anything about it was changed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) < _NONCE_BYTES + 16:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
    except InvalidTag:
        return None


def public_identity(identity: bytes) -> bytes:
    """The public half of an Ed25519 identity."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes_raw()


def sign(identity: bytes, content: bytes) -> bytes:
    """An Ed25519 signature (RFC 8032) under a 32-byte identity."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(identity).sign(content)


def verify(public: bytes, signature: bytes, content: bytes) -> bool:
    """Whether ``signature`` was made over ``content`` by the owner of ``public``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def remembering(check: Verify = verify) -> Verify:
    """A ``verify`` that answers a question it has answered before from memory.

    For who plays many clients, each of which checks the same signatures; it holds 32 bytes each.
    """
    known: set[bytes] = set()

    def ask(public: bytes, signature: bytes, content: bytes) -> bool:
        question = digest("verified", public, signature, content)
        if question not in known and not check(public, signature, content):
            return False
        known.add(question)
        return True

    return ask


def require_kem() -> None:
    """Check that ML-KEM-768 (FIPS 203) is there.

    Raises:
        AnabranchError: AB-971 if the installed ``cryptography`` lacks it.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    except Exception as error:  # a build without it says so in its own ways
        raise AnabranchError(
            "AB-971",
            "The plan asks for ML-KEM-768, which the installed cryptography does not have.",
            fix="install cryptography 46 or newer, or set secure_aggregation.hybrid = false.",
            kept="The round was not started.",
        ) from error


def kem_public(seed: bytes) -> bytes:
    """The public ML-KEM-768 key of a 64-byte seed."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    return MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh shared secret, and the ciphertext that tells it to the owner of ``public``.

    Raises:
        ValueError: ``public`` is no ML-KEM-768 key.
    """
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

    return MLKEM768PublicKey.from_public_bytes(public).encapsulate()


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """The shared secret in a ciphertext; one that was made up gives another secret.

    Raises:
        ValueError: the ciphertext has another size.
    """
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
