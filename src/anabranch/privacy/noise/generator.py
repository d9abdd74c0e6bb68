"""A NumPy generator whose bits are secret: for coins behind a claim of amplification by sampling.

NumPy's own bit generators are not made for secrets. This one has NumPy's C interface (``bitgen_t``,
a documented structure of five pointers), whose functions read a `SecretStream`. Every method of
``numpy.random.Generator`` then works on AES. It is slower, about a microsecond a draw.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator

import numpy as np

from anabranch.privacy.noise.stream import SecretStream

__all__ = ["secret_generator"]

_WORDS = 1024
_DOUBLE = 2.0**-53


class _Interface(ctypes.Structure):
    """``bitgen_t`` of numpy/random/bitgen.h."""

    _next64 = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
    _next32 = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
    _double = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p)
    _fields_ = (
        ("state", ctypes.c_void_p),
        ("next_uint64", _next64),
        ("next_uint32", _next32),
        ("next_double", _double),
        ("next_raw", _next64),
    )


class _SecretBits:
    """What ``numpy.random.Generator`` asks of a bit generator: a capsule and a lock."""

    def __init__(self, stream: SecretStream) -> None:
        words = _words(stream)
        self.lock = threading.Lock()
        # Kept here: the structure holds no references to them.
        self._integer = _Interface._next64(lambda _: next(words))
        self._half = _Interface._next32(lambda _: next(words) >> 32)
        self._fraction = _Interface._double(lambda _: (next(words) >> 11) * _DOUBLE)
        self._interface = _Interface(None, self._integer, self._half, self._fraction, self._integer)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        )
        self._name = ctypes.c_char_p(b"BitGenerator")
        self.capsule = new(ctypes.addressof(self._interface), self._name, None)


def _words(stream: SecretStream) -> Iterator[int]:
    while True:
        yield from stream.words(_WORDS).tolist()


def secret_generator(stream: SecretStream) -> np.random.Generator:
    """A generator that draws from ``stream``; keyed streams give the same draws again.

    >>> draw = secret_generator(SecretStream.keyed(bytes(32), "coins", "round 1"))
    >>> again = secret_generator(SecretStream.keyed(bytes(32), "coins", "round 1"))
    >>> bool((draw.random(5) == again.random(5)).all())
    True
    """
    return np.random.Generator(_SecretBits(stream))  # type: ignore[arg-type]  # has the interface
