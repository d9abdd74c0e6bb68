"""Every bound of the server in one place: nothing waits or grows without one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HttpLimits"]


@dataclass(frozen=True)
class HttpLimits:
    """Bounds of the HTTP runtime.

    Attributes:
        poll_seconds: longest time that a request for a task is held open.
        request_seconds: longest time that the body of a request may take.
        task_seconds: longest time from asking to the answer; then the client counts as lost, also
            where the policy has no deadline.
        farewell_seconds: longest time that closing waits for clients to hear of it.
        overhead_bytes: what an upload may have beyond the bytes of the declared sections (the
            container's header).
        message_bytes: largest JSON body.
        remembered: closed pieces of work whose uploads are still recognised as repeated, and fates
            that are kept for a client that does not confirm them.
    """

    poll_seconds: float = 20.0
    request_seconds: float = 600.0
    task_seconds: float = 3600.0
    farewell_seconds: float = 1.0
    overhead_bytes: int = 64 * 1024
    message_bytes: int = 16 * 1024
    remembered: int = 16
