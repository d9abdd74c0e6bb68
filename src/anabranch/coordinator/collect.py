"""Collecting answers: they are merged as they come, and every task gets an outcome."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.client.task import Fate
from anabranch.coordinator.policies import Policy, Situation, Synchronous
from anabranch.coordinator.runtime import Outcome, Partial, Payload, Runtime, RuntimeEvent, Work
from anabranch.errors import AnabranchError
from anabranch.updates.sections import Update
from anabranch.updates.total import Finest, Total
from anabranch.updates.wire import unpack

__all__ = ["Adjust", "Collected", "Dispatch", "OpenWork", "TaskKey", "collect", "gather"]

Adjust: TypeAlias = Callable[[Update, Work], Update]
"""Undoes the stages of one update, and damps it when it is stale."""


class TaskKey(NamedTuple):
    """One client's task: the name of the piece of work, and the client's number."""

    task: str
    client: int


@dataclass(frozen=True)
class OpenWork:
    """Work that was given out.

    Attributes:
        work: what is asked.
        at: when it was given out, on the runtime's clock.
        waiting: clients without an outcome.
        limit: seconds that the clients are given; None without a limit.
    """

    work: Work
    at: float
    waiting: frozenset[int]
    limit: float | None = None

    @staticmethod
    def of(work: Work, at: float, limit: float | None = None) -> OpenWork:
        """Work that nobody has answered yet."""
        return OpenWork(work, at, frozenset(work.clients), limit)

    def left(self, now: float) -> float:
        """Seconds until the limit; inf without one."""
        return math.inf if self.limit is None else self.at + self.limit - now


def _as_it_is(update: Update, work: Work) -> Update:
    return update


def _unsaid(update: Update) -> float | None:
    return None


@dataclass
class Collected:
    """The open state of one round, or of one piece of work outside the rounds.

    Attributes:
        round: the model version being made or looked at.
        fold: sections and capacity of the sum.
        started: when it began, in seconds of the runtime's clock.
        adjust: what is done to one update before it is folded.
        works: by name, in the order in which they were given out; kept ones of earlier rounds
            first.
        outcomes: of the tasks, as they come.
        individuals: single updates by client number, when the work asked for them and
            ``keep_individuals`` says so.
        over: nobody can be asked any more, ever: there is nothing to wait for.
        coarseness: how coarsely an update is encoded, where its codec says so.
        dispatches: pieces of work that were given out in this round.
        losses: mean training loss by task, where single updates are seen and carry one.
        arrived: seconds of the runtime's clock at which each outcome came.
        strange: what came for work that is not in ``works``. While a model is measured these are
            answers to training that is still open; in a round, repetitions and what was given up.
    """

    round: int
    fold: FoldPlan
    started: float
    adjust: Adjust = _as_it_is
    keep_individuals: bool = True
    over: bool = False
    coarseness: Callable[[Update], float | None] = _unsaid
    dispatches: int = 0
    works: dict[str, Work] = field(default_factory=dict)
    outcomes: dict[TaskKey, Outcome] = field(default_factory=dict)
    individuals: dict[int, Update] = field(default_factory=dict)
    losses: dict[TaskKey, float] = field(default_factory=dict)
    arrived: dict[TaskKey, float] = field(default_factory=dict)
    strange: list[RuntimeEvent] = field(default_factory=list)
    _opened: dict[str, OpenWork] = field(default_factory=dict)
    _waiting: dict[str, set[int]] = field(default_factory=dict)
    _took: list[float] = field(default_factory=list)
    _lost: int = 0
    _sum: Accumulator = field(init=False)

    def __post_init__(self) -> None:
        self._sum = Accumulator(self.fold)

    @staticmethod
    def of(work: Work, started: float) -> Collected:
        """For one piece of work."""
        collected = Collected(work.round, work.fold, started)
        collected.give_out(OpenWork.of(work, started))
        return collected

    # What is open --------------------------------------------------------------------------

    def give_out(self, opened: OpenWork) -> None:
        """New work of this round."""
        self.dispatches += 1
        self.keep(opened)

    def keep(self, opened: OpenWork) -> None:
        """Work that an earlier round left open."""
        work = opened.work
        self.works[work.task] = work
        self._opened[work.task] = opened
        self._waiting[work.task] = set(opened.waiting)

    def fresh(self, task: str) -> bool:
        """Whether the work belongs to this round."""
        return self.works[task].round == self.round

    def seen(self, now: float) -> Situation:
        """What a policy may know."""
        open_ = {task: len(waiting) for task, waiting in self._waiting.items()}
        fresh = sum(count for task, count in open_.items() if self.fresh(task))
        kept = sum(open_.values()) - fresh
        left = min((w.left(now) for w in self.still_open()), default=math.inf)
        elapsed = now - self.started
        typical = self._typical(fresh)
        return Situation(
            self.dispatches, fresh, kept, self.contributors, elapsed, left, typical, self._lost
        )

    def _typical(self, waiting: int) -> float:
        """Median seconds of this round's answers, once half of its tasks have one."""
        took = self._took
        return took[len(took) // 2] if took and len(took) >= waiting else math.nan

    def still_open(self) -> Iterator[OpenWork]:
        """Work with tasks that have no outcome."""
        for task, waiting in self._waiting.items():
            if waiting:
                yield replace(self._opened[task], waiting=frozenset(waiting))

    def given_out_at(self, task: str) -> float:
        """When the work was given out, on the runtime's clock."""
        return self._opened[task].at

    def cut_off(self, key: TaskKey) -> bool:
        """Whether a task was given up although it had time left: the round had enough without."""
        outcome, limit = self.outcomes[key], self._opened[key.task].limit
        waited = self.arrived[key] - self._opened[key.task].at
        return outcome.fate is Fate.TOO_LATE and waited < (math.inf if limit is None else limit)

    # What came back ------------------------------------------------------------------------

    @property
    def contributors(self) -> int:
        """Updates in the sum."""
        return self._sum.contributors

    @property
    def asked(self) -> int:
        """Tasks given out in this round."""
        return sum(len(work.clients) for task, work in self.works.items() if self.fresh(task))

    @property
    def by_client(self) -> Mapping[int, Outcome]:
        """Outcomes by client number; the last one of a client that had several tasks."""
        return {key.client: outcome for key, outcome in self.outcomes.items()}

    def staleness(self, task: str) -> int:
        """Model versions that were made since the work was given out."""
        return self.round - self.works[task].round

    def total(self) -> Total:
        """The exact sum over everything merged."""
        return self._sum.total(copy=False)

    def absorb(self, event: RuntimeEvent, name: Callable[[int], str], now: float) -> None:
        """Merge one event; an update that is not acceptable turns its task's fate to refused.

        What belongs to no open task (a repetition, work that was given up) changes nothing.
        """
        if event.task not in self.works:
            self.strange.append(event)
            return
        if isinstance(event, Partial):
            self._sum.absorb(event.total)
        elif isinstance(event, Payload):
            self._absorb_payload(event, name(event.client), now)
        else:
            self._absorb_outcome(event, now)

    def finish(self, outcome: Outcome, now: float) -> None:
        """The task has this outcome, unless it has one."""
        key = TaskKey(outcome.task, outcome.client)
        self._waiting[outcome.task].discard(outcome.client)
        if key not in self.outcomes:
            self.outcomes[key] = outcome
            self.arrived[key] = now
            self._lost += not outcome.fate.counts
            if outcome.fate.counts and self.fresh(outcome.task):
                insort(self._took, now - self._opened[outcome.task].at)

    def _absorb_outcome(self, event: Outcome, now: float) -> None:
        known = self.outcomes.get(TaskKey(event.task, event.client))
        if known is None:
            self.finish(self._stale(event), now)
        elif known.fate.counts and event.fate.counts:  # a payload's outcome knows no more
            key = TaskKey(event.task, event.client)
            self.outcomes[key] = replace(
                event, fate=known.fate, bytes_up=known.bytes_up, coarseness=known.coarseness
            )

    def _absorb_payload(self, payload: Payload, name: str, now: float) -> None:
        client, work = payload.client, self.works[payload.task]
        if client not in self._waiting[payload.task]:
            return  # a repeated delivery counts once
        try:
            update = unpack(payload.content, work.fold.sections, name)
            adjusted = self.adjust(update, work)
            self._sum.add(adjusted, name)
        except AnabranchError as error:
            self.finish(Outcome(client, Fate.REFUSED, str(error), task=work.task), now)
            return
        if work.finest is Finest.INDIVIDUALS:
            self._note(TaskKey(work.task, client), adjusted)
        made = Outcome(
            client,
            Fate.MERGED,
            bytes_up=len(payload.content),
            task=work.task,
            coarseness=self.coarseness(update) if update.packed else None,
        )
        self.finish(self._stale(made), now)

    def _note(self, key: TaskKey, update: Update) -> None:
        if self.keep_individuals:
            self.individuals[key.client] = update
        if seen := update.scalars.get("train_examples"):
            self.losses[key] = float(update.scalars["train_loss_sum"]) / float(seen)

    def _stale(self, outcome: Outcome) -> Outcome:
        late = outcome.fate is Fate.MERGED and not self.fresh(outcome.task)
        return replace(outcome, fate=Fate.MERGED_LATE) if late else outcome


Dispatch: TypeAlias = Callable[[int, Collected], OpenWork | None]
"""Work for so many more clients; None when nobody can be asked now."""


def gather(
    collected: Collected,
    runtime: Runtime,
    policy: Policy,
    dispatch: Dispatch,
    name: Callable[[int], str],
) -> tuple[OpenWork, ...]:
    """Ask and wait by the policy; what it does not keep is given up.

    Payloads of single clients are decoded here; sums come from where their updates were decoded.
    Every task that is not kept has exactly one outcome at the end.

    Returns:
        The work that stays open.
    """
    # Somebody is looked for at least once, however little time there is, unless answers that came
    # before the round make it already: the fold has room for those and the open tasks, no more.
    asked = collected.contributors > 0
    while not (asked and (collected.over or policy.close(collected.seen(runtime.now())))):
        asked = True
        count = policy.dispatch(collected.seen(runtime.now()))
        opened = dispatch(count, collected) if count else None
        if opened is not None:
            collected.give_out(opened)
            runtime.submit(opened.work)
        for event in runtime.poll(policy.patience(collected.seen(runtime.now()))):
            collected.absorb(event, name, runtime.now())
        if policy.expires:
            for late in [w for w in collected.still_open() if w.left(runtime.now()) <= 1e-6]:
                _give_up(late, collected, runtime)
    kept = []
    for opened in list(collected.still_open()):
        if policy.keeps(collected.round + 1 - opened.work.round):
            kept.append(opened if policy.expires else replace(opened, limit=None))
        else:
            _give_up(opened, collected, runtime)
    return tuple(kept)


def _give_up(opened: OpenWork, collected: Collected, runtime: Runtime) -> None:
    for outcome in runtime.abandon(opened.work.task):
        collected.finish(outcome, runtime.now())
    for client in opened.waiting:
        lost = Outcome(client, Fate.LOST, "no answer", task=opened.work.task)
        collected.finish(lost, runtime.now())


def collect(
    work: Work,
    runtime: Runtime,
    name: Callable[[int], str],
    deadline: float | None = None,
    straggling: float | None = None,
) -> Collected:
    """One piece of work outside the rounds: everybody's answer, or what came in time.

    Args:
        work: what is asked.
        runtime: carries it.
        name: identifier of a client number.
        deadline: seconds that everybody is given; None for no limit.
        straggling: see `Synchronous`.
    """
    collected = Collected(work.round, work.fold, runtime.now())
    policy = Synchronous(len(work.clients), deadline, straggling=straggling)
    opened = OpenWork.of(work, runtime.now())
    gather(collected, runtime, policy, lambda count, seen: opened, name)
    return collected
