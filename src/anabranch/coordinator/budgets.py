"""Budgets of updates that hang on the network which a device uses when it is asked."""

from __future__ import annotations

from collections.abc import Sequence

from anabranch.fleet.view import FleetView
from anabranch.updates.stages import Pipeline

__all__ = ["network_budgets"]


def network_budgets(
    pipeline: Pipeline, names: Sequence[str], view: FleetView, clients: Sequence[int]
) -> dict[int, int]:
    """Most bytes of the update of each of these clients; empty where no budget is by network, since
    clients then know their own.

    Args:
        pipeline: has the plan's budgets.
        names: client identifiers by number.
        view: what is known of the fleet now: simulated, or as clients reported it.
        clients: numbers of those that are asked.
    """
    if not any(budget.network for budget in pipeline.budgets):
        return {}
    found = {
        client: pipeline.limit_for(names[client], view.networks[view.network[client]])
        for client in clients
    }
    return {client: most for client, most in found.items() if most is not None}
