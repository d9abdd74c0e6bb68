"""Receipts: an update that counted once is proved, and no other story of the rounds is believed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.fleet.identity import Identity
from anabranch.fleet.receipts import (
    FIRST_HEAD,
    Head,
    Leaf,
    Receipt,
    RoundTree,
    SignedHead,
    check_heads,
    counted,
    sign_head,
)

COORDINATOR = Identity.from_secret(bytes(31) + b"\x03")
KEY = COORDINATOR.public_key


def leaf(client: str, task: int = 1, content: bytes = b"update") -> Leaf:
    return Leaf(
        client=client,
        task=f"{task:032x}",
        upload=hashlib.sha256(content + client.encode()).hexdigest(),
    )


def history(rounds: int, run: str = "run", salt: str = "") -> list[SignedHead]:
    heads: list[SignedHead] = []
    for number in range(1, rounds + 1):
        model = hashlib.sha256(f"{salt}{number}".encode()).hexdigest()
        before = heads[-1].head.digest if heads else FIRST_HEAD
        head = RoundTree([leaf("va", number)]).head(run, number, model, before)
        heads.append(sign_head(head, COORDINATOR))
    return heads


@given(st.integers(1, 20))
def test_every_accepted_upload_has_a_receipt(count: int) -> None:
    tree = RoundTree(leaf(f"client-{i}") for i in range(count))
    signed = sign_head(tree.head("run", 3, "ab" * 32, FIRST_HEAD), COORDINATOR)
    for i in range(count):
        receipt = tree.receipt(f"client-{i}", f"{1:032x}", signed)
        assert receipt is not None
        copied = Receipt.model_validate_json(receipt.model_dump_json())
        assert copied.verified(KEY).round == 3
        assert counted(tree.hashes, copied) == 1
    assert tree.receipt("client-0", "0" * 32, signed) is None


def test_a_receipt_for_anything_else_is_refused() -> None:
    tree = RoundTree([leaf("va"), leaf("hu"), leaf("ch")])
    signed = sign_head(tree.head("run", 3, "ab" * 32, FIRST_HEAD), COORDINATOR)
    good = tree.receipt("va", f"{1:032x}", signed)
    assert good is not None
    other = sign_head(RoundTree([leaf("hu")]).head("run", 3, "ab" * 32, FIRST_HEAD), COORDINATOR)
    forged = signed.replace(head=signed.head.replace(model="cd" * 32))
    bad = [
        good.replace(leaf=leaf("va", content=b"another update")),
        good.replace(index=(good.index + 1) % 3),
        good.replace(path=good.path[:-1]),
        good.replace(head=other),
        good.replace(head=forged),
        good.replace(head=sign_head(signed.head, Identity.generate())),
    ]
    for receipt in bad:
        with pytest.raises(AnabranchError, match="AB-748"):
            receipt.verified(KEY)


def test_a_task_counts_once_in_a_round() -> None:
    with pytest.raises(ValueError, match="twice"):
        RoundTree([leaf("va"), leaf("va", content=b"again")])


def test_a_list_of_other_leaves_is_refused() -> None:
    tree = RoundTree([leaf("va"), leaf("hu")])
    receipt = tree.receipt(
        "va", f"{1:032x}", sign_head(tree.head("r", 1, "ab" * 32, FIRST_HEAD), COORDINATOR)
    )
    assert receipt is not None
    for hashes in (tree.hashes[:1], tree.hashes[::-1], (*tree.hashes, tree.hashes[0])):
        with pytest.raises(AnabranchError, match="AB-748"):
            counted(hashes, receipt)


def test_heads_go_on_one_by_one() -> None:
    heads = history(6)
    assert check_heads(None, [], KEY) is None
    known = check_heads(None, heads[2:4], KEY)  # joined later
    assert known == heads[3].head
    assert check_heads(known, [], KEY) == known
    assert check_heads(known, heads[3:4], KEY) == known
    assert check_heads(known, heads[1:], KEY) == heads[5].head


def altered(head: Head, **changes: object) -> SignedHead:
    return sign_head(head.replace(**changes), COORDINATOR)


def test_other_histories_are_noticed() -> None:
    heads, other = history(6), history(6, salt="other")
    known = heads[3].head
    bad = {
        "ends at round 3": heads[:3],  # rolled back
        "two heads": other[3:5],  # forked at the known round
        "does not follow": other[4:],  # forked after it
        "are missing": heads[5:],
        "as 'run'": history(6, run="another")[3:],
        "not signed": [sign_head(heads[4].head, Identity.generate())],
    }
    for why, shown in bad.items():
        with pytest.raises(AnabranchError, match=rf"AB-748.*{why}"):
            check_heads(known, shown, KEY)
    with pytest.raises(AnabranchError, match="does not follow"):
        check_heads(None, [heads[0], altered(heads[1].head, previous="00" * 32)], KEY)
    with pytest.raises(AnabranchError, match="does not follow"):
        check_heads(known, [altered(heads[1].head, model="11" * 32), *heads[2:]], KEY)
