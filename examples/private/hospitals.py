"""Four hospitals: what can be promised to whom, and what it costs.

    python examples/private/hospitals.py [--seeds 3]

With four sites a promise to a whole *site* leaves nothing to learn, and the plan is refused with
the reason. A promise to each *example* (a row; nothing says that a patient has only one, so it is
not called a promise to patients) is kept by noise inside each hospital. The AUC is that of the
coordinator's hold-out, a quarter of every hospital's rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import anabranch as ab
from anabranch.errors import AnabranchError
from anabranch.plan import load_plan

PLAN = Path(__file__).parent / "hospitals.toml"
EPSILONS = (None, 8.0, 4.0, 2.0, 1.0, 0.5)


def auc(epsilon: float | None, seed: int, store: Path) -> float:
    """One run; each has a population of its own, because repetitions are for this table only."""
    plan = load_plan(PLAN).replace(seed=seed)
    if epsilon is None:
        plan = plan.replace(privacy=None)
    else:
        assert plan.privacy is not None
        name = f"hospitals-{seed}-{epsilon:g}"
        plan = plan.replace(privacy=plan.privacy.replace(epsilon=epsilon, population=name))
    return ab.run_plan(plan, store=store).metrics["auc"]


def site_level(store: Path) -> str:
    """The answer to a promise of epsilon 1 to each hospital."""
    mechanism = {"kind": "gaussian", "clip": {"kind": "fixed", "norm": 1.0}}
    plan = load_plan(PLAN)
    assert plan.privacy is not None
    promise = plan.privacy.replace(
        epsilon=1.0, delta=1e-2, unit="site", population="sites", mechanism=mechanism
    )
    try:
        ab.run_plan(plan.replace(privacy=promise), store=store)
    except AnabranchError as refused:
        return str(refused)
    return "accepted"


def main() -> None:
    """Print the refusal and the table."""
    parser = argparse.ArgumentParser(description="the cost of promises to examples")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions")
    seeds = range(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory() as folder:
        print("Each hospital, epsilon 1:", site_level(Path(folder)), end="\n\n")
        print("Each example (add-or-remove, delta 1e-4), noise inside each hospital:")
        for epsilon in EPSILONS:
            found = np.array([auc(epsilon, seed, Path(folder)) for seed in seeds])
            label = "no promise" if epsilon is None else f"epsilon {epsilon:g}"
            print(f"{label:12s} AUC {found.mean():.3f}  (seeds: {np.round(found, 3).tolist()})")


if __name__ == "__main__":
    main()
