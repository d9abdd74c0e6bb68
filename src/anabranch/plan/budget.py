"""Can updates of this model keep to the bytes that the plan allows?"""

from __future__ import annotations

from anabranch.errors import AnabranchError
from anabranch.plan.schema import Plan
from anabranch.updates.budget import Budget
from anabranch.updates.codec import Codec
from anabranch.updates.sections import Sections

__all__ = ["check_budget", "least_bytes", "whom"]


def least_bytes(plan: Plan, dim: int) -> int:
    """A number of bytes that no update of ``dim`` averaged parameters falls below.

    Diagnostics of a few numbers are left out.
    """
    codec = next((stage for stage in plan.updates.stages if isinstance(stage, Codec)), None)
    sections = Sections(plan.algorithm.sections(dim))
    for stage in plan.updates.stages:
        sections = stage.encoded(sections)
    size = 0
    for section in sections:
        encoded = codec is not None and section.name == "delta"
        plain = section.dtype.itemsize * section.length
        size += codec.least_bytes(section.length) if codec and encoded else plain
    return size


def whom(budget: Budget) -> str:
    """In words.

    >>> whom(Budget(clients="phone-*", network="2g", max_bytes=9))
    "clients 'phone-*' over 2g"
    """
    clients = "" if budget.clients == "*" and budget.network else f"clients {budget.clients!r}"
    over = f"over {budget.network}" if budget.network else ""
    return f"{clients} {over}".strip()


def _check_limit(plan: Plan, dim: int) -> None:
    most, least = plan.limits.max_update_bytes, least_bytes(plan, dim)
    if most is None or least <= most:
        return
    raise AnabranchError(
        "AB-469",
        f"limits.max_update_bytes is {most}, but an update of {dim} parameters has at least "
        f"{least} bytes with these stages, so the limit would be missed by every round.",
        fix='encode updates (updates.stages = [{kind = "ecq"}]), or raise the limit.',
        kept="Nothing was started.",
    )


def check_budget(plan: Plan, dim: int) -> None:
    """Refuse a budget that no update can keep to, and a limit that every update would miss.

    Raises:
        AnabranchError: AB-465, AB-469.
    """
    updates = plan.updates
    budgets = [(updates.max_bytes, "updates.max_bytes")]
    _check_limit(plan, dim)
    budgets += [(b.max_bytes, f"the budget of {whom(b)}") for b in updates.budgets]
    stated = [(most, what) for most, what in budgets if most is not None]
    if not stated:
        return
    (most, what), least = min(stated), least_bytes(plan, dim)
    if least <= most:
        return
    others = least_bytes(plan.replace(updates={"stages": [{"kind": "ecq"}]}), dim)
    reachable = others <= most
    raise AnabranchError(
        "AB-465",
        f"{what} is {most}, but an update of {dim} parameters has at least {least} "
        "bytes with these stages.",
        fix=(
            'encode with {kind = "ecq", coarsest = 64}, which takes coarser steps until an update '
            "fits, or allow more bytes."
            if reachable
            else f"allow at least {others} bytes, or use an algorithm that sends one vector."
        ),
        kept="Nothing was started.",
    )
