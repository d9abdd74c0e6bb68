"""What is accepted, but worth a sentence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anabranch.learners.training import Adam
from anabranch.plan.rules.base import Note
from anabranch.plan.rules.memory import keepers
from anabranch.plan.rules.selection import selection_notes
from anabranch.plan.schema import Plan
from anabranch.updates.rotate import EDEN
from anabranch.updates.sections import Kind, Section, Sections

__all__ = ["notes"]


def notes(plan: Plan) -> Iterator[Note]:
    """The notes on an accepted plan."""
    yield from _training(plan)
    yield from _merging(plan)
    yield from _encoding(plan)
    yield from _participation(plan)
    yield from selection_notes(plan)
    if not plan.servable:
        names = ", ".join(r.name for r in plan.callables if not r.importable)
        yield Note(
            ("algorithm", "model"),
            f"{names} has no name that another process can import: the plan can be simulated, "
            "not served.",
        )


def _training(plan: Plan) -> Iterator[Note]:
    local = plan.local
    if local.clip_norm is not None:
        yield Note(
            ("local.clip_norm",),
            "Batch gradients are clipped before the algorithm's correction: training rests where "
            "the clipped gradients cancel, which is not where the gradients do when some client's "
            "are longer than the bound.",
        )
    if isinstance(local.optimizer, Adam) and plan.requirement.client_memory:
        yield Note(
            ("local.optimizer", "algorithm"),
            "Adam's steps do not shrink with the gradient: with a constant learning rate the model "
            "hovers around its limit at about the size of a step. A falling local.schedule helps.",
        )
    if isinstance(local.optimizer, Adam) and local.optimizer.decoupled:
        yield Note(
            ("local.optimizer",),
            "Decoupled weight decay is a pull to zero at each client that is part of no gradient; "
            "no algorithm corrects it.",
        )
    pull = _pull(plan)
    if pull * local.learning_rate >= 2:
        yield Note(
            ("algorithm", "local.learning_rate"),
            f"The pull {pull:g} times the local learning rate {local.learning_rate:g} is "
            f"{pull * local.learning_rate:.3g}; from 2 on local training diverges.",
        )


def _pull(plan: Plan) -> float:
    """Strength of the algorithm's pull, asked of the algorithm itself."""
    zero = np.zeros(1, np.float32)
    algorithm = plan.algorithm
    memory = {section.name: zero for section in algorithm.memory_sections(1)}
    broadcast = algorithm.broadcast(algorithm.init(zero))
    return algorithm.client_correction(broadcast, memory).pull


def _merging(plan: Plan) -> Iterator[Note]:
    contracts = [(stage.name, stage.contract()) for stage in plan.updates.stages]
    biased = [name for name, c in contracts if not (c.unbiased or c.packs)]
    if biased:
        yield Note(
            ("updates.stages",),
            f"Stage {biased[0]!r} changes updates also on average: clients with long updates count "
            "less.",
        )
    others = [s.name for s in plan.algorithm.sections(1) if s.kind is Kind.VECTOR][1:]
    if biased and others:
        yield Note(
            ("updates.stages", "algorithm"),
            f"Stage {biased[0]!r} bounds the delta only; {others[0]!r} leaves without a bound.",
        )
    if biased and plan.requirement.known_coefficients:
        yield Note(
            ("updates.stages", "algorithm"),
            f"{plan.algorithm.name} sends its update divided by the amount of work, so the bound "
            f"of stage {biased[0]!r} is a bound for one unit of work.",
        )
    if plan.aggregation.weighting is None:
        yield Note(
            ("aggregation.weighting",),
            f"Weighting was left out and is {plan.weighting.kind!r}.",
        )
    if plan.weighting.kind == "steps":
        yield Note(
            ("aggregation.weighting",),
            "Weights by steps favour clients that do more local work; the loss that is minimised "
            "is no longer the mean over examples or clients.",
        )


def _encoding(plan: Plan) -> Iterator[Note]:
    """What a codec does to a mean, and what it leaves alone."""
    for stage in plan.updates.stages:
        contract = stage.contract()
        if not contract.packs:
            continue
        others = [s.name for s in plan.algorithm.sections(1) if s.kind is Kind.VECTOR][1:]
        if others:
            yield Note(
                ("updates.stages", "algorithm"),
                f"Stage {stage.name!r} encodes the delta only; {others[0]!r} leaves as float32, so "
                "that the client and the server keep the same one. Updates shrink to "
                f"{len(others)}/{len(others) + 1} of their size at best.",
            )
        feeds_back = bool(stage.memory(Sections((Section.vector("delta", 1),))))
        if contract.lossy and not contract.unbiased and not feeds_back:
            yield Note(
                ("updates.stages",),
                f"Stage {stage.name!r} is not right on average, and no client makes up for it "
                "later: more clients do not average its error out.",
            )
        if isinstance(stage, EDEN):
            yield Note(
                ("updates.stages",),
                "Stage 'eden' rotates the update, which spreads its few large coordinates over all "
                "and leaves nothing for an entropy coder. It suits updates without structure; of "
                "trained networks 'ecq' sends less at the same error.",
            )


def _participation(plan: Plan) -> Iterator[Note]:
    rounds = plan.rounds
    if rounds.over_selection > 1:
        yield Note(
            ("rounds.over_selection",),
            "More clients than the cohort are asked, and every answer in time counts: a round may "
            "merge more updates than rounds.cohort says.",
        )
    fraction = rounds.cohort if isinstance(rounds.cohort, float) else None
    kept = [what for _, what, _ in keepers(plan)]
    if kept and fraction is not None and fraction * rounds.count < 2:
        yield Note(
            ("rounds.cohort", "rounds.count"),
            f"A client takes part {fraction * rounds.count:.2g} times on average, so that what it "
            f"keeps ({kept[0]}) is hardly ever used.",
        )
