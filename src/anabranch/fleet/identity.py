"""Identities: Ed25519 keys (RFC 8032) of clients, coordinators and federations.

A signature is made over ``"anabranch/v1/" + context + 0x00 + message``. The context says what kind
of thing is signed (``roster``, ``task``, ``receipt`` …): a signature over one kind can never be
shown as one over another. Keys and signatures travel as lower-case hexadecimal.

A key file is PKCS #8 in PEM (as ``openssl genpkey -algorithm ed25519`` writes), readable by its
owner alone; or, with a passphrase, JSON that seals the same bytes (scrypt, AES-256-GCM).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from anabranch.disk import explained, write_durably
from anabranch.errors import AnabranchError
from anabranch.sealing import KEY_BYTES, PassphraseCost, key_of_passphrase, open_sealed, seal
from anabranch.values import Value

__all__ = ["PUBLIC_KEY", "SIGNATURE", "Identity", "fingerprint", "signed_bytes", "verify"]

PUBLIC_KEY: Final = r"^[0-9a-f]{64}$"
"""Pattern of a public key in a message."""

SIGNATURE: Final = r"^[0-9a-f]{128}$"
"""Pattern of a signature in a message."""

_DOMAIN: Final = b"anabranch/v1/"
_PURPOSE: Final = "anabranch identity"
_SECRET_MODE: Final = 0o600


def signed_bytes(context: str, message: bytes) -> bytes:
    """What Ed25519 signs for a message of one kind.

    >>> signed_bytes("roster", b"{}")
    b'anabranch/v1/roster\\x00{}'
    """
    if not context or not context.isascii() or "\0" in context:
        raise ValueError("a context is ASCII text without a zero byte")
    return _DOMAIN + context.encode() + b"\0" + message


def verify(public_key: bytes, context: str, message: bytes, signature: bytes) -> bool:
    """Whether the owner of ``public_key`` signed ``message`` in this context.

    Anything that is not a key or a signature is simply not a valid one.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, signed_bytes(context, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public_key: bytes) -> str:
    """The first 128 bits of the key's SHA-256, in groups that people can compare.

    Finding another key with a given fingerprint takes about 2^128 trials.

    >>> fingerprint(bytes(32))
    '6668-7aad-f862-bd77-6c8f-c18b-8e9f-8e20'
    """
    text = hashlib.sha256(public_key).hexdigest()[:32]
    return "-".join(text[start : start + 4] for start in range(0, 32, 4))


class _SealedKey(Value):
    """A key file with a passphrase."""

    anabranch_key: int = Field(default=1, ge=1, le=1)
    public: str = Field(pattern=PUBLIC_KEY)
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    n: int
    r: int
    p: int
    sealed: str = Field(pattern=r"^[0-9a-f]+$", max_length=1000)


@dataclass(frozen=True)
class Identity:
    """A secret key and its public half; printing one shows the public half only.

    Attributes:
        secret: the 32-byte seed of RFC 8032.
        public_key: 32 bytes.
    """

    secret: bytes = field(repr=False)
    public_key: bytes

    @staticmethod
    def generate() -> Identity:
        """A fresh identity from the operating system's generator."""
        return Identity.from_secret(os.urandom(KEY_BYTES))

    @staticmethod
    def from_secret(secret: bytes) -> Identity:
        """The identity of a 32-byte seed.

        Raises:
            ValueError: not 32 bytes.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(secret)
        return Identity(secret, key.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        """Of the public key, for people."""
        return fingerprint(self.public_key)

    def sign(self, context: str, message: bytes) -> bytes:
        """64 bytes that only this identity can make for this context and message."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(self.secret)
        return key.sign(signed_bytes(context, message))

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key file, readable by its owner alone; an existing file is never replaced.

        Raises:
            AnabranchError: AB-730 there is a file of that name, AB-6xx from the disk.
        """
        content = self._pem() if passphrase is None else self._sealed(passphrase)
        if path.exists():
            raise AnabranchError(
                "AB-730",
                f"{path} exists already: a new key would replace one that others may have pinned.",
                fix="use the existing key, or choose another file.",
            )
        with explained(path, "writing a key"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, content, "key", mode=_SECRET_MODE)

    @staticmethod
    def load(path: Path, passphrase: bytes | None = None) -> Identity:
        """Read a key file.

        Raises:
            AnabranchError: AB-730 it cannot be read or is no key, AB-731 the passphrase is missing
                or wrong.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = f"it cannot be read ({error.strerror or error})"
            raise _no_key(path, reason) from error
        if content.lstrip().startswith(b"{"):
            return _opened(path, content, passphrase)
        return _of_pem(path, content)

    def _pem(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        key = Ed25519PrivateKey.from_private_bytes(self.secret)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _sealed(self, passphrase: bytes) -> bytes:
        cost, salt = PassphraseCost(), os.urandom(16)
        sealed = seal(key_of_passphrase(passphrase, salt, cost), self.secret, _PURPOSE)
        held = _SealedKey(
            public=self.public_key.hex(),
            salt=salt.hex(),
            n=cost.n,
            r=cost.r,
            p=cost.p,
            sealed=sealed.hex(),
        )
        return (json.dumps(held.model_dump(), indent=1) + "\n").encode()


def _of_pem(path: Path, content: bytes) -> Identity:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "it is not a key file of Anabranch") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "it is not an Ed25519 key")
    return Identity.from_secret(key.private_bytes_raw())


def _opened(path: Path, content: bytes, passphrase: bytes | None) -> Identity:
    try:
        held = _SealedKey.model_validate_json(content)
        cost = PassphraseCost(held.n, held.r, held.p)
        sealed = bytes.fromhex(held.sealed)
        if not cost.acceptable():
            raise ValueError("cost out of range")
    except (ValidationError, ValueError) as error:
        raise _no_key(path, "it is not a key file of Anabranch") from error
    key = key_of_passphrase(passphrase or b"", bytes.fromhex(held.salt), cost)
    secret = open_sealed(key, sealed, _PURPOSE)
    if secret is None or len(secret) != KEY_BYTES:
        what = "is wrong" if passphrase else "was not given"
        raise AnabranchError(
            "AB-731",
            f"the passphrase of {path} {what}.",
            fix="give the passphrase with which the file was written.",
            kept="The file is unchanged.",
        )
    return Identity.from_secret(secret)


def _no_key(path: Path, reason: str) -> AnabranchError:
    return AnabranchError(
        "AB-730",
        f"{path} gives no identity: {reason}.",
        fix="give the file that `anabranch roster init` or `roster key` wrote, and the right "
        "to read it.",
    )
