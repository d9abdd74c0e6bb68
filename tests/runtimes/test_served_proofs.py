"""Real daemon, real clients: every update is proved at home, also after a kill."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_ends import settled
from served_fleets import AGREES, NAMES, PLAN, ServedFleet

from anabranch.api.audit import audit
from anabranch.client.home import ClientHome
from anabranch.client.log import read_log
from anabranch.client.proof import Proof, Verdict, same_history
from anabranch.client.vault import FileKey
from anabranch.coordinator.heads import HEAD_EVENT
from anabranch.coordinator.store import Store
from anabranch.errors import AnabranchError
from anabranch.fleet.receipts import SignedHead


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def proved(fleet: ServedFleet, name: str) -> tuple[tuple[Proof, ...], tuple[SignedHead, ...]]:
    """What a client can prove once its process has ended."""
    home = fleet.folder / "homes" / name
    with ClientHome(home, FileKey(home.with_suffix(".key")), AGREES) as opened:
        return opened.evidence.verify(), opened.evidence.every_head()


def waited_for_receipts(fleet: ServedFleet, count: int, seconds: float = 30.0) -> None:
    """Until every client has this many receipts, or the test fails."""
    files = [fleet.folder / "homes" / name / "evidence" / "receipts.jsonl" for name in NAMES]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(file.exists() and file.read_bytes().count(b"\n") >= count for file in files):
            return
        time.sleep(0.1)
    raise AssertionError("receipts are missing")


@pytest.mark.slow
def test_every_client_proves_every_update_also_when_the_coordinator_is_killed(
    fleet: ServedFleet,
) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(PLAN.format(sites=fleet.sites, rounds=5, algorithm="scaffold"))
    fleet.until(lambda s: any(x.round >= 2 for x in s.runs))
    fleet.kill_daemon()
    fleet.start_daemon()
    assert fleet.ended(run).state == "complete"
    waited_for_receipts(fleet, 5)
    for process in fleet.clients.values():
        process.kill()
        process.join()
    seen = {}
    for name in NAMES:
        proofs, heads = proved(fleet, name)
        counted = [proof for proof in proofs if proof.verdict is Verdict.COUNTED]
        assert [proof.contribution.round for proof in counted] == [1, 2, 3, 4, 5]
        assert all(proof.holds for proof in proofs)
        assert [signed.head.round for signed in heads] == [1, 2, 3, 4, 5]
        seen[name] = [signed.head for signed in heads]
    assert same_history(seen["north"], seen["west"]) == ()
    # The last head names the model that the run hands out.
    with Store.open(fleet.store) as store:
        events = [event for event in store.events(run) if event.kind == HEAD_EVENT]
        state = store.model(run)["server.model"]
    assert [event.round for event in events] == [1, 2, 3, 4, 5]
    assert seen["north"][-1].model == hashlib.sha256(state.tobytes()).hexdigest()


@pytest.mark.slow
def test_an_auditor_recomputes_every_model_from_the_updates(fleet: ServedFleet) -> None:
    kept = fleet.folder / "kept"
    fleet.start_daemon()
    for name in NAMES:
        fleet.start_client(name, die=3 if name == "west" else 0)  # lost in round 3
    fleet.until(lambda s: len(fleet.members()) == len(NAMES))
    plan = PLAN.format(sites=fleet.sites, rounds=4, algorithm="scaffold")
    plan = plan.replace("[rounds]", "[rounds]\ndeadline = 3.0")
    run = fleet.submit(plan + f'keep_updates = "{kept}"\n')
    fleet.until(lambda s: any(x.round >= 1 for x in s.runs))
    fleet.kill_daemon()
    fleet.start_daemon()
    assert fleet.ended(run).state == "complete"
    key = fleet.fleet.coordinator().public_key
    rounds = list(audit(fleet.store, run, kept, key))
    assert [one.round for one in rounds] == [1, 2, 3, 4]
    assert all(one.holds for one in rounds)
    assert [one.uploads for one in rounds] == [4, 4, 3, 3]
    with Store.open(fleet.store) as store:
        state = store.model(run)["server.model"]
    assert rounds[-1].model == hashlib.sha256(state.tobytes()).hexdigest()
    with pytest.raises(AnabranchError, match="AB-748"):
        list(audit(fleet.store, run, kept, bytes(32)))
    one = next(kept.iterdir())
    one.write_bytes(one.read_bytes()[:-4] + bytes(4))
    with pytest.raises(AnabranchError, match=r"AB-745.*another update"):
        list(audit(fleet.store, run, kept, key))
    one.unlink()
    with pytest.raises(AnabranchError, match=r"AB-745.*is not in"):
        list(audit(fleet.store, run, kept, key))


def test_a_run_is_proved_audited_and_logged(fleet: ServedFleet) -> None:
    kept = fleet.folder / "kept"
    fleet.start_daemon()
    fleet.start_clients()
    plan = PLAN.format(sites=fleet.sites, rounds=2, algorithm="fedavg")
    run = fleet.submit(plan + f'keep_updates = "{kept}"\n')
    assert fleet.ended(run).state == "complete"
    waited_for_receipts(fleet, 2)
    rounds = list(audit(fleet.store, run, kept, fleet.fleet.coordinator().public_key))
    assert [(one.uploads, one.holds) for one in rounds] == [(4, True), (4, True)]
    with Store.open(fleet.store) as store:  # the federation key lies with the coordinator
        assert "honest-but-curious" in store.run(run).trust_line
    for process in fleet.clients.values():
        process.kill()
        process.join()
    proofs, _ = proved(fleet, "north")
    counted = [proof for proof in proofs if proof.verdict is Verdict.COUNTED]
    assert [proof.contribution.round for proof in counted] == [1, 2]
    entries = list(read_log(fleet.folder / "homes" / "north" / "log.jsonl"))
    kinds = [entry.what for entry in entries]
    assert kinds[:2] == ["enrolled", "roster"]
    sent = [entry for entry in entries if entry.what == "sent"]
    assert {entry.details["run"] for entry in sent} == {run}
    assert kinds.index("approved") < kinds.index("sent")
    for entry in sent:  # nothing leaves that was not asked for before
        asked = [e for e in entries[: entry.number] if e.what == "asked"]
        assert entry.details["task"] in {e.details["task"] for e in asked}


def test_receipts_of_a_run_that_ended_before_the_daemon_was_restarted(fleet: ServedFleet) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(PLAN.format(sites=fleet.sites, rounds=2, algorithm="scaffold"))
    assert fleet.ended(run).state == "complete"
    settled(fleet, run)  # every client knows that its updates counted
    for process in fleet.clients.values():
        process.kill()
        process.join()
    for name in NAMES:  # whatever proofs they had already
        shutil.rmtree(fleet.home(name) / "evidence", ignore_errors=True)
    fleet.kill_daemon()
    fleet.start_daemon()
    assert fleet.run(run).state == "complete"  # it is still shown
    for name in NAMES:
        fleet.start_client(name)
    waited_for_receipts(fleet, 2)
    for process in fleet.clients.values():
        process.kill()
        process.join()
    for name in NAMES:
        proofs, heads = proved(fleet, name)
        counted = [proof for proof in proofs if proof.verdict is Verdict.COUNTED]
        assert [proof.contribution.round for proof in counted] == [1, 2]
        assert all(proof.holds for proof in proofs)
        assert [signed.head.round for signed in heads] == [1, 2]
