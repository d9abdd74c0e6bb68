"""The line to the coordinator: repeats what may be repeated, opens sessions, checks signatures."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx
from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.options import (
    Credentials,
    JoinOptions,
    Route,
    not_the_protocol,
    opened,
)
from anabranch.runtimes.http.messages import (
    PROTOCOL,
    Acceptance,
    Challenge,
    Contact,
    Failure,
    Hello,
    Problem,
    Session,
    SessionRequest,
    Summons,
    TaskOffer,
)
from anabranch.runtimes.http.statements import SESSION, Checker, session_claim
from anabranch.runtimes.http.versions import FIRST, HEADER, Span, Version, agreed, read_version
from anabranch.values import Value

__all__ = ["GONE", "Line", "Waiting", "checked", "parsed", "passing", "trouble_of"]

Message = TypeVar("Message", bound=Value)

GONE: Final = "AB-713"
_NO_SESSION: Final = "AB-755"
_BUSY: Final = 429
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_CLOCK_SECONDS: Final = 86_400.0

Query = Mapping[str, str | list[str]]


@dataclass
class Waiting:
    """Seconds between attempts, doubling, until the patience is over."""

    until: float
    options: JoinOptions
    pause: float = _FIRST_PAUSE

    @staticmethod
    def of(options: JoinOptions, patience: float | None = None) -> Waiting:
        """From now on; for another ``patience`` than that of the options if it is given."""
        seconds = options.patience if patience is None else patience
        return Waiting(time.monotonic() + seconds, options)

    def again(self, trouble: str) -> None:
        """Wait before the next attempt.

        Raises:
            AnabranchError: AB-718 the patience is over, or the client shall end.
        """
        over = time.monotonic() + self.pause > self.until
        if over or not self.options.running():
            raise _unreachable(trouble)
        time.sleep(self.pause * (0.5 + secrets.randbelow(1000) / 1000))  # not all at once
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)

    def progress(self) -> None:
        """Something arrived: the patience begins anew."""
        self.until = time.monotonic() + self.options.patience
        self.pause = _FIRST_PAUSE


class Line:
    """One client's connection to one coordinator.

    Args:
        url: of the coordinator.
        name: the client's.
        options: how patient.
        credentials: the client's key and the coordinator's; None on loopback without identities.
        route: proxies and authorities.

    Raises:
        AnabranchError: AB-719 the address, AB-710 plain HTTP beyond this machine, AB-750 TLS.
    """

    def __init__(
        self,
        url: str,
        name: str,
        options: JoinOptions,
        credentials: Credentials | None = None,
        route: Route | None = None,
    ) -> None:
        self.name, self.options = name, options
        self.http = opened(url, options, route or Route())
        if options.speaks.newest > FIRST:  # which had no such header
            self.http.headers[HEADER] = str(options.speaks)
        self.http.event_hooks["response"].append(self._spoken)
        self.checker = Checker(name, credentials.coordinator if credentials else None)
        self._credentials = credentials
        self._token = ""
        self._date: float | None = None
        self._base = f"/v{PROTOCOL}"

    def close(self) -> None:
        """Hang up."""
        self.http.close()

    @property
    def version(self) -> Version:
        """Of the protocol in which the coordinator answers: the newest that both ends speak."""
        return self.checker.version

    def require_clock(self, now: float) -> None:
        """Refuse to work under a clock that is a day or more from the coordinator's.

        A site's policy goes by hours and days, and so does its log.

        Args:
            now: seconds since 1970 by this machine's clock.

        Raises:
            AnabranchError: AB-753.
        """
        if self._date is None or abs(now - self._date) < _CLOCK_SECONDS:
            return
        here, there = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(t)) for t in (now, self._date))
        raise AnabranchError(
            "AB-753",
            f"the clock of this machine says {here} UTC, the coordinator's {there} UTC.",
            fix="set the clock of whichever is wrong, then join again.",
            kept="Nothing was computed or sent.",
        )

    def _spoken(self, response: httpx.Response) -> None:
        """An answer names its version; one that names none is of the first."""
        self._date = _date_of(response.headers.get("date", ""))
        told = read_version(response.headers.get(HEADER, ""))
        self.checker.version = FIRST if told is None else min(told, self.options.speaks.newest)

    def hello(self) -> Hello:
        """Who answers, checked: the versions overlap and the key is the pinned one.

        Raises:
            AnabranchError: AB-718, AB-719, AB-751 no common version, AB-757 another key.
        """
        try:
            hello = parsed(Hello, self.send("GET", "/hello", based=False))
        except AnabranchError as error:
            if error.code == "AB-717":  # a server of this protocol, but not at this path
                raise not_the_protocol(error.message.rstrip(".")) from error
            raise
        agreed(self.options.speaks, _served(hello), software=hello.software)
        if self.checker.key and hello.key != self.checker.key:
            raise AnabranchError(
                "AB-757",
                "the coordinator at this address has not the key that this client has pinned.",
                fix="ask the coordinator's operator whether its key has changed; enrol again only "
                "after comparing the fingerprint over another channel.",
                kept="Nothing was sent.",
            )
        if hello.identities and self._credentials is None:
            raise AnabranchError(
                "AB-756",
                "this coordinator admits enrolled clients only.",
                fix="enrol first: anabranch join --token TOKEN.",
                kept="Nothing was sent.",
            )
        return hello

    def contact(self, heard: list[str], unresolved: list[str] | None = None) -> Contact:
        """Ask for a task; everything signed was signed by the coordinator for this client."""
        query: dict[str, str | list[str]] = {"wait": str(self.options.wait), "heard": heard}
        if unresolved:
            query["unresolved"] = unresolved
        contact = parsed(Contact, self.send("GET", "/tasks", params=query))
        for message in (contact.task, *contact.fates, *contact.contracts):
            if message is not None:
                self.checker.require(message, message.signature)
        return contact

    def report(self, offer: TaskOffer, failure: Failure) -> None:
        """Say why there is no update."""
        content = failure.model_dump_json().encode()
        self.send("POST", f"/tasks/{offer.task}/failure", content=content)

    def accept(self, summons: Summons, acceptance: Acceptance) -> None:
        """Say what this client thinks of an amended contract."""
        content = acceptance.model_dump_json().encode()
        self.send("POST", f"/runs/{summons.run}/acceptance", content=content)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Query | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        based: bool = True,
        patience: float | None = None,
    ) -> httpx.Response:
        """One idempotent request: a lost reply is answered by sending it again.

        Args:
            patience: seconds in which it is sent again; the options' when None, 0 sends it once.
        """
        waiting, renewed = Waiting.of(self.options, patience), False
        while True:
            try:
                request = self.request(
                    method, path, params=params, content=content, headers=headers, based=based
                )
                response = self.http.send(request)
            except httpx.TransportError as error:
                trouble = trouble_of(error)
            else:
                if self.renews(response, first=not renewed):
                    renewed = True
                    continue
                if not passing(response):
                    return checked(response)
                trouble = _told(response)
            waiting.again(trouble)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Query | None = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        based: bool = True,
    ) -> httpx.Request:
        """A request with this client's name or session."""
        if self._credentials is not None and based and not self._token:
            self._open_session()
        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        query = {**(params or {})}
        if self._credentials is None and based:
            query["client"] = self.name
        base = self._base if based else ""
        return self.http.build_request(
            method, base + path, params=query, content=content, headers=sent
        )

    def renews(self, response: httpx.Response, *, first: bool) -> bool:
        """Whether the session was over and the request should be sent again with a new one."""
        if response.status_code != 401 or self._credentials is None or not first:
            return False
        self._token = ""
        return True

    def _open_session(self) -> None:
        credentials = self._credentials
        assert credentials is not None
        challenge = parsed(Challenge, checked(self.http.post(f"{self._base}/challenge"))).challenge
        nonce, key = secrets.token_hex(32), credentials.coordinator.hex()
        claim = session_claim(self.name, challenge, nonce, key)
        signature = credentials.identity.sign(SESSION, claim).hex()
        request = SessionRequest(
            client=self.name, challenge=challenge, nonce=nonce, signature=signature
        )
        answer = self.http.post(f"{self._base}/session", content=request.model_dump_json())
        session = parsed(Session, checked(answer))
        self.checker.require(session, session.signature, nonce)
        self._token = session.token

    @contextmanager
    def stream(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """An answer that is read piece by piece."""
        response = self.http.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()


def _date_of(header: str) -> float | None:
    """Seconds since 1970 of a ``Date`` header; None when it says nothing."""
    try:
        return parsedate_to_datetime(header).timestamp()
    except (TypeError, ValueError):
        return None


def trouble_of(error: httpx.TransportError) -> str:
    """What went wrong on the way, in words; raises at once where repeating cannot help.

    Raises:
        AnabranchError: AB-740 the certificate is not the right one, AB-741 it has expired, or this
            machine's clock is wrong.
    """
    from anabranch.fleet.pki import certificate_problem

    problem = certificate_problem(error, error.request.url.host)
    if problem is not None:
        raise problem from error
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, httpx.ProxyError) else kind


def passing(response: httpx.Response) -> bool:
    """Whether the coordinator may do later what it could not do now."""
    return response.status_code == _BUSY or response.status_code >= 500


def _told(response: httpx.Response) -> str:
    """Why the coordinator cannot do it now."""
    try:
        code = f", {Problem.model_validate_json(response.content).code}"
    except ValidationError:  # of something that stands in between
        code = ""
    return f"it answers with status {response.status_code}{code}"


def checked(response: httpx.Response) -> httpx.Response:
    """The response, or the error that it tells.

    Raises:
        AnabranchError: as told, or AB-719 this is not the protocol.
    """
    if response.is_success:
        return response
    try:
        problem = Problem.model_validate_json(response.read())
    except ValidationError as error:
        raise not_the_protocol(f"it answered with status {response.status_code}") from error
    raise AnabranchError(problem.code, problem.message, fix=problem.fix)


def parsed(kind: type[Message], response: httpx.Response) -> Message:
    """The answer as a message.

    Raises:
        AnabranchError: AB-719 it is something else.
    """
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise not_the_protocol(f"its answer is not a {kind.__name__}") from error


def _served(hello: Hello) -> Span:
    """The versions that a coordinator serves; one that names none has no minor versions."""
    if len(hello.versions) == 2:
        span = Span.parse("-".join(hello.versions))
        if span is not None:
            return span
    oldest, newest = hello.protocols
    return Span(Version(oldest, 0), Version(newest, 0))


def _unreachable(trouble: str) -> AnabranchError:
    return AnabranchError(
        "AB-718",
        f"the coordinator cannot be reached ({trouble}).",
        fix="check the address and the network, then join again: unfinished tasks are offered "
        "again.",
        kept="The client's memory is intact.",
    )
