"""A contract at the client: the plan that it describes, and what an amendment changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.contract import contract_digest
from anabranch.plan.document import PlanDocument
from anabranch.plan.load import plan_of
from anabranch.plan.migrate import migrate

__all__ = ["amendments", "plan_of_contract"]


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
    tables = {key: value for key, value in contract.items() if key != "callables"}
    data = tables.get("data")
    if isinstance(data, Mapping):
        tables["data"] = {**data, "path": path}
    plan = plan_of(
        PlanDocument(_without_none(migrate(tables, where="the contract")), "the contract")
    )
    if plan.contract_digest != digest:
        changed = "; ".join(amendments(contract, plan.contract())) or "defaults differ"
        raise _other(f"this installation would run something else ({changed})")
    return plan


def amendments(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """What changed from one contract to another, in order.

    >>> amendments({"rounds": {"count": 20}}, {"rounds": {"count": 40}})
    ('rounds.count: 20 -> 40',)
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    keys = sorted({*before, *after})
    absent = "(none)"
    return tuple(
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in keys
        if before.get(key, absent) != after.get(key, absent)
    )


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{prefix}.{number}")
    elif value is not None:
        yield prefix, value


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
