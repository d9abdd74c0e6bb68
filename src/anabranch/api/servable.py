"""May a plan be served: can other machines run it, and is what it learns from protected enough."""

from __future__ import annotations

from typing import Final

from anabranch.client.inside import no_persons
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, require_accepted
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.site_units import require_findable
from anabranch.plan.trust import hides_updates
from anabranch.privacy.events import Unit

__all__ = ["OWN_SOURCES", "require_protected", "require_servable"]

OWN_SOURCES: Final = ("folder", "table")
"""Sources whose rows lie at the sites; every other one is public and named."""


def require_servable(plan: Plan) -> None:
    """Refuse a plan that other machines cannot run.

    Raises:
        AnabranchError: AB-764; AB-4xx the algebra refuses it; AB-981, AB-982, AB-991 sites could
            not tell what the privacy of persons needs.
    """
    require_accepted(plan)
    _require_persons(plan)
    data, why = plan.data, ""
    if not plan.servable:
        names = ", ".join(r.name for r in plan.callables if not r.importable)
        why = f"it names code that only one process knows ({names})"
    elif data.source == "arrays":
        why = "its data were given in Python"
    elif data.source in OWN_SOURCES and (data.partition is not None or data.noise is not None):
        why = "it divides or changes rows that lie at the sites"
    elif data.source in OWN_SOURCES and data.holdout_fraction > 0:
        why = "it moves rows of the sites to the coordinator (data.holdout_fraction)"
    elif plan.devices is not None:
        why = "its devices are simulated"
    if why:
        raise AnabranchError(
            "AB-764",
            f"the plan {plan.name!r} cannot be served: {why}.",
            fix="put classes into an installed module, name a source, and leave out what only a "
            "simulation has; or run it with `anabranch simulate`.",
            kept="Nothing was started.",
        )


def _require_persons(plan: Plan) -> None:
    """Noise inside sites for persons whose rows lie there: all that it follows from is public."""
    privacy = plan.privacy
    mechanism = privacy.mechanism if privacy is not None else None
    if not isinstance(mechanism, LocalDpSgd) or plan.data.source not in OWN_SOURCES:
        return
    require_findable(plan)
    if privacy is None or privacy.unit is not Unit.SUBJECT:
        return
    if plan.data.table is None or plan.data.table.subject is None:
        raise no_persons("the plan")
    if mechanism.units is None:
        raise AnabranchError(
            "AB-991",
            "the unit of privacy is 'subject', and the contract does not say how many each site "
            "has: a site would have to tell the number, which depends on who is there.",
            fix="declare it: privacy.mechanism.units, one number or a table by site. A rough "
            "number is as private as the right one; only the batches fit less well.",
            kept="Nothing was started.",
        )


def require_protected(plan: Plan, *, personal: bool) -> None:
    """Refuse to learn from data of persons without protection, unless the contract says why.

    Raises:
        AnabranchError: AB-765.
    """
    if not personal or plan.privacy is not None or hides_updates(plan) or plan.unprotected:
        return
    raise AnabranchError(
        "AB-765",
        f"the plan {plan.name!r} learns from data of persons, with neither differential privacy "
        "nor secure aggregation.",
        fix="plan one of them (tables [privacy], [secure_aggregation]), or write the reason into "
        'the contract: unprotected = "...".',
        kept="Nothing was started.",
    )
