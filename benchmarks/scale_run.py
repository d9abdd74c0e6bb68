"""The child of `benchmarks.scale`: one run of a generated logistic federation, store on.

    python -m benchmarks.scale_run FOLDER ALGORITHM CLIENTS COHORT ROUNDS

It prints ``mark SECONDS`` (wall clock) when the run starts and after every round.
"""

from __future__ import annotations

import sys
import time

from anabranch.algorithms import FedAvg, Scaffold
from anabranch.api.simulate import run_plan
from anabranch.coordinator.events import Event, RoundCommitted, RunStarted
from anabranch.data.plan import DataPlan
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan import Plan
from anabranch.plan.evaluation import EvaluationPlan
from anabranch.plan.rounds import RoundsPlan

__all__ = ["main"]

ALGORITHMS = {"fedavg": FedAvg, "scaffold": Scaffold}


def main() -> None:
    """Run as the arguments say."""
    folder, algorithm, clients, cohort, rounds = sys.argv[1:]
    plan = Plan(
        name=f"scale-{algorithm}",
        data=DataPlan(
            source="synthetic-logistic",
            options={"clients": int(clients), "features": 60, "examples": 20},
        ),
        model=ModelPlan(name="logistic"),
        local=LocalTraining(batch_size=10, learning_rate=0.05),
        algorithm=ALGORITHMS[algorithm](),
        rounds=RoundsPlan(count=int(rounds), cohort=int(cohort)),
        evaluation=EvaluationPlan(every=20, on="holdout"),
    )
    run_plan(plan, store=folder, listener=_mark)


def _mark(event: Event) -> None:
    if isinstance(event, RunStarted | RoundCommitted):
        print(f"mark {time.time()}", flush=True)


if __name__ == "__main__":
    main()
