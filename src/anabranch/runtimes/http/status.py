"""How a fleet and its runs stand, as a message: for `anabranch status` and for other programs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from anabranch.values import Value

__all__ = ["ClientSeen", "FleetStatus", "OpenPart", "RunStatus", "Unaccepted", "WaitingFor"]

Count = Annotated[int, Field(ge=0, lt=2**53)]


class WaitingFor(Value):
    """A client that a run waits for."""

    client: str
    fetched: bool
    """Whether it has the task; else it has not come for it."""
    silent_milliseconds: int
    """Since its last request; -1 when it was never there."""


class OpenPart(Value):
    """A piece of work that is open."""

    kind: str
    round: Count
    answered: Count
    milliseconds: Count
    """Until those who are left count as lost or too late."""
    waiting: tuple[WaitingFor, ...]


class Unaccepted(Value):
    """A client that is given no work of a run."""

    client: str
    reason: str
    """It has not accepted an amended contract, or speaks too old a version of the protocol."""


class RunStatus(Value):
    """One run."""

    run: str
    name: str
    state: str
    """``working`` (the coordinator computes), ``waiting`` (for clients), ``dead`` (with the
    reason), or how it ended: ``complete``, ``stopped``, ``failed``."""
    reason: str = ""
    round: Count = 0
    rounds: Count = 0
    milliseconds: Count = 0
    """Since the last round ended, or since the run began."""
    last_round_milliseconds: Count = 0
    open: tuple[OpenPart, ...] = ()
    contract: str = ""
    """Digest of the contract in force; empty of a run that is not carried now."""
    unaccepted: tuple[Unaccepted, ...] = ()
    troubles: tuple[str, ...] = ()
    """The last trouble of each client that had one."""

    @property
    def over(self) -> bool:
        """Whether no round follows unless somebody does something."""
        return self.state in ("complete", "stopped", "failed", "dead")


class ClientSeen(Value):
    """One client."""

    client: str
    silent_milliseconds: Count


class FleetStatus(Value):
    """A daemon."""

    url: str
    fleet: str = ""
    software: str
    draining: bool = False
    runs: tuple[RunStatus, ...] = ()
    clients: tuple[ClientSeen, ...] = ()
