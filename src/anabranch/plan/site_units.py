"""How many units of privacy each site has, where the contract declares it.

With noise inside sites the sampling rate, the steps and the noise of a site follow from how many
units it has. A number that is declared is public: nothing of it is learnt from the data, and the
promise holds for whatever a site really has, because every unit's coin falls with the declared
probability and sums are divided by the planned batch. What a wrong number costs is the fit of the
batches, never privacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anabranch.errors import AnabranchError
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.schema import Plan
from anabranch.privacy.events import Unit

__all__ = [
    "DEFAULT_TEST_SHARE",
    "declared_rows",
    "declared_units",
    "known_units",
    "require_findable",
]

DEFAULT_TEST_SHARE = 0.2
"""Part of a site's own rows that tests models, unless the plan says otherwise."""


def declared_units(plan: Plan, names: Sequence[str]) -> dict[str, int] | None:
    """Units by site, as the contract declares them; None where it does not.

    A table is used whole: where persons may be at several sites, the noise of one follows from all.

    Raises:
        AnabranchError: AB-991 the contract declares others, but not all of ``names``.
    """
    mechanism = _inside(plan)
    stated = mechanism.units if mechanism is not None else None
    if stated is None:
        return None
    if isinstance(stated, int):
        return dict.fromkeys(names, stated)
    missing = [name for name in names if name not in stated]
    if missing:
        raise AnabranchError(
            "AB-991",
            "privacy.mechanism.units does not say how many units of privacy there are at "
            f"{', '.join(map(repr, missing[:5]))}.",
            fix="declare a number for every site, or one number for all of them.",
            kept="Nothing was computed and nothing was sent.",
        )
    return dict(stated)


def known_units(plan: Plan, site: str, own: int) -> dict[str, int]:
    """What one site knows of units: all that the contract declares, else its own number.

    Args:
        plan: with noise inside sites.
        site: its name.
        own: units in its data.

    Raises:
        AnabranchError: AB-982 its noise follows from other sites, which it does not know; AB-991 as
            `declared_units`.
    """
    declared = declared_units(plan, (site,))
    require_findable(plan)
    if declared is None:
        return {site: own}
    mechanism = _inside(plan)
    assert mechanism is not None  # units are declared there
    assert plan.privacy is not None
    alone = plan.privacy.unit is Unit.EXAMPLE or mechanism.disjoint
    return {site: declared[site]} if alone else declared


def require_findable(plan: Plan) -> None:
    """Refuse a plan whose sites could not find their noise from contract and own data.

    Raises:
        AnabranchError: AB-982.
    """
    mechanism = _inside(plan)
    if mechanism is None or plan.privacy is None or plan.privacy.unit is not Unit.SUBJECT:
        return
    found = mechanism.noise_multiplier is not None or isinstance(mechanism.units, Mapping)
    if found or mechanism.disjoint:
        return
    raise AnabranchError(
        "AB-982",
        "a person may have data at several sites, so no site can find its noise alone.",
        fix="let the contract declare the units of every site (privacy.mechanism.units, a table), "
        "or that no person is at two sites (disjoint = true), or state noise_multiplier.",
        kept="Nothing was trained.",
    )


def declared_rows(plan: Plan, site: str) -> tuple[int, int] | None:
    """What a site says of its training and test rows where its units are declared.

    The contract's numbers, nothing that its rows could change; None where it tells the truth.

    Raises:
        AnabranchError: AB-991 as `declared_units`.
    """
    declared = declared_units(plan, (site,))
    if declared is None:
        return None
    share = plan.data.test_fraction
    share = DEFAULT_TEST_SHARE if share is None else share
    units = declared[site]
    return units, max(1, round(units * share / (1 - share))) if share else 0


def _inside(plan: Plan) -> LocalDpSgd | None:
    """The mechanism, where sites make the noise."""
    mechanism = plan.privacy.mechanism if plan.privacy is not None else None
    return mechanism if isinstance(mechanism, LocalDpSgd) else None
