"""The route of proofs: heads of a run's rounds, and receipts of the client's own updates."""

from __future__ import annotations

import re
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.runtimes.http.messages import PROTOCOL, Proofs, ProvedUpload
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import answer, malformed

__all__ = ["proof_routes"]

_TASK: Final = re.compile(r"[0-9a-f]{32}")
_TASKS: Final = 64
_HEADS: Final = 500
_WHOLE: Final = 4096  # uploads of a round whose hashes are all sent along


class _Proving:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def proofs(self, request: Request) -> Response:
        """Heads after a round, and receipts of tasks that are named."""
        name = self._counter.client(request)
        after = request.query_params.get("after", "-1")
        if not re.fullmatch(r"-1|[0-9]{1,15}", after):
            raise malformed("'after' is not the number of a round")
        named = request.query_params.getlist("task")[:_TASKS]
        return await run_in_threadpool(
            self._shown, name, request.path_params["run"], int(after), named
        )

    def _shown(self, name: str, run: str, after: int, named: list[str]) -> Response:
        """Of a run that is carried from memory, of another one from the store."""
        heads = self._counter.proofs.get(run) or self._counter.past(run)
        if heads is None:
            return answer(Proofs())
        found = [heads.receipt(name, task) for task in named if _TASK.fullmatch(task)]
        uploads = tuple(
            ProvedUpload(receipt=receipt, hashes=tree.hashes if len(tree.leaves) <= _WHOLE else ())
            for receipt, tree in (one for one in found if one is not None)
        )
        return answer(Proofs(heads=heads.heads(after, _HEADS), uploads=uploads))


def proof_routes(counter: Counter) -> list[Route]:
    """What a client needs to verify at home."""
    path = f"/v{PROTOCOL}/runs/{{run}}/proofs"
    return [Route(path, _Proving(counter).proofs, methods=["GET"])]
