"""What goes together with a codec: a stage that leaves bytes, most often fewer and less exact."""

from __future__ import annotations

from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.rules.probe import inferred_memory
from anabranch.plan.schema import Plan
from anabranch.updates.sections import Section, Sections
from anabranch.updates.stages import Encodes, Stage

__all__ = ["RULES"]

_LOSSLESS = {"kind": "zstd"}


def _codecs(plan: Plan) -> list[tuple[int, Stage]]:
    numbered = enumerate(plan.updates.stages)
    return [(position, stage) for position, stage in numbered if stage.contract().packs]


def _lossy(plan: Plan) -> list[str]:
    """Names of the stages from which another vector is decoded."""
    return [stage.name for stage in plan.updates.stages if stage.contract().lossy]


def _name(plan: Plan) -> str:
    return plan.algorithm.name or type(plan.algorithm).__name__


def _written(plan: Plan) -> list[object]:
    """The stages as a plan writes them."""
    stages = plan.model_dump(mode="json")["updates"]["stages"]
    return list(stages)


def _two(plan: Plan) -> str | None:
    names = [repr(stage.name) for _, stage in _codecs(plan)]
    if len(names) < 2:
        return None
    return (
        f"{' and '.join(names)} each turn the update into bytes. The first one leaves no numbers "
        "for the next, and its bytes are entropy-coded already."
    )


def _keep_one(plan: Plan) -> tuple[Alternative, ...]:
    codecs = _codecs(plan)
    alternatives = []
    for kept, codec in codecs:
        left_out = {position for position, _ in codecs if position != kept}
        stages = [s for position, s in enumerate(_written(plan)) if position not in left_out]
        alternatives.append(Alternative(f"keep {codec.name!r} only", {"updates.stages": stages}))
    return tuple(alternatives)


def _behind(plan: Plan) -> str | None:
    codecs = _codecs(plan)
    if not codecs:
        return None
    first, codec = codecs[0]
    late = [
        stage.name
        for stage in plan.updates.stages[first + 1 :]
        if isinstance(stage, Encodes) and not stage.contract().packs
    ]
    if not late:
        return None
    return (
        f"stage {late[0]!r} works on numbers, but stands behind {codec.name!r}, which leaves bytes."
    )


def _last(plan: Plan) -> tuple[Alternative, ...]:
    codecs = {position for position, _ in _codecs(plan)}
    written = _written(plan)
    order = [p for p in range(len(written)) if p not in codecs] + sorted(codecs)
    stages = [written[position] for position in order]
    return (Alternative("encode last", {"updates.stages": stages}),)


def _lossless(plan: Plan) -> tuple[Alternative, ...]:
    """The lossless codec in place of the lossy stages."""
    kept = [
        written
        for written, stage in zip(_written(plan), plan.updates.stages, strict=True)
        if not stage.contract().lossy
    ]
    return (
        Alternative("compress without loss", {"updates.stages": [*kept, _LOSSLESS]}),
        Alternative("send updates as they are", {"updates.stages": kept or None}),
    )


def _books(plan: Plan) -> str | None:
    lossy, inferred = _lossy(plan), inferred_memory(plan.algorithm)
    if not lossy or not inferred:
        return None
    return (
        f"{_name(plan)} keeps {inferred[0]!r} at the client, added up from the updates before "
        f"stage {lossy[0]!r}, and their mean at the server, added up from what was decoded. Even "
        "errors that are zero on average add up over the rounds, and nothing takes them back."
    )


def _noise(plan: Plan) -> str | None:
    lossy = _lossy(plan)
    if not lossy or not plan.requirement.individual_norms:
        return None
    return (
        f"{_name(plan)} compares the norms of the updates, taken before stage {lossy[0]!r}, with "
        "the norm of the mean of what was decoded. The errors of the codec change that norm, and "
        "with it the server's step."
    )


def _statistics(plan: Plan) -> str | None:
    lossy = _lossy(plan)
    if not lossy or plan.model.normalisation != "average":
        return None
    return (
        f"model.normalisation is 'average', and stage {lossy[0]!r} errs at each coordinate by a "
        "part of the whole update's size: a running variance could become negative."
    )


def _other_normalisation(plan: Plan) -> tuple[Alternative, ...]:
    local = Alternative(
        "keep normalisation at each client (FedBN)", {"model.normalisation": "local"}
    )
    return (local, *_lossless(plan))


def _without_books(plan: Plan) -> tuple[Alternative, ...]:
    fedavg = Alternative("use FedAvg with this stage", {"algorithm": {"name": "fedavg"}})
    return (*_lossless(plan), fedavg)


def _reshaping(plan: Plan) -> tuple[int, Stage] | None:
    """The first stage after which an update has other coordinates than the model."""
    sections = Sections((Section.vector("delta", 64),))
    numbered = enumerate(plan.updates.stages)
    return next(((p, s) for p, s in numbered if s.encoded(sections) != sections), None)


def _several_rounds(plan: Plan) -> str | None:
    reshaping, rounds = _reshaping(plan), plan.rounds
    if reshaping is None or not (rounds.asynchronous is not None or rounds.late_window):
        return None
    key = "asynchronous" if rounds.asynchronous is not None else "late_window"
    return (
        f"stage {reshaping[1].name!r} sends the coordinates of its round's mask. With rounds.{key} "
        "updates of several rounds, with other masks, would be added up coordinate by coordinate."
    )


def _one_round(plan: Plan) -> tuple[Alternative, ...]:
    """Close every round, or name the mask in each payload."""
    reshaping = _reshaping(plan)
    assert reshaping is not None  # asked for only where there is one
    changes: dict[str, object] = {"rounds.asynchronous": None, "rounds.late_window": None}
    if plan.rounds.asynchronous is not None:
        changes["rounds.cohort"] = max(2, plan.rounds.asynchronous.buffer)
    written = _written(plan)
    without = [*written[: reshaping[0]], *written[reshaping[0] + 1 :]]
    masked = [*without, {"kind": "mask"}] if not _codecs(plan) else without
    return (
        Alternative("close every round", changes),
        Alternative("encode each update by itself", {"updates.stages": masked}),
    )


def _forgotten(plan: Plan) -> tuple[int, str] | None:
    """A stage that remembers coordinates which stand for others in the next round."""
    reshaping = _reshaping(plan)
    if reshaping is None:
        return None
    sections = Sections((Section.vector("delta", 64),))
    for position, stage in enumerate(plan.updates.stages):
        if position > reshaping[0] and stage.memory(sections):
            return position, stage.name
    return None


def _other_coordinates(plan: Plan) -> str | None:
    found, reshaping = _forgotten(plan), _reshaping(plan)
    if found is None or reshaping is None:
        return None
    return (
        f"stage {found[1]!r} keeps what it did not send and adds it to the next update, but behind "
        f"{reshaping[1].name!r} the coordinates of the next update are others."
    )


def _without_feedback(plan: Plan) -> tuple[Alternative, ...]:
    found, reshaping = _forgotten(plan), _reshaping(plan)
    assert found is not None  # asked for only where there is one
    assert reshaping is not None
    kept = [w for position, w in enumerate(_written(plan)) if position != reshaping[0]]
    return (
        Alternative("keep nothing", {f"updates.stages.{found[0]}.feedback": False}),
        Alternative("send all coordinates", {"updates.stages": kept}),
    )


_BOTH = ("algorithm", "updates.stages")

RULES = (
    Rule("AB-460", "an update is encoded once", ("updates.stages",), _two, _keep_one),
    Rule(
        "AB-461", "nothing but transport comes after a codec", ("updates.stages",), _behind, _last
    ),
    Rule("AB-462", "client and server must add up the same updates", _BOTH, _books, _without_books),
    Rule("AB-463", "extrapolation needs a mean without noise", _BOTH, _noise, _without_books),
    Rule(
        "AB-464",
        "averaged running statistics need exact updates",
        ("model.normalisation", "updates.stages"),
        _statistics,
        _other_normalisation,
    ),
    Rule(
        "AB-467",
        "a shared mask belongs to one round",
        ("updates.stages", "rounds"),
        _several_rounds,
        _one_round,
    ),
    Rule(
        "AB-468",
        "what is kept must be of the same coordinates",
        ("updates.stages",),
        _other_coordinates,
        _without_feedback,
    ),
)
