"""Amending the contract of a run: what may change, and how the new contract names the old ones.

An amended contract is the contract of the amended plan with one key more, ``amendment``, so that it
has a digest of its own and says which contracts it replaces. Only how long the run lasts, how much
it may spend and who takes part can be amended: everything else would be another experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field

from anabranch.errors import AnabranchError
from anabranch.plan.privacy import CentralGaussian
from anabranch.plan.schema import Plan
from anabranch.values import Value

__all__ = [
    "AMENDABLE",
    "AMENDMENT",
    "Amendment",
    "amended_contract",
    "amended_plan",
    "amendment_of",
    "beyond",
    "differences",
]

AMENDMENT: Final = "amendment"
"""Key of an amended contract under which it says what it replaces."""

AMENDABLE: Final = (
    "limits.max_seconds",
    "limits.rounds_to_target",
    "privacy.epsilon",
    "rounds.count",
    "rounds.deadline",
    "stop.max_seconds",
)
"""Keys of a contract that an amendment may change."""

_ABSENT: Final = "(none)"
_SHOWN: Final = 5


class Amendment(Value):
    """What an amended contract says of itself."""

    number: int = Field(ge=1)
    """The first amendment of a run is 1."""
    predecessors: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(min_length=1)
    """Digests of the contracts that were in force before, oldest first."""
    added: tuple[str, ...] = ()
    """Sites that take part from now on."""
    reason: str = Field(default="", max_length=500)
    """Why, in the operator's words."""


def amended_contract(plan: Plan, amendment: Amendment | None) -> dict[str, object]:
    """The contract of a plan, as the run's latest amendment made it."""
    contract = plan.contract()
    if amendment is not None:
        contract[AMENDMENT] = amendment.model_dump(mode="json")
    return contract


def amendment_of(contract: Mapping[str, object]) -> Amendment | None:
    """What a contract says that it replaces; None for a run's first contract.

    Raises:
        pydantic.ValidationError: it says something that is no amendment.
    """
    told = contract.get(AMENDMENT)
    return None if told is None else Amendment.model_validate(told)


def differences(
    old: Mapping[str, object], new: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Keys in which two contracts differ, with both values; what they replace is left out.

    >>> differences({"rounds": {"count": 20}}, {"rounds": {"count": 40}, "amendment": {}})
    {'rounds.count': (20, 40)}
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return {
        key: (before.get(key, _ABSENT), after.get(key, _ABSENT))
        for key in sorted({*before, *after})
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
        and key.partition(".")[0] != AMENDMENT
    }


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{prefix}.{number}")
    elif value is not None:
        yield prefix, value


def beyond(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """Changes from one contract to another that no amendment may make, in words."""
    return tuple(
        f"{key}: {before} -> {after}"
        for key, (before, after) in differences(old, new).items()
        if key not in AMENDABLE
    )


def amended_plan(plan: Plan, wanted: Plan, done: int) -> Plan:
    """The plan of a run with what an amendment changes of it.

    Args:
        plan: in force.
        wanted: the whole plan as it shall be; its tables ``runtime`` and ``devices`` do not count,
            for they are no part of a contract.
        done: rounds that are committed.

    Raises:
        AnabranchError: AB-796 it changes what cannot be amended, or leaves no round to be done;
            AB-797 the noise of the run was made for the rounds that were planned.
    """
    more = beyond(plan.contract(), wanted.contract())
    if more:
        raise AnabranchError(
            "AB-796",
            f"an amendment cannot change {'; '.join(more[:_SHOWN])}.",
            fix=f"amend {', '.join(AMENDABLE)} only, or submit the plan as a new run.",
            kept="The run goes on as it was.",
        )
    if wanted.rounds.count < done:
        raise AnabranchError(
            "AB-796",
            f"{done} rounds are done, and the amendment ends the run after {wanted.rounds.count}.",
            fix="name more rounds, or end the run with `anabranch stop`.",
            kept="The run goes on as it was.",
        )
    _require_noise(plan, wanted)
    kept = {"runtime": plan.runtime, "devices": plan.devices}
    return wanted.replace(**kept, data=wanted.data.replace(path=plan.data.path))


def _require_noise(plan: Plan, wanted: Plan) -> None:
    """Refuse where noise depends on rounds in a way that cannot change halfway."""
    if plan.privacy is None or isinstance(plan.privacy.mechanism, CentralGaussian):
        return
    same = wanted.rounds.count == plan.rounds.count and wanted.privacy == plan.privacy
    if not same:
        raise AnabranchError(
            "AB-797",
            f"the noise of a run with mechanism {plan.privacy.mechanism.kind!r} was made for "
            f"{plan.rounds.count} rounds and epsilon {plan.privacy.epsilon:g}; neither can be "
            "amended.",
            fix="submit a new run, which spends from the same population's ledger. Runs with the "
            "mechanism 'gaussian' can be amended.",
            kept="The run goes on as it was.",
        )
