"""Who is at the door: sessions from signed challenges, or on loopback whatever name is given."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from anabranch.errors import AnabranchError
from anabranch.fleet.identity import verify
from anabranch.fleet.membership import Membership
from anabranch.fleet.roster import Roster, RosterEntry
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import Challenge, Session, SessionRequest
from anabranch.runtimes.http.statements import SESSION, Signer, session_claim

__all__ = ["Door", "OpenDoor", "SessionDoor"]

_CHALLENGES: Final = 10_000
_CHALLENGE_SECONDS: Final = 60.0
_SESSIONS_EACH: Final = 8


class Door(Protocol):
    """Says which client a request is from."""

    @property
    def identities(self) -> bool:
        """Whether clients must show who they are."""
        ...

    def barred(self, name: str) -> str:
        """Why a client cannot take part now; empty when it can."""
        ...

    def client(self, name: str, authorization: str) -> str:
        """The client's name.

        Args:
            name: the query parameter ``client``, or empty.
            authorization: the header of that name, or empty.

        Raises:
            AnabranchError: AB-712 no such client, AB-755 no session, AB-737 and AB-738 no member.
        """
        ...


class OpenDoor:
    """Believes the name; for the loopback interface alone, where all processes are one person's."""

    identities = False

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known

    def barred(self, name: str) -> str:
        return ""

    def client(self, name: str, authorization: str) -> str:
        if not self._known(name):
            raise AnabranchError(
                "AB-712",
                "this federation has no client of that name.",
                fix="join with a name that the coordinator's data or roster lists.",
            )
        return name


def _nobody_cares(name: str) -> None:
    """The listener of a door without a coordinator behind it."""


@dataclass(frozen=True, slots=True)
class _Open:
    client: str
    key: str
    ends: float


class SessionDoor:
    """Sessions of roster members.

    A member that is revoked is out at its next request: every request looks at the roster.

    Args:
        members: the roster.
        signer: the coordinator's key.
        limits: bounds.
        clock: monotonic seconds.
    """

    identities = True

    def __init__(
        self,
        members: Membership,
        signer: Signer,
        limits: HttpLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members, self._signer, self._limits = members, signer, limits
        self._clock = clock
        self._challenges: dict[str, float] = {}
        self._sessions: dict[str, _Open] = {}
        self._barred: Callable[[str], None] = _nobody_cares
        self._listed: tuple[Roster | None, dict[str, RosterEntry]] = (None, {})

    def on_barred(self, listener: Callable[[str], None]) -> None:
        """Tell ``listener`` the name of every client that is turned away although it had a
        session."""
        self._barred = listener

    def barred(self, name: str) -> str:
        """Why a client cannot take part now; empty when it can."""
        try:
            entry = self._entry(name)
            if entry is None:
                return "not on the roster"
            self._members.member(entry.key)
        except AnabranchError as error:
            return f"{error.code} {error.message}"
        return ""

    def _entry(self, name: str) -> RosterEntry | None:
        roster = self._members.roster
        if self._listed[0] is not roster:
            self._listed = (roster, {entry.name: entry for entry in roster.active()})
        return self._listed[1].get(name)

    def challenge(self) -> Challenge:
        """A fresh number to sign; the oldest one is forgotten when there are too many."""
        now = self._clock()
        for old in list(self._challenges):
            if self._challenges[old] > now and len(self._challenges) < _CHALLENGES:
                break
            del self._challenges[old]
        number = secrets.token_hex(32)
        self._challenges[number] = now + _CHALLENGE_SECONDS
        return Challenge(challenge=number)

    def open(self, request: SessionRequest) -> Session:
        """Begin a session.

        Raises:
            AnabranchError: AB-756 not a member, the challenge is used or too old, or the signature
                is not the member's; AB-737, AB-738 the key does not count.
        """
        now = self._clock()
        fresh = self._challenges.pop(request.challenge, 0.0) > now
        claim = session_claim(request.client, request.challenge, request.nonce, self._signer.key)
        signature = bytes.fromhex(request.signature)
        entry = self._signer_of(request.client, claim, signature) if fresh else None
        if entry is None:
            raise _not_admitted()
        self._members.member(entry.key)  # who holds a revoked key is told so, and nobody else
        token = secrets.token_hex(32)
        self._forget_old(request.client, now)
        ends = now + self._limits.session_seconds
        self._sessions[token] = _Open(request.client, entry.key, ends)
        session = Session(
            token=token, milliseconds=int(1000 * self._limits.session_seconds), signature=""
        )
        return self._signer.signed(session, request.client, request.nonce)

    def _signer_of(self, name: str, claim: bytes, signature: bytes) -> RosterEntry | None:
        """The member's entry whose key made the signature: the active one, or a revoked one."""
        active = self._entry(name)
        entries = [] if active is None else [active]
        entries += [e for e in self._members.roster.entries if e.name == name and not e.active]
        return next((e for e in entries if verify(e.public_key, SESSION, claim, signature)), None)

    def client(self, name: str, authorization: str) -> str:
        kind, _, token = authorization.partition(" ")
        session = self._sessions.get(token) if kind.lower() == "bearer" else None
        if session is None or session.ends <= self._clock():
            self._sessions.pop(token, None)
            raise AnabranchError(
                "AB-755",
                "this request belongs to no session.",
                fix="open a session: sign a challenge (docs/protocol.md). Clients of Anabranch do "
                "so by themselves.",
            )
        try:
            self._members.member(session.key)  # as of now: a revocation ends the session
        except AnabranchError:
            self._sessions.pop(token, None)
            self._barred(session.client)
            raise
        return session.client

    def _forget_old(self, client: str, now: float) -> None:
        self._sessions = {t: s for t, s in self._sessions.items() if s.ends > now}
        own = [token for token, session in self._sessions.items() if session.client == client]
        for token in own[: max(0, len(own) - _SESSIONS_EACH + 1)]:
            del self._sessions[token]


def _not_admitted() -> AnabranchError:
    return AnabranchError(
        "AB-756",
        "this client is not admitted: it is not on the roster, its key was revoked, or its "
        "signature is not the member's.",
        fix="ask the coordinator's operator about the membership; enrol with a new token after a "
        "key was lost or revoked.",
        kept="The client's memory is intact.",
    )
