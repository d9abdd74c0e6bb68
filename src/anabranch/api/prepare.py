"""From a plan to everything a run needs: data, program, sizes, checks. Nothing runs yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anabranch.client.program import ClientProgram
from anabranch.client.states import SlotMap
from anabranch.data.federation import Federation
from anabranch.data.load import LoadedData, load_federation
from anabranch.errors import AnabranchError
from anabranch.learners.build import ModuleFactory, build_learner
from anabranch.learners.metrics import MetricSet
from anabranch.learners.threads import one_thread
from anabranch.plan import Plan, check_against_fleet, require_accepted
from anabranch.plan.check import check_against_data, check_against_layout
from anabranch.randomness import derived_seed
from anabranch.runtimes.local.worker import Simulant
from anabranch.updates.stages import compile_stages

__all__ = ["Prepared", "prepare", "program_of"]


@dataclass(frozen=True)
class Prepared:
    """A plan, its data and its program.

    Attributes:
        plan: accepted by the algebra.
        federation: the data, ready for learning.
        loaded: how they were loaded (releases of statistics, preprocessing); None for arrays.
        program: what clients run.
        module: the model's factory when the plan cannot name it.
    """

    plan: Plan
    federation: Federation
    loaded: LoadedData | None
    program: ClientProgram
    module: ModuleFactory | None = None

    def simulant(self, memory: SlotMap | None) -> Simulant:
        """A worker's equipment in this process."""
        return Simulant(self.program, self.federation, memory)


def prepare(
    plan: Plan, federation: Federation | None = None, module: ModuleFactory | None = None
) -> Prepared:
    """Load the data and build the program.

    Args:
        plan: what to do.
        federation: data given in Python instead of the plan's source.
        module: the model's factory, when the plan's name for it cannot be imported.

    Raises:
        AnabranchError: AB-4xx the algebra refuses the plan, AB-1xx the fleet is too small for it,
            AB-2xx the data, AB-3xx the model.
    """
    require_accepted(plan)
    loaded = None
    if federation is None:
        loaded = load_federation(plan.data, plan.seed)
        federation = loaded.federation
    check_against_fleet(plan, len(federation))
    with one_thread():
        program = program_of(plan, federation, module)
        check_against_layout(plan, program.learner.layout)
        check_against_data(plan, federation, program.learner)
    return Prepared(plan, federation, loaded, program, module)


def program_of(plan: Plan, federation: Federation, module: ModuleFactory | None) -> ClientProgram:
    """The client program of a plan for data of this shape; equal in every process."""
    engine = plan.runtime.engine
    learner = build_learner(
        plan.model,
        "numpy" if engine == "numpy" else "auto",
        input_shape=federation.input_shape,
        classes=federation.classes,
        vocabulary_size=len(federation.vocabulary),
        precision=plan.local.precision,
        engine="auto" if engine == "numpy" else engine,
        device=plan.runtime.device,
        module_factory=module,
    )
    base = learner.initial(derived_seed(plan.seed, "initial"))
    if not np.isfinite(base).all():
        raise AnabranchError(
            "AB-310",
            "the model's initial parameters contain values that are not finite.",
            fix="look at the model's initialisation.",
        )
    stages = [stage.fitted(learner.layout) for stage in plan.updates.stages]
    return ClientProgram(
        algorithm=plan.algorithm,
        learner=learner,
        training=plan.local,
        weight=plan.weighting,
        pipeline=compile_stages(stages, plan.updates.max_bytes),
        metrics=MetricSet.of(federation.classes, bins=plan.evaluation.bins),
        seed=plan.seed,
        rounds=plan.rounds.count,
        base=base,
    )
