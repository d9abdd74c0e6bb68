"""The client's log: a chain that a crash does not break and a change does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.client.log import FIRST, ClientLog, read_log
from anabranch.errors import AnabranchError


def written(path: Path, count: int) -> list[str]:
    """A log of ``count`` entries; the heads after each."""
    heads = []
    with ClientLog(path, lambda: 1_700_000_000.9) as log:
        for number in range(count):
            log.add("sent", "coordinator", {"task": f"{number:032x}", "bytes": 40}, durable=True)
            heads.append(log.head)
    return heads


def test_lines_are_readable_and_chained_by_plain_sha256(tmp_path: Path) -> None:
    heads = written(tmp_path / "log.jsonl", 3)
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
    assert [hashlib.sha256(line).hexdigest() for line in lines] == heads
    entries = [json.loads(line) for line in lines]
    assert [entry["previous"] for entry in entries] == [FIRST, *heads[:2]]
    assert entries[1]["details"] == {"bytes": 40, "task": f"{1:032x}"}
    assert entries[1]["at"] == 1_700_000_000


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    written(tmp_path / "log.jsonl", 2)
    with ClientLog(tmp_path / "log.jsonl") as log:
        assert log.count == 2
        assert log.add("fate").number == 2
    assert [entry.what for entry in read_log(tmp_path / "log.jsonl")] == ["sent", "sent", "fate"]
    assert list(read_log(tmp_path / "absent.jsonl")) == []


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 400))
def test_a_crash_in_the_middle_of_a_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    written(path, 3)
    content = path.read_bytes()
    path.write_bytes(content[: max(len(content) - cut, 0)])
    whole = content[: max(len(content) - cut, 0)].count(b"\n")
    with ClientLog(path) as log:
        assert log.count == whole
        log.add("asked")
    assert len(list(read_log(path))) == whole + 1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_changed_log_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    written(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    line = data.draw(st.integers(0, 2))  # the last one is vouched for by the head alone
    kind = data.draw(st.sampled_from(["drop", "swap", "edit", "space"]))
    if kind == "drop":
        del lines[line]
    elif kind == "swap":
        lines[line], lines[line + 1] = lines[line + 1], lines[line]
    elif kind == "edit":
        lines[line] = lines[line].replace(b'"bytes":40', b'"bytes":41')
    else:
        lines[line] = lines[line].replace(b":", b": ", 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(AnabranchError, match="AB-749"):
        list(read_log(path))
    with pytest.raises(AnabranchError, match="AB-749"):
        ClientLog(path)


def test_a_rewritten_log_has_another_head(tmp_path: Path) -> None:
    heads = written(tmp_path / "a.jsonl", 3)
    with ClientLog(tmp_path / "b.jsonl", lambda: 1_700_000_000.9) as log:
        log.add("sent", "somebody else", {"task": f"{0:032x}", "bytes": 40})
        assert log.head != heads[0]
