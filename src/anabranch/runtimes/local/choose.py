"""Which local runtime fits: inline for small work, one process a core for the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from anabranch.client.states import SlotFile
from anabranch.errors import AnabranchError
from anabranch.plan.runtime import RuntimePlan
from anabranch.runtimes.local.inline import InlineRuntime
from anabranch.runtimes.local.processes import ProcessRuntime
from anabranch.runtimes.local.worker import Simulant

__all__ = ["LocalSetup", "local_runtime"]

_SMALL_ROUND = 2e7
"""Multiply-adds of a round below which starting and feeding workers costs more than it saves."""


@dataclass(frozen=True)
class LocalSetup:
    """What a local runtime is made of.

    Attributes:
        simulant: program, data and memory access of this process.
        slots: the clients' memory, already restored; None when they keep nothing.
        asked: clients asked in a round.
        factory: picklable builder of an equal simulant for spawned workers; None when the model or
            the algorithm was made in a notebook cell and cannot be imported elsewhere.
    """

    simulant: Simulant
    slots: SlotFile | None
    asked: int
    factory: Callable[[], Simulant] | None = None


def local_runtime(setup: LocalSetup, plan: RuntimePlan) -> InlineRuntime | ProcessRuntime:
    """The runtime that the plan's ``[runtime]`` table asks for.

    Raises:
        AnabranchError: AB-701 ``spawn`` with something that only this process knows, AB-702
            ``fork`` where the system cannot.
    """
    kind, workers = _kind(setup, plan), _workers(plan)
    if kind == "inline":
        return InlineRuntime(setup.simulant, setup.slots)
    if kind == "spawn" and setup.factory is None:
        raise AnabranchError(
            "AB-701",
            "spawned workers cannot import a model or an algorithm that was made in a notebook "
            "cell or in the main script.",
            fix="put it into a module, or use runtime.kind = 'inline' or 'fork'.",
        )
    program = setup.simulant.program
    factory = setup.factory if kind == "spawn" else _Forked(setup.simulant)
    assert factory is not None
    return ProcessRuntime(
        factory,
        workers=workers,
        kind=kind,
        broadcast=program.broadcast_sections,
        fold_size=max(program.sections.size, program.metrics.sections().size),
        costs=setup.simulant.federation.train.counts,
        slots=setup.slots,
    )


@dataclass(frozen=True)
class _Forked:
    """A forked worker already has everything: it shares the parent's pages."""

    simulant: Simulant

    def __call__(self) -> Simulant:
        return self.simulant


def _workers(plan: RuntimePlan) -> int:
    if isinstance(plan.workers, int):
        return plan.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kind(setup: LocalSetup, plan: RuntimePlan) -> Literal["inline", "fork", "spawn"]:
    if plan.kind == "fork" and sys.platform == "win32":
        raise AnabranchError(
            "AB-702",
            "this system cannot fork.",
            fix="use runtime.kind = 'spawn' or 'inline'.",
        )
    if plan.kind != "auto":
        return plan.kind
    if plan.workers == "auto" and _round_cost(setup) < _SMALL_ROUND:
        return "inline"
    if plan.workers == 1:
        return "inline"
    return "fork" if sys.platform.startswith("linux") else "spawn"


def _round_cost(setup: LocalSetup) -> float:
    """Multiply-adds of a round, roughly: three passes over the parameters for each example."""
    simulant = setup.simulant
    program, counts = simulant.program, simulant.federation.train.counts
    examples = float(counts.mean()) * setup.asked * (program.training.epochs or 1)
    if program.training.steps is not None:
        batch = program.training.batch_size or float(counts.mean())
        examples = setup.asked * program.training.steps * float(batch)
    return 3.0 * examples * program.learner.layout.size
