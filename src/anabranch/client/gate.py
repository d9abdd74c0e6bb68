"""The gate: what may be done now and what may leave, and a durable line about each of them."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from anabranch.client.log import ClientLog, Detail, read_log
from anabranch.client.policy import ClientPolicy, Decision, TaskFacts
from anabranch.client.proof import FATE, SENT, contributions
from anabranch.client.task import Fate

__all__ = ["Gate"]

_DAY: Final = 86_400


class Gate:
    """Asked before a task is done and before an update leaves.

    Args:
        log: is told everything; what it says of the last day counts.
        policy: the site's rules.
        who: fingerprint of the coordinator, for the log.
        clock: seconds since 1970 by the site's clock.
        withdrawn: whether the site has withdrawn; asked every time.
    """

    def __init__(
        self,
        log: ClientLog,
        policy: ClientPolicy,
        who: Callable[[], str],
        clock: Callable[[], float] = time.time,
        withdrawn: Callable[[], bool] = lambda: False,
    ) -> None:
        self._log, self._policy = log, policy
        self._who, self._clock, self._withdrawn = who, clock, withdrawn
        self._sent: deque[tuple[float, int]] = deque()
        self._left: set[tuple[str, str]] = set()
        for part in contributions(read_log(log.path)):
            self._sent.append((part.at, part.bytes))
            self._left.add((part.task, part.upload))

    def asked(self, run: str, task: str, kind: str, round_: int) -> Decision:
        """Whether a task may be done now.

        Args:
            run: id of the run.
            task: 32 hexadecimal digits.
            kind: what is asked: ``train``, ``evaluate`` …
            round_: the round.
        """
        self._log.add("asked", self._who(), _details(run, task, round_) | {"kind": kind})
        return self._decide(run, task, round_, 0)

    def leaving(self, run: str, task: str, round_: int, content: bytes) -> Decision:
        """Whether an update may leave; if so, the log says durably that it does.

        To be called before the first byte is sent. The same bytes for the same task may be asked
        about again, after a broken connection or a crash: they count once.

        Raises:
            AnabranchError: AB-6xx the log cannot be written, so nothing may leave.
        """
        digest = hashlib.sha256(content).hexdigest()
        if (task, digest) in self._left:
            return Decision(True)
        decision = self._decide(run, task, round_, len(content))
        if decision.accepted:
            details = _details(run, task, round_) | {"upload": digest, "bytes": len(content)}
            entry = self._log.add(SENT, self._who(), details, durable=True)
            self._sent.append((entry.at, len(content)))
            self._left.add((task, digest))
        return decision

    def told(self, task: str, fate: Fate) -> None:
        """The coordinator told what became of a task."""
        self._log.add(FATE, self._who(), {"task": task, "fate": fate.value})

    def _decide(self, run: str, task: str, round_: int, size: int) -> Decision:
        now = datetime.fromtimestamp(self._clock()).time()
        facts = TaskFacts(run, round_, now, size, self._sent_day())
        decision = self._policy.judge_task(facts)
        if self._withdrawn():
            decision = Decision(False, "this site has withdrawn", "AB-743")
        if not decision.accepted:
            details = _details(run, task, round_) | {"reason": decision.reason}
            self._log.add("declined", self._who(), details, durable=True)
        return decision

    def _sent_day(self) -> int:
        """Bytes that left in the last 24 hours."""
        since = self._clock() - _DAY
        while self._sent and self._sent[0][0] <= since:
            self._sent.popleft()
        return sum(size for _, size in self._sent)


def _details(run: str, task: str, round_: int) -> dict[str, Detail]:
    return {"run": run, "task": task, "round": round_}
