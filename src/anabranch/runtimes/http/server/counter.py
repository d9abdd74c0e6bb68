"""Everything that the routes share: one value instead of globals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from anabranch.coordinator.heads import RunHeads
from anabranch.disk import Faults, no_faults
from anabranch.fleet.devices.reported import ReportBook
from anabranch.fleet.folder import FleetFolder
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.server.bell import Bell
from anabranch.runtimes.http.server.office import Office
from anabranch.runtimes.http.server.sessions import Door
from anabranch.runtimes.http.server.shelf import Shelf
from anabranch.runtimes.http.server.spool import Spool
from anabranch.runtimes.http.server.uploads import Uploads
from anabranch.runtimes.http.statements import Signer
from anabranch.runtimes.http.versions import SPOKEN, Span

__all__ = ["Counter"]


@dataclass
class Counter:
    """What a request meets.

    Attributes:
        office: the desks of all runs.
        bell: wakes waiting requests.
        shelf: downloads.
        spool: accepted answers.
        uploads: answers on their way.
        door: says who asks.
        signer: the coordinator's key.
        limits: bounds.
        software: version of this package.
        serves: versions of the protocol.
        plan_schema: of the contracts.
        fleet: its name.
        folder: roster and tokens; None where every name is believed.
        proofs: heads and receipts by run, of the runs that are carried now.
        past: heads and receipts of another run; None where there are none. It may read the disk.
        ledgers: files of the ledgers that private runs spend from, by run.
        reports: what clients told of their devices.
        clock: monotonic seconds.
        faults: told of the steps between an answer and its acknowledgement (tests).
    """

    office: Office
    bell: Bell
    shelf: Shelf
    spool: Spool
    uploads: Uploads
    door: Door
    signer: Signer
    limits: HttpLimits
    software: str
    plan_schema: int
    serves: Span = SPOKEN
    fleet: str = ""
    folder: FleetFolder | None = None
    proofs: dict[str, RunHeads] = field(default_factory=dict)
    past: Callable[[str], RunHeads | None] = field(default=lambda run: None)
    ledgers: dict[str, Path] = field(default_factory=dict)
    reports: ReportBook = field(default_factory=ReportBook)
    clock: Callable[[], float] = field(default=time.monotonic)
    faults: Faults = no_faults

    def client(self, request: Request) -> str:
        """Who asks.

        Raises:
            AnabranchError: AB-712, AB-755, AB-756.
        """
        name = request.query_params.get("client", "")
        return self.door.client(name, request.headers.get("authorization", ""))

    def reader(self, request: Request) -> str:
        """Who downloads; on loopback without identities everybody may, under any name or none.

        Raises:
            AnabranchError: AB-755, AB-756.
        """
        if self.door.identities:
            return self.client(request)
        return request.query_params.get("client", "")
