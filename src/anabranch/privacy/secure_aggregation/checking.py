"""Checks that many clients make alike, so that who plays many of them can make each once.

A real client checks everything itself: ``Checker``. A simulation holds all clients in one process,
where a thousand of them would verify the same thousand signatures and keep a thousand copies of the
same list: ``SharedChecker`` answers from memory what it has answered before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.group import Group, KeyRing, accept_keys, form_group
from anabranch.privacy.secure_aggregation.key_messages import KeyList, NonceList
from anabranch.privacy.secure_aggregation.message import Message
from anabranch.privacy.secure_aggregation.primitives import digest, remembering, verify

__all__ = ["Checker", "SharedChecker"]

_KEPT = 8
M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Checker:
    """Makes every check anew."""

    def verify(self, public: bytes, signature: bytes, content: bytes) -> bool:
        """Whether the owner of ``public`` signed ``content``."""
        return verify(public, signature, content)

    def context(self, content: bytes) -> RoundContext:
        """``RoundContext.from_bytes``."""
        return RoundContext.from_bytes(content)

    def message(self, kind: type[M], content: bytes) -> M:
        """``Message.from_bytes``."""
        return kind.from_bytes(content)

    def accept_keys(self, context: RoundContext, key_list: KeyList) -> KeyRing:
        """``group.accept_keys``."""
        return accept_keys(context, key_list, self.verify)

    def form_group(self, ring: KeyRing, nonces: NonceList) -> Group:
        """``group.form_group``."""
        return form_group(ring, nonces, self.verify)


class SharedChecker(Checker):
    """Remembers answers; the last few lists and every good signature. Refusals are made anew."""

    def __init__(self) -> None:
        self._verify = remembering()
        self._known: OrderedDict[bytes, object] = OrderedDict()

    def verify(self, public: bytes, signature: bytes, content: bytes) -> bool:
        return self._verify(public, signature, content)

    def context(self, content: bytes) -> RoundContext:
        return self._once(
            digest("context", content), lambda: super(SharedChecker, self).context(content)
        )

    def message(self, kind: type[M], content: bytes) -> M:
        # Messages for one client are read once anyway.
        if kind not in (KeyList, NonceList):
            return super().message(kind, content)
        return self._once(
            digest("message", content), lambda: super(SharedChecker, self).message(kind, content)
        )

    def accept_keys(self, context: RoundContext, key_list: KeyList) -> KeyRing:
        return self._once(
            digest("ring", context.digest, key_list.fingerprint),
            lambda: super(SharedChecker, self).accept_keys(context, key_list),
        )

    def form_group(self, ring: KeyRing, nonces: NonceList) -> Group:
        return self._once(
            digest("group", ring.digest, nonces.fingerprint),
            lambda: super(SharedChecker, self).form_group(ring, nonces),
        )

    def _once(self, key: bytes, make: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = make()
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[key]  # type: ignore[return-value]  # stored under this key by make
