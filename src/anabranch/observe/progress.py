"""Progress on stderr: a Rich bar on a terminal, one plain line an event elsewhere.

Both open with the trust line, and say why a client is in trouble: in full once, then briefly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from anabranch.observe.events import (
    ClientTrouble,
    EvaluationDone,
    Event,
    LimitCheck,
    Listener,
    RoundCommitted,
    RunEnded,
    RunStarted,
)
from anabranch.observe.troubles import Troubles
from anabranch.observe.view import EvaluationView, headline_metric, mean_over_clients
from anabranch.observe.words import (
    metric_in_words,
    metric_name,
    number_in_words,
    seconds_in_words,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["PlainProgress", "RichProgress", "limits_missed", "progress"]


def opening(event: RunStarted) -> str:
    """The lines a run opens with: who can read what, then what will happen."""
    again = f", going on at round {event.first_round}" if event.first_round > 1 else ""
    asked = f", {event.cohort} a round" if event.cohort and event.cohort < event.clients else ""
    return (
        f"Trust: {event.trust_line}\n"
        f"Run {event.run_id} ({event.name}): {event.rounds} rounds, "
        f"{event.clients} clients{asked}{again}"
    )


def ending(event: RunEnded) -> str:
    """How the run ended, with every limit that was missed."""
    first = f"Run {event.status} after {seconds_in_words(event.seconds)}: {event.reason}"
    return "\n".join([first, *limits_missed(event.limits)])


def limits_missed(limits: Iterable[LimitCheck]) -> list[str]:
    """One line for every limit of the plan that was missed."""
    return [
        f"Limit missed: {check.name} (wanted {check.wanted}, measured "
        f"{number_in_words(check.measured)}{f'; {check.beside}' if check.beside else ''})"
        for check in limits
        if not check.met
    ]


def limits_now(limits: Iterable[LimitCheck]) -> str:
    """The limits that can be judged already and do not hold, for a line of a round."""
    missed = [
        f"{check.name} {number_in_words(check.measured)} (wanted {check.wanted})"
        for check in limits
        if check.measured is not None and not check.met
    ]
    return f"limits not kept: {', '.join(missed)}" if missed else ""


class PlainProgress:
    """Plain lines, for logs and pipes: at most one a round and one every ``every`` seconds."""

    def __init__(self, stream: TextIO, *, every: float = 1.0) -> None:
        self._stream = stream
        self._every = every
        self._metric: str | None = None
        self._rounds = 0
        self._first = 1
        self._began = self._last = time.monotonic()
        self._troubles = Troubles()

    def __call__(self, event: Event) -> None:
        rest = self._troubles.rest() if isinstance(event, RoundCommitted) else ""
        for line in (rest, self._line(event)):
            if line:
                print(line, file=self._stream, flush=True)

    def _line(self, event: Event) -> str:
        if isinstance(event, RunStarted):
            self._metric, self._rounds = event.metric, event.rounds
            self._first, self._began = event.first_round, time.monotonic()
            return opening(event)
        if isinstance(event, RoundCommitted):
            return self._round(event)
        if isinstance(event, ClientTrouble):
            return self._troubles.line(event)
        if isinstance(event, EvaluationDone):
            return f"{event.what.replace('_', ' ')}: {_shown(event, self._metric)}"
        return ending(event)

    def _round(self, event: RoundCommitted) -> str:
        now = time.monotonic()
        last = event.round >= self._rounds
        if not last and event.outcome != "failed" and now - self._last < self._every:
            return ""
        self._last = now
        done = event.round - self._first + 1
        left = remaining(now - self._began, done, self._rounds - event.round)
        parts = [
            f"round {event.round}/{self._rounds}",
            "failed" if event.outcome == "failed" else "",
            _shown(event, self._metric),
            f"{event.contributors} of {event.cohort} clients",
            limits_now(event.limits),
            _virtual(event),
            f"about {seconds_in_words(left)} left" if not last else "",
        ]
        return "  ".join(part for part in parts if part)


class RichProgress:
    """A bar with round, metric and remaining time; lines above it for everything else."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._metric: str | None = None
        self._troubles = Troubles()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._metric = event.metric
            self._say(opening(event), "bold")
            self._task = self._bar.add_task(
                "round", total=event.rounds, completed=event.first_round - 1, metric=""
            )
        elif isinstance(event, RoundCommitted):
            self._round(event)
        elif isinstance(event, ClientTrouble):
            self._say(self._troubles.line(event), "yellow")
        elif isinstance(event, EvaluationDone):
            self._say(f"{event.what.replace('_', ' ')}: {_shown(event, self._metric)}")
        else:
            self._say(ending(event), "bold")

    def _round(self, event: RoundCommitted) -> None:
        self._say(self._troubles.rest(), "yellow")
        if event.outcome == "failed":
            self._say(f"round {event.round}: failed, the model stayed as it was", "yellow")
        if self._task is None:
            return
        self._bar.update(self._task, completed=event.round)
        if event.metrics:
            shown = (_shown(event, self._metric), limits_now(event.limits), _virtual(event))
            self._bar.update(self._task, metric="  ".join(part for part in shown if part))

    def _say(self, text: str, style: str = "") -> None:
        if not text:
            return
        # Names of clients and plans are not markup.
        self._bar.console.print(text, style=style or None, markup=False, highlight=False)


def _virtual(event: RoundCommitted) -> str:
    """How late it is on the clock of simulated devices."""
    seconds = event.metrics.get("virtual_seconds")
    return "" if seconds is None else f"{seconds_in_words(seconds)} of virtual time"


def _shown(event: RoundCommitted | EvaluationDone, wanted: str | None) -> str:
    """The headline metric: the mean over clients where clients were measured one by one."""
    name = headline_metric(event.metrics, wanted)
    if name is None:
        return ""
    mean = mean_over_clients(EvaluationView(event.metrics, event.clients), name)
    if mean is None:
        return f"{metric_name(name)} {metric_in_words(event.metrics[name])}"
    return f"mean {metric_name(name)} {metric_in_words(mean)}"


def remaining(elapsed: float, done: int, left: int) -> float:
    """Seconds for ``left`` rounds that take as long as the ``done`` ones took on average."""
    return elapsed / max(done, 1) * max(left, 0)


@contextmanager
def progress(*, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener that shows progress on ``stream`` (stderr) while the context is open.

    Rich on a terminal (colours unless NO_COLOR is set), plain lines elsewhere or without Rich,
    nothing with ``quiet``.
    """
    out = stream if stream is not None else sys.stderr
    if quiet:
        yield lambda event: None
    elif not out.isatty():
        yield PlainProgress(out)
    else:
        with _bar(out) as bar:
            yield RichProgress(bar) if bar is not None else PlainProgress(out)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Progress | None]:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[metric]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(file=stream)) as bar:
        yield bar
