"""The shared computations beside MPyC (one party, its own arithmetic), where it is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from anabranch.privacy.multiparty import (
    PRIME,
    BitDealer,
    Dealer,
    add_reveal,
    add_share,
    argmax,
    is_negative,
    multiply,
    random_elements,
    shamir_reveal,
    shamir_share,
)
from anabranch.privacy.multiparty.field import elements
from anabranch.privacy.multiparty.shamir import lagrange

pytest.importorskip("mpyc", reason="MPyC is an oracle of the development environment")


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    # MPyC reads the command line when it is first imported.
    monkeypatch.setattr(sys, "argv", ["mpyc"])


def test_field_products_are_those_of_mpyc() -> None:
    from mpyc.finfields import GF

    field = GF(PRIME)
    one, other = random_elements(20), random_elements(20)
    product = add_reveal(multiply(add_share(one, 3), add_share(other, 3), Dealer(3).triples(20)))
    oracle = [int(field(int(a)) * field(int(b))) % PRIME for a, b in zip(one, other, strict=True)]
    assert product.tolist() == oracle


def test_shamir_shares_open_in_mpyc_and_its_shares_open_here() -> None:
    from mpyc import thresha
    from mpyc.finfields import GF

    field = GF(PRIME)
    secrets = [5, PRIME - 7]
    shares = shamir_share(np.array(secrets, np.uint64), threshold=3, holders=5)
    points = [(x, [field(int(v)) for v in shares[x]]) for x in (1, 3, 5)]
    assert [int(v) % PRIME for v in thresha.recombine(field, points)] == secrets
    theirs = thresha.random_split(field, [field(s) for s in secrets], 2, 5)
    ours = {
        x + 1: np.array([int(v) % PRIME for v in row], np.uint64) for x, row in enumerate(theirs)
    }
    assert shamir_reveal(ours, threshold=3).tolist() == secrets


def test_weights_are_those_of_mpyc() -> None:
    from mpyc import thresha
    from mpyc.finfields import GF

    holders = (2, 3, 7)
    theirs = thresha._recombination_vector(GF(PRIME), holders, 0)
    assert lagrange(holders) == tuple(int(w) % PRIME for w in theirs)


def test_signs_and_argmax_are_those_of_mpyc() -> None:
    from mpyc.runtime import mpc

    numbers = [3, -8, 900, -1, 0, 899]
    secint = mpc.SecInt(32)
    secret = [secint(v) for v in numbers]

    async def oracle() -> tuple[list[int], int]:
        signs = await mpc.output([v < 0 for v in secret])
        place, _ = mpc.argmax(secret)
        return [int(s) for s in signs], int(await mpc.output(place))

    signs, place = mpc.run(oracle())
    shares = add_share(elements(np.array(numbers)), 3)
    dealer = BitDealer(3, length=16)
    assert add_reveal(is_negative(shares, dealer)).tolist() == signs
    assert argmax(shares, dealer) == place
