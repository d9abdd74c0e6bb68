"""An audit of a served run: its heads are one signed chain, its models follow from the updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from anabranch.api.assembly import initial_state
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.preparing import Preparation
from anabranch.api.servable import OWN_SOURCES
from anabranch.api.serve import run_folder
from anabranch.coordinator.archive import UpdateArchive
from anabranch.coordinator.asking import Asking, everybody
from anabranch.coordinator.heads import HEAD_EVENT, read_head
from anabranch.coordinator.replay import Recomputed, recompute
from anabranch.coordinator.store import Store
from anabranch.errors import AnabranchError
from anabranch.fleet.receipts import check_heads
from anabranch.plan import Plan
from anabranch.plan.mechanism import most_updates

__all__ = ["audit"]


def audit(store: Path, run_id: str, updates: Path, coordinator: bytes) -> Iterator[Recomputed]:
    """Recompute every round of a run from the updates that were kept.

    Args:
        store: folder of the run store.
        run_id: of the run.
        updates: the folder that ``runtime.keep_updates`` named.
        coordinator: public key that the heads must be signed with.

    Raises:
        AnabranchError: AB-745 the run cannot be recomputed, or an update is missing; AB-748 its
            heads are no signed chain.
    """
    with Store.open(store, create=False) as opened:
        record = opened.run(run_id)
        plan = Plan.model_validate(record.plan)
        _require_replayable(plan)
        events = [event for event in opened.events(run_id) if event.kind == HEAD_EVENT]
        stale = [
            summary.round
            for summary in opened.rounds(run_id)
            if any(summary.client_columns.get("staleness", ()))
        ]
    if not events or stale:
        why = f"round {stale[0]} merged late updates" if stale else "its rounds have no heads"
        raise _cannot(why)
    heads = [read_head(event) for event in events]
    check_heads(None, [signed for signed, _ in heads], coordinator)
    prepared = _prepared(plan, run_id, store)
    names, program = tuple(prepared.federation.names), prepared.program
    clients = len(names)
    asking = Asking(run_id, program, clients, most_updates(plan, clients), everybody(clients))
    yield from recompute(
        plan,
        program,
        names,
        initial_state(prepared, in_time=True).server,
        asking.fold,
        [(signed.head, tree.leaves) for signed, tree in heads],
        UpdateArchive(updates).read,
    )


def _prepared(plan: Plan, run_id: str, store: Path) -> Prepared:
    """Plan and program, from what the sites told before round 1."""
    if plan.data.source not in OWN_SOURCES:
        return prepare(plan)
    folder = run_folder(store, run_id)
    found = Preparation(plan, run_id, (), folder).kept()
    if found is None:
        raise _cannot(f"what its sites told is not in {folder}")
    return found


def _require_replayable(plan: Plan) -> None:
    why = ""
    if plan.secure_aggregation is not None:
        why = "its updates were masked, and their sum needs the secrets of the round"
    elif plan.privacy is not None:
        why = "its noise came from a secret that was erased"
    elif plan.updates.downlink is not None:
        why = "its broadcasts were coded"
    if why:
        raise _cannot(why)


def _cannot(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-745",
        f"the run cannot be recomputed: {why}.",
        fix="clients can still verify their receipts (`anabranch verify`).",
        kept="Nothing was changed.",
    )
