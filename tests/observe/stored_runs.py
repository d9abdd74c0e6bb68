"""Runs written into a real store through its public interface, without training anything."""

from __future__ import annotations

import numpy as np

from anabranch.coordinator.notes import (
    card_note,
    evaluation_note,
    limits_note,
    model_note,
)
from anabranch.coordinator.store import (
    ReleaseEntry,
    RoundRecord,
    RunRecord,
    Store,
    StoredEvent,
)
from anabranch.data.federation import Card
from anabranch.observe.events import EvaluationDone, LimitCheck

TRUST = "the coordinator can read every update; no differential privacy"
CARD = Card(
    name="heart",
    title="Four hospitals",
    origin="UCI",
    licence="CC BY 4.0",
    citation="Janosi et al. 1989",
    partition="natural",
    sha256="ab" * 32,
    personal=True,
    notes=("one row is mislabelled",),
)


def store_run(store: Store, seed: int = 0, epochs: int = 2, auc: float = 0.7) -> str:
    """Three rounds of two clients; client b is too late in round 2 and fails round 3's quorum."""
    plan = {
        "name": "heart",
        "seed": seed,
        "local": {"epochs": epochs, "clip_norm": None},
        "rounds": {"count": 3},
        "stop": {"metric": "loss", "target": None, "patience": None},
        "updates": {"stages": [{"kind": "clip", "max_norm": 1.0}]},
    }
    record = RunRecord(
        "heart",
        plan=plan,
        contract_digest="c" * 64,
        seed=seed,
        versions={"numpy": "2.0"},
        trust_line=TRUST,
        created=1_700_000_000.0 + seed,
    )
    run_id = store.create_run(record)
    with store.session(run_id) as session:
        session.commit([RoundRecord(0, state=_state())])
        session.note(card_note(CARD))
        session.commit([_full(1, auc - 0.1), _late(2), _failed(3)])
        for what, value in (("final", auc), ("local_only", auc - 0.05), ("pooled", auc + 0.01)):
            session.note(evaluation_note(_evaluation(what, value)))
        session.note(limits_note([LimitCheck("max_seconds", "<= 1 s", 0.5, True)]))
        session.note(model_note("models/x.safetensors", "ef" * 32))
        session.finish("complete", "all rounds done")
    return run_id


def _state() -> dict[str, np.ndarray]:
    return {"server.model": np.zeros(2, np.float32)}


def _evaluation(what: str, auc: float) -> EvaluationDone:
    clients = {"a": {"auc": auc + 0.1}, "b": {"auc": auc - 0.1}}
    return EvaluationDone(what, {"auc": auc}, clients, {"a": 30, "b": 20})


def _full(number: int, auc: float) -> RoundRecord:
    return RoundRecord(
        number,
        metrics={"train_loss": 1.0, "delta_rms_norm": 0.5, "auc": auc},
        client_columns={
            "client": ["a", "b"],
            "fate": ["merged", "merged"],
            "seconds": [0.1, 0.2],
            "bytes_up": [8, 8],
            "metric.auc": [auc + 0.1, None],
        },
        phases={"train": 0.4, "aggregate": 0.1},
        bytes_up=16,
        bytes_down=24,
        started=100.0,
        ended=100.5,
        releases=(ReleaseEntry("model", details={"contributors": 2, "sections": ["delta"]}),),
        state=_state(),
    )


def _late(number: int) -> RoundRecord:
    return RoundRecord(
        number,
        outcome="partial",
        metrics={"train_loss": 0.9, "delta_rms_norm": 0.4},
        client_columns={"client": ["a", "b"], "fate": ["merged", "too late"]},
        started=101.0,
        ended=101.25,
        events=(StoredEvent("too late", "no answer before the deadline", "b", at=101.0),),
        releases=(
            ReleaseEntry(
                "model", details={"contributors": 1, "sections": ["delta"], "admitted": False}
            ),
        ),
        state=_state(),
    )


def _failed(number: int) -> RoundRecord:
    return RoundRecord(
        number,
        outcome="failed",
        client_columns={"client": ["a", "b"], "fate": ["merged", "refused"]},
        started=102.0,
        ended=102.25,
        events=(StoredEvent("refused", "AB-501 not finite", "b", at=102.0),),
        state=_state(),
    )
