"""The route of ledgers: where the ledger of a private run's population stands, signed."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.privacy.ledger.heads import head_of
from anabranch.runtimes.http.messages import PROTOCOL, LedgerShown
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import answer, malformed
from anabranch.runtimes.http.server.speaking import version_of

__all__ = ["ledger_routes"]

_MOST: Final = 100_000


class _Ledgers:
    """Readers of their own, one a file: the run's thread writes through another connection."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._open: dict[str, PopulationLedger] = {}

    async def ledger(self, request: Request) -> Response:
        """The head, and what shows that it continues the entry that the client names."""
        name, run = self._counter.client(request), request.path_params["run"]
        path = self._counter.ledgers.get(run)
        after = request.query_params.get("after", "")
        if path is None:
            raise malformed("this run spends from no ledger")
        if not re.fullmatch(r"|[0-9]{1,9}", after):
            raise malformed("'after' is not the number of an entry")
        ledger = self._open.get(str(path))
        if ledger is None:
            ledger = self._open[str(path)] = PopulationLedger.existing(path.parent, path.stem)
        last = ledger.head
        head = asdict(head_of(ledger.balance(), last)) | {"signature": ""}
        head |= {
            key: repr(float(head[key])).replace("e+", "e") for key in ("epsilon", "budget", "delta")
        }
        contents = ledger.contents(int(after))[:_MOST] if after else ()
        given, version = self._counter.spool.given(name), version_of(request)
        shown = LedgerShown.model_validate({**head, "contents": contents, "given": given})
        signature = self._counter.signer.signed(shown, name, run, version).signature
        return answer(shown.replace(signature=signature), version=version)


def ledger_routes(counter: Counter) -> list[Route]:
    """What a client needs to keep its own count honest."""
    path = f"/v{PROTOCOL}/runs/{{run}}/ledger"
    return [Route(path, _Ledgers(counter).ledger, methods=["GET"])]
