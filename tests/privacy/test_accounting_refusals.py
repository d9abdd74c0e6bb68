"""What the accounting refuses, in Python and on the command line, and what it prints."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import pytest
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.errors import AnabranchError
from anabranch.privacy.accounting import (
    account,
    banded_toeplitz,
    calibrate,
    claim,
    exact_epsilon,
    population_warning,
)
from anabranch.privacy.events import (
    FixedSizeSampling,
    GaussianEvent,
    PoissonSampling,
    Relation,
)

DELTA = 1e-5

REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("AB-902", lambda: claim([GaussianEvent(1.0)], 0.0)),
    ("AB-902", lambda: claim([GaussianEvent(1.0)], 1.0)),
    ("AB-902", lambda: claim([GaussianEvent(1.0)], 1e-13)),
    ("AB-902", lambda: claim([GaussianEvent(1.0)], float("nan"))),
    ("AB-903", lambda: GaussianEvent(0.0)),
    ("AB-903", lambda: GaussianEvent(-1.0)),
    ("AB-903", lambda: GaussianEvent(float("nan"))),
    ("AB-903", lambda: GaussianEvent(1.0, realised_noise=0.0)),
    ("AB-903", lambda: GaussianEvent(1.0, clip=0.0)),
    ("AB-904", lambda: PoissonSampling(0.0)),
    ("AB-904", lambda: FixedSizeSampling(1.5)),
    ("AB-905", lambda: calibrate(GaussianEvent(1.0), 0.0, DELTA)),
    ("AB-905", lambda: calibrate(GaussianEvent(1.0), float("inf"), DELTA)),
    ("AB-906", lambda: GaussianEvent(1.0, 0)),
    ("AB-906", lambda: claim([], DELTA)),
    ("AB-907", lambda: GaussianEvent(1.0, 1, FixedSizeSampling(0.1))),
    (
        "AB-908",
        lambda: claim([GaussianEvent(1.0), GaussianEvent(1.0, relation=Relation.ZERO_OUT)], DELTA),
    ),
    ("AB-909", lambda: claim([GaussianEvent(0.01, 1, PoissonSampling(0.1))], DELTA)),
    ("AB-910", lambda: population_warning(0.01, 10_000)),
    ("AB-911", lambda: banded_toeplitz(100, 50, 5)),
    ("AB-911", lambda: banded_toeplitz(0, 1, 1)),
    ("AB-911", lambda: banded_toeplitz(10, 1, 1, bands=0)),
]


@pytest.mark.parametrize(("code", "attempt"), REFUSED)
def test_refused(code: str, attempt: Callable[[], object]) -> None:
    with pytest.raises(AnabranchError) as caught:
        attempt()
    assert caught.value.code == code


def test_delta_and_population() -> None:
    assert population_warning(1e-5, 10_000) == ""
    assert population_warning(1e-5, 100_000) == ""
    assert population_warning(1e-5, 1_000_000).startswith("AB-910")


def test_the_realised_noise_counts() -> None:
    planned, realised = GaussianEvent(4.0), GaussianEvent(4.0, realised_noise=2.0)
    assert claim([realised], DELTA) == claim([GaussianEvent(2.0)], DELTA)
    assert claim([realised], DELTA).epsilon > claim([planned], DELTA).epsilon


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> ModuleType:
        if name.split(".")[0] == "dp_accounting":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AnabranchError, match=r"anabranch\[privacy\]") as caught:
        exact_epsilon(1.0, 1e-5)
    assert caught.value.code == "AB-901"


def test_the_accounting_is_imported_lazily() -> None:
    code = (
        "import sys, anabranch.privacy.accounting, anabranch.cli.app;"
        "sys.exit('dp_accounting' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_repeated_question_is_looked_up() -> None:
    events = [GaussianEvent(1.1, 500, PoissonSampling(0.02))]
    claim(events, DELTA)
    fastest = min(_seconds(lambda: claim(events, DELTA)) for _ in range(5))
    assert fastest < 1e-3


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["privacy", *words])
    return result.exit_code, result.stdout, result.stderr


EPSILON = ("epsilon", "--noise-multiplier", "1", "--rounds", "100", "--delta", "1e-5")
CALIBRATE = ("calibrate", "--epsilon", "1", "--delta", "1e-5", "--rounds", "100")
PEOPLE = ("--population", "10000", "--cohort", "100")


def test_epsilon_as_json() -> None:
    status, out, _ = run(*EPSILON, "--sampling-rate", "0.01", "--sampling", "poisson", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["claim"] == pytest.approx(0.718037, rel=1e-3)
    assert found["lower_bound"] <= found["claim"] <= found["rdp"]
    assert found["relation"] == "add-or-remove"
    assert found["sampling"] == "poisson"


def test_nothing_is_amplified_unless_stated() -> None:
    status, out, _ = run(*EPSILON, "--sampling-rate", "0.01", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["claim"] == pytest.approx(
        account([GaussianEvent(1.0, 100)], DELTA).claim, rel=1e-12
    )
    assert found["sampling"] == "none"
    assert "no sampling is claimed" in found["warnings"][0]


def test_a_fixed_cohort_defaults_to_replace_one() -> None:
    status, out, _ = run(*EPSILON, *PEOPLE, "--sampling", "without-replacement", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["relation"] == "replace-one"
    assert found["claim"] == pytest.approx(6.640849, rel=1e-3)


def test_calibrate_as_json() -> None:
    for sampling, noise in (("poisson", 0.9031), ("without-replacement", 1.8333), ("none", 37.306)):
        status, out, _ = run(*CALIBRATE, *PEOPLE, "--sampling", sampling, "--json")
        found = json.loads(out)
        assert status == 0
        assert found["noise_multiplier"] == pytest.approx(noise, rel=2e-3)
        assert found["claim"] <= found["budget"]
    _, out, _ = run(*CALIBRATE, *PEOPLE, "--participations", "1", "--json")
    assert json.loads(out)["noise_multiplier"] == pytest.approx(3.73063, rel=1e-4)


def test_a_table_for_people() -> None:
    status, out, _ = run(*CALIBRATE, "--population", "1000000", "--cohort", "10000")
    assert status == 0
    assert "noise multiplier 37.306" in out
    assert "AB-910" in out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AB-902", ("epsilon", "--noise-multiplier", "1", "--rounds", "1", "--delta", "0")),
        ("AB-903", ("epsilon", "--noise-multiplier", "0", "--rounds", "1", "--delta", "1e-5")),
        ("AB-904", (*EPSILON, "--sampling-rate", "1.5")),
        ("AB-905", ("calibrate", "--epsilon", "0", "--rounds", "1", "--delta", "1e-5")),
        ("AB-906", ("epsilon", "--noise-multiplier", "1", "--rounds", "0", "--delta", "1e-5")),
        (
            "AB-907",
            (
                *(*EPSILON, "--sampling-rate", "0.01", "--relation", "add-or-remove"),
                *("--sampling", "without-replacement"),
            ),
        ),
        (
            "AB-910",
            (
                *("calibrate", "--epsilon", "1", "--rounds", "1"),
                *("--delta", "0.01", "--population", "10000"),
            ),
        ),
        ("AB-913", (*EPSILON, "--sampling", "poisson")),
        ("AB-913", (*CALIBRATE, "--population", "10", "--cohort", "100")),
        ("AB-913", (*CALIBRATE, "--participations", "101")),
        ("AB-913", (*CALIBRATE, *PEOPLE, "--participations", "1", "--sampling", "poisson")),
        ("AB-913", (*CALIBRATE, "--population", "0")),
    ],
)
def test_refused_on_the_command_line(code: str, words: tuple[str, ...]) -> None:
    status, out, err = run(*words)
    assert status == 1
    assert out == ""
    assert err.startswith(code)
