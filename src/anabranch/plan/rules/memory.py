"""Some algorithms, stages and models need clients that remember something between rounds."""

from __future__ import annotations

from collections.abc import Iterator

from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan
from anabranch.updates.sections import Section, Sections

__all__ = ["RULES", "keepers"]


def keepers(plan: Plan) -> Iterator[tuple[str, str, Alternative]]:
    """What a client of this plan keeps: the option, what it keeps, and how to do without."""
    if plan.requirement.client_memory:
        kept = ", ".join(section.name for section in plan.algorithm.memory_sections(1))
        yield (
            "algorithm",
            f"{plan.algorithm.name or type(plan.algorithm).__name__} keeps {kept!r} at each client",
            Alternative("use FedAvg, which keeps nothing", {"algorithm": {"name": "fedavg"}}),
        )
    if plan.model.keep_local:
        yield (
            "model.keep_local",
            "parameters that are kept local live at each client",
            Alternative("share every parameter", {"model.keep_local": None}),
        )
    if plan.model.normalisation == "local":
        yield (
            "model.normalisation",
            "local normalisation layers live at each client",
            Alternative("refuse batch normalisation", {"model.normalisation": "refuse"}),
        )
    if plan.updates.downlink is not None and plan.updates.downlink.remembers:
        yield (
            "updates.downlink",
            "a difference goes down to clients that keep the last model",
            Alternative("send the whole model each time", {"updates.downlink.window": 0}),
        )
    yield from _stages(plan)


def _stages(plan: Plan) -> Iterator[tuple[str, str, Alternative]]:
    sections = Sections((*plan.algorithm.sections(1), Section.count("examples")))
    for position, stage in enumerate(plan.updates.stages):
        if stage.memory(sections):
            yield (
                "updates.stages",
                f"stage {stage.name!r} keeps vectors at each client",
                Alternative(
                    f"leave out stage {stage.name!r}", {f"updates.stages.{position}": None}
                ),
            )


def _objection(plan: Plan) -> str | None:
    if plan.clients.memory:
        return None
    kept = [what for _, what, _ in keepers(plan)]
    if not kept:
        return None
    return (
        f"{'; '.join(kept)}, and clients.memory says that clients keep nothing between rounds. "
        "Without what they kept, every round would start from zero and compute another algorithm."
    )


def _alternatives(plan: Plan) -> tuple[Alternative, ...]:
    without: dict[str, object] = {}
    for _, _, alternative in keepers(plan):
        without.update(alternative.changes)
    words = ", and ".join(alternative.words for _, _, alternative in keepers(plan))
    return (
        Alternative("let clients keep memory", {"clients.memory": True}),
        Alternative(words, without),
    )


RULES = (
    Rule(
        "AB-401",
        "what is kept at clients needs clients with memory",
        (
            "algorithm",
            "updates.stages",
            "updates.downlink",
            "model.keep_local",
            "model.normalisation",
            "clients.memory",
        ),
        _objection,
        _alternatives,
    ),
)
