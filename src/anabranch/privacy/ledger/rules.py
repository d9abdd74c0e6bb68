"""The decisions: what may be opened, allotted, reserved, settled and closed. Pure.

Each takes the balance and returns the entry to append, or raises; nothing is applied here, so a
decision can always be tried before it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from anabranch.errors import AnabranchError
from anabranch.privacy.ledger.balance import Balance, RunBalance
from anabranch.privacy.ledger.combine import charges_of, covers, epsilon_of, merged
from anabranch.privacy.ledger.entries import (
    Allotted,
    Charge,
    Closed,
    Line,
    Opened,
    Request,
    Reserved,
    Settled,
)

__all__ = ["DryRun", "allot", "close", "dry_run", "reserve", "same_population", "settle"]

_SLACK = 1e-6


@dataclass(frozen=True)
class DryRun:
    """What an allotment would do to a population's budget.

    Attributes:
        run: epsilon of the new run alone.
        before: epsilon spent so far, open allotments included.
        after: epsilon with the new run.
        budget: of the population.
        delta: of all four.
    """

    run: float
    before: float
    after: float
    budget: float
    delta: float

    @property
    def fits(self) -> bool:
        """Whether the population's budget holds it."""
        return self.after <= self.budget * (1 + _SLACK)


def same_population(opened: Opened, wanted: Opened) -> None:
    """Refuse a plan that means something else by this population.

    Its budget stays the one that the first run fixed, whatever later plans say.

    Raises:
        AnabranchError: AB-915 unit, relation, delta or the declared disjointness differ.
    """
    differing = [
        f"{name} {getattr(opened, name)} (this plan: {getattr(wanted, name)})"
        for name in ("unit", "relation", "delta", "disjoint")
        if getattr(opened, name) != getattr(wanted, name)
    ]
    if opened.size and wanted.size > opened.size:
        differing.append(f"{opened.size} units (this plan: {wanted.size})")
    if differing:
        raise AnabranchError(
            "AB-915",
            f"the ledger of population {opened.population!r} has {', '.join(differing)}; costs "
            "under different conventions cannot be added up.",
            fix="state the same in [privacy], or name another population if it is another one.",
            kept="Nothing was started.",
        )


def dry_run(balance: Balance, lines: tuple[Line, ...], run: str = "") -> DryRun:
    """What a run with these lines would cost, without applying anything.

    Args:
        balance: the ledger's state.
        lines: all that the run may release.
        run: its id, when it was closed before and goes on.
    """
    delta = balance.opened.delta
    alone = merged(e for line in lines for e in charges_of(line.charges, line.participations))
    wanted = Allotted(run, lines, epsilon=1.0, delta=delta)
    return DryRun(
        run=epsilon_of(alone, delta),
        before=balance.epsilon(),
        after=balance.after(wanted).epsilon(),
        budget=balance.opened.epsilon,
        delta=delta,
    )


def allot(balance: Balance, wanted: Allotted) -> Allotted | None:
    """Let a run start: the entry to append, or None when it goes on after a crash.

    Raises:
        AnabranchError: AB-916 the population's budget does not hold it; AB-917 the lines cost more
            than the plan promises; AB-918 a run goes on under another allotment.
    """
    known = balance.runs.get(wanted.run)
    if known is not None and known.closed is None:
        if known.allotted.lines != wanted.lines or known.allotted.secret != wanted.secret:
            raise AnabranchError(
                "AB-918",
                f"run {wanted.run!r} is in the ledger with another allotment, or its secret was "
                "lost; what it reserved counts as spent.",
                fix="resume the run with the plan and the ledger folder that it started with, or "
                "start a new run.",
                kept="Nothing was started.",
            )
        return None
    _keeps_promise(wanted)
    found = dry_run(balance, wanted.lines, wanted.run)
    if not found.fits:
        raise _exhausted(balance, found)
    return wanted


def _keeps_promise(wanted: Allotted) -> None:
    sites = {line.site for line in wanted.lines} or {""}
    for site in sites:
        events = merged(
            event
            for line in wanted.lines
            if line.site in ("", site)
            for event in charges_of(line.charges, line.participations)
        )
        found = epsilon_of(events, wanted.delta)
        if found > wanted.epsilon * (1 + _SLACK):
            raise AnabranchError(
                "AB-917",
                f"the run would release {found:.4g} at delta {wanted.delta:g}, more than the "
                f"{wanted.epsilon:g} that its plan promises.",
                fix="raise privacy.epsilon, or use more noise or fewer rounds.",
                kept="Nothing was started.",
            )


def _exhausted(balance: Balance, found: DryRun) -> AnabranchError:
    left = "nothing is left" if found.before >= found.budget else "not enough is left"
    open_runs = [run for run, state in balance.runs.items() if state.closed is None]
    waiting = f" Runs that hold an allotment: {', '.join(open_runs)}." if open_runs else ""
    return AnabranchError(
        "AB-916",
        f"population {balance.opened.population!r} has spent {found.before:.4g} of its epsilon "
        f"{found.budget:g} (delta {found.delta:g}); with this run of {found.run:.4g} it would be "
        f"{found.after:.4g}: {left}.{waiting}",
        fix="lower privacy.epsilon to what `anabranch privacy status` says is left, or ask the "
        "people behind the data for a larger budget under a new population.",
        kept="Nothing was started.",
    )


def reserve(balance: Balance, run: str, request: Request) -> tuple[Reserved, bool]:
    """One release: its reservation, and whether it is a replay, which is not appended again.

    Raises:
        AnabranchError: AB-919 the run holds no allotment, or none for this purpose; AB-920 the
            allotment does not hold this release: the run ends with its last good model.
    """
    state = _open_run(balance, run)
    line = state.line(request.purpose, request.site)
    if line is None:
        raise AnabranchError(
            "AB-919",
            f"run {run!r} wants to release {request.purpose!r}, for which its plan sets no budget.",
            fix="plan it (privacy.evaluation_share), or do not release it.",
            kept="Nothing was released.",
        )
    reserved = _reserved(state, request)
    known = state.releases.get(reserved.release)
    if known is not None and known.charge is not None:
        return known.reserved, True
    if not covers(line, (*state.spent(line), request.charge), state.allotted.delta):
        raise _overspent(run, request)
    return reserved, False


def _reserved(state: RunBalance, request: Request) -> Reserved:
    return Reserved(
        release=request.release_id(state.allotted.run, state.allotted.secret),
        run=state.allotted.run,
        purpose=request.purpose,
        round=request.round,
        contributors=len(request.contributors),
        contributors_digest=request.contributors_digest,
        charge=request.charge,
        site=request.site,
        details=request.details,
    )


def _overspent(run: str, request: Request) -> AnabranchError:
    return AnabranchError(
        "AB-920",
        f"run {run!r} has used its privacy budget: releasing {request.purpose!r} of round "
        f"{request.round} would exceed what was allotted.",
        fix="nothing has to be mended: the run ends with its last good model. For more rounds plan "
        "a larger epsilon.",
        kept="Nothing was released.",
    )


def _open_run(balance: Balance, run: str) -> RunBalance:
    state = balance.runs.get(run)
    if state is None or state.closed is not None:
        how = "has no allotment" if state is None else "is closed in the ledger"
        raise AnabranchError(
            "AB-919",
            f"run {run!r} {how}, so that nothing may be released.",
            fix="start the run through the coordinator, which asks for the allotment.",
            kept="Nothing was released.",
        )
    return state


def settle(
    balance: Balance, release: str, charge: Charge | None, output: str = "", reason: str = ""
) -> Settled | None:
    """Say what a release really was; None when that was said before.

    Args:
        balance: the ledger's state.
        release: id of the reservation.
        charge: with the noise that was really added. None only when nothing can have been
            computed: the noise key was not handed out, or the sum was never opened.
        output: SHA-256 of what was released.
        reason: why nothing was.

    Raises:
        AnabranchError: AB-921 there is no such reservation, or it was settled differently.
    """
    wanted = Settled(release, charge, output, reason)
    known = balance.release(release)
    if known is None or (known.settled is not None and known.settled != wanted):
        how = "was never reserved" if known is None else "was settled differently before"
        raise AnabranchError(
            "AB-921",
            f"release {release[:12]} {how}.",
            fix="resume the run from its own store; the ledger keeps the first settlement.",
        )
    return None if known.settled is not None else wanted


def close(balance: Balance, run: str, reason: str, *, final: bool = True) -> Closed | None:
    """End a run: what it was allotted and did not use returns; None when that was done before."""
    state = balance.runs.get(run)
    if state is None or state.closed is not None:
        return None
    return Closed(run, reason, final)
