"""A contract at the client: the plan that it describes, and what an amendment changes."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.amend import AMENDMENT, amendment_of, beyond, differences
from anabranch.plan.contract import contract_digest
from anabranch.plan.document import PlanDocument
from anabranch.plan.load import plan_of
from anabranch.plan.migrate import migrate

__all__ = ["amendments", "check_amendment", "plan_of_contract"]


def plan_of_contract(contract: Mapping[str, object], digest: str, path: str = ".") -> Plan:
    """The plan that a contract describes, as this client's software understands it.

    Args:
        contract: the document, with its schema and the digests of the callables that it names.
        digest: SHA-256 of its canonical JSON, as it was announced.
        path: where this site keeps its files, which is no part of a contract.

    Raises:
        AnabranchError: AB-744 the document is not the one announced, or this installation reads
            another contract out of it (another version, another source of a callable); AB-1xx it is
            not a plan; AB-421 a callable is not installed here.
    """
    if contract_digest(contract) != digest:
        raise _other("its text is not the one whose digest was announced")
    try:
        amendment_of(contract)
    except ValidationError as error:
        raise _other("what it says of the contract before it is not readable") from error
    tables = {key: v for key, v in contract.items() if key not in ("callables", AMENDMENT)}
    data = tables.get("data")
    if isinstance(data, Mapping):
        tables["data"] = {**data, "path": path}
    plan = plan_of(
        PlanDocument(_without_none(migrate(tables, where="the contract")), "the contract")
    )
    whole = plan.contract()
    if AMENDMENT in contract:
        whole[AMENDMENT] = contract[AMENDMENT]
    if contract_digest(whole) != digest:
        changed = "; ".join(amendments(contract, plan.contract())) or "defaults differ"
        raise _other(f"this installation would run something else ({changed})")
    return plan


def amendments(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """What changed from one contract to another, in order.

    >>> amendments({"rounds": {"count": 20}}, {"rounds": {"count": 40}})
    ('rounds.count: 20 -> 40',)
    """
    told = tuple(f"{key}: {a} -> {b}" for key, (a, b) in differences(old, new).items())
    amendment = amendment_of(new)
    added = ", ".join(amendment.added) if amendment is not None else ""
    return (*told, f"new sites: {added}") if added else told


def check_amendment(
    old: Mapping[str, object], known: str, new: Mapping[str, object], digest: str
) -> None:
    """Refuse a contract that a run has instead of the one that it had, unless it amends that.

    Args:
        old: the contract of the run that this client knows.
        known: its digest.
        new: the contract that the run is said to have now.
        digest: of the new one.

    Raises:
        AnabranchError: AB-795 the new one does not name the old one, or changes more than an
            amendment may.
    """
    amendment = amendment_of(new)
    if amendment is None or known not in amendment.predecessors:
        raise _changed(digest, f"it does not say that it amends {known[:16]}")
    more = beyond(old, new)
    if more:
        raise _changed(digest, f"it changes what no amendment may ({'; '.join(more[:3])})")


def _without_none(tables: Mapping[str, object]) -> dict[str, object]:
    """TOML has no null: a key that is null in a contract is one that was left out."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in tables.items()
        if value is not None
    }


def _other(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-744",
        f"the contract cannot be run here: {why}.",
        fix="install the version and the packages that the contract names, at both ends alike.",
        kept="Nothing was computed and nothing was sent.",
    )


def _changed(digest: str, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-795",
        f"the contract of this run was changed to {digest[:16]} without an amendment: {why}.",
        fix="ask the coordinator's operator; a run is changed with `anabranch amend`, and anything "
        "more is another run.",
        kept="Nothing was computed and nothing was sent.",
    )
