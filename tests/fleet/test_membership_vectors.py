"""The vectors of ``docs/reference/membership.md``, for clients in other languages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from anabranch.canonical import Document, canonical_bytes
from anabranch.fleet.enrolment import Application, Enrolments, Token, apply, parse_token, token_text
from anabranch.fleet.identity import Identity, fingerprint, signed_bytes, verify
from anabranch.fleet.receipts import Receipt, RoundTree, SignedHead, counted
from anabranch.fleet.roster import SignedRoster, check_successor

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "membership.json").read_text("utf-8"))
CLIENT = Identity.from_secret(bytes(31) + b"\x03")


@pytest.mark.parametrize("vector", VECTORS["canonical"])
def test_canonical_json(vector: dict[str, Document]) -> None:
    made = canonical_bytes(vector["document"])
    assert made.decode() == vector["text"]
    assert hashlib.sha256(made).hexdigest() == vector["sha256"]


@pytest.mark.parametrize("vector", VECTORS["signatures"])
def test_signatures(vector: dict[str, str]) -> None:
    identity = Identity.from_secret(bytes.fromhex(vector["secret"]))
    message = bytes.fromhex(vector["message"])
    assert identity.public_key.hex() == vector["public"]
    assert fingerprint(identity.public_key) == vector["fingerprint"]
    assert signed_bytes(vector["context"], message).hex() == vector["signed"]
    assert identity.sign(vector["context"], message).hex() == vector["signature"]
    signature = bytes.fromhex(vector["signature"])
    assert verify(identity.public_key, vector["context"], message, signature)


def test_a_token_and_the_application_that_redeems_it(tmp_path: Path) -> None:
    vector = VECTORS["token"]
    token = parse_token(vector["text"])
    assert token == Token.model_validate(vector["fields"])
    assert token_text(token) == vector["text"]
    assert (token.id, token.proof_key.hex()) == (vector["id"], vector["proof_key"])
    application = Application.model_validate(vector["application"])
    assert apply(token, CLIENT, "va") == application
    desk = Enrolments(tmp_path)
    desk.invite(token, 60)
    assert desk.redeem(application).key == CLIENT.public_key.hex()


def test_rosters_follow_one_another() -> None:
    first, second = (SignedRoster.model_validate(v["signed"]) for v in VECTORS["rosters"])
    rosters = [signed.verified(VECTORS["rosters"][0]["pinned"]) for signed in (first, second)]
    assert [roster.digest for roster in rosters] == [v["digest"] for v in VECTORS["rosters"]]
    check_successor(*rosters)


def test_a_round_and_its_receipts() -> None:
    vector = VECTORS["round"]
    key = bytes.fromhex(vector["coordinator"])
    head = SignedHead.model_validate(vector["head"])
    assert head.verified(key).digest == vector["head_digest"]
    receipts = [Receipt.model_validate(one) for one in vector["receipts"]]
    tree = RoundTree(receipt.leaf for receipt in receipts)
    assert list(tree.hashes) == vector["leaf_hashes"]
    for receipt in receipts:
        assert receipt.verified(key) == head.head
        assert counted(vector["leaf_hashes"], receipt) == 1
        assert tree.receipt(receipt.leaf.client, receipt.leaf.task, head) == receipt
