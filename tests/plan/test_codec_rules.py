"""Why FedDyn is refused with lossy codecs and SCAFFOLD is not: where the model comes to rest."""

from __future__ import annotations

import numpy as np
import pytest
from small_federation import program_of, rows, run_package
from test_algebra_pairs import BASE

from anabranch.plan import changed

EVERYONE = [[0, 1, 2, 3]] * 300
FULL = {"local.batch_size": 0, "local.epochs": 5, "local.learning_rate": 0.02}
ECQ = [{"kind": "ecq", "coarseness": 2.0}]


def distance_at_rest(algorithm: dict[str, object], stages: list[dict[str, object]]) -> float:
    """From the minimiser of the uniform mean, after 300 rounds."""
    plan = changed(BASE, {**FULL, "algorithm": algorithm, "updates.stages": stages})
    hessian, gradient = np.zeros((4, 4)), np.zeros(4)
    for x, y in rows():
        z = np.column_stack([x, np.ones(len(y))])
        hessian, gradient = hessian + z.T @ z / len(y), gradient + z.T @ y / len(y)
    assert program_of(plan).dim >= 4
    return float(
        np.linalg.norm(run_package(plan, EVERYONE)[:4] - np.linalg.solve(hessian, gradient))
    )


def test_errors_of_a_codec_add_up_in_the_books_of_feddyn() -> None:
    """AB-462; the same algorithm is exact without the codec, and SCAFFOLD is with it."""
    feddyn: dict[str, object] = {"name": "feddyn", "alpha": 1.0}
    assert distance_at_rest(feddyn, []) < 1e-3
    assert distance_at_rest(feddyn, ECQ) > 0.02
    assert distance_at_rest({"name": "scaffold"}, ECQ) < 1e-3


@pytest.mark.parametrize("kind", ["zstd"])
def test_lossless_codecs_change_no_bit_of_feddyn(kind: str) -> None:
    feddyn = {"algorithm": {"name": "feddyn", "alpha": 1.0}}
    plain = run_package(changed(BASE, feddyn), EVERYONE[:5])
    packed = changed(BASE, {**feddyn, "updates.stages": [{"kind": kind}]})
    np.testing.assert_array_equal(run_package(packed, EVERYONE[:5]), plain)
