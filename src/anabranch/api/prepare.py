"""From a plan to everything a run needs: data, program, sizes, checks. Nothing runs yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from anabranch.client.equipment import build_program
from anabranch.client.program import ClientProgram
from anabranch.client.states import SlotMap
from anabranch.data.federation import Federation
from anabranch.data.load import LoadedData, load_federation
from anabranch.errors import AnabranchError
from anabranch.learners.build import ModuleFactory
from anabranch.learners.threads import one_thread
from anabranch.plan import Plan, check_against_fleet, require_accepted
from anabranch.plan.check import check_against_data, check_against_layout
from anabranch.plan.mechanism import mechanism_of, scores_of
from anabranch.runtimes.local.worker import Simulant

__all__ = [
    "Prepared",
    "prepare",
    "program_of",
    "require_open_statistics",
    "require_statistics",
]


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
        noisy = plan.privacy is not None and plan.privacy.statistics_share > 0
        loaded = load_federation(plan.data, plan.seed, noisy=noisy)
        federation = loaded.federation
        require_open_statistics(plan, tuple(r.description for r in loaded.releases))
    require_statistics(plan, needed=loaded is not None and loaded.pending is not None)
    check_against_fleet(plan, len(federation))
    with one_thread():
        program = program_of(plan, federation, module)
        check_against_layout(plan, program.learner.layout)
        check_against_data(plan, federation, program.learner)
    return Prepared(plan, federation, loaded, program, module)


def require_open_statistics(plan: Plan, statistics: tuple[str, ...]) -> None:
    """Refuse a private run whose preprocessing would release something outside its promise.

    Raises:
        AnabranchError: AB-988.
    """
    if plan.privacy is None or not statistics or plan.privacy.open_statistics:
        return
    raise AnabranchError(
        "AB-988",
        f"the plan promises privacy, and its data need statistics that would leave without noise: "
        f"{', '.join(statistics)}.",
        fix="pay for noise on them (privacy.statistics_share = 0.05); or state why they may leave "
        "without in privacy.open_statistics (the report then says that they are outside epsilon); "
        "or give features that need no preprocessing (source 'folder').",
        kept="Nothing was started.",
    )


def require_statistics(plan: Plan, *, needed: bool) -> None:
    """Refuse a budget for statistics that nothing would spend: the model would be noisier for it.

    Raises:
        AnabranchError: AB-989.
    """
    if needed or plan.privacy is None or not plan.privacy.statistics_share:
        return
    raise AnabranchError(
        "AB-989",
        "privacy.statistics_share sets budget aside for the statistics that tables are prepared "
        "with, and these data need none.",
        fix="leave privacy.statistics_share out.",
        kept="Nothing was started.",
    )


def program_of(plan: Plan, federation: Federation, module: ModuleFactory | None) -> ClientProgram:
    """The client program of a plan for data of this shape; equal in every process."""
    tokens = len(federation.vocabulary)
    program = build_program(plan, federation.input_shape, federation.classes, tokens, module)
    mechanism = mechanism_of(plan, program.dim, len(federation))
    return replace(program, mechanism=mechanism, scores=scores_of(plan, federation.classes))
