"""What a client keeps itself: signed heads that only go forward, its own total, its own rounds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from ledger_parts import DELTA, ONE, OPENED, a_round, allotment, gaussian, request

from anabranch.client.spending import ClientSpending, SpendingCap
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.errors import AnabranchError
from anabranch.privacy.accounting import exact_epsilon
from anabranch.privacy.budget import ParticipationLimit
from anabranch.privacy.events import Relation
from anabranch.privacy.ledger import Allotted, Balance, Line, Link
from anabranch.privacy.ledger.export import balance_of
from anabranch.privacy.ledger.heads import Head, head_of

COORDINATOR = "5f:1c"


@pytest.fixture
def links(tmp_path: Path) -> tuple[Link, ...]:
    with PopulationLedger.open(tmp_path, OPENED) as ledger:
        run = ledger.begin(allotment())
        for number in (1, 2, 3):
            run.settle(run.reserve(request(number)).release, a_round(), "out")
        return ledger.links()


def head(links: tuple[Link, ...], sequence: int) -> Head:
    return head_of(balance_of(links[: sequence + 1]), links[sequence])


def between(links: tuple[Link, ...], known: int, to: int) -> list[str]:
    return [link.content for link in links[known + 1 : to + 1]]


@pytest.fixture
def spending(tmp_path: Path) -> ClientSpending:
    return ClientSpending(tmp_path / "home" / "spending.sqlite")


def test_a_signed_head_says_what_was_spent(links: tuple[Link, ...]) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    signed = head(links, 7).signed(key)
    assert signed.epsilon == pytest.approx(1.0)
    signed.verify(key.public_key())
    for bad in (
        replace(signed, epsilon=0.5),
        replace(signed, sequence=6),
        replace(signed, population="icv"),
        replace(signed, signature=""),
        replace(signed, signature="zz"),
        signed.signed(other),
    ):
        with pytest.raises(AnabranchError, match="AB-924"):
            bad.verify(key.public_key())


def test_heads_only_go_forward(spending: ClientSpending, links: tuple[Link, ...]) -> None:
    with spending:
        assert spending.known_head(COORDINATOR, "icu") is None
        spending.see_head(COORDINATOR, head(links, 3))
        spending.see_head(COORDINATOR, head(links, 3))
        spending.see_head(COORDINATOR, head(links, 6), between(links, 3, 6))
        assert spending.known_head(COORDINATOR, "icu") == (6, links[6].digest)
        with pytest.raises(AnabranchError, match="AB-924") as caught:
            spending.see_head(COORDINATOR, head(links, 4))
        assert "is lower than" in caught.value.message
        spending.see_head("another coordinator", head(links, 4))


def test_a_ledger_from_an_old_copy_that_grew_again_is_refused(
    spending: ClientSpending, links: tuple[Link, ...], tmp_path: Path
) -> None:
    """The control: the true continuation of what the client has seen is accepted."""
    spending.see_head(COORDINATOR, head(links, 5))
    with PopulationLedger.open(tmp_path / "old copy", OPENED) as ledger:
        run = ledger.begin(allotment())
        for number in (1, 2, 3, 4):
            run.settle(run.reserve(request(number)).release, a_round(), "out")
        forked = ledger.links()
    assert len(forked) > 7
    for contents in (between(forked, 5, 7), between(links, 5, 7), []):
        with pytest.raises(AnabranchError, match="does not continue"):
            spending.see_head(COORDINATOR, head(forked, 7), contents)
    with pytest.raises(AnabranchError, match="AB-924"):
        spending.see_head(COORDINATOR, head(forked, 5))
    with pytest.raises(AnabranchError, match="AB-924"):
        spending.see_head(COORDINATOR, head(links, 7), ["no hexadecimal", "digests"])
    spending.see_head(COORDINATOR, head(links, 7), between(links, 5, 7))


def test_the_client_adds_up_over_coordinators(spending: ClientSpending) -> None:
    cap = SpendingCap(1.5, DELTA)
    assert spending.agree("one", allotment("r"), cap) == pytest.approx(1.0)
    assert spending.agree("one", allotment("r"), cap) == pytest.approx(1.0)
    # the same run id at another coordinator is another run: sqrt(2) times the noise is 1.465
    two = exact_epsilon(ONE / math.sqrt(2), DELTA)
    assert spending.agree("two", allotment("r"), cap) == pytest.approx(two)
    with pytest.raises(AnabranchError, match="AB-929"):
        spending.agree("three", allotment("r"), cap)
    assert spending.total(DELTA) == pytest.approx(two), "a refused run is not counted"
    spending.agree("one", allotment("r"), replace(cap, epsilon=0.1))
    assert spending.agree("three", allotment("r"), None) == 0.0
    assert spending.total(DELTA) > two


def test_a_run_cannot_come_back_with_another_budget(spending: ClientSpending) -> None:
    spending.agree("one", allotment("r"), SpendingCap(9.0, DELTA))
    with pytest.raises(AnabranchError, match="AB-918"):
        spending.agree("one", allotment("r", rounds=3), SpendingCap(9.0, DELTA))


def test_different_relations_are_added_with_their_parts_of_delta(spending: ClientSpending) -> None:
    spending.agree("one", allotment("r"), None)
    replaced = replace(gaussian(ONE * 2), relation=Relation.REPLACE_ONE)
    spending.agree("two", Allotted("s", (Line("model", (replaced,)),), 1.0, DELTA), None)
    expected = 2 * exact_epsilon(ONE, DELTA / 2)
    assert spending.total(DELTA) == pytest.approx(expected)


def test_the_client_keeps_the_limit_on_participations_too(tmp_path: Path) -> None:
    limit = ParticipationLimit(most=2, separation=10)
    with ClientSpending(tmp_path / "s") as spending:
        spending.take_part("one", "r", 1, limit)
        spending.take_part("one", "r", 1, limit)
        with pytest.raises(AnabranchError, match="AB-923"):
            spending.take_part("one", "r", 5, limit)
    with ClientSpending(tmp_path / "s") as spending:
        spending.take_part("one", "r", 11, limit)
        with pytest.raises(AnabranchError, match="AB-923"):
            spending.take_part("one", "r", 30, limit)
        spending.take_part("two", "r", 30, limit)
        spending.take_part("one", "s", 30, None)
        assert spending.rounds("one", "r") == (1, 11)


def test_a_file_that_is_no_count(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(AnabranchError, match="AB-613"):
        ClientSpending(tmp_path / "s")


@given(st.integers(1, 5), st.integers(1, 6), st.lists(st.integers(1, 40), unique=True, max_size=20))
def test_rounds_that_are_allowed_keep_the_limit(
    most: int, separation: int, asked: list[int]
) -> None:
    limit, taken = ParticipationLimit(most, separation), []
    for round_ in asked:
        if limit.allows(taken, round_):
            taken.append(round_)
    near = [abs(a - b) for a in taken for b in taken if a != b]
    assert len(taken) <= most
    assert min(near, default=separation) >= separation


def test_an_open_population_has_nothing_spent() -> None:
    assert Balance(OPENED).epsilon() == 0.0
