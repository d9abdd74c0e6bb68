"""Small pieces that the ledger's tests share."""

from __future__ import annotations

from dataclasses import replace

from anabranch.privacy.accounting import exact_noise
from anabranch.privacy.events import GaussianEvent, Relation, Unit
from anabranch.privacy.ledger import Allotted, Charge, Line, Opened, Purpose, Request

DELTA = 1e-5
ONE = exact_noise(1.0, DELTA) * (1 + 1e-9)
"""Noise multiplier of one release of epsilon 1."""

OPENED = Opened("icu", Unit.CLIENT, Relation.ZERO_OUT, 1.0, DELTA, 10_000)


def gaussian(noise: float, rounds: int = 1) -> GaussianEvent:
    return GaussianEvent(noise, rounds, relation=Relation.ZERO_OUT)


def a_round(rounds: int = 4) -> GaussianEvent:
    """One of ``rounds`` equal releases that cost epsilon 1 together."""
    return gaussian(ONE * rounds**0.5)


def allotment(run: str = "r", rounds: int = 4, epsilon: float = 1.0) -> Allotted:
    planned = replace(a_round(rounds), rounds=rounds)
    return Allotted(run, (Line("model", (planned,)),), epsilon, DELTA)


def request(
    round_: int = 1,
    charge: Charge | None = None,
    *,
    version: str = "v",
    contributors: tuple[str, ...] = ("a", "b"),
    payloads: str = "p",
    purpose: Purpose = "model",
    site: str = "",
) -> Request:
    return Request(purpose, round_, version, contributors, payloads, charge or a_round(), site=site)
