"""Commands of operators and sites, as they are typed: from a fleet to a member to a proof."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.client.home import ClientHome
from anabranch.client.task import Fate
from anabranch.client.vault import PassphraseKey
from anabranch.fleet.enrolment import apply, parse_token
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.fleet.receipts import FIRST_HEAD, Leaf, RoundTree, sign_head
from anabranch.plan import load_plan

PLAN = """schema = 1
name = "heart"
data.source = "heart"
model.name = "logistic"
"""
TASK = f"{7:032x}"


def run(*arguments: str | Path, code: int = 0) -> str:
    result: Result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    run("roster", "init", tmp_path / "fleet", "--name", "hospitals", "--url", "https://c.example")
    return tmp_path / "fleet"


def redeem(fleet: Path, name: str) -> Identity:
    token = parse_token(run("enrol", "invite", fleet, "--hours", "1"))
    client = Identity.generate()
    FleetFolder(fleet).enrolments().redeem(apply(token, client, name))
    return client


def test_from_a_token_to_a_member(fleet: Path) -> None:
    client = redeem(fleet, "va")
    assert "waiting" in run("enrol", "list", fleet)
    assert "admitted va" in run("roster", "sign", fleet)
    listed = json.loads(run("roster", "list", fleet, "--json"))
    assert listed["version"] == 1
    assert listed["members"] == [
        {
            "member": "va",
            "status": "active",
            "roles": "client",
            "key": client.fingerprint,
            "reason": "",
        }
    ]
    assert "revoked" in run("roster", "revoke", fleet, "va", "--reason", "lost")
    assert "lost" in run("roster", "list", fleet)
    run("roster", "revoke", fleet, "va", code=1)


def test_the_federation_key_may_stay_elsewhere(tmp_path: Path) -> None:
    kept, fleet = tmp_path / "safe" / "federation.key", tmp_path / "fleet"
    shown = run("roster", "key", kept).split()[-1]
    run("roster", "init", fleet, "--name", "hospitals", "--federation", shown)
    redeem(fleet, "va")
    redeem(fleet, "hu")
    run("roster", "sign", fleet, code=1)  # the key is not here
    run("roster", "draft", fleet, "-o", tmp_path / "draft.json")
    signed = tmp_path / "signed.json"
    run("roster", "sign", tmp_path / "draft.json", "--federation", kept, "-o", signed)
    assert "version 1" in run("roster", "publish", fleet, signed)
    assert "suspended from now on" in run("roster", "revoke", fleet, "va")
    assert "suspended" in run("roster", "list", fleet)
    run("roster", "draft", fleet, "--revoke", "va", "-o", tmp_path / "draft.json")
    run("roster", "sign", tmp_path / "draft.json", "--federation", kept, "-o", signed)
    assert "version 2" in run("roster", "publish", fleet, signed)
    run("roster", "publish", fleet, signed)  # again: nothing changes
    assert FleetFolder(fleet).membership().roster.of_name("va") is None


def test_wrong_arguments_are_wrong_usage(fleet: Path, tmp_path: Path) -> None:
    run("roster", "init", tmp_path / "x", "--name", "Not A Name", code=2)
    run("roster", "add", fleet, "va", "12", code=2)
    run("enrol", "invite", fleet, "--role", "king", code=2)
    run("roster", "list", tmp_path / "absent", code=1)


def test_pki_writes_what_tls_needs(tmp_path: Path) -> None:
    run("pki", tmp_path / "tls", "--host", "c.example")
    assert (tmp_path / "tls" / "ca.crt").exists()
    key = tmp_path / "tls" / "server" / "server.key"
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    run("pki", tmp_path / "tls", "--host", "c.example", code=1)  # never replaced


@pytest.fixture
def kit(fleet: Path, tmp_path: Path) -> Path:
    (tmp_path / "plan.toml").write_text(PLAN)
    run("kit", tmp_path / "plan.toml", "--fleet", fleet, "-o", tmp_path / "heart.kit")
    return tmp_path / "heart.kit"


def test_a_site_checks_a_kit_offline(kit: Path, tmp_path: Path) -> None:
    data = tmp_path / "va.csv"
    data.write_text("age,sex\n1,1\n")
    shown = run("check", kit, "--data", data, code=1)
    assert "whole and signed" in shown
    assert "do not fit the contract" in shown
    policy = tmp_path / "policy.toml"
    policy.write_text('[work]\nmodels = ["mlp"]')
    facts = json.loads(run("check", kit, "--data", data, "--policy", policy, "--json", code=1))
    assert facts["contract"] == load_plan(tmp_path / "plan.toml").contract_digest
    assert "model 'logistic'" in facts["policy"]
    policy.write_text("[work]\nmodel = 1")
    assert "AB-742" in run("check", kit, "--data", data, "--policy", policy, code=1)
    kit.write_bytes(kit.read_bytes()[:-40] + bytes(40))
    assert "AB-1" in run("check", kit, "--data", data, code=1)  # no archive: taken for a plan


def member(home: Path, coordinator: Identity) -> None:
    """A client that sent one update, which counted."""
    with ClientHome(home, PassphraseKey(b"secret")) as opened:
        from anabranch.fleet.enrolment import make_token

        opened.pin(make_token("u", coordinator.fingerprint), "va", coordinator.public_key)
        opened.gate.leaving("run-1", TASK, 1, b"update")
        opened.gate.told(TASK, Fate.MERGED)
        leaf = Leaf(client="va", task=TASK, upload=hashlib.sha256(b"update").hexdigest())
        tree = RoundTree([leaf])
        head = sign_head(tree.head("run-1", 1, "ab" * 32, FIRST_HEAD), coordinator)
        receipt = tree.receipt("va", TASK, head)
        assert receipt is not None
        opened.evidence.shown("run-1", [head])
        opened.evidence.keep(receipt)


def test_a_site_verifies_and_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANABRANCH_PASSPHRASE", "secret")
    coordinator, home, heads = Identity.generate(), tmp_path / "va", tmp_path / "heads.jsonl"
    member(home, coordinator)
    shown = json.loads(run("verify", home, "--json", "--export", heads))
    assert shown["holds"] is True
    assert [u["verdict"] for u in shown["updates"]] == ["counted once"]
    assert "1 rounds seen" in run("verify", home, "--compare", heads)
    forked = sign_head(
        RoundTree([]).head("run-1", 1, "cd" * 32, FIRST_HEAD), coordinator
    ).model_dump_json()
    heads.write_text(forked + "\n")
    assert "FORKED" in run("verify", home, "--compare", heads, code=1)
    stranger = sign_head(RoundTree([]).head("run-1", 1, "cd" * 32, FIRST_HEAD), Identity.generate())
    heads.write_text(stranger.model_dump_json() + "\n")
    assert "not signed" in run("verify", home, "--compare", heads, code=1)
    monkeypatch.setenv("ANABRANCH_PASSPHRASE", "wrong")
    assert "AB-731" in run("verify", home, code=1)
    assert "AB-737" in run("verify", tmp_path / "absent", code=1)


def test_withdrawing_stops_a_client_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANABRANCH_PASSPHRASE", "secret")
    home = tmp_path / "va"
    member(home, Identity.generate())
    with ClientHome(home, PassphraseKey(b"secret")) as running:
        shown = run("withdraw", home)
        assert "run-1" in shown
        assert "merged" in shown
        assert not running.gate.asked("run-1", TASK, "train", 2).accepted
        decision = running.gate.leaving("run-1", f"{8:032x}", 2, b"more")
        assert decision.reason == "this site has withdrawn"
        run("withdraw", home, "--undo")
        assert running.gate.asked("run-1", TASK, "train", 2).accepted
    run("withdraw", tmp_path / "absent", code=1)


def test_a_person_approves(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANABRANCH_PASSPHRASE", "secret")
    home = tmp_path / "va"
    member(home, Identity.generate())
    listed = run("approve", home, "--kit", kit)
    digest = load_plan(tmp_path / "plan.toml").contract_digest
    assert re.search(rf"{digest}\s+waiting\s+heart", listed)
    assert digest in run("approve", home, digest[:10])
    assert "approved" in run("approve", home)
    assert "AB-744" in run("approve", home, "0000", code=1)


def test_the_federation_key_is_replaced_where_it_lies(fleet: Path) -> None:
    redeem(fleet, "va")
    run("roster", "sign", fleet)
    before = FleetFolder(fleet).settings.federation
    told = run("roster", "rotate", fleet, "--reason", "old")
    after = FleetFolder(fleet).settings.federation
    assert after != before
    assert after in told
    assert "federation-retired-1.key" in told
    redeem(fleet, "hu")
    assert "admitted hu" in run("roster", "sign", fleet)
    assert "token" in run("roster", "rotate", fleet, "--lost")
    assert json.loads(run("roster", "list", fleet, "--json"))["version"] == 2


def test_the_federation_key_is_replaced_offline(tmp_path: Path) -> None:
    old, new, fleet = tmp_path / "old.key", tmp_path / "new.key", tmp_path / "fleet"
    first = run("roster", "key", old).split()[-1]
    run("roster", "init", fleet, "--name", "hospitals", "--federation", first)
    draft, signed = tmp_path / "draft.json", tmp_path / "signed.json"
    run("roster", "draft", fleet, "--output", draft)
    second = run("roster", "key", new).split()[-1]
    run("roster", "sign", draft, "--federation", new, "--output", signed)
    run("roster", "publish", fleet, signed, code=1)  # nobody has named this key
    run("roster", "sign", draft, "--federation", new, "--retire", old, "--output", signed)
    told = run("roster", "publish", fleet, signed)
    assert second in told
    assert FleetFolder(fleet).settings.federation == second
    run("roster", "rotate", fleet, "--federation", new, code=2)  # the next one lies elsewhere too
    run("roster", "sign", fleet, "--retire", old, code=2)
