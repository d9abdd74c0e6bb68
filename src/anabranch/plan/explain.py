"""A plan in words: what is learnt, who takes part, what leaves a client, and what can be seen."""

from __future__ import annotations

import inspect
import math
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from anabranch.algorithms.base import Algorithm
from anabranch.learners.training import SGD, LocalTraining
from anabranch.plan.algebra import judge
from anabranch.plan.budget import whom
from anabranch.plan.rules.memory import keepers
from anabranch.plan.schema import Plan
from anabranch.plan.selection_words import selection_words
from anabranch.plan.trust import trust_line
from anabranch.schedules import Constant, Schedule
from anabranch.updates.sections import Kind, Section, Weighting

__all__ = ["Facts", "equation_of", "explain"]

_WIDTH = 96


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a plan once its data and model are there.

    Attributes:
        clients: number of clients in the fleet.
        dim: length of the averaged prefix of the model.
        sections: every declared section of an update, as the client's program has them.
    """

    clients: int | None = None
    dim: int | None = None
    sections: tuple[Section, ...] = ()


def explain(plan: Plan, facts: Facts | None = None) -> str:
    """The plan in words, for people who decide whether to take part.

    Args:
        plan: accepted or not; refusals are explained too.
        facts: makes numbers of clients and bytes exact.
    """
    known = facts or Facts()
    parts = [
        ("Trust", [f"{trust_line(plan)}."]),
        ("What is learnt", list(_learnt(plan))),
        ("Who takes part", [*_taking_part(plan, known), *selection_words(plan)]),
        ("At a client", list(_local(plan))),
        ("The rule", list(_rule(plan))),
        ("What leaves a client", list(_leaving(plan, known))),
        ("What stays", list(_staying(plan))),
        ("What is measured", list(_measured(plan))),
        ("When it ends", list(_ending(plan))),
        ("Simulated devices", [plan.devices.words()] if plan.devices is not None else []),
        ("The algebra", list(_verdict(plan))),
    ]
    title = f"Plan {plan.name!r}, contract {plan.contract_digest[:12]}"
    body = [f"{heading}\n{_indented(lines)}" for heading, lines in parts if lines]
    opening = [title, *([plan.description] if plan.description else [])]
    return "\n\n".join(["\n".join(opening), *body]) + "\n"


def _indented(lines: list[str]) -> str:
    shown = []
    for line in lines:
        if "\n" in line:  # a formula keeps its shape
            shown.append(textwrap.indent(line, "    "))
        else:
            shown.append(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    return "\n".join(shown)


def _learnt(plan: Plan) -> Iterator[str]:
    model = plan.model
    parameters = ", ".join(f"{key} = {value}" for key, value in model.parameters.items())
    yield (
        f"Model {model.name}{f' ({parameters})' if parameters else ''}, loss {model.loss}, from "
        f"the data {_data_words(plan)}."
    )
    if model.keep_local:
        yield f"Kept at each client: parameters {', '.join(model.keep_local)}."
    if model.normalisation != "refuse":
        words = {"local": "stay at each client", "average": "are averaged like parameters"}
        yield f"Batch normalisation: its running statistics {words[model.normalisation]}."
    if model.freeze:
        yield f"Never changed: parameters {', '.join(model.freeze)}."


def _data_words(plan: Plan) -> str:
    data = plan.data
    partition = data.partition
    if partition is None or partition.kind == "natural":
        return data.source
    fields = _fields(partition.model_dump())
    return f"{data.source}, divided artificially ({partition.kind}: {fields})"


def _taking_part(plan: Plan, facts: Facts) -> Iterator[str]:
    rounds = plan.rounds
    fleet = f" of {facts.clients}" if facts.clients else ""
    if rounds.everyone:
        who = f"every client{fleet}"
    elif isinstance(rounds.cohort, int):
        who = f"{rounds.cohort} clients{fleet}, drawn anew each time"
    else:
        share = f" ({rounds.wanted(facts.clients)}{fleet})" if facts.clients else ""
        who = f"{rounds.cohort:.4g} of the clients{share}, drawn anew each time"
    yield f"{_count(rounds.count, 'round', 'rounds')}; in each, {who}."
    if rounds.over_selection > 1:
        asked = f" ({rounds.asked(facts.clients)})" if facts.clients else ""
        times = f"{rounds.over_selection:g} times as many are asked{asked}"
        if rounds.confidence is not None:
            times = f"At most {times}: no more than needed for {rounds.confidence:.4g} certainty"
        yield f"{times}, as some may fail; every answer in time counts."
    needed = f"{rounds.needed(facts.clients)} updates" if facts.clients else "half the cohort"
    quorum = f"{rounds.quorum} updates" if rounds.quorum is not None else needed
    yield (
        f"A round counts from {quorum} on; after {rounds.max_failures} failed rounds in a row "
        "the next one stops the run."
    )
    if rounds.deadline is not None:
        yield f"A round closes after {rounds.deadline:g} seconds at the latest."


def _local(plan: Plan) -> Iterator[str]:
    local = plan.local
    work = _count(local.epochs, "pass", "passes") if local.epochs else f"{local.steps} steps"
    batch = f"{local.batch_size} examples a step" if local.batch_size else "all examples a step"
    yield (
        f"{work} over its examples, {batch}, {_optimizer(local)}, "
        f"learning rate {local.learning_rate:g}{_schedule(local.schedule)}."
    )
    if local.clip_norm is not None:
        yield f"Each batch gradient is cut to a norm of at most {local.clip_norm:g}."


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _optimizer(local: LocalTraining) -> str:
    optimizer = local.optimizer
    name = "SGD" if isinstance(optimizer, SGD) else "Adam"
    momentum = (
        f" with momentum {optimizer.momentum:g}"
        if isinstance(optimizer, SGD) and (optimizer.momentum)
        else ""
    )
    decay = f", weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""
    return f"{name}{momentum}{decay}"


def _schedule(schedule: Schedule) -> str:
    return "" if isinstance(schedule, Constant) else f", {schedule.kind} schedule"


def equation_of(algorithm: Algorithm) -> str:
    """The update rule as the algorithm's file shows it: the first indented block of its docstring.

    >>> from anabranch.algorithms import FedAvgM
    >>> equation_of(FedAvgM()).split(",")[0]
    'server:     m <- beta m + sum_i p_i Delta_i'
    """
    module = sys.modules[type(algorithm).__module__]
    text = next(
        (doc for doc in map(inspect.getdoc, (module, algorithm)) if doc and "::\n" in doc), ""
    )
    block: list[str] = []
    for line in text.partition("::\n")[2].splitlines():
        if line.strip() and not line.startswith(" "):
            break
        block.append(line)
    return textwrap.dedent("\n".join(block)).strip("\n")


def _rule(plan: Plan) -> Iterator[str]:
    algorithm = plan.algorithm
    name = algorithm.name or type(algorithm).__name__
    fields = ", ".join(f"{key} = {value}" for key, value in algorithm.model_dump().items())
    yield f"{name} ({fields}){_schedule(plan.rounds.server_schedule)}."
    equation = equation_of(algorithm)
    if equation:
        yield equation + "\n"
    cap = getattr(plan.weighting, "cap", None)
    weights = {
        "examples": "the number of its training examples",
        "uniform": "the same as every other",
        "steps": "the number of its optimizer steps",
    }.get(plan.weighting.kind, f"what {getattr(plan.weighting, 'function', 'a function')} says")
    yield f"A client counts {weights}{f', at most {cap}' if cap else ''}."


def _leaving(plan: Plan, facts: Facts) -> Iterator[str]:
    sections = facts.sections or plan.algorithm.sections(facts.dim or 1)
    total = 0
    masks = plan.secure_aggregation
    wide = 4.0 if masks is None else masks.bits / 8
    for section in sections:
        vector = section.kind is Kind.VECTOR
        size = math.ceil((wide if vector else 8) * section.length)
        total += size
        each = f"{wide:g} bytes a trained coordinate"
        amount = f"{size} bytes" if facts.dim or not vector else each
        weighted = "by weight" if section.weighting is Weighting.BY_WEIGHT else "plainly"
        yield f"{section.name}: {amount}; added up {weighted}."
    if not facts.sections:
        yield (
            "Besides these, its weight and sums for diagnosis: examples, steps, training loss, "
            "squared norm."
        )
    elif facts.dim:
        yield f"Together {total} bytes a round, before any encoding."
    if masks is not None:
        yield (
            "All of it behind masks, which cancel in sums of "
            f"{masks.minimum} or more clients; so do the metrics."
        )
    for stage in plan.updates.stages:
        yield f"Stage {stage.name}: {_fields(stage.model_dump())}."
    if plan.updates.max_bytes is not None:
        yield f"Encoded, an update has at most {plan.updates.max_bytes} bytes, or is not sent."
    for budget in plan.updates.budgets:
        yield f"An update of {whom(budget)} has at most {budget.max_bytes} bytes."
    downlink = plan.updates.downlink
    if downlink is not None:
        yield f"The model goes down encoded, as {downlink.kind}: {_fields(downlink.model_dump())}."
    yield "Sums of evaluation metrics leave in the same way; examples never do."


def _fields(values: dict[str, object]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items() if key != "kind")


def _staying(plan: Plan) -> Iterator[str]:
    kept = [what for _, what, _ in keepers(plan)]
    if kept:
        yield f"Between rounds, {'; '.join(kept)}."
    else:
        may = "keep nothing" if plan.clients.memory else "keep nothing, and must not be asked to,"
        yield f"Clients {may} between rounds."


def _measured(plan: Plan) -> Iterator[str]:
    where = {
        "clients": "at every client, on its own test examples",
        "holdout": "at the coordinator, on its hold-out examples",
        "both": "at every client and on the coordinator's hold-out examples",
        "nowhere": "",
    }[plan.evaluation.on]
    if not where:
        yield "The model is measured nowhere."
        return
    every = plan.evaluation.every
    when = (
        f"Every {every} rounds" if every > 1 else "Every round" if every else "After the last round"
    )
    yield f"{when}, {where}."
    if plan.evaluation.baselines:
        yield f"For comparison also: {', '.join(plan.evaluation.baselines)}."


def _ending(plan: Plan) -> Iterator[str]:
    stop, limits = plan.stop, plan.limits
    yield f"After {_count(plan.rounds.count, 'round', 'rounds')} at the latest."
    if stop.target is not None:
        sign = "at most" if stop.better == "minimize" else "at least"
        verb = "It stops" if stop.at_target else "It is noted"
        yield f"{verb} when {stop.metric} is {sign} {stop.target:g}."
    if stop.patience is not None:
        yield f"It stops after {stop.patience} evaluations in a row without a better {stop.metric}."
    if stop.max_seconds is not None:
        yield f"It stops after {stop.max_seconds:g} seconds."
    promised = _fields({k: v for k, v in limits.model_dump().items() if v is not None})
    if promised:
        yield f"Limits (exit code 3 when missed): {promised}."


def _verdict(plan: Plan) -> Iterator[str]:
    verdict = judge(plan)
    if verdict.accepted:
        yield "These options go together."
    for note in verdict.notes:
        yield f"Note on {', '.join(note.options)}: {note.text}"
    for refusal in verdict.refusals:
        ways = "; or ".join(f"{a.words} ({a.settings})" for a in refusal.alternatives)
        yield f"Refused, {refusal.code} {refusal.title}: {refusal.reason} Instead: {ways}."
