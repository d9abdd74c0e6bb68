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
        idle_seconds: longest time between two pieces of a body, and from connecting to the end of
            a request's header; a connection that stays silent longer is closed.
        task_seconds: longest time from asking to the answer; then the client counts as lost, also
            where the policy has no deadline.
        come_seconds: who did not come for a task that was open for so long is not waited for
            again until it comes back; a line that was cut is up again sooner.
        absent_seconds: a client that was there and has been silent for so long is not waited for
            where it has not even fetched its task.
        farewell_seconds: longest time that closing waits for clients to hear of it.
        overhead_bytes: what an upload may have beyond the bytes of the declared sections (the
            container's header).
        letter_bytes: largest answer of an interactive stage.
        message_bytes: largest JSON body.
        small_bytes: uploads up to this are kept in the spool's database, larger ones in files.
        upload_seconds: longest time that an unfinished upload in parts is kept without progress.
        uploads: unfinished uploads of one client.
        remembered: closed pieces of work whose uploads are still recognised as repeated, and fates
            that are told at once to a client that does not confirm them.
        session_seconds: how long a session lasts.
        connections: open connections.
    """

    poll_seconds: float = 20.0
    request_seconds: float = 3600.0
    idle_seconds: float = 30.0
    task_seconds: float = 3600.0
    absent_seconds: float = 120.0
    come_seconds: float = 1.0
    farewell_seconds: float = 1.0
    overhead_bytes: int = 64 * 1024
    letter_bytes: int = 64 * 1024 * 1024
    message_bytes: int = 16 * 1024
    small_bytes: int = 256 * 1024
    upload_seconds: float = 86_400.0
    uploads: int = 4
    remembered: int = 16
    session_seconds: float = 900.0
    connections: int = 4096
