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
        AnabranchError: AB-112 the cohort, AB-113 the quorum is larger than the fleet; AB-550 the
            fairness floor cannot hold, AB-551 participation caps leave too few clients.
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
    _check_selection(plan, clients)


def _check_selection(plan: Plan, clients: int) -> None:
    """Refuse promises about participation that this fleet cannot keep."""
    rounds, selector = plan.rounds, plan.selection
    asked, floor = rounds.asked(clients), selector.floor_rounds
    if floor is not None and rounds.asynchronous is None and floor * asked < clients:
        raise AnabranchError(
            "AB-550",
            f"selection.floor promises every client a turn within {floor} rounds, but {asked} of "
            f"{_count(clients)} are asked in each.",
            fix=f"set selection.floor to at least {-(-clients // asked)}, or ask more clients.",
            kept="Nothing was started.",
        )
    most = selector.max_participations
    needed = rounds.count * rounds.needed(clients)
    if most is not None and most * clients < needed:
        raise AnabranchError(
            "AB-551",
            f"{rounds.count} rounds need at least {needed} updates, but {_count(clients)} may give "
            f"{most} each.",
            fix=f"set selection.max_participations to at least {-(-needed // clients)}, or run "
            f"fewer rounds.",
            kept="Nothing was started.",
        )


def _count(clients: int) -> str:
    return f"{clients} client" if clients == 1 else f"{clients} clients"
