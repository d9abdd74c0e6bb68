"""Encryption at rest: AES-256-GCM under a key, and a key from a passphrase (scrypt).

A sealed byte string is ``nonce (12) | ciphertext | tag (16)``. It is bound to a purpose, so that
one file cannot stand in for another. Nonces are drawn from the operating system for each seal; with
one key at most 2^32 things are sealed (NIST SP 800-38D, section 8.3), far beyond any client.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["KEY_BYTES", "PassphraseCost", "key_of_passphrase", "open_sealed", "seal"]

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class PassphraseCost:
    """The cost of guessing: scrypt's parameters (RFC 7914).

    Attributes:
        n: memory and time, a power of two; 2^15 with r = 8 takes 32 MiB and about 0.1 s.
        r: block size.
        p: how often.
    """

    n: int = 2**15
    r: int = 8
    p: int = 1

    def acceptable(self) -> bool:
        """Whether a file may ask for this: a forged header must not exhaust the memory."""
        power = self.n > 1 and self.n & (self.n - 1) == 0
        return power and self.n <= 2**20 and 1 <= self.r <= 32 and 1 <= self.p <= 16


def key_of_passphrase(passphrase: bytes, salt: bytes, cost: PassphraseCost) -> bytes:
    """32 bytes that only who knows the passphrase can compute.

    Raises:
        ValueError: the cost is not acceptable.
    """
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if not cost.acceptable():
        raise ValueError("the cost of the passphrase's key is out of range")
    return Scrypt(salt=salt, length=KEY_BYTES, n=cost.n, r=cost.r, p=cost.p).derive(passphrase)


def seal(key: bytes, content: bytes | memoryview, purpose: str) -> bytes:
    """Encrypt ``content``; only `open_sealed` with the same key and purpose gives it back."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, purpose.encode())


def open_sealed(key: bytes, sealed: bytes | memoryview, purpose: str) -> bytes | None:
    """What was sealed; None when the key or the purpose differs or any bit was changed.

    >>> open_sealed(bytes(32), seal(bytes(32), b"state", "memory"), "memory")
    b'state'
    >>> open_sealed(bytes(32), seal(bytes(32), b"state", "memory"), "identity") is None
    True
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        return None
    try:
        nonce, content = bytes(sealed[:_NONCE_BYTES]), sealed[_NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, content, purpose.encode())
    except InvalidTag:
        return None
