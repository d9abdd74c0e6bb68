"""What can be checked of a plan only when the number of clients is known."""

from __future__ import annotations

from anabranch.errors import AnabranchError
from anabranch.plan.schema import Plan

__all__ = ["check_against_fleet"]


def check_against_fleet(plan: Plan, clients: int) -> None:
    """Refuse a plan whose rounds this fleet cannot fill.

    Args:
        plan: what to do.
        clients: enrolled clients.

    Raises:
        AnabranchError: AB-112 the cohort, AB-113 the quorum is larger than the fleet.
    """
    rounds = plan.rounds
    if rounds.wanted(clients) > clients:
        raise AnabranchError(
            "AB-112",
            f"rounds.cohort is {rounds.cohort}, but the fleet has {_count(clients)}.",
            fix=f"set rounds.cohort to at most {clients}, or leave it out to ask everyone.",
            kept="Nothing was started.",
        )
    if rounds.needed(clients) > rounds.wanted(clients):
        raise AnabranchError(
            "AB-113",
            f"rounds.quorum is {rounds.quorum}, but a round wants {rounds.wanted(clients)} of "
            f"{_count(clients)}, so that no round could succeed.",
            fix=f"set rounds.quorum to at most {rounds.wanted(clients)}, or leave it out.",
            kept="Nothing was started.",
        )


def _count(clients: int) -> str:
    return f"{clients} client" if clients == 1 else f"{clients} clients"
