"""What a rule of the algebra is: a predicate over what the parts of a plan declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from anabranch.plan.schema import Plan

__all__ = ["Alternative", "Note", "Rule"]


@dataclass(frozen=True)
class Alternative:
    """Changes that make a refused plan acceptable.

    Attributes:
        words: what changes, for people.
        changes: value by dotted key; None removes the key.
    """

    words: str
    changes: Mapping[str, object]

    @property
    def settings(self) -> str:
        """The changes as ``--set`` takes them.

        >>> Alternative("no cap", {"local.clip_norm": None, "local.epochs": 2}).settings
        '--set local.clip_norm= --set local.epochs=2'
        """
        return " ".join(f"--set {_setting(key, value)}" for key, value in self.changes.items())


def _setting(key: str, value: object) -> str:
    text = f"{key}={_toml(value)}"
    return f"'{text}'" if any(sign in text for sign in ' {}[]"') else text


def _toml(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_inner(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inner(item) for item in value) + "]"
    return str(value)


def _inner(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else _toml(value)


@dataclass(frozen=True)
class Note:
    """Something that a reader of an accepted plan should know.

    Attributes:
        options: the keys it is about.
        text: one or two sentences.
    """

    options: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Rule:
    """A combination of options that would compute something else than it says.

    Attributes:
        code: AB-4nn; its page explains the rule.
        title: what is required, in a few words.
        options: the keys that it concerns.
        objection: why a plan is refused, in one or two sentences; None when it is accepted.
        alternatives: changes that would satisfy this rule.
    """

    code: str
    title: str
    options: tuple[str, ...]
    objection: Callable[[Plan], str | None]
    alternatives: Callable[[Plan], tuple[Alternative, ...]]
