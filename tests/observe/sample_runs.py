"""Runs made of plain values, with everything in them that a report can show."""

from __future__ import annotations

import numpy as np

from anabranch.observe.events import ClientTrouble, LimitCheck
from anabranch.observe.view import CardView, EvaluationView, ReleaseView, RoundView, RunView

HOSPITALS = {"cleveland": 76, "hungary": 74, "switzerland": 31, "va": 50}
LOCAL = {"cleveland": 0.885, "hungary": 0.889, "switzerland": 0.640, "va": 0.655}
POOLED = {"cleveland": 0.886, "hungary": 0.891, "switzerland": 0.705, "va": 0.725}


def evaluation(values: dict[str, float], examples: dict[str, int] | None = None) -> EvaluationView:
    mean = float(np.mean(list(values.values())))
    return EvaluationView(
        {"auc": mean, "loss": 1 - mean},
        {c: {"auc": v, "loss": 1 - v} for c, v in values.items()},
        examples or {},
    )


def heart_round(number: int) -> RoundView:
    progress = 1 - 0.8**number
    lost = number in (4, 5)
    values = {c: 0.5 + (POOLED[c] - 0.5) * progress for c in HOSPITALS}
    return RoundView(
        number=number,
        outcome="partial" if lost else "complete",
        evaluation=evaluation(values, HOSPITALS),
        fates={"merged": 3, "too late": 1} if lost else {"merged": 4},
        seconds=0.02,
        bytes_up=480,
        bytes_down=640,
        contributors=3 if lost else 4,
        cohort=4,
        phases={"train": 0.012, "fold": 0.001, "evaluate": 0.005, "commit": 0.002},
    )


def heart_run(rounds: int = 20, **changes: object) -> RunView:
    """Four hospitals, two troubled rounds, both baselines, one limit of two missed."""
    given: dict[str, object] = {
        "run_id": "heart-7f3a",
        "name": "four hospitals",
        "status": "complete",
        "reason": "all rounds done",
        "created": "2026-01-05 10:00 UTC",
        "trust_line": "The coordinator can read every update; no differential privacy.",
        "rounds_planned": rounds,
        "clients": 4,
        "rounds": tuple(heart_round(n) for n in range(1, rounds + 1)),
        "local_only": evaluation(LOCAL),
        "pooled": evaluation(POOLED),
        "troubles": tuple(
            ClientTrouble(n, "va", "too late", "no answer before the deadline") for n in (4, 5)
        ),
        "releases": (
            ReleaseView("statistics", 0, "unprotected", 4, "mean and variance of 13 columns"),
            ReleaseView("model", rounds, "unprotected", 4),
        ),
        "limits": (
            LimitCheck("min_participation", ">= 0.9", 0.975, True),
            LimitCheck("rounds_to_target", "<= 10 rounds", 14.0, False),
        ),
        "plan": {"seed": 0, "local.epochs": 2, "algorithm.name": "fedavg"},
        "plan_text": 'seed = 0\n\n[algorithm]\nname = "fedavg"\n\n[local]\nepochs = 2\n',
        "digest": "9b1c" * 16,
        "cards": (
            CardView(
                "Heart disease, four hospitals",
                (
                    ("origin", "UCI Machine Learning Repository, https://archive.ics.uci.edu"),
                    ("licence", "CC BY 4.0"),
                    ("partition", "natural"),
                ),
            ),
        ),
        "versions": {"anabranch": "0.1.0", "numpy": "2.1.0", "python": "3.11.7"},
        "metric": "auc",
    }
    return RunView(**{**given, **changes})  # type: ignore[arg-type]  # fields by name, for tests


def fleet_run(clients: int = 300, rounds: int = 150) -> RunView:
    """Many clients and rounds, no baselines but local-only: the crowded pictures."""
    rng = np.random.default_rng(3)
    local = {f"device-{i:04d}": float(v) for i, v in enumerate(rng.normal(0.7, 0.05, clients))}
    final = {
        c: v + float(d)
        for (c, v), d in zip(local.items(), rng.normal(0.06, 0.03, clients), strict=True)
    }
    made = []
    for n in range(1, rounds + 1):
        lost, late = (int(v) for v in rng.integers(0, 5, 2))
        mean = 0.78 - 0.4 * 0.97**n
        metrics = {"accuracy": mean, "accuracy_p10": mean - 0.06, "accuracy_p90": mean + 0.05}
        made.append(
            RoundView(
                number=n,
                outcome="partial",
                evaluation=EvaluationView(metrics) if n % 5 == 0 else None,
                fates={"merged": 30 - lost - late, "lost": lost, "too late": late},
                seconds=1.4,
                bytes_up=(30 - lost - late) * 407_080,
                bytes_down=30 * 407_080,
                contributors=30 - lost - late,
                cohort=30,
                phases={"train": 1.1 + 0.1 * float(rng.random()), "fold": 0.05, "commit": 0.1},
            )
        )
    as_clients = {c: {"accuracy": v} for c, v in final.items()}
    return RunView(
        run_id="fleet-01", name="a fleet of devices", status="running",
        trust_line="The coordinator can read every update; no differential privacy.",
        rounds_planned=200, clients=clients, rounds=tuple(made),
        final=EvaluationView({"accuracy": 0.78}, as_clients, dict.fromkeys(final, 20)),
        local_only=EvaluationView({}, {c: {"accuracy": v} for c, v in local.items()}),
    )  # fmt: skip
