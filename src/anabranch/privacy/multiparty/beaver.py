"""Products of shared numbers with prepared triples (Beaver 1991, "Efficient Multiparty Protocols
Using Circuit Randomization").

A triple is shares of random a, b and of c = a b. To multiply x and y the parties open d = x - a and
e = y - b, which say nothing, and x y = c + d b + e a + d e. A triple is used once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.multiparty.additive import add_public, add_reveal, add_share
from anabranch.privacy.multiparty.field import (
    Elements,
    Source,
    add,
    bad,
    multiply_mod,
    random_elements,
    subtract,
)

__all__ = ["Dealer", "Triples", "multiply"]


@dataclass(frozen=True)
class Triples:
    """Shares of a, b and c = a b, each of shape (parties, count).

    Attributes:
        a, b, c: the shares, never printed.
    """

    a: Elements = field(repr=False)
    b: Elements = field(repr=False)
    c: Elements = field(repr=False)

    @property
    def count(self) -> int:
        """How many products they are good for."""
        return int(self.a.shape[1])

    def split(self, count: int) -> tuple[Triples, Triples]:
        """The first ``count``, and the rest.

        Raises:
            AnabranchError: AB-977 if there are not so many.
        """
        if count > self.count:
            raise bad(f"{count} triples are needed, {self.count} are left.")
        first = Triples(self.a[:, :count], self.b[:, :count], self.c[:, :count])
        return first, Triples(self.a[:, count:], self.b[:, count:], self.c[:, count:])

    def checked(self, source: Source = os.urandom) -> Triples:
        """The first half, once the second half was spent to test it (sacrifice).

        For public random r the parties open rho = r a - a', sigma = b - b' and find that
        r c - c' - sigma a' - rho b' - sigma rho is zero; a wrong triple passes with probability
        1 / p (Damgard et al. 2012, SPDZ).

        Raises:
            AnabranchError: AB-978 when a triple is wrong.
        """
        kept, spent = self.split(self.count // 2)
        spent, _ = spent.split(kept.count)
        factor = np.broadcast_to(random_elements(kept.count, source), kept.a.shape)
        rho = add_reveal(subtract(multiply_mod(kept.a, factor), spent.a))
        sigma = add_reveal(subtract(kept.b, spent.b))
        left = subtract(multiply_mod(kept.c, factor), spent.c)
        left = subtract(left, multiply_mod(spent.a, np.broadcast_to(sigma, left.shape)))
        left = subtract(left, multiply_mod(spent.b, np.broadcast_to(rho, left.shape)))
        zero = subtract(add_reveal(left), multiply_mod(sigma, rho))
        if zero.any():
            raise AnabranchError(
                "AB-978",
                "A multiplication triple is wrong.",
                fix="take triples from another dealer.",
                kept="Nothing was computed with it.",
            )
        return kept


@dataclass(frozen=True)
class Dealer:
    """Makes triples for others: a helper that knows them must not work with any party.

    Attributes:
        parties: number of parties.
        source: secret randomness.
    """

    parties: int
    source: Source = os.urandom

    def triples(self, count: int) -> Triples:
        """So many fresh triples."""
        a, b = random_elements(count, self.source), random_elements(count, self.source)
        shares = [add_share(v, self.parties, self.source) for v in (a, b, multiply_mod(a, b))]
        return Triples(*shares)


def multiply(one: Elements, other: Elements, triples: Triples) -> Elements:
    """Shares of the products of shared numbers, shape (parties, count); uses up ``triples``.

    Raises:
        AnabranchError: AB-977 if shapes or the number of triples differ.

    >>> from anabranch.privacy.multiparty.field import elements, signed
    >>> x, y = (add_share(elements(v), 2) for v in ([3, -4], [5, 6]))
    >>> signed(add_reveal(multiply(x, y, Dealer(2).triples(2)))).tolist()
    [15, -24]
    """
    if not one.shape == other.shape == triples.a.shape:
        raise bad("Factors and triples have different shapes.")
    d = add_reveal(subtract(one, triples.a))
    e = add_reveal(subtract(other, triples.b))
    product = add(triples.c, multiply_mod(np.broadcast_to(d, one.shape), triples.b))
    product = add(product, multiply_mod(np.broadcast_to(e, one.shape), triples.a))
    return add_public(product, multiply_mod(d, e))
