"""Enrolment: a one-time token turns a stranger's fresh key into a candidate for the roster.

The token carries the coordinator's address and the fingerprints that the client pins: of the
coordinator's key and, where there is one, of the federation's. Its secret never travels: the client
shows an HMAC under it, bound to its name and key, and a signature with its new key. Expiry is
counted at the coordinator, as a duration since it made the token: a client's clock plays no part.

A redeemed token leaves a *candidate*: name, key and roles, waiting for the federation's signature.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from anabranch.canonical import canonical_bytes
from anabranch.disk import TEMPORARY, explained, sync_directory, write_durably
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import PUBLIC_KEY, SIGNATURE, Identity, fingerprint, verify
from anabranch.fleet.roster import MemberName, Role
from anabranch.values import Value

__all__ = [
    "Application",
    "Candidate",
    "Enrolments",
    "Token",
    "apply",
    "check_pin",
    "make_token",
    "parse_token",
    "token_text",
]

_PREFIX: Final = "anabranch1."
_CHECK_BYTES: Final = 4
_CONTEXT: Final = "enrolment"
_FINGERPRINT: Final = r"^[0-9a-f]{4}(-[0-9a-f]{4}){7}$"
_ID: Final = r"^[0-9a-f]{16}$"


class Token(Value):
    """What a new client is given, over a channel that its operator trusts."""

    url: str = Field(default="", max_length=2000)
    """Address of the coordinator; empty when the client is told otherwise."""
    coordinator: str = Field(pattern=_FINGERPRINT)
    """Fingerprint of the coordinator's key; the client pins it."""
    secret: str = Field(pattern=r"^[0-9a-f]{32}$", repr=False)
    """128 random bits."""
    name: str = Field(default="", max_length=128)
    """The name that the client must take; empty when it may choose."""
    federation: str = Field(default="", pattern=rf"{_FINGERPRINT}|^$")
    """Fingerprint of the federation key, pinned; when it is empty, the first that signs is."""

    @property
    def id(self) -> str:
        """Names the token without giving it away."""
        return hashlib.sha256(b"anabranch/token/id/" + self._bytes).hexdigest()[:16]

    @property
    def proof_key(self) -> bytes:
        """The HMAC key that both ends derive from the secret."""
        return hashlib.sha256(b"anabranch/token/key/" + self._bytes).digest()

    @property
    def _bytes(self) -> bytes:
        return bytes.fromhex(self.secret)


def make_token(url: str, coordinator: str, *, name: str = "", federation: str = "") -> Token:
    """A fresh token; `Enrolments.invite` makes it count.

    Args:
        url: address of the coordinator.
        coordinator: fingerprint of its key.
        name: the name that the client must take; empty when it may choose.
        federation: fingerprint of the federation key, if there is one apart.
    """
    secret = secrets.token_hex(16)
    return Token(url=url, coordinator=coordinator, secret=secret, name=name, federation=federation)


def token_text(token: Token) -> str:
    """The token as one word to copy; a few bytes of checksum notice a part that was lost."""
    content = canonical_bytes(token.model_dump(mode="json"))
    check = hashlib.sha256(content).digest()[:_CHECK_BYTES]
    return _PREFIX + base64.urlsafe_b64encode(check + content).decode().rstrip("=")


def parse_token(text: str) -> Token:
    """Read a token that was copied.

    Raises:
        AnabranchError: AB-732 it is not whole, or not a token.
    """
    word = "".join(text.split())  # mail programs break long words
    try:
        if not word.startswith(_PREFIX):
            raise ValueError("no prefix")
        body = word[len(_PREFIX) :]
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        check, content = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if hashlib.sha256(content).digest()[:_CHECK_BYTES] != check:
            raise ValueError("checksum")
        return Token.model_validate_json(content)
    except (ValueError, binascii.Error, ValidationError) as error:
        raise AnabranchError(
            "AB-732",
            "this is not a whole enrolment token.",
            fix=f"copy it again, from {_PREFIX!r} to its end; or ask for a new one.",
            kept="Nothing was sent.",
        ) from error


def check_pin(public_key: bytes, pinned: str) -> None:
    """Whether a coordinator is the one whose fingerprint came with the token.

    Raises:
        AnabranchError: AB-734 it shows another key.
    """
    if fingerprint(public_key) != pinned:
        raise AnabranchError(
            "AB-734",
            f"the coordinator shows the key {fingerprint(public_key)}, but {pinned} is pinned.",
            fix="do not go on: ask the operator, over another channel, whether the key was changed "
            "on purpose; if so, enrol again with a new token.",
            kept="Nothing was sent.",
        )


class Application(Value):
    """What a client sends to enrol."""

    token: str = Field(pattern=_ID)
    """Id of the token."""
    name: MemberName
    key: str = Field(pattern=PUBLIC_KEY)
    """The client's fresh public key."""
    proof: str = Field(pattern=r"^[0-9a-f]{64}$")
    """HMAC-SHA256 of the canonical JSON of token, name and key, under the token's proof key."""
    signature: str = Field(pattern=SIGNATURE)
    """Over the same bytes, context ``enrolment``: the client holds the secret key."""
    statement: str = Field(default="", max_length=32_768, pattern=r"^([0-9a-f]{2})*$")
    """What a device's platform says of it, hexadecimal; for an `Attestation`."""

    def claim(self) -> bytes:
        """The bytes that proof and signature are about."""
        return _claim(self.token, self.name, self.key)


def apply(token: Token, identity: Identity, name: str = "") -> Application:
    """A client's application under ``name``, or the token's name when it gives one."""
    named, key = token.name or name, identity.public_key.hex()
    claim = _claim(token.id, named, key)
    return Application(
        token=token.id,
        name=named,
        key=key,
        proof=hmac.new(token.proof_key, claim, hashlib.sha256).hexdigest(),
        signature=identity.sign(_CONTEXT, claim).hex(),
    )


def _claim(token: str, name: str, key: str) -> bytes:
    return canonical_bytes({"token": token, "name": name, "key": key})


class Candidate(Value):
    """Who redeemed a token, waiting for the roster."""

    name: MemberName
    key: str = Field(pattern=PUBLIC_KEY)
    roles: tuple[Role, ...]


class _Open(Value):
    """A token at the coordinator: what checks it, never the secret itself."""

    proof_key: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    name: str
    roles: tuple[Role, ...]
    made: float
    """Seconds since 1970 by the coordinator's own clock."""
    seconds: int = Field(ge=1, lt=2**53)


class Enrolments:
    """The coordinator's tokens: one small file each, so that two processes may share the folder.

    ``open-ID`` is a token that may be redeemed; ``taken-ID`` says who did. A token is redeemed by
    creating ``taken-ID``, which only one can do; the same client may repeat its request.

    Args:
        directory: made when absent.
        clock: seconds since 1970; only ever compared with itself.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory, self._clock = Path(directory), clock
        with explained(self._directory, "opening the enrolments"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def invite(self, token: Token, seconds: int, roles: tuple[Role, ...] = (Role.CLIENT,)) -> str:
        """Make a token count for ``seconds``; returns the text to hand over.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        entry = _Open(
            proof_key=token.proof_key.hex(),
            name=token.name,
            roles=roles,
            made=self._clock(),
            seconds=seconds,
        )
        with explained(self._directory, "writing an enrolment"):
            path = self._path("open", token.id)
            write_durably(path, entry.model_dump_json().encode(), "enrolment", mode=0o600)
        return token_text(token)

    def redeem(self, application: Application) -> Candidate:
        """Take an application; repeating the same one gives the same answer.

        Raises:
            AnabranchError: AB-733 the token is unknown, expired, used by another key or for another
                name, or the application is not proved; AB-6xx from the disk.
        """
        entry = self._entry(application.token)
        if entry is None or not _proved(entry, application):
            raise _no_token("it is not known here, or the application is not proved")
        taken = self._taken(application.token)
        if taken is None:
            if abs(self._clock() - entry.made) > entry.seconds:  # also a clock that was set back
                raise _no_token("it has expired")
            if entry.name not in ("", application.name):
                raise _no_token("it was made for another name")
            new = Candidate(name=application.name, key=application.key, roles=entry.roles)
            taken = self._take(application.token, new)
        if (taken.name, taken.key) != (application.name, application.key):
            raise _no_token("it was used before")
        return taken

    def candidates(self) -> Iterator[Candidate]:
        """Everybody who redeemed a token, in the order of token ids; also members by now."""
        for path in sorted(self._directory.glob("taken-*")):
            found = self._taken(path.name.removeprefix("taken-"))
            if found is not None:
                yield found

    def withdraw(self, token_id: str) -> bool:
        """End a token that was not redeemed; whether there was one."""
        path = self._path("open", token_id)
        known = path.exists()
        path.unlink(missing_ok=True)
        return known

    def collect(self) -> None:
        """Delete tokens that expired without being redeemed."""
        for path in self._directory.glob("open-*"):
            token_id = path.name.removeprefix("open-")
            entry = self._entry(token_id)
            expired = entry is None or self._clock() - entry.made > entry.seconds
            if expired and not self._path("taken", token_id).exists():
                path.unlink(missing_ok=True)

    def _take(self, token_id: str, new: Candidate) -> Candidate:
        """Create ``taken-ID`` unless it exists; what it then says."""
        final = self._path("taken", token_id)
        temporary = self._directory / f"{TEMPORARY}{secrets.token_hex(6)}"
        with explained(final, "writing an enrolment"):
            write_durably(temporary, new.model_dump_json().encode(), "enrolment", mode=0o600)
            try:
                with contextlib.suppress(FileExistsError):  # another request was first
                    os.link(temporary, final)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(self._directory, "enrolment")
        return self._taken(token_id) or new

    def _entry(self, token_id: str) -> _Open | None:
        content = self._read("open", token_id)
        try:
            return _Open.model_validate_json(content) if content is not None else None
        except ValidationError:  # a damaged file is no token
            return None

    def _taken(self, token_id: str) -> Candidate | None:
        content = self._read("taken", token_id)
        return Candidate.model_validate_json(content) if content is not None else None

    def _read(self, kind: str, token_id: str) -> bytes | None:
        try:
            return self._path(kind, token_id).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, kind: str, token_id: str) -> Path:
        return self._directory / f"{kind}-{token_id}"


def _proved(entry: _Open, application: Application) -> bool:
    claim = application.claim()
    key = bytes.fromhex(entry.proof_key)
    wanted = hmac.new(key, claim, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted, application.proof) and verify(
        bytes.fromhex(application.key), _CONTEXT, claim, bytes.fromhex(application.signature)
    )


def _no_token(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-733",
        f"the enrolment token does not count: {why}.",
        fix="ask the coordinator's operator for a new token (`anabranch enrol invite`).",
        kept="Nobody was enrolled.",
    )
