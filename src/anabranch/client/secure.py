"""A client's side of secure sums: the terms of its plan, and its session beside its program."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.client.secure_keeper import FileKeeper, Sealer
from anabranch.client.task import TaskKind
from anabranch.fleet.identity import Identity
from anabranch.fleet.roster import Role, Roster, RosterEntry
from anabranch.plan.schema import Plan
from anabranch.privacy.mechanisms.distributed import DistributedNoise
from anabranch.privacy.secure_aggregation.session import ClientSession
from anabranch.privacy.secure_aggregation.terms import Known, Shape, Terms

__all__ = ["broadcast_digest", "known_by", "secure_session", "terms_of"]


def broadcast_digest(broadcast: Broadcast) -> bytes:
    """SHA-256 of everything that goes down: names, types, lengths and bytes."""
    digest = sha256(b"anabranch broadcast")
    for name in sorted(broadcast):
        vector = np.ascontiguousarray(broadcast[name])
        digest.update(f"/{name}/{vector.dtype.str}/{vector.size}/".encode())
        digest.update(vector.data)
    return digest.digest()


def terms_of(plan: Plan, program: ClientProgram) -> Terms:
    """How the plan makes sums; equal at every client and at the coordinator.

    Raises:
        ValueError: the plan has no table ``[secure_aggregation]``.
    """
    table = plan.secure_aggregation
    if table is None:
        raise ValueError("the plan has no secure aggregation")
    mechanism = program.mechanism
    noisy = isinstance(mechanism, DistributedNoise)
    norms = [stage.contract().norm_bound for stage in plan.updates.stages]
    norm = min(norms, default=math.inf)
    # A stage that rounds can make an update a little longer: no norm is then certain.
    certain = mechanism is None and all(map(math.isfinite, norms))
    train = Shape(
        sections=program.sections,
        bound=min(table.bound if table.bound is not None else math.inf, norm),
        weight_bound=program.weight.bound,
        norm_bound=norm if certain else math.inf,
        wraps=noisy,
        exact=mechanism is not None and not noisy,
    )
    evaluate = Shape(sections=program.metrics.sections())
    return Terms(
        plan_digest=bytes.fromhex(plan.contract_digest),
        shapes={TaskKind.TRAIN.value: train, TaskKind.EVALUATE.value: evaluate},
        bits=mechanism.bits if isinstance(mechanism, DistributedNoise) else table.bits,
        corrupt_share=table.corrupt_share,
        dropout_share=table.dropout_share,
        minimum=max(table.minimum, mechanism.fewest)
        if isinstance(mechanism, DistributedNoise)
        else table.minimum,
        complete_below=table.complete_below,
        attempts=table.attempts,
        unopened=table.unopened,
        draw=table.drawn,
        hybrid=table.hybrid,
        staleness=plan.rounds.staleness if plan.rounds.asynchronous is not None else None,
    )


def _no_news() -> None:
    """The roster can not be asked for again."""


def known_by(
    roster: Callable[[], Roster | None],
    refresh: Callable[[], None] = _no_news,
    vouched: Collection[str] = (),
    least_vouched: int = 0,
) -> Known:
    """Whom a client knows: the members of its signed roster, or whoever it sees first.

    Args:
        roster: the newest that the client accepted; None where there is none.
        refresh: looks for a newer one.
        vouched: members whom the site vouches for itself.
        least_vouched: how many of them must be in a sum.
    """
    if roster() is None:
        return Known(vouched=frozenset(vouched), least_vouched=least_vouched)
    book = _Book(roster)
    return Known(
        lambda name: entry.public_key if (entry := book.entry(name)) is not None else None,
        lambda name: (entry := book.entry(name)) is not None and Role.CANARY in entry.roles,
        open=False,
        refresh=refresh,
        vouched=frozenset(vouched),
        least_vouched=least_vouched,
    )


class _Book:
    """Active entries by name, made anew when the roster has another version."""

    def __init__(self, roster: Callable[[], Roster | None]) -> None:
        self._roster = roster
        self._version = -1
        self._entries: dict[str, RosterEntry] = {}

    def entry(self, name: str) -> RosterEntry | None:
        """The active entry of a member."""
        found = self._roster()
        if found is not None and found.version != self._version:
            self._version = found.version
            self._entries = {entry.name: entry for entry in found.active()}
        return self._entries.get(name)


def secure_session(
    plan: Plan,
    program: ClientProgram,
    name: str,
    directory: Path,
    *,
    identity: Identity | None = None,
    known: Known | None = None,
    sealer: Sealer | None = None,
) -> ClientSession:
    """The session of a client that is no simulation.

    Args:
        plan: with the table ``[secure_aggregation]``.
        program: built from it.
        name: as the roster knows the client.
        directory: of this run at this client; what must outlive the process goes there.
        identity: the enrolled one; without a roster one is made and kept in the directory.
        known: whose keys the client has from its signed roster (`known_by`).
        sealer: encrypts what lies on the disk.
    """
    own = identity or _own_identity(directory / "identity.pem")
    keeper = FileKeeper(directory, own.secret, sealer)
    return ClientSession(name, own.secret, terms_of(plan, program), known or Known(), keeper)


def _own_identity(path: Path) -> Identity:
    if path.exists():
        return Identity.load(path)
    made = Identity.generate()
    made.save(path)
    return made
