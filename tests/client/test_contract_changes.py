"""What a client does when the contract of a run is another one: amended, or simply changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anabranch.client.contracts import NOTES, ContractShelf
from anabranch.client.home import ClientHome
from anabranch.client.policy import ClientPolicy, ContractRules
from anabranch.client.vault import PassphraseKey, open_vault
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, parse_plan
from anabranch.plan.amend import Amendment, amended_contract
from anabranch.plan.contract import contract_digest

KEY = PassphraseKey(b"correct horse")
RUN = "heart-1"
FIRST_ONLY = ClientPolicy(contract=ContractRules(approve="first"))


def plan(count: int = 20, rate: float = 0.1) -> Plan:
    return parse_plan(
        f'schema = 1\nname = "heart"\ndata.source = "heart"\nmodel.name = "logistic"\n'
        f"rounds.count = {count}\nlocal.learning_rate = {rate}"
    )


def shown(of: Plan, *predecessors: str, **more: object) -> tuple[dict[str, object], str]:
    """A contract as it arrives, through JSON, and its digest."""
    amendment = None
    if predecessors:
        amendment = Amendment(number=len(predecessors), predecessors=predecessors)
    contract = json.loads(json.dumps(amended_contract(of, amendment) | more))
    return contract, contract_digest(contract)


@pytest.fixture
def opened(tmp_path: Path) -> ClientHome:
    """A client that a person let take part in the run."""
    made = ClientHome(tmp_path / "home", KEY, ClientPolicy())
    contract, digest = shown(plan())
    made.contracts.consider(contract, digest, 4, RUN)
    made.contracts.approve(digest)
    assert made.contracts.consider(contract, digest, 4, RUN).accepted
    return made


OLD = shown(plan())[1]


def test_an_amended_contract_has_a_digest_of_its_own_and_gives_its_plan() -> None:
    assert shown(plan(40), OLD)[1] not in (shown(plan(40))[1], OLD)


def test_an_amendment_waits_for_a_person_and_then_is_the_runs_contract(opened: ClientHome) -> None:
    contract, digest = shown(plan(40), OLD)
    decision = opened.contracts.consider(contract, digest, 4, RUN)
    assert (decision.accepted, decision.code) == (False, "AB-744")
    assert "amends one that was approved (rounds.count: 20 -> 40)" in decision.reason
    assert list(opened.contracts.changes()) == [f"{digest[:16]} changes rounds.count: 20 -> 40"]
    opened.contracts.approve(digest[:12])
    assert opened.contracts.consider(contract, digest, 4, RUN).accepted
    third, of_third = shown(plan(60), OLD, digest)
    opened.contracts.learn(third, of_third)
    opened.contracts.approve(of_third)
    assert opened.contracts.consider(third, of_third, 4, RUN).accepted


def test_amendments_that_were_missed_do_not_break_the_chain(opened: ClientHome) -> None:
    second = shown(plan(40), OLD)[1]
    contract, digest = shown(plan(60), OLD, second)
    assert opened.contracts.consider(contract, digest, 4, RUN).code == "AB-744"


@pytest.mark.parametrize(
    ("contract", "why"),
    [
        (shown(plan(40)), "does not say that it amends"),
        (shown(plan(40), "ab" * 32), "does not say that it amends"),
        (shown(plan(20, rate=0.2), OLD), "learning_rate: 0.1 -> 0.2"),
    ],
)
def test_a_contract_that_was_changed_otherwise_is_refused(
    opened: ClientHome, contract: tuple[dict[str, object], str], why: str
) -> None:
    """Whatever the policy says, and also when a person approved the other contract before."""
    document, digest = contract
    with pytest.raises(AnabranchError, match=why) as caught:
        opened.contracts.consider(document, digest, 4, RUN)
    assert caught.value.code == "AB-795"
    opened.contracts.learn(document, digest)
    opened.contracts.approve(digest)
    with pytest.raises(AnabranchError, match="AB-795"):
        opened.contracts.consider(document, digest, 4, RUN)
    assert opened.contracts.consider(document, digest, 4, "another-run").accepted


def test_what_is_no_amendment_is_no_contract(opened: ClientHome) -> None:
    with pytest.raises(AnabranchError, match=r"AB-744.*not readable"):
        opened.contracts.consider(*shown(plan(40), amendment={"number": 1}), 4, RUN)


def test_an_amendment_is_not_taken_back(opened: ClientHome) -> None:
    contract, digest = shown(plan(40), OLD)
    opened.contracts.consider(contract, digest, 4, RUN)
    opened.contracts.approve(digest)
    opened.contracts.consider(contract, digest, 4, RUN)
    with pytest.raises(AnabranchError, match="AB-795"):
        opened.contracts.consider(*shown(plan()), 4, RUN)


def test_a_policy_may_accept_amendments_by_itself(tmp_path: Path) -> None:
    with ClientHome(tmp_path / "home", KEY, FIRST_ONLY) as opened:
        contract, digest = shown(plan())
        assert not opened.contracts.consider(contract, digest, 4, RUN).accepted
        opened.contracts.approve(digest)
        assert opened.contracts.consider(contract, digest, 4, RUN).accepted
        assert opened.contracts.consider(*shown(plan(40), digest), 4, RUN).accepted


def test_a_note_is_taken_up_while_the_client_is_at_work(opened: ClientHome) -> None:
    contract, digest = shown(plan(40), OLD)
    opened.contracts.consider(contract, digest, 4, RUN)
    shelf = ContractShelf(open_vault(opened.path / "vault", KEY))
    assert shelf.shown() == {OLD: True, digest: False}
    with pytest.raises(AnabranchError, match="AB-744"):
        shelf.leave("0" * 64)
    assert shelf.leave(digest[:12]) == digest
    assert opened.contracts.consider(contract, digest, 4, RUN).accepted
    assert not list((opened.path / NOTES).iterdir())


def test_a_note_that_was_not_sealed_for_this_client_counts_for_nothing(
    opened: ClientHome, tmp_path: Path
) -> None:
    contract, digest = shown(plan(40), OLD)
    opened.contracts.consider(contract, digest, 4, RUN)
    (opened.path / NOTES).mkdir()
    forged = open_vault(tmp_path / "other", KEY).seal("approval", digest.encode())
    for name, content in (("a", b"yes"), ("b", digest.encode()), ("c", forged)):
        (opened.path / NOTES / f"{name}.sealed").write_bytes(content)
    assert not opened.contracts.consider(contract, digest, 4, RUN).accepted
    assert not list((opened.path / NOTES).iterdir())
