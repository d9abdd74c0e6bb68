"""What a run says on stderr: trust line first, rounds, troubles, limits."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from anabranch.observe.events import (
    ClientTrouble,
    EvaluationDone,
    Event,
    LimitCheck,
    RoundCommitted,
    RunEnded,
    RunStarted,
)
from anabranch.observe.progress import PlainProgress, RichProgress, progress, remaining

TRUST = "the coordinator can read every update; no differential privacy"
STORY: tuple[Event, ...] = (
    RunStarted("heart-1", "heart", 3, 4, TRUST, cohort=2),
    RoundCommitted(1, "complete", {"accuracy": 0.5, "train_loss": 1.0}, contributors=2, cohort=2),
    ClientTrouble(2, "va", "refused", "AB-501 the update is not finite"),
    RoundCommitted(2, "failed", {}, contributors=1, cohort=2),
    RoundCommitted(3, "complete", {"accuracy": 0.75}, contributors=2, cohort=2),
    EvaluationDone("local_only", {"accuracy": 0.6}),
    RunEnded(
        "complete",
        "all rounds done",
        1.5,
        {"accuracy": 0.75},
        (LimitCheck("max_seconds", "<= 1 s", 1.5, False), LimitCheck("x", "<= 2", 1.0, True)),
    ),
)


def plain(story: tuple[Event, ...], every: float = 0.0) -> list[str]:
    stream = io.StringIO()
    listener = PlainProgress(stream, every=every)
    for event in story:
        listener(event)
    return stream.getvalue().splitlines()


def test_plain_lines_tell_the_story() -> None:
    lines = plain(STORY)
    assert lines[0] == f"Trust: {TRUST}"
    assert lines[1] == "Run heart-1 (heart): 3 rounds, 4 clients, 2 a round"
    assert lines[2].startswith("round 1/3  accuracy 0.5000  2 of 2 clients  about ")
    assert lines[3] == "round 2: client va refused: AB-501 the update is not finite"
    assert lines[4].startswith("round 2/3  failed  1 of 2 clients")
    assert lines[5] == "round 3/3  accuracy 0.7500  2 of 2 clients"
    assert lines[6] == "local only: accuracy 0.6000"
    assert lines[7] == "Run complete after 1.5 s: all rounds done"
    assert lines[8] == "Limit missed: max_seconds (wanted <= 1 s, measured 1.5)"
    assert len(lines) == 9


def test_clients_measured_one_by_one_are_shown_as_their_mean() -> None:
    clients = {"a": {"auc": 0.8}, "b": {"auc": 0.6}, "c": {"loss": 1.0}}
    done = RoundCommitted(1, "complete", {"auc": 0.9, "loss": 1.0}, clients, cohort=3)
    assert plain((STORY[0], done))[2].startswith("round 1/3  mean AUC 0.7000  0 of 3")


def test_plain_lines_are_rare_but_failures_and_the_last_round_are_told() -> None:
    lines = plain(STORY, every=3600.0)
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["2:", "2/3", "3/3"]


def test_a_resumed_run_says_where_it_goes_on() -> None:
    lines = plain((RunStarted("r", "heart", 9, 4, TRUST, first_round=5),))
    assert lines[1].endswith("4 clients, going on at round 5")


def test_remaining_time_is_proportional() -> None:
    assert remaining(10.0, 5, 20) == 40.0
    assert remaining(1.0, 0, 3) == 3.0


def test_rich_shows_bar_and_metric_and_takes_names_literally() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    columns = (TextColumn("{task.completed}"), TextColumn("{task.fields[metric]}"))
    with Progress(*columns, console=console) as bar:
        listener = RichProgress(bar)
        for event in (*STORY[:3], ClientTrouble(2, "[bold]x[/bold]", "lost", "no answer")):
            listener(event)
        assert bar.tasks[0].completed == 1
        assert bar.tasks[0].fields["metric"] == "accuracy 0.5000"
        for event in STORY[3:]:
            listener(event)
        assert bar.finished
    text = console.export_text()
    assert f"Trust: {TRUST}" in text
    assert "client [bold]x[/bold] lost" in text


def test_quiet_says_nothing_and_pipes_get_plain_lines() -> None:
    stream = io.StringIO()
    with progress(quiet=True, stream=stream) as listener:
        listener(STORY[0])
    assert stream.getvalue() == ""
    with progress(stream=stream) as listener:
        listener(STORY[0])
    assert stream.getvalue().startswith("Trust: ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_rich_and_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with progress(stream=stream) as listener:
        for event in STORY:
            listener(event)
    text = stream.getvalue()
    assert "round" in text
    assert "\x1b[33m" not in text  # yellow, of troubles


def test_many_troubles_do_not_bury_the_rest() -> None:
    """A reason in full once; then three brief lines a round, and a count of the others."""
    reason = "AB-502 [run] a value is not finite. Fix: lower the learning rate."
    stream = io.StringIO()
    show = PlainProgress(stream)
    for number in (1, 2):
        for client in range(20):
            show(ClientTrouble(number, f"c{client}", "refused", reason))
        show(RoundCommitted(round=number, outcome="failed", contributors=0, cohort=20))
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"round 1: client c0 refused: {reason}"
    assert lines[1] == "round 1: client c1 refused: AB-502"
    assert lines[3] == "round 1: 17 more clients did not contribute"
    assert sum("Fix: " in line for line in lines) == 1
    assert len(lines) == 10
