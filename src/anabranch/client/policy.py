"""The client's own policy: what this site takes part in, whatever the coordinator asks.

It is a TOML file that belongs to the site. Everything left out is allowed::

    [work]
    algorithms = ["fedavg", "fedprox"]
    models = ["logistic", "mlp"]
    columns = ["age", "sex", "chol"]     # features that may be used
    max_epochs = 5
    max_rounds = 200
    hours = ["20:00-06:00"]              # of the site's own clock

    [traffic]
    max_upload = 20_000_000              # bytes of one update
    max_upload_day = 200_000_000

    [privacy]
    updates = "summed"                   # the coordinator may see sums only
    max_epsilon = 8.0
    min_cohort = 5                       # sites in a round

    [contract]
    approve = "first and amended"        # a person agrees before a contract is run

What it refuses is *declined*: the coordinator hears the reason, and the round goes on without.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import time as Clock
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.trust import hides_updates
from anabranch.privacy.events import Unit
from anabranch.values import Value

__all__ = ["ClientPolicy", "Decision", "TaskFacts", "load_policy", "within"]

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")

Span = Annotated[str, Field(pattern=rf"^{_SPAN.pattern}$")]
"""Hours of a day: ``20:00-06:00``; the end is no longer part of it, and may be the next day."""

Approval = Literal["never", "first", "first and amended"]


class WorkRules(Value):
    """What may be learnt, and how much of it."""

    algorithms: tuple[str, ...] | None = None
    """Names of algorithms; none for any."""
    models: tuple[str, ...] | None = None
    """Names of models; none for any."""
    columns: tuple[str, ...] | None = None
    """Columns of the data schema that may be used, the target among them; none for any."""
    max_epochs: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "passes"})
    """Passes over the data in a round. A plan that counts steps instead is declined, because steps
    do not bound how often a row is used."""
    max_rounds: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "rounds"})
    """Rounds of a run."""
    hours: tuple[Span, ...] = ()
    """When tasks are done, by the site's own clock; none for always."""
    own_code: bool = True
    """Whether a contract may name models or rules that are not part of Anabranch. They run only
    when somebody installed them here."""


class TrafficRules(Value):
    """How much may leave."""

    max_upload: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "bytes"})
    """Bytes of one update."""
    max_upload_day: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "bytes"})
    """Bytes of all updates in 24 hours."""


class PrivacyRules(Value):
    """How what leaves must be protected."""

    updates: Literal["any", "summed", "private"] = "any"
    """What the coordinator may see: "any" every update; "summed" only sums (secure aggregation);
    "private" only sums or releases under differential privacy."""
    max_epsilon: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "nats"})
    """Largest budget of a run. A run without differential privacy has none and is declined."""
    max_delta: float | None = Field(
        default=None, gt=0, lt=1, json_schema_extra={"unit": "probability"}
    )
    """Largest delta of a run: an epsilon says nothing without it. A run without differential
    privacy has none and is declined."""
    units: tuple[Unit, ...] | None = None
    """Units of privacy that are accepted; none for any. A run without differential privacy has none
    and is declined."""
    max_total_epsilon: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "nats"})
    """Largest budget of all runs together, by this site's own count; none for any."""
    total_delta: float = Field(default=1e-5, gt=0, lt=1, json_schema_extra={"unit": "probability"})
    """Delta of ``max_total_epsilon``."""
    count: str = ""
    """File of the site's own count. Clients of several coordinators that name the same file count
    together. Left out: one in each client's folder."""
    forgotten: int = Field(default=0, ge=0, json_schema_extra={"unit": "rounds"})
    """Rounds that this site took part in and that its own count knows nothing of, because an old
    folder was put back or the count was lost. A coordinator that knows of more is declined."""
    min_cohort: int = Field(default=1, ge=1, json_schema_extra={"unit": "clients"})
    """Fewest clients whose updates make a round."""
    vouched: tuple[str, ...] = ()
    """Members whom this site knows to be what they say, such as hospitals that it works with, by
    their names in the roster. Members that the coordinator invented are not among them."""
    min_vouched: int = Field(default=0, ge=0, json_schema_extra={"unit": "clients"})
    """Fewest of them whose updates must be in a secure sum; this site helps to open no other sum. A
    run without secure aggregation is declined."""

    @model_validator(mode="after")
    def _vouched_are_enough(self) -> PrivacyRules:
        if self.min_vouched > len(set(self.vouched)):
            raise ValueError(
                f"min_vouched {self.min_vouched} is more than the {len(set(self.vouched))} members "
                "in vouched, so that no sum would ever be opened"
            )
        return self


class ContractRules(Value):
    """When a person must agree."""

    approve: Approval = "first and amended"
    """"first and amended": every contract, and every change of one, is approved here before it is
    run. "first": changes of an approved contract are not asked again. "never": the rules above
    decide alone."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says.

    Attributes:
        accepted: whether the client goes on.
        reason: why not; it is told to the coordinator and holds nothing of the data.
        code: of the error page.
    """

    accepted: bool
    reason: str = ""
    code: str = ""

    def require(self) -> None:
        """Raise what was declined.

        Raises:
            AnabranchError: AB-743 the policy refuses, AB-744 a person has not agreed yet.
        """
        if not self.accepted:
            raise AnabranchError(
                self.code,
                f"declined by this site's policy: {self.reason}.",
                fix=_REMEDY[self.code],
                kept="Nothing was computed and nothing was sent.",
            )


_REMEDY = {
    "AB-743": "nothing, if that is the site's will; else change its policy file and join again.",
    "AB-744": "read the contract and agree with `anabranch approve`, or leave the run.",
}
_YES = Decision(True)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a policy looks at before one task, and before its answer leaves.

    Attributes:
        run: id of the run.
        round: the round.
        upload: bytes that would be sent; 0 before they are known.
        sent_day: bytes that left in the 24 hours before.
        now: time of day by the site's clock.
    """

    run: str
    round: int
    now: Clock
    upload: int = 0
    sent_day: int = 0


class ClientPolicy(Value):
    """Everything in a policy file."""

    work: WorkRules = WorkRules()
    """What may be learnt, and how much."""
    traffic: TrafficRules = TrafficRules()
    """How much may leave."""
    privacy: PrivacyRules = PrivacyRules()
    """How what leaves must be protected."""
    contract: ContractRules = ContractRules()
    """When a person must agree."""

    def judge(self, plan: Plan, clients: int | None) -> Decision:
        """Whether a contract may be run here at all.

        Args:
            plan: made of the contract.
            clients: members of the fleet; None where nobody knows yet, as before the first roster.
                Then the smallest cohort is judged only where the contract names it.
        """
        first = next(self._objections(plan, clients), None)
        return Decision(False, first, "AB-743") if first else _YES

    def judge_task(self, task: TaskFacts) -> Decision:
        """Whether a task may be done now, or its answer leave."""
        first = next(self._task_objections(task), None)
        return Decision(False, first, "AB-743") if first else _YES

    def needs_approval(self, *, known: bool) -> bool:
        """Whether a person must agree to a contract.

        Args:
            known: an earlier version of the same contract was approved.
        """
        rule = self.contract.approve
        return rule == "first and amended" or (rule == "first" and not known)

    def _objections(self, plan: Plan, clients: int | None) -> Iterator[str]:
        yield from self._work_objections(plan)
        yield from self._privacy_objections(plan)
        fewest = plan.rounds.quorum if clients is None else plan.rounds.needed(clients)
        if fewest is not None and fewest < self.privacy.min_cohort:
            yield (
                f"a round may be made of {fewest} clients, and {self.privacy.min_cohort} is the "
                "least here"
            )

    def _work_objections(self, plan: Plan) -> Iterator[str]:
        rules = self.work
        name = _algorithm_name(plan)
        if rules.algorithms is not None and name not in rules.algorithms:
            yield f"algorithm {name!r} is not among those allowed here"
        if rules.models is not None and plan.model.name not in rules.models:
            yield f"model {plan.model.name!r} is not among those allowed here"
        if not rules.own_code and plan.callables:
            yield f"the contract names code of its own ({plan.callables[0].name})"
        if rules.max_epochs is not None and (plan.local.epochs or 0) > rules.max_epochs:
            yield f"{plan.local.epochs} epochs a round, and {rules.max_epochs} are allowed here"
        if rules.max_epochs is not None and plan.local.epochs is None:
            yield "the plan counts steps, and this site bounds epochs"
        if rules.max_rounds is not None and plan.rounds.count > rules.max_rounds:
            yield f"{plan.rounds.count} rounds, and {rules.max_rounds} are allowed here"
        yield from self._column_objections(plan)

    def _column_objections(self, plan: Plan) -> Iterator[str]:
        allowed, table = self.work.columns, plan.data.table
        if allowed is None:
            return
        if table is None:
            yield "the contract does not list the columns that it uses, and this site bounds them"
            return
        extra = [name for name in (table.subject, table.client) if name is not None]
        used = [*table.names, table.target.column, *extra]
        more = sorted(set(used) - set(allowed))
        if more:
            yield f"column {more[0]!r} may not be used here"

    def _privacy_objections(self, plan: Plan) -> Iterator[str]:
        rules, promise = self.privacy, plan.privacy
        hidden = hides_updates(plan)
        if rules.updates == "summed" and not hidden:
            yield "the coordinator could read single updates, and only sums may leave here"
        if rules.updates == "private" and not hidden and promise is None:
            yield "there is neither secure aggregation nor differential privacy"
        if rules.min_vouched and plan.secure_aggregation is None:
            yield (
                "there is no secure aggregation, and this site wants sums with members that it "
                "vouches for"
            )
        bounds = {"epsilon": rules.max_epsilon, "delta": rules.max_delta, "the unit": rules.units}
        bounded = [name for name, bound in bounds.items() if bound is not None]
        if bounded and promise is None:
            yield f"there is no differential privacy, and this site bounds {', '.join(bounded)}"
        if promise is None:
            return
        if rules.max_epsilon is not None and promise.epsilon > rules.max_epsilon:
            yield f"epsilon {promise.epsilon:g}, and {rules.max_epsilon:g} is the most here"
        if rules.max_delta is not None and promise.delta > rules.max_delta:
            yield f"delta {promise.delta:g}, and {rules.max_delta:g} is the most here"
        if rules.units is not None and promise.unit not in rules.units:
            yield f"the unit of privacy is {promise.unit.value!r}, which is not accepted here"

    def _task_objections(self, task: TaskFacts) -> Iterator[str]:
        spans = self.work.hours
        if spans and not any(within(span, task.now) for span in spans):
            yield f"tasks are done at {', '.join(spans)} only"
        most, day = self.traffic.max_upload, self.traffic.max_upload_day
        if most is not None and task.upload > most:
            yield f"an update of {task.upload} bytes, and {most} are allowed"
        if day is not None and task.sent_day + max(task.upload, 1) > day:
            yield f"{day} bytes a day are allowed, and {task.sent_day} were sent"
        if self.work.max_rounds is not None and task.round > self.work.max_rounds:
            yield f"round {task.round}, and {self.work.max_rounds} are allowed here"


def _algorithm_name(plan: Plan) -> str:
    """The built-in name, or ``module:Class``: a class of somebody's own cannot borrow a name."""
    document = plan.model_dump(mode="json", include={"algorithm": {"name"}})
    return str(document["algorithm"]["name"])


def within(span: str, now: Clock) -> bool:
    """Whether a time of day lies in a span; one that ends before it begins goes over midnight.

    >>> within("20:00-06:00", Clock(23)), within("20:00-06:00", Clock(6))
    (True, False)
    """
    found = _SPAN.fullmatch(span)
    if found is None:
        raise ValueError(f"{span!r} is not a span like 20:00-06:00")
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = Clock(hour, minute), Clock(end_hour, end_minute)
    return start <= now < end if start < end else now >= start or now < end


def load_policy(path: Path) -> ClientPolicy:
    """Read a policy file.

    Raises:
        AnabranchError: AB-742 it cannot be read, is not TOML, or has a wrong entry. A client
            without a readable policy does nothing.
    """
    try:
        return ClientPolicy.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"is not valid TOML ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(path, f"has a wrong entry {where!r}: {first['msg']}") from error


def _unreadable(path: Path, what: str) -> AnabranchError:
    return AnabranchError(
        "AB-742",
        f"the policy {path} {what}.",
        fix="correct the file; `anabranch kit` writes a template with every entry explained.",
        kept="Nothing was computed and nothing was sent.",
    )
