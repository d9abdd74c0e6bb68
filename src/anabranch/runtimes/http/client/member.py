"""A member of a fleet: enrolling with a token, and attending to every run of the fleet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from anabranch.errors import AnabranchError
from anabranch.fleet.roster import SignedRoster
from anabranch.learners.threads import one_thread
from anabranch.runtimes.http.client.joining import Attendance
from anabranch.runtimes.http.client.line import Line, parsed
from anabranch.runtimes.http.client.options import Credentials, JoinOptions, Route
from anabranch.runtimes.http.client.places import MemberPlaces
from anabranch.runtimes.http.messages import Enrolled, Hello
from anabranch.runtimes.http.statements import Checker

if TYPE_CHECKING:
    from anabranch.client.home import ClientHome, Pins

__all__ = ["attend", "enrol"]

_NOT_LISTED: Final = ("AB-737", "AB-756")
_AGAIN: Final = 5.0
"""Seconds after which a client asks again whether a roster lists it."""


def enrol(
    token: str,
    home: ClientHome,
    name: str = "",
    options: JoinOptions | None = None,
    route: Route | None = None,
) -> tuple[Pins, bool]:
    """Redeem a token: the client's key becomes a candidate, the coordinator's key is pinned.

    Args:
        token: as the operator gave it.
        home: of the client; its identity is the one that is enrolled.
        name: of the client, where the token does not say.
        options: how patient.
        route: proxies and authorities.

    Returns:
        What was pinned, and whether the roster lists the client already.

    Raises:
        AnabranchError: AB-732 the token is not whole, AB-733 it does not count, AB-734 the server
            shows another key, AB-757 it does not hold the key that it shows.
    """
    from anabranch.fleet.enrolment import apply, check_pin, parse_token

    given = parse_token(token)
    options = options or JoinOptions()
    line = Line(given.url, given.name or name, options, None, route)
    try:
        hello = parsed(Hello, line.send("GET", "/hello", based=False))
        key = bytes.fromhex(hello.key)
        check_pin(key, given.coordinator)
        application = apply(given, home.identity, name)
        content = application.model_dump_json().encode()
        told = parsed(Enrolled, line.send("POST", "/enrolment", content=content))
        Checker(told.name, key).require(told, told.signature, application.token)
        return home.pin(given, told.name, key, given.url), told.admitted
    finally:
        line.close()


def attend(
    url: str,
    places: MemberPlaces,
    options: JoinOptions | None = None,
    route: Route | None = None,
) -> int:
    """Work for every run of a fleet until told to stop; the number of answers that were taken.

    A client that has just enrolled waits, as long as it is patient, until a roster lists it.

    Args:
        url: of the coordinator; the pinned one when empty.
        places: the site's data, policy and home.
        options: how patient, and when to end.
        route: proxies and authorities.

    Raises:
        AnabranchError: as `anabranch.runtimes.http.join`; AB-737 not enrolled, AB-753 the
            clock here is wrong, AB-763 the data have changed.
    """
    options, home = options or JoinOptions(), places.home
    credentials = None
    if home is not None and home.enrolled:
        pins = home.pins
        url, credentials = url or pins.url, Credentials(home.identity, pins.coordinator_key)
    line = Line(url, places.name, options, credentials, route)
    try:
        with one_thread():
            hello = line.hello()
            if home is not None:
                line.require_clock(home.clock())
            attendance = Attendance(line, places)
            if hello.identities and home is not None:
                _learn_roster(attendance, home)
            return attendance.work()
    finally:
        line.close()


def _learn_roster(attendance: Attendance, home: ClientHome) -> None:
    """Who the members are; a client that no roster has listed yet waits until one does."""
    line = attendance.line
    until = time.monotonic() + line.options.patience
    while True:
        try:
            home.accept_roster(parsed(SignedRoster, line.send("GET", "/roster")))
            return
        except AnabranchError as error:
            if error.code in ("AB-735", "AB-736"):
                raise
            new = home.roster is None and error.code in _NOT_LISTED
            if not new or time.monotonic() >= until or not line.options.running():
                raise AnabranchError(
                    error.code, error.message, fix=error.fix, kept="Nothing was computed or sent."
                ) from error
        attendance.rest(_AGAIN)
