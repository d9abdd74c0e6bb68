"""The Python entry points: `simulate`, `run_plan`, `resume`, and the `Run` that they return."""

from anabranch.api.run import Baseline, Run
from anabranch.api.simulate import default_store, resume, run_plan, simulate

__all__ = ["Baseline", "Run", "default_store", "resume", "run_plan", "simulate"]
