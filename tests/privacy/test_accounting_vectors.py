"""The accounting agrees with the published vectors, and its three numbers keep their order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anabranch.privacy.accounting import (
    account,
    banded_toeplitz,
    binary_tree,
    calibrate,
    claim,
    exact_noise,
    independent_noise,
    optimal_toeplitz,
)
from anabranch.privacy.events import (
    FixedSizeSampling,
    GaussianEvent,
    PoissonSampling,
    Relation,
    Sampling,
)

VECTORS = Path(__file__).parent / "vectors"
EPSILONS = json.loads((VECTORS / "dp_epsilons.json").read_text())
SIGMAS = json.loads((VECTORS / "dp_sigma_calibration.json").read_text())
EXTRA = json.loads((VECTORS / "dp_extra.json").read_text())
FTRL = json.loads((VECTORS / "dpftrl_sensitivity.json").read_text())
SAMPLED = [cell for cell in EPSILONS if cell["q"] < 1]
DELTA = 1e-5


def cell_name(cell: dict[str, float]) -> str:
    return f"q={cell['q']:g} sigma={cell['sigma']:g} T={cell['T']}"


@pytest.mark.parametrize("cell", EPSILONS, ids=cell_name)
def test_poisson_cells(cell: dict[str, float]) -> None:
    event = GaussianEvent(cell["sigma"], int(cell["T"]), PoissonSampling(cell["q"]))
    priced = account([event], cell["delta"])
    assert priced.claim == pytest.approx(cell["pld_upper"], rel=1e-3)
    assert priced.rdp == pytest.approx(cell["rdp"], rel=1e-3)
    assert priced.lower_bound <= priced.claim <= priced.rdp
    assert cell["pld_lower"] <= priced.claim * (1 + 1e-9)
    assert priced.change <= 5e-4
    if "gauss_exact" in cell:
        assert priced.exact
        assert priced.claim == pytest.approx(cell["gauss_exact"], rel=1e-9)


@pytest.mark.parametrize("cell", SAMPLED, ids=cell_name)
def test_without_replacement_cells(cell: dict[str, float]) -> None:
    """On the grid of the vectors to 1e-3; on the grid that refinement chooses never above them."""
    event = GaussianEvent(
        cell["sigma"], int(cell["T"]), FixedSizeSampling(cell["q"]), Relation.REPLACE_ONE
    )
    same_grid = account([event], cell["delta"], step=1e-3)
    assert same_grid.claim == pytest.approx(cell["wor_pld_upper"], rel=1e-3)
    assert same_grid.rdp == pytest.approx(cell["wor_rdp"], rel=1e-3)
    refined = claim([event], cell["delta"])
    assert refined.change <= 5e-4
    assert refined.epsilon <= cell["wor_pld_upper"] * (1 + 1e-3)
    assert refined.epsilon >= cell["wor_pld_upper"] * (1 - 0.011)  # its grid is coarse there
    assert same_grid.lower_bound <= refined.epsilon <= same_grid.rdp


def test_replace_one_trap() -> None:
    """Passed on unscaled, z = 4 gives the 1.013 of the vectors; true is 1.993."""
    priced = account([GaussianEvent(4.0, relation=Relation.REPLACE_ONE)], DELTA)
    assert priced.claim == pytest.approx(EXTRA["convention_trap"]["exact sens 2"], rel=1e-9)
    assert priced.claim == pytest.approx(1.993, abs=5e-4)
    assert priced.rdp >= priced.claim
    zero_out = account([GaussianEvent(4.0, relation=Relation.ZERO_OUT)], DELTA)
    assert zero_out.rdp == pytest.approx(
        EXTRA["convention_trap"]["RDP REPLACE_ONE Gaussian z=4"], rel=1e-3
    )


@pytest.mark.parametrize(
    ("rate", "sigma", "rounds", "name"),
    [(0.01, 1.0, 1000, "q=.01,s=1,T=1000"), (0.1, 4.0, 100, "q=.1,s=4,T=100")],
)
def test_poisson_replace_one(rate: float, sigma: float, rounds: int, name: str) -> None:
    event = GaussianEvent(sigma, rounds, PoissonSampling(rate), Relation.REPLACE_ONE)
    priced = account([event], DELTA)
    assert priced.claim == pytest.approx(EXTRA["pld_poisson_replace_one"][name], rel=1e-3)
    assert priced.lower_bound <= priced.claim <= priced.rdp


@pytest.mark.parametrize("cap", [130, 160])
def test_poisson_with_a_cap(cap: int) -> None:
    event = GaussianEvent(1.0, 100, PoissonSampling(0.01, cap, 10_000))
    priced = account([event], DELTA)
    wanted = EXTRA["truncated_poisson_N1e4_q01_s1_T100"][f"cap{cap}"]
    assert priced.claim == pytest.approx(wanted, rel=1e-3)
    assert priced.lower_bound <= priced.claim <= priced.rdp


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
def test_poisson_replace_one_calibration(rate: float) -> None:
    event = GaussianEvent(1.0, 100, PoissonSampling(rate), Relation.REPLACE_ONE)
    wanted = EXTRA["poisson_replace_one_sigma_eps1_T100"][f"{rate:g}"]
    assert calibrate(event, 1.0, DELTA).noise == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("cell", SIGMAS, ids=lambda c: f"N={c['N']} m={c['m']} eps={c['eps']:g}")
def test_calibration(cell: dict[str, float]) -> None:
    epsilon, delta, rounds = cell["eps"], cell["delta"], int(cell["T"])
    schemes: list[tuple[str, Sampling, Relation]] = [
        ("sigma_poisson_pld", PoissonSampling(cell["q"]), Relation.ADD_OR_REMOVE),
        ("sigma_wor_pld", FixedSizeSampling(cell["q"]), Relation.REPLACE_ONE),
    ]
    for name, sampling, relation in schemes:
        event = calibrate(GaussianEvent(1.0, rounds, sampling, relation), epsilon, delta)
        assert event.noise == pytest.approx(cell[name], rel=2e-3)
        assert claim([event], delta).epsilon <= epsilon
    for name, releases in (("capped", cell["k_particip_noamp"]), ("all", rounds)):
        plain = calibrate(GaussianEvent(1.0, int(releases)), epsilon, delta)
        assert plain.noise == pytest.approx(cell[f"sigma_noamp_{name}"], rel=1e-8)
        assert claim([plain], delta).epsilon <= epsilon


@pytest.mark.parametrize("cell", FTRL, ids=lambda c: f"n={c['n']} b={c['min_sep']} k={c['k']}")
def test_ftrl(cell: dict[str, dict[str, float] | float]) -> None:
    shape = (int(cell["n"]), int(cell["min_sep"]), int(cell["k"]))
    mechanisms = {
        "identity": independent_noise,
        "opt_toeplitz": optimal_toeplitz,
        "banded_toeplitz_b": banded_toeplitz,
        "binary_tree": binary_tree,
    }
    for name, build in mechanisms.items():
        found, wanted = build(*shape), cell[name]
        assert found.sensitivity == pytest.approx(wanted["sens"], rel=1e-9)
        assert found.max_error == pytest.approx(wanted["max_err"], rel=1e-9)
        if "rms_err" in wanted:
            assert found.rms_error == pytest.approx(wanted["rms_err"], rel=1e-9)
    for epsilon in (1, 2, 8):
        assert exact_noise(epsilon, DELTA) == pytest.approx(cell[f"z_eps{epsilon}"], rel=1e-9)
