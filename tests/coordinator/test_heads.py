"""Heads of a run: part of its records, shown after the commit, the same after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from anabranch.coordinator.heads import HEAD_EVENT, RunHeads, model_digest
from anabranch.coordinator.store import RoundRecord, StoredEvent
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import Identity
from anabranch.fleet.receipts import FIRST_HEAD, Head, SignedHead, check_heads, counted, sign_head

COORDINATOR = Identity.from_secret(bytes(31) + b"\x08")
TASKS = [f"{number:032x}" for number in range(60)]
UPLOAD = hashlib.sha256(b"update").hexdigest()


def signer(head: Head) -> SignedHead:
    return sign_head(head, COORDINATOR)


def record(number: int) -> RoundRecord:
    return RoundRecord(number, state={"server.model": np.full(3, number, np.float32)})


def rounds(heads: RunHeads, numbers: Sequence[int]) -> list[RoundRecord]:
    """Rounds in which two clients were merged, committed one by one."""
    made = []
    for number in numbers:
        heads.settled(TASKS[number], {"va": UPLOAD, "hu": UPLOAD})
        made.append(heads.witness(record(number)))
        heads.committed()
    return made


def stored(records: Sequence[RoundRecord]) -> list[StoredEvent]:
    """As the store gives them back."""
    return [
        StoredEvent(e.kind, e.text, details=dict(e.details), round=r.round)
        for r in records
        for e in r.events
        if e.kind == HEAD_EVENT
    ]


def test_a_round_is_in_its_own_record_and_shown_after_the_commit() -> None:
    heads = RunHeads("run", signer)
    heads.settled(TASKS[1], {"va": UPLOAD})
    made = heads.witness(record(1))
    assert [event.kind for event in made.events] == [HEAD_EVENT]
    assert heads.heads(-1) == ()
    assert heads.receipt("va", TASKS[1]) is None
    heads.committed()
    (head,) = heads.heads(-1)
    assert head.verified(COORDINATOR.public_key).count == 1
    assert head.head.previous == FIRST_HEAD
    assert head.head.model == hashlib.sha256(np.full(3, 1, "<f4").tobytes()).hexdigest()


def test_every_merged_update_has_a_receipt_and_no_other() -> None:
    heads = RunHeads("run", signer)
    rounds(heads, [1, 2])
    found = heads.receipt("va", TASKS[2])
    assert found is not None
    receipt, tree = found
    assert receipt.verified(COORDINATOR.public_key).round == 2
    assert counted(tree.hashes, receipt) == 1
    assert heads.receipt("va", TASKS[3]) is None
    assert heads.receipt("ch", TASKS[2]) is None


def test_heads_are_a_chain_in_pages() -> None:
    heads = RunHeads("run", signer)
    rounds(heads, range(1, 8))
    assert [signed.head.round for signed in heads.heads(-1, 3)] == [1, 2, 3]
    assert [signed.head.round for signed in heads.heads(3, 3)] == [4, 5, 6]
    assert heads.heads(7) == ()
    latest = check_heads(None, heads.heads(0), COORDINATOR.public_key)
    assert latest is not None
    assert latest.round == 7


def test_a_round_without_updates_has_a_head_too() -> None:
    heads = RunHeads("run", signer)
    heads.witness(record(1))
    heads.committed()
    assert heads.heads(-1)[0].head.count == 0


def test_a_restart_goes_on_with_the_same_history() -> None:
    whole, first = RunHeads("run", signer), RunHeads("run", signer)
    rounds(whole, range(1, 6))
    before = rounds(first, range(1, 4))
    first.settled(TASKS[4], {"va": UPLOAD, "hu": UPLOAD})
    first.witness(record(4))  # killed before the commit
    again = RunHeads("run", signer)
    events = stored(before)
    again.recall(lambda number: [e for e in events if number in (None, e.round)])
    assert again.heads(-1) == whole.heads(-1)[:3]
    rounds(again, [4, 5])
    assert again.heads(-1) == whole.heads(-1)


def test_receipts_of_rounds_long_ago_are_read_from_the_store() -> None:
    heads = RunHeads("run", signer)
    events: list[StoredEvent] = []
    heads.recall(lambda number: [e for e in events if number in (None, e.round)])
    events += stored(rounds(heads, range(1, 50)))
    found = heads.receipt("hu", TASKS[1])
    assert found is not None
    assert found[0].verified(COORDINATOR.public_key).round == 1
    events.clear()  # the store is gone: nothing is proved, nothing is made up
    assert heads.receipt("hu", TASKS[1]) is None


@pytest.mark.parametrize("damage", ["leaves", "signed", "absent"])
def test_a_damaged_record_is_not_believed(damage: str) -> None:
    heads = RunHeads("run", signer)
    (event,) = stored(rounds(heads, [1]))
    details = dict(event.details)
    if damage == "leaves":
        details["leaves"] = []
    elif damage == "signed":
        details["signed"] = "{}"
    else:
        details = {}
    bad = StoredEvent(HEAD_EVENT, "", details=details, round=1)
    with pytest.raises(AnabranchError, match="AB-748"):
        RunHeads("run", signer).recall(lambda number: [bad])


def test_the_models_digest_is_its_float32_bytes() -> None:
    model = np.arange(4, dtype=np.float32)
    assert model_digest({"server.model": model}) == hashlib.sha256(model.tobytes()).hexdigest()
    assert (
        model_digest({"server.model": model[::2]})
        == hashlib.sha256(np.array([0, 2], np.float32).tobytes()).hexdigest()
    )
