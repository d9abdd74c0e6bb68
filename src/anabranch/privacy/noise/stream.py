"""Secret random bytes: AES-256 in counter mode, keyed by the operating system or by a noise key.

Nothing here or above it may use the generators of NumPy or of the standard library: their state can
be recovered from what they have put out. A copy of a stream in a forked process would repeat the
noise of its parent, so that the difference of two releases would be free of noise. A stream of the
system therefore seeds itself anew after a fork; one with a key is refused there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, CipherContext

__all__ = ["KEY_BYTES", "SecretStream", "derived_key"]

KEY_BYTES = 32
"""Length of every key: 256 bits."""

_SLICE = 1 << 18
_BLOCK = 16
_ZEROS = bytes(_SLICE)


def derived_key(key: bytes, *label: str, length: int = KEY_BYTES) -> bytes:
    """A key for one purpose (HKDF-SHA256); keys with different labels tell nothing of each other.

    Raises:
        AnabranchError: AB-931 unless ``key`` has 32 bytes.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if len(key) != KEY_BYTES:
        raise AnabranchError(
            "AB-931",
            f"a noise key has {len(key)} bytes, wanted {KEY_BYTES}.",
            fix="take the key of a reservation in the ledger, or os.urandom(32).",
            kept="No noise was drawn and nothing was released.",
        )
    # Each part with its length before it, so that no two labels run into one.
    info = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in label)
    return HKDF(SHA256(), length, salt=b"anabranch noise 1", info=info).derive(key)


class SecretStream:
    """An endless string of secret random bytes.

    Make one with `system` (fresh, unrepeatable) or `keyed` (the same bytes for the same key and
    label, so that a release that is replayed after a crash has the same noise).
    """

    def __init__(self, key: bytes | None, label: tuple[str, ...]) -> None:
        self._key, self._label = key, label
        self._buffer = bytearray(_SLICE + _BLOCK)
        self._start()

    @staticmethod
    def system() -> SecretStream:
        """A stream seeded by the operating system, anew in every forked process."""
        return SecretStream(None, ())

    @staticmethod
    def keyed(key: bytes, *label: str) -> SecretStream:
        """The stream of a key of 32 bytes and a label.

        Raises:
            AnabranchError: AB-931 unless ``key`` has 32 bytes.
        """
        return SecretStream(key, label)

    def _start(self) -> None:
        self._process = os.getpid()
        seed = (
            os.urandom(48) if self._key is None else derived_key(self._key, *self._label, length=48)
        )
        self._cipher = _encryptor(seed)

    def fill(self, count: int) -> memoryview:
        """The next ``count`` bytes, at most 2^18, in a buffer that the next call overwrites.

        Raises:
            AnabranchError: AB-931 for a keyed stream in another process than the one that made it.
        """
        if os.getpid() != self._process:
            if self._key is not None:
                raise AnabranchError(
                    "AB-931",
                    "a keyed noise stream was carried into a forked process, where it would "
                    "repeat the noise of its parent.",
                    fix="make the stream in the process that uses it, with a label of its own.",
                    kept="No noise was drawn and nothing was released.",
                )
            self._start()
        self._cipher.update_into(memoryview(_ZEROS)[:count], self._buffer)
        return memoryview(self._buffer)[:count]

    def words(self, count: int) -> NDArray[np.uint64]:
        """``count`` uniform 64-bit integers."""
        out = np.empty(count, np.uint64)
        step = _SLICE // 8
        for start in range(0, count, step):
            part = out[start : start + step]
            part[:] = np.frombuffer(self.fill(part.nbytes), np.uint64)
        return out

    def fractions(self, count: int) -> NDArray[np.float32]:
        """``count`` uniform multiples of 2^-24 in [0, 1), for rounding."""
        out = np.empty(count, np.float32)
        step = _SLICE // 4
        for start in range(0, count, step):
            part = out[start : start + step]
            bits = np.frombuffer(self.fill(part.nbytes), np.uint32) >> np.uint32(8)
            np.multiply(bits, np.float32(2.0**-24), out=part, casting="unsafe")
        return out


def _encryptor(seed: bytes) -> CipherContext | AEADEncryptionContext:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    return Cipher(AES(seed[:32]), CTR(seed[32:])).encryptor()
