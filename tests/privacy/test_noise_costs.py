"""What distributed noise costs, against vectors of a reference implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from anabranch.privacy.accounting import exact_epsilon
from anabranch.privacy.mechanisms import DistributedNoise, FixedClip
from anabranch.privacy.mechanisms.modulus import (
    discrete_gaussian_rdp,
    rounded_norm,
    scale_for,
    skellam_rdp,
    sum_bias,
)

CELLS = json.loads((Path(__file__).parent / "vectors" / "distributed_dp.json").read_text())
ORDERS = np.arange(2, 257, dtype=float)


def epsilon(divergence: object, delta: float = 1e-5) -> float:
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    assert callable(divergence)
    return float(compute_epsilon(ORDERS, [divergence(order) for order in ORDERS], delta)[0])


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c['n']}-{c['d']}-{c['z']}-{c['bits']}")
def test_formulas_agree_with_the_vectors(cell: dict[str, float]) -> None:
    clients, dim, z = int(cell["n"]), int(cell["d"]), cell["z"]
    scale = scale_for(int(cell["bits"]), clients, dim, 1.0, z / math.sqrt(clients))
    norm, local = rounded_norm(scale, 1.0, dim), scale * z / math.sqrt(clients)
    assert scale == pytest.approx(cell["scale"], rel=1e-9)
    assert norm / scale == pytest.approx(cell["l2_inflation"], rel=1e-9)
    assert local == pytest.approx(cell["local_std_int"], rel=1e-9)
    assert sum_bias(clients, local) == pytest.approx(cell["tau"], rel=1e-9, abs=1e-200)
    gaussian = discrete_gaussian_rdp(norm, clients, dim, local)
    assert epsilon(gaussian) == pytest.approx(cell["eps_ddg"], rel=1e-9)
    skellam = skellam_rdp(norm, dim, clients * local**2)
    assert epsilon(skellam) == pytest.approx(cell["eps_skellam"], rel=1e-9)


@pytest.mark.parametrize("clients", [100, 1000])
def test_twenty_bits_cost_less_than_a_thousandth_of_epsilon(clients: int) -> None:
    """2 million coordinates, the goal of the project, with our own provisions for wrapping."""
    dim, z = 2_000_000, 3.7307
    made = DistributedNoise(dim, clients, clients, clients, 0, FixedClip(norm=1.0), z, bits=20)
    deviation = math.sqrt(clients) * made.local_deviation
    plain = epsilon(lambda order: order / (2 * z**2))
    worth = made.norm / math.sqrt(deviation**2 - 1.75**2)
    assert epsilon(lambda order: order * worth**2 / 2) / plain - 1 <= 1e-3
    # By how the mechanism provisions, the noise keeps the promise exactly; what bits cost is the
    # noise that is on top of z clip norms.
    assert exact_epsilon(1 / worth, 1e-5) <= exact_epsilon(z, 1e-5) * (1 + 1e-9)
    added = deviation / made.scale / z
    assert exact_epsilon(z, 1e-5) / exact_epsilon(z * added, 1e-5) - 1 <= 1e-3
