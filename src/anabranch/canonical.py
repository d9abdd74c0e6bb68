"""One byte string for one document: what is signed, hashed and compared at both ends of the wire.

The profile is the part of RFC 8785 (JSON Canonicalization Scheme) in which no numbers need care:
objects, arrays, strings, booleans, null and integers below 2^53 in size; keys of ASCII characters,
sorted; no space; UTF-8; only the escapes that JSON demands. A browser produces the same bytes by
sorting keys and calling ``JSON.stringify``. Fractions are refused: two languages print them
differently. Durations are whole milliseconds or seconds, shares are counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

__all__ = ["Document", "canonical_bytes", "digest_of"]

Document: TypeAlias = "bool | int | str | Sequence[Document] | Mapping[str, Document] | None"
"""What canonical JSON can say."""

_LARGEST = 2**53


def canonical_bytes(document: Document) -> bytes:
    """The canonical JSON of ``document``.

    Raises:
        ValueError: a fraction, an integer of 2^53 or more, a key that is not ASCII, or text that is
            not Unicode (a lone surrogate).

    >>> canonical_bytes({"b": [1, True, None], "a": "ä\\n"}).decode()
    '{"a":"ä\\\\n","b":[1,true,null]}'
    """
    _check(document)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def digest_of(document: Document) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal.

    >>> digest_of({})[:16]
    '44136fa355b3678a'
    """
    return hashlib.sha256(canonical_bytes(document)).hexdigest()


def _check(document: object) -> None:
    if document is None or isinstance(document, bool | str):
        return
    if isinstance(document, int):
        if abs(document) >= _LARGEST:
            raise ValueError(f"integer {document} is not below 2^53 in size")
    elif isinstance(document, Mapping):
        for key, value in document.items():
            if not isinstance(key, str) or not key.isascii():
                raise ValueError(f"key {key!r} is not ASCII text")
            _check(value)
    elif isinstance(document, list | tuple):
        for value in document:
            _check(value)
    else:
        raise ValueError(f"canonical JSON has no {type(document).__name__}")
