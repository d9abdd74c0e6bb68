"""The plan's table ``[runtime]``: how it is run here. No part of the contract or its digest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from anabranch.values import Value

__all__ = ["RuntimePlan"]


class RuntimePlan(Value):
    """Workers, devices and paths of this machine. The same seed gives the same model for all."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", json_schema_extra={"unit": "processes"}
    )
    """Worker processes; "auto" means one for each core, and none for small work."""
    kind: Literal["auto", "inline", "spawn", "fork"] = "auto"
    """How workers are made: "inline" runs in this process (notebooks, debuggers), "spawn" starts
    fresh interpreters, "fork" copies this one (Linux). "auto" chooses."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models are trained. Only "cpu" is tested."""
    engine: Literal["auto", "traced", "eager", "closed-form", "numpy"] = "auto"
    """How the model is trained: "traced" records the gradient step once, "closed-form" has
    the formulas of stacks of linear layers, "eager" runs the module as written, "numpy" needs no
    PyTorch (logistic, linear, mlp). "auto" takes the fastest one that computes the same."""
    store: str | None = Field(default=None, min_length=1)
    """Folder of the run store. Left out: the folder ``runs`` where the command was started."""
    keep_updates: str | None = Field(default=None, min_length=1)
    """Folder where a served run keeps every accepted update, for `anabranch audit`. Who can read
    it can read what single clients sent. Left out: updates are deleted once they are merged."""
    commit_seconds: float = Field(default=1.0, ge=0, le=60, json_schema_extra={"unit": "seconds"})
    """Rounds of a simulation that end within this time are committed together; a crash loses at
    most these, and they are computed again to the same bits. 0 commits every round."""
