"""A draw that nobody can foresee: for coins behind a privacy claim."""

from __future__ import annotations

import os
from hashlib import blake2b

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from anabranch.fleet.selection.base import Indices
from anabranch.fleet.view import Column

__all__ = ["SecretDraw"]


class SecretDraw:
    """Uniform numbers from AES-256 in counter mode, keyed by a run secret.

    The same secret and number give the same draw, so a resumed round repeats its cohort; without
    the secret it is not distinguishable from chance.

    Args:
        secret: at least 32 bytes from the operating system, held by the coordinator alone.
        number: of the draw; each dispatch of a run has its own.

    >>> secret = os.urandom(32)
    >>> bool((SecretDraw(secret, 1).random(3) == SecretDraw(secret, 1).random(3)).all())
    True
    """

    def __init__(self, secret: bytes, number: int) -> None:
        if len(secret) < 32:
            raise ValueError("a secret has at least 32 bytes")
        label = f"anabranch selection {number}".encode()
        key = blake2b(label, key=secret[:64], digest_size=32).digest()
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    @staticmethod
    def fresh() -> SecretDraw:
        """A draw that cannot be repeated."""
        return SecretDraw(os.urandom(32), 0)

    def random(self, size: int) -> Column:
        """Independent numbers, uniform over the multiples of 2^-53 in [0, 1)."""
        words = np.frombuffer(self._stream.update(bytes(8 * size)), "<u8")
        return np.asarray((words >> np.uint64(11)) * 2.0**-53)

    def choice(self, a: int, size: int, replace: bool, *, shuffle: bool) -> Indices:
        """``size`` of the numbers below ``a``, each set equally likely."""
        if replace:
            return np.minimum((self.random(size) * a).astype(np.int64), a - 1)
        keys = self.random(a)
        chosen = np.argpartition(keys, size - 1)[:size] if 0 < size < a else np.arange(a)[:size]
        order = np.argsort(self.random(size)) if shuffle else slice(None)
        picked: Indices = chosen[order].astype(np.int64)
        return picked
