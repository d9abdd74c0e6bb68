"""What a privacy report needs to know of a run besides its ledger: plain values, no free text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["MechanismKind", "RoundFacts", "RunFacts"]

MechanismKind: TypeAlias = Literal["ftrl", "gaussian", "distributed", "dp-sgd"]
"""As the plan writes it."""


@dataclass(frozen=True)
class RoundFacts:
    """One round, as the run recorded it.

    Attributes:
        round: its number.
        asked: clients that were asked.
        contributors: updates inside the model.
        outcome: ``complete``, ``partial`` or ``failed``.
    """

    round: int
    asked: int
    contributors: int
    outcome: str


@dataclass(frozen=True)
class RunFacts:
    """A run.

    Attributes:
        run: its id.
        plan: name of the plan.
        contract_digest: of the plan's contract.
        trust_line: who can read what.
        status: of the run, and why it ended.
        mechanism: how the noise is made.
        sampling: what is claimed of the selection: ``none`` or ``poisson``.
        selector: the selector in force.
        clients: enrolled clients.
        cohort: updates wanted in a round.
        participations: rounds a client may take part in; 0 without a limit.
        separation: rounds between two of them, at least.
        natural_clients: whether the division of data into clients is the data's own; None if that
            is not known.
        simulated: whether the clients were simulated in one place.
        secure_aggregation: whether the coordinator saw sums only.
        corrupt_share: of a cohort, that may help the coordinator.
        dropout_share: of a cohort, that may vanish.
        clip: the clip rule in words.
        holdout_from_clients: whether the evaluation used rows that were taken from clients.
        declared_units: whether the contract declares how many units each site has (noise inside
            sites), so that no site told its own number.
        unprotected: what left the clients without noise, as the run recorded it.
        metrics: of the last evaluation.
        metrics_without: of the same plan without privacy, where the store holds such a run.
        rounds: in order.
        versions: of what computed the run.
    """

    run: str
    plan: str
    contract_digest: str
    trust_line: str
    status: str
    mechanism: MechanismKind
    sampling: str
    selector: str
    clients: int
    cohort: int
    participations: int
    separation: int
    natural_clients: bool | None
    simulated: bool
    secure_aggregation: bool
    corrupt_share: float
    dropout_share: float
    clip: str
    holdout_from_clients: bool
    declared_units: bool = False
    unprotected: tuple[str, ...] = ()
    metrics: tuple[tuple[str, float], ...] = ()
    metrics_without: tuple[tuple[str, float], ...] = ()
    rounds: tuple[RoundFacts, ...] = ()
    versions: tuple[tuple[str, str], ...] = field(default=())
