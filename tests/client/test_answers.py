"""Answers are made once: what is kept, what is refused, and what a kill in between leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anabranch.client.answers import Answers
from anabranch.client.vault import FileKey, open_vault
from anabranch.disk import file_points
from anabranch.errors import AnabranchError


class Killed(Exception):  # noqa: N818  # nothing went wrong
    """Nothing after it happens, and nothing is cleaned up."""


class KilledAt:
    def __init__(self, point: str) -> None:
        self.point = point

    def reach(self, point: str) -> None:
        if point == self.point:
            raise Killed


TASK, OTHER = "5a" * 16, "6b" * 16


def test_the_same_question_gets_the_same_bytes(tmp_path: Path) -> None:
    Answers(tmp_path).keep(TASK, b"question", b"noisy")
    kept = Answers(tmp_path)
    assert kept.recall(TASK, b"question") == b"noisy"
    assert kept.recall(OTHER, b"question") is None
    with pytest.raises(AnabranchError, match=r"AB-979.*another question"):
        kept.recall(TASK, b"another")


def test_every_attempt_at_a_secure_sum_has_its_answer(tmp_path: Path) -> None:
    kept = Answers(tmp_path)
    kept.keep(TASK, b"question", b"masked once", b"letter 1")
    assert kept.recall(TASK, b"question", b"letter 1") == b"masked once"
    assert kept.recall(TASK, b"question", b"letter 2") is None
    kept.settled(TASK)
    with pytest.raises(AnabranchError, match="AB-979"):
        kept.recall(TASK, b"question", b"letter 1")


def test_after_its_fate_a_task_is_never_answered_anew(tmp_path: Path) -> None:
    kept = Answers(tmp_path)
    kept.settled(TASK)  # nobody ever heard of it: nothing happens
    assert kept.recall(TASK, b"question") is None
    kept.keep(TASK, b"question", b"x" * 10_000)
    kept.settled(TASK)
    kept.settled(TASK)
    with pytest.raises(AnabranchError, match=r"AB-979.*was told"):
        kept.recall(TASK, b"question")
    assert sum(path.stat().st_size for path in (tmp_path / "answers").iterdir()) < 100


def test_a_site_with_a_vault_keeps_them_encrypted(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault", FileKey(tmp_path / "key" / "of-the-vault"))
    Answers(tmp_path, vault).keep(TASK, b"question", b"a noisy answer")
    (path,) = (tmp_path / "answers").iterdir()
    assert b"noisy" not in path.read_bytes()
    assert Answers(tmp_path, vault).recall(TASK, b"question") == b"a noisy answer"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(AnabranchError, match="AB-747"):
        Answers(tmp_path, vault).recall(TASK, b"question")


@pytest.mark.parametrize("point", file_points("answers"))
def test_a_kill_leaves_the_whole_answer_or_none(tmp_path: Path, point: str) -> None:
    """None means that nothing had left: an answer is sent only after `keep` has returned."""
    with pytest.raises(Killed):
        Answers(tmp_path, faults=KilledAt(point)).keep(TASK, b"question", b"noisy" * 1000)
    assert Answers(tmp_path).recall(TASK, b"question") in (None, b"noisy" * 1000)


def test_of_answers_whose_fate_nobody_tells_the_newest_are_kept(tmp_path: Path) -> None:
    kept = Answers(tmp_path)
    tasks = [f"{number:032x}" for number in range(40)]
    for number, task in enumerate(tasks):
        kept.keep(task, b"question", bytes([number]) * 10_000, b"letter")
        os.utime(next((tmp_path / "answers").glob(f"{task}*")), ns=(number, number))
    assert kept.recall(tasks[-1], b"question", b"letter") == bytes([39]) * 10_000
    assert kept.recall(tasks[-16], b"question", b"letter") == bytes([24]) * 10_000
    for task in tasks[:-16]:  # no answer is made anew, either
        with pytest.raises(AnabranchError, match="AB-979"):
            kept.recall(task, b"question", b"letter")
    assert (
        sum(path.stat().st_size for path in (tmp_path / "answers").iterdir())
        < 16 * 10_200 + 40 * 100
    )
