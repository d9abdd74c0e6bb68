"""Bytes of the messages: a small canonical encoding, written once and read without trust.

Integers are big endian and of fixed size, byte strings and texts carry their length, lists their
count. Nothing is executed, nothing is optional: equal values give equal bytes, which is what
signatures and digests need.
"""

from __future__ import annotations

from anabranch.privacy.secure_aggregation.refusals import malformed

__all__ = ["MAX_ITEMS", "Reader", "Writer"]

MAX_ITEMS = 1 << 20
"""The longest list that a message may have."""

_MAX_TEXT = 255


class Writer:
    """Collects the fields of a message.

    >>> Writer().text("va").number(7).finish().hex()
    '000276610000000000000007'
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def number(self, value: int, size: int = 8) -> Writer:
        """Append an integer of 0 <= value < 256**size."""
        self._parts.append(value.to_bytes(size, "big"))
        return self

    def raw(self, content: bytes) -> Writer:
        """Append bytes whose length the reader knows."""
        self._parts.append(content)
        return self

    def blob(self, content: bytes) -> Writer:
        """Append bytes with their length."""
        return self.number(len(content), 4).raw(content)

    def text(self, value: str) -> Writer:
        """Append a text of at most 255 bytes of UTF-8."""
        content = value.encode()
        if not 0 < len(content) <= _MAX_TEXT:
            raise malformed(f"a name has {len(content)} bytes, wanted 1 to {_MAX_TEXT}")
        return self.number(len(content), 2).raw(content)

    def texts(self, values: tuple[str, ...]) -> Writer:
        """Append a list of texts."""
        self.number(len(values), 4)
        for value in values:
            self.text(value)
        return self

    def finish(self) -> bytes:
        """Everything appended so far."""
        return b"".join(self._parts)


class Reader:
    """Takes the fields of a message in the order in which they were written.

    Raises:
        AnabranchError: AB-954 where the bytes end early, a length is impossible, a text is no
            UTF-8, or bytes are left at the end.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def raw(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self._at + size
        if end > len(self._content):
            raise malformed(f"it ends at byte {len(self._content)}, wanted {end}")
        taken = self._content[self._at : end]
        self._at = end
        return taken

    def number(self, size: int = 8) -> int:
        """The next integer."""
        return int.from_bytes(self.raw(size), "big")

    def blob(self) -> bytes:
        """The next byte string."""
        return self.raw(self.number(4))

    def text(self) -> str:
        """The next text."""
        size = self.number(2)
        if not 0 < size <= _MAX_TEXT:
            raise malformed(f"a name has {size} bytes, wanted 1 to {_MAX_TEXT}")
        try:
            return self.raw(size).decode()
        except UnicodeDecodeError as error:
            raise malformed("a name is not UTF-8") from error

    def count(self) -> int:
        """The length of the next list."""
        items = self.number(4)
        if items > MAX_ITEMS:
            raise malformed(f"a list has {items} items, at most {MAX_ITEMS} are allowed")
        return items

    def texts(self) -> tuple[str, ...]:
        """The next list of texts."""
        return tuple(self.text() for _ in range(self.count()))

    def finish(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._content):
            raise malformed(f"{len(self._content) - self._at} bytes follow its end")
