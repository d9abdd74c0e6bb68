"""How many neighbours a client has, and how many of them open a secret.

For n clients, at most ``corrupt`` of which work with the server and ``dropped`` of which vanish, a
random k-regular graph and a threshold t must satisfy (Bell et al. 2020, "Secure Single-Server
Aggregation with (Poly)Logarithmic Overhead", section 4; union bounds, exact integers here):

- honest survivors stay connected: no run of k/2 consecutive clients on the ring is lost,
  n ((corrupt + dropped) / n)^(k/2) <= 2^-40;
- nobody has t corrupt neighbours, except with probability 2^-40;
- everybody keeps t neighbours, except with probability 2^-20.

Where the coordinator can choose among several graphs (by tries, by who stays out), the first two
bounds hold for all of them together: the failure of each is divided by their number.

Below 100 clients everybody is everybody's neighbour, and t is so large that even lies about who
vanished can not collect t shares of both secrets of a client: 2 t > k + corrupt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.refusals import bad_parameters

__all__ = [
    "COMPLETE_BELOW",
    "Neighbourhood",
    "choose_neighbourhood",
    "head_count",
    "worst_draw",
]

COMPLETE_BELOW = 100
"""With fewer clients than this the graph is complete."""

_PRIVACY_BITS = 40
_ABORT_BITS = 20


@dataclass(frozen=True)
class Neighbourhood:
    """The shape of the graph.

    Attributes:
        neighbours: k, of each client.
        threshold: t, how many of them reconstruct a secret.
    """

    neighbours: int
    threshold: int


def head_count(share: float, clients: int) -> int:
    """A share of the clients as a whole number, rounded up.

    >>> head_count(0.1, 30)
    3
    """
    return math.ceil(round(share * clients, 6))


def _tail(population: int, marked: int, drawn: int, least: int) -> int:
    """How many of the ``comb(population, drawn)`` draws contain at least ``least`` marked ones."""
    return sum(
        math.comb(marked, found) * math.comb(population - marked, drawn - found)
        for found in range(max(0, least), min(marked, drawn) + 1)
    )


def worst_draw(clients: int, corrupt: int, drawn: int, freedom: int = 1) -> int:
    """The most corrupt clients among ``drawn`` ones, except with probability 2^-40.

    >>> worst_draw(1000, 100, 1000), worst_draw(1000, 100, 100)
    (100, 34)
    """
    if drawn >= clients:
        return corrupt
    draws = math.comb(clients, drawn)
    low, high = 0, min(corrupt, drawn)
    while low < high:
        middle = (low + high) // 2
        if freedom * _tail(clients, corrupt, drawn, middle + 1) << _PRIVACY_BITS <= draws:
            high = middle
        else:
            low = middle + 1
    return low


def _threshold(clients: int, corrupt: int, dropped: int, k: int, freedom: int) -> int | None:
    """The least t that keeps secrets at k neighbours, if enough neighbours survive for it."""
    others = clients - 1
    # At k = n - 1 there is one possible draw, and both bounds are statements about counts.
    draws = math.comb(others, k)
    low, high = 1, k + 1
    while low < high:
        middle = (low + high) // 2
        if freedom * clients * _tail(others, corrupt, k, middle) << _PRIVACY_BITS <= draws:
            high = middle
        else:
            low = middle + 1
    if low > k:
        return None
    lost = _tail(others, dropped, k, k - low + 1)
    return low if clients * lost << _ABORT_BITS <= draws else None


def _complete(clients: int, corrupt: int, dropped: int) -> Neighbourhood:
    k = clients - 1
    threshold = (k + corrupt) // 2 + 1
    if threshold > k - dropped:
        raise _no_graph(clients, corrupt, dropped)
    return Neighbourhood(k, threshold)


def _no_graph(clients: int, corrupt: int, dropped: int) -> AnabranchError:
    return AnabranchError(
        "AB-953",
        f"No threshold protects {clients} clients of which {corrupt} may be corrupt while "
        f"{dropped} may vanish.",
        fix="lower the share of corrupt or vanishing clients, or ask more clients.",
        kept="The round was not started.",
    )


def choose_neighbourhood(
    clients: int,
    corrupt: int,
    dropped: int,
    *,
    complete_below: int = COMPLETE_BELOW,
    freedom: int = 1,
) -> Neighbourhood:
    """The smallest graph that keeps the bounds of this module.

    Args:
        clients: n, those who sent keys.
        corrupt: how many of them may work with the server.
        dropped: how many of them may vanish before the sum is open.
        complete_below: with fewer clients the graph is complete.
        freedom: how many graphs the coordinator can choose among.

    Raises:
        AnabranchError: AB-952 if the counts are impossible, AB-953 if no graph is large enough.

    >>> choose_neighbourhood(1000, 100, 100)
    Neighbourhood(neighbours=46, threshold=26)
    """
    if clients < 2 or not (0 <= corrupt < clients and 0 <= dropped < clients):
        raise bad_parameters(f"{corrupt} corrupt and {dropped} dropped of {clients} clients.")
    if clients < complete_below:
        return _complete(clients, corrupt, dropped)
    lost = corrupt + dropped
    for half in range(1, (clients - 1) // 2 + 1):
        connected = freedom * clients * lost**half << _PRIVACY_BITS <= clients**half
        if not connected:
            continue
        t = _threshold(clients, corrupt, dropped, 2 * half, freedom)
        if t is not None:
            return Neighbourhood(2 * half, t)
    return _complete(clients, corrupt, dropped)
