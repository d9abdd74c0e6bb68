"""What a client needs besides the contract: sizes and preprocessing that follow from all sites.

The contract says which columns and which model; how wide the input is, which codes occur and how
columns are scaled is learnt from sums over all sites before the first round. The result is equal
for everybody, travels as one JSON document named by its digest, and holds no value of a person.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from anabranch.client.inside import InsideNoise
from anabranch.client.program import ClientProgram
from anabranch.data.preprocess import Preprocessor
from anabranch.data.schema import DataSchema
from anabranch.errors import AnabranchError
from anabranch.learners.build import ModuleFactory, build_learner
from anabranch.learners.metrics import MetricSet
from anabranch.plan import Plan
from anabranch.plan.mechanism import mechanism_of, scores_of, site_scores_of
from anabranch.plan.privacy import LocalDpSgd
from anabranch.randomness import derived_seed
from anabranch.updates.sections import Section, Sections
from anabranch.updates.stages import compile_stages
from anabranch.values import Value

__all__ = ["DESCRIPTION", "Equipment", "build_program"]

_MOST_AXES = 4

DESCRIPTION = Sections(
    (
        Section.count("train_rows"),
        Section.count("test_rows"),
        Section.count("classes"),
        Section.count("axes"),
        Section.count("shape", _MOST_AXES),
    )
)
"""What a site says of its examples: how many, of which shape, and how many classes it knows of."""


class Equipment(Value):
    """Everything that is equal for all clients and not in the contract."""

    stage: Literal["examples", "codes", "columns", "ready"] = "ready"
    """What is asked now: sizes, the codes of open columns, sums over columns; then nothing."""
    table: DataSchema | None = None
    """The data schema with every code that was learnt so far; none for arrays."""
    preprocessor: Preprocessor | None = None
    """From tables to features; none for arrays."""
    input_shape: tuple[int, ...] = Field(default=(), max_length=_MOST_AXES)
    """Shape of one example."""
    classes: int = Field(default=0, ge=0, lt=2**31)
    """Number of classes; 0 for regression."""
    tokens: int = Field(default=0, ge=0, lt=2**31)
    """Size of the vocabulary of a text source."""


def build_program(
    plan: Plan,
    input_shape: tuple[int, ...],
    classes: int,
    tokens: int = 0,
    module: ModuleFactory | None = None,
) -> ClientProgram:
    """The client program of a plan for data of this shape; equal in every process.

    Args:
        plan: accepted by the algebra.
        input_shape: shape of one example.
        classes: number of classes; 0 for regression.
        tokens: size of the vocabulary of a text source.
        module: the model's factory, when the plan's name for it cannot be imported.

    Raises:
        AnabranchError: AB-3xx the model does not fit; AB-310 its initial parameters are not finite.
    """
    engine = plan.runtime.engine
    learner = build_learner(
        plan.model,
        "numpy" if engine == "numpy" else "auto",
        input_shape=input_shape,
        classes=classes,
        vocabulary_size=tokens,
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
        pipeline=compile_stages(stages, plan.updates.max_bytes, plan.updates.budgets),
        metrics=MetricSet.of(classes, bins=plan.evaluation.bins),
        seed=plan.seed,
        rounds=plan.rounds.count,
        base=base,
        mechanism=mechanism_of(plan, learner.layout.averaged),
        scores=scores_of(plan, classes),
        downlink=plan.updates.downlink,
        inside=_inside(plan, classes),
        stops_early=plan.admission.stop_early,
    )


def _inside(plan: Plan, classes: int) -> InsideNoise | None:
    """Noise that is made inside local training, where the plan promises it."""
    if plan.privacy is None or not isinstance(plan.privacy.mechanism, LocalDpSgd):
        return None
    return InsideNoise(plan, plan.privacy.mechanism, scores=site_scores_of(plan, classes))
