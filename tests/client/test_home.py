"""A client's home: pins that hold, contracts that people agree to, a gate that writes first."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from anabranch.client.contract import amendments, plan_of_contract
from anabranch.client.home import ClientHome
from anabranch.client.log import read_log
from anabranch.client.policy import ClientPolicy, ContractRules, TrafficRules
from anabranch.client.proof import Verdict
from anabranch.client.task import Fate
from anabranch.client.vault import PassphraseKey
from anabranch.errors import AnabranchError
from anabranch.fleet.enrolment import make_token
from anabranch.fleet.identity import Identity
from anabranch.fleet.receipts import FIRST_HEAD, Leaf, Receipt, RoundTree, SignedHead, sign_head
from anabranch.fleet.roster import Roster, sign_roster
from anabranch.fleet.rotation import sign_rotation
from anabranch.plan import Plan, parse_plan

KEY = PassphraseKey(b"correct horse")
COORDINATOR = Identity.from_secret(bytes(31) + b"\x04")
FEDERATION = Identity.from_secret(bytes(31) + b"\x05")
TASK, OTHER = f"{1:032x}", f"{2:032x}"


def plan(count: int = 20) -> Plan:
    return parse_plan(
        f'schema = 1\nname = "heart"\ndata.source = "heart"\nmodel.name = "logistic"\n'
        f"rounds.count = {count}"
    )


def contract(of: Plan) -> dict[str, object]:
    """As it arrives: through JSON."""
    return dict(json.loads(json.dumps(of.contract())))


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def home(path: Path, policy: ClientPolicy | None = None, clock: Clock | None = None) -> ClientHome:
    return ClientHome(path / "home", KEY, policy, clock=clock or Clock())


def enrolled(path: Path, policy: ClientPolicy | None = None) -> ClientHome:
    opened = home(path, policy)
    token = make_token(
        "https://c.example", COORDINATOR.fingerprint, federation=FEDERATION.fingerprint
    )
    opened.pin(token, "va", COORDINATOR.public_key)
    return opened


def test_identity_and_pins_outlive_the_process(tmp_path: Path) -> None:
    with enrolled(tmp_path) as first:
        identity, pins = first.identity, first.pins
    with home(tmp_path) as second:
        assert (second.identity, second.pins) == (identity, pins)
        assert second.pins.coordinator_key == COORDINATOR.public_key
    raw = b"".join(p.read_bytes() for p in (tmp_path / "home").rglob("*") if p.is_file())
    assert identity.secret not in raw
    assert identity.secret.hex().encode() not in raw


def test_a_stranger_is_not_enrolled(tmp_path: Path) -> None:
    with home(tmp_path) as opened:
        assert not opened.enrolled
        with pytest.raises(AnabranchError, match="AB-737"):
            _ = opened.pins


def test_another_coordinator_is_never_pinned(tmp_path: Path) -> None:
    stranger = Identity.generate()
    with enrolled(tmp_path) as opened:
        token = make_token("https://c.example", COORDINATOR.fingerprint)
        with pytest.raises(AnabranchError, match="AB-734"):
            opened.pin(token, "va", stranger.public_key)
        with pytest.raises(AnabranchError, match="AB-734"):
            opened.pin(make_token("u", stranger.fingerprint), "va", stranger.public_key)
        assert opened.pins.coordinator_key == COORDINATOR.public_key


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with home(tmp_path), pytest.raises(AnabranchError, match="AB-739"):
        home(tmp_path)
    home(tmp_path).close()


def test_a_wrong_passphrase_leaves_the_home_free(tmp_path: Path) -> None:
    home(tmp_path).close()
    with pytest.raises(AnabranchError, match="AB-731"):
        ClientHome(tmp_path / "home", PassphraseKey(b"wrong"))
    home(tmp_path).close()


def test_rosters_are_checked_and_remembered(tmp_path: Path) -> None:
    first = Roster(fleet="f").added("va", "aa" * 32)
    second = first.added("hu", "bb" * 32)
    with enrolled(tmp_path) as opened:
        opened.accept_roster(sign_roster(second, FEDERATION))
    with home(tmp_path) as opened:
        assert opened.roster == second
        with pytest.raises(AnabranchError, match="AB-736"):
            opened.accept_roster(sign_roster(first, FEDERATION))
        with pytest.raises(AnabranchError, match="AB-735"):
            opened.accept_roster(sign_roster(second, COORDINATOR))
        assert opened.roster == second


def test_without_a_federation_key_the_first_signer_is_pinned(tmp_path: Path) -> None:
    first = Roster(fleet="f").added("va", "aa" * 32)
    with home(tmp_path) as opened:
        opened.pin(make_token("u", COORDINATOR.fingerprint), "va", COORDINATOR.public_key)
        opened.accept_roster(sign_roster(first, FEDERATION))
        assert opened.pins.federation == FEDERATION.fingerprint
        with pytest.raises(AnabranchError, match="AB-735"):
            opened.accept_roster(sign_roster(first, COORDINATOR))


def test_a_rotation_is_followed_for_good(tmp_path: Path) -> None:
    first, new = Roster(fleet="f").added("va", "aa" * 32), Identity.from_secret(bytes(31) + b"\x06")
    second = sign_roster(first, new, (sign_rotation("f", FEDERATION, new, "old"),))
    with enrolled(tmp_path) as opened:
        opened.accept_roster(sign_roster(first, FEDERATION))
        assert opened.accept_roster(second) == first
    with enrolled(tmp_path) as opened:  # started again with the token of that time
        assert opened.pins.federation == new.fingerprint
        assert opened.pins.retired == (FEDERATION.fingerprint,)
        with pytest.raises(AnabranchError, match="AB-735"):
            opened.accept_roster(sign_roster(first, FEDERATION))
        entries = [e.details for e in read_log(opened.path / "log.jsonl") if e.what == "rotation"]
        assert entries == [{"retired": FEDERATION.fingerprint, "successor": new.fingerprint}]


def test_a_token_without_a_federation_key_keeps_the_pinned_one(tmp_path: Path) -> None:
    with enrolled(tmp_path) as opened:
        opened.pin(make_token("u", COORDINATOR.fingerprint), "va", COORDINATOR.public_key)
        assert opened.pins.federation == FEDERATION.fingerprint


def test_after_a_loss_a_new_token_pins_the_new_key(tmp_path: Path) -> None:
    """Without a statement nobody follows; the people of the site decide, with a new token."""
    first, new = Roster(fleet="f").added("va", "aa" * 32), Identity.from_secret(bytes(31) + b"\x06")
    with enrolled(tmp_path) as opened:
        opened.accept_roster(sign_roster(first, FEDERATION))
        with pytest.raises(AnabranchError, match="AB-735"):
            opened.accept_roster(sign_roster(first, new))
        token = make_token("u", COORDINATOR.fingerprint, federation=new.fingerprint)
        opened.pin(token, "va", COORDINATOR.public_key)
        assert opened.accept_roster(sign_roster(first, new)) == first
    with enrolled(tmp_path) as opened:  # the old token does not bring the lost key back
        assert opened.pins.federation == new.fingerprint


def test_a_contract_gives_the_plan_back() -> None:
    given = plan()
    assert plan_of_contract(contract(given), given.contract_digest).contract() == given.contract()


def test_a_contract_must_be_the_one_announced() -> None:
    changed = contract(plan())
    rounds = changed["rounds"]
    assert isinstance(rounds, dict)
    changed["rounds"] = {**rounds, "count": 21}
    with pytest.raises(AnabranchError, match=r"AB-744.*digest was announced"):
        plan_of_contract(changed, plan().contract_digest)


def test_a_new_contract_waits_for_a_person(tmp_path: Path) -> None:
    given = plan()
    with enrolled(tmp_path) as opened:
        decision = opened.contracts.consider(contract(given), given.contract_digest, 4)
        assert (decision.accepted, decision.code) == (False, "AB-744")
        assert "is new" in decision.reason
        assert opened.contracts.shown() == {given.contract_digest: False}
        assert opened.contracts.approve(given.contract_digest[:12]) == given.contract_digest
    with home(tmp_path) as opened:
        assert opened.contracts.consider(contract(given), given.contract_digest, 4).accepted
        assert opened.contracts.shown() == {given.contract_digest: True}


def test_an_amendment_waits_again_and_names_what_changed(tmp_path: Path) -> None:
    old, new = plan(20), plan(40)
    with enrolled(tmp_path) as opened:
        opened.contracts.consider(contract(old), old.contract_digest, 4)
        opened.contracts.approve(old.contract_digest)
        decision = opened.contracts.consider(contract(new), new.contract_digest, 4)
        assert decision.code == "AB-744"
        assert "rounds.count: 20 -> 40" in decision.reason
        with pytest.raises(AnabranchError, match=r"AB-744.*rounds\.count"):
            decision.require()
        assert opened.contracts.consider(contract(old), old.contract_digest, 4).accepted


@pytest.mark.parametrize(("rule", "amended"), [("never", True), ("first", True)])
def test_a_policy_may_agree_by_itself(tmp_path: Path, rule: str, amended: bool) -> None:
    policy = ClientPolicy(contract=ContractRules.model_validate({"approve": rule}))
    old, new = plan(20), plan(40)
    with enrolled(tmp_path, policy) as opened:
        first = opened.contracts.consider(contract(old), old.contract_digest, 4)
        assert first.accepted is (rule == "never")
        if not first.accepted:
            opened.contracts.approve(old.contract_digest)
        again = opened.contracts.consider(contract(new), new.contract_digest, 4)
        assert again.accepted is amended


def test_nobody_approves_what_was_not_shown(tmp_path: Path) -> None:
    with enrolled(tmp_path) as opened, pytest.raises(AnabranchError, match="AB-744"):
        opened.contracts.approve("0" * 64)


def test_amendments_name_every_leaf() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": "x"}
    new = {"a": {"b": 1, "c": [1, 3, 4]}, "d": 5}
    assert amendments(old, new) == (
        "a.c.1: 2 -> 3",
        "a.c.2: (none) -> 4",
        "d: (none) -> 5",
        "e: x -> (none)",
    )


def test_what_leaves_is_written_first_and_once(tmp_path: Path) -> None:
    with enrolled(tmp_path) as opened:
        assert opened.gate.asked("run", TASK, "train", 3).accepted
        assert opened.gate.leaving("run", TASK, 3, b"update").accepted
        last = list(read_log(opened.log.path))[-1]
        assert last.what == "sent"
        assert last.who == COORDINATOR.fingerprint
        assert last.details["upload"] == hashlib.sha256(b"update").hexdigest()
        assert opened.gate.leaving("run", TASK, 3, b"update").accepted
    with home(tmp_path) as opened:  # killed before the answer came
        assert opened.gate.leaving("run", TASK, 3, b"update").accepted
        whats = [entry.what for entry in read_log(opened.log.path)]
    assert whats == ["enrolled", "asked", "sent"]


def test_the_day_budget_outlives_the_process_and_the_day(tmp_path: Path) -> None:
    policy, clock = ClientPolicy(traffic=TrafficRules(max_upload_day=100)), Clock()
    with home(tmp_path, policy, clock) as opened:
        assert opened.gate.leaving("run", TASK, 1, bytes(60)).accepted
        assert not opened.gate.leaving("run", OTHER, 2, bytes(60)).accepted
    with home(tmp_path, policy, clock) as opened:
        assert not opened.gate.leaving("run", OTHER, 2, bytes(60)).accepted
        clock.now += 86_401
        assert opened.gate.leaving("run", OTHER, 2, bytes(60)).accepted
        declined = [e for e in read_log(opened.log.path) if e.what == "declined"]
    assert len(declined) == 2


def round_of(
    number: int, previous: str, uploads: dict[str, tuple[str, bytes]]
) -> tuple[RoundTree, SignedHead]:
    leaves = [
        Leaf(client=name, task=task, upload=hashlib.sha256(content).hexdigest())
        for name, (task, content) in uploads.items()
    ]
    tree = RoundTree(leaves)
    model = hashlib.sha256(str(number).encode()).hexdigest()
    return tree, sign_head(tree.head("run", number, model, previous), COORDINATOR)


def given(tree: RoundTree, head: SignedHead, task: str, name: str = "va") -> Receipt:
    receipt = tree.receipt(name, task, head)
    assert receipt is not None
    return receipt


def contributed(opened: ClientHome) -> None:
    opened.gate.leaving("run", TASK, 1, b"first")
    opened.gate.told(TASK, Fate.MERGED)


def test_an_update_that_counted_once_is_proved(tmp_path: Path) -> None:
    with enrolled(tmp_path) as opened:
        contributed(opened)
        opened.gate.leaving("run", OTHER, 2, b"second")
        opened.gate.told(OTHER, Fate.TOO_LATE)
        tree, one = round_of(1, FIRST_HEAD, {"va": (TASK, b"first"), "hu": (OTHER, b"theirs")})
        _, two = round_of(2, one.head.digest, {"hu": (OTHER, b"more")})
        opened.evidence.shown("run", [one])
        opened.evidence.shown("run", [one, two])
        opened.evidence.keep(given(tree, one, TASK))
        opened.evidence.keep(given(tree, one, TASK))
    with home(tmp_path) as opened:
        proofs = opened.evidence.verify()
        assert [proof.verdict for proof in proofs] == [Verdict.COUNTED, Verdict.UNUSED]
        assert opened.evidence.latest("run") == two.head


def test_every_lie_about_an_update_is_found(tmp_path: Path) -> None:
    good, head = round_of(1, FIRST_HEAD, {"va": (TASK, b"first"), "hu": (OTHER, b"theirs")})
    other, other_head = round_of(1, FIRST_HEAD, {"va": (TASK, b"changed")})
    again, again_head = round_of(2, head.head.digest, {"va": (TASK, b"first")})
    stories: dict[str, list[Receipt]] = {
        "without a receipt": [],
        "another update": [given(other, other_head, TASK)],
        "several receipts": [given(good, head, TASK), given(again, again_head, TASK)],
        "another head before": [given(*_moved(good, head), TASK)],
    }
    for number, (why, receipts) in enumerate(stories.items()):
        with enrolled(tmp_path / str(number)) as opened:
            contributed(opened)
            opened.evidence.shown("run", [head])
            for receipt in receipts:
                opened.evidence.keep(receipt)
            (proof,) = opened.evidence.verify()
            assert not proof.holds
            assert why in f"{proof.verdict.value} {proof.reason}"


def _moved(tree: RoundTree, head: SignedHead) -> tuple[RoundTree, SignedHead]:
    return tree, sign_head(head.head.replace(model="ee" * 32), COORDINATOR)


def test_a_dropped_update_that_was_used_is_found(tmp_path: Path) -> None:
    tree, head = round_of(1, FIRST_HEAD, {"va": (TASK, b"first")})
    with enrolled(tmp_path) as opened:
        opened.gate.leaving("run", TASK, 1, b"first")
        opened.gate.told(TASK, Fate.REFUSED)
        opened.evidence.keep(given(tree, head, TASK))
        (proof,) = opened.evidence.verify()
    assert proof.verdict is Verdict.WRONG
    assert "'refused'" in proof.reason


def test_a_history_that_is_rolled_back_is_refused_and_written_down(tmp_path: Path) -> None:
    _, one = round_of(1, FIRST_HEAD, {})
    _, two = round_of(2, one.head.digest, {})
    with enrolled(tmp_path) as opened:
        opened.evidence.shown("run", [one, two])
        with pytest.raises(AnabranchError, match="AB-748"):
            opened.evidence.shown("run", [one])
        with pytest.raises(AnabranchError, match="AB-748"):
            opened.evidence.shown("another", [one])
        assert opened.evidence.latest("run") == two.head
        assert [e.what for e in read_log(opened.log.path)].count("distrust") == 2


def test_a_torn_line_of_evidence_is_shown_again(tmp_path: Path) -> None:
    _, one = round_of(1, FIRST_HEAD, {})
    _, two = round_of(2, one.head.digest, {})
    with enrolled(tmp_path) as opened:
        opened.evidence.shown("run", [one, two])
    (file,) = (tmp_path / "home" / "evidence").glob("heads-*")
    file.write_bytes(file.read_bytes()[:-10])
    with home(tmp_path) as opened:
        assert opened.evidence.latest("run") == one.head
        assert opened.evidence.shown("run", [two]) == two.head
        assert [s.head.round for s in opened.evidence.heads("run")] == [1, 2]
