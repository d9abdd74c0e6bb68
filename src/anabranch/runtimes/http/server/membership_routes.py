"""The routes of membership: enrolling with a token, and the signed roster."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.fleet.enrolment import Application, Candidate
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.roster import ROSTER_FILE, read_roster
from anabranch.runtimes.http.messages import PROTOCOL, Enrolled
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import answer, malformed, message_of
from anabranch.runtimes.http.server.speaking import version_of

__all__ = ["membership_routes"]


class _Membership:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def enrol(self, request: Request) -> Response:
        """Redeem a token; where the coordinator signs the roster itself, the client is in."""
        folder = self._folder()
        application = await message_of(request, Application, self._counter.limits)
        candidate, admitted = await run_in_threadpool(_redeemed, folder, application)
        signer = self._counter.signer
        told = Enrolled(name=candidate.name, admitted=admitted, key=signer.key)
        return answer(signer.signed(told, candidate.name, application.token))

    async def roster(self, request: Request) -> Response:
        """The signed roster, for members."""
        folder = self._folder()
        self._counter.client(request)
        signed = read_roster(folder.path / ROSTER_FILE)
        return answer(signed, version=version_of(request))

    def _folder(self) -> FleetFolder:
        if self._counter.folder is None:
            raise malformed("this coordinator has no roster: it serves the loopback interface")
        return self._counter.folder


def _redeemed(folder: FleetFolder, application: Application) -> tuple[Candidate, bool]:
    """Files are read and synced here, so other requests are not held up."""
    candidate = folder.redeem(application)
    if folder.signs_its_roster:
        return candidate, folder.admit_one(candidate, folder.federation())
    entry = folder.membership().roster.of_key(candidate.key)
    return candidate, entry is not None and entry.active


def membership_routes(counter: Counter) -> list[Route]:
    """How clients become members, and who the others are."""
    membership, base = _Membership(counter), f"/v{PROTOCOL}"
    return [
        Route(f"{base}/enrolment", membership.enrol, methods=["POST"]),
        Route(f"{base}/roster", membership.roster, methods=["GET"]),
    ]
