"""The plan: one frozen value that says everything about a run.

Every table but ``[runtime]`` and ``[devices]`` is the *contract*: what is learnt, from which data,
how updates are merged and protected, and what must be reached. It is equal for all who take part,
and its digest is what a site agrees to. ``[runtime]`` says how the run is carried out here, and
``[devices]`` which devices a simulation pretends its clients to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from anabranch.aggregation.weighting import Examples, Uniform, WeightRule
from anabranch.algorithms import ALGORITHMS
from anabranch.algorithms.base import Algorithm, Requirement
from anabranch.algorithms.fedavg import FedAvg
from anabranch.data.plan import DataPlan
from anabranch.fleet.devices.network import NETWORK_NAMES
from anabranch.fleet.selection import Uniform as UniformSelection
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan.contract import contract_digest, contract_of, references
from anabranch.plan.devices import DevicesPlan
from anabranch.plan.evaluation import EvaluationPlan, StopPlan
from anabranch.plan.limits import Limits, contradiction
from anabranch.plan.named import Named, Reference
from anabranch.plan.privacy import PrivacyPlan
from anabranch.plan.rounds import ClientsPlan, RoundsPlan
from anabranch.plan.runtime import RuntimePlan
from anabranch.plan.secure import SecureAggregationPlan
from anabranch.plan.selection import Admission, AnySelector
from anabranch.updates.budget import Budget, ByteCount, budgets_of
from anabranch.updates.clip import Clip
from anabranch.updates.codecs import CODECS
from anabranch.updates.downlink import AnyDownlink
from anabranch.updates.shared import SharedLowRank
from anabranch.updates.stages import Stage
from anabranch.updates.subsample import Subsample
from anabranch.values import Value

__all__ = ["STAGES", "AggregationPlan", "Plan", "UpdatesPlan"]

STAGES: Mapping[str, type[Stage]] = MappingProxyType(
    {"clip": Clip, "subsample": Subsample, "lowrank_shared": SharedLowRank, **CODECS}
)
"""The built-in stages by the ``kind`` that a plan writes."""

AnyAlgorithm = Annotated[Algorithm, Named(Algorithm, "name", lambda: ALGORITHMS)]
AnyStage = Annotated[Stage, Named(Stage, "kind", lambda: STAGES)]


class AggregationPlan(Value):
    """How the updates of a round become one."""

    weighting: WeightRule | None = None
    """What a client's update counts in the mean. Left out: the same for every client where the
    algorithm needs that, else by training examples."""

    def rule_for(self, algorithm: Algorithm) -> WeightRule:
        """The weight rule in force: as stated, else what the algorithm needs."""
        if self.weighting is not None:
            return self.weighting
        return Uniform() if algorithm.requirement().uniform_mean else Examples()


class UpdatesPlan(Value):
    """What happens to an update between a client and the new model."""

    stages: tuple[AnyStage, ...] = ()
    """Stages in the order in which the client applies them."""
    max_bytes: ByteCount | None = Field(default=None, json_schema_extra={"unit": "bytes"})
    """Most bytes of an encoded update, as a number or as text such as "10MB". A client whose update
    does not fit encodes it more coarsely where the codec can, and else sends nothing."""
    budgets: Annotated[tuple[Budget, ...], BeforeValidator(budgets_of)] = ()
    """Budgets of some clients, by name or by the network in use; the first one that is for a client
    counts in place of ``max_bytes``. For networks alone a table will do: ``2g = "20kB"``."""
    downlink: AnyDownlink | None = None
    """How the model goes down to clients. Left out: as float32."""

    @field_validator("budgets")
    @classmethod
    def _known_networks(cls, budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
        for budget in budgets:
            if budget.network and budget.network not in NETWORK_NAMES:
                known = ", ".join(NETWORK_NAMES)
                raise ValueError(f"there is no network {budget.network!r}; there are {known}")
        return budgets


class Plan(Value):
    """Everything that a run needs.

    >>> from anabranch.plan import Plan
    >>> plan = Plan(name="try", data=DataPlan(source="heart"), model=ModelPlan(name="logistic"))
    >>> plan.algorithm.name, plan.weighting.kind
    ('fedavg', 'examples')
    """

    name: str = Field(default="run", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the plan; runs are listed by it. Small letters, digits, dots and dashes."""
    description: str = Field(default="", max_length=4000)
    """What the run is for, in your words; it stands in the report."""
    seed: int = Field(default=0, ge=0, lt=2**53)
    """Public seed of partitions, initial weights, cohorts and the order of examples. It protects
    nobody: what protects privacy never derives from it."""
    data: DataPlan
    """What is learnt from."""
    model: ModelPlan
    """What is learnt."""
    local: LocalTraining = LocalTraining()
    """What each client does in a round."""
    algorithm: AnyAlgorithm = FedAvg()
    """What is computed around local training, and how the server moves the model."""
    aggregation: AggregationPlan = AggregationPlan()
    """How updates become one."""
    updates: UpdatesPlan = UpdatesPlan()
    """What happens to an update on its way."""
    clients: ClientsPlan = ClientsPlan()
    """What may be relied on at the clients."""
    rounds: RoundsPlan = RoundsPlan()
    """How many rounds, who takes part, what makes a round."""
    selection: AnySelector = UniformSelection()
    """Which clients a round asks."""
    admission: Admission = Admission()
    """When a device may be asked, and how much of it a task may take."""
    secure_aggregation: SecureAggregationPlan | None = None
    """How updates are added up so that the coordinator sees none of them. Left out, it sees all."""
    evaluation: EvaluationPlan = EvaluationPlan()
    """When and where the model is measured."""
    stop: StopPlan = StopPlan()
    """When the run ends early."""
    limits: Limits = Limits()
    """What the run must keep to."""
    privacy: PrivacyPlan | None = None
    """What is promised to the people behind the data. Left out, nothing is."""
    unprotected: str = Field(default="", max_length=500)
    """Why data of persons are learnt from without differential privacy and without secure
    aggregation. `anabranch serve` refuses such a plan unless this says the reason, which every site
    reads in the contract."""
    devices: DevicesPlan | None = None
    """Devices that a simulation pretends its clients to be; no part of the contract. Left out,
    clients answer at once."""
    runtime: RuntimePlan = RuntimePlan()
    """How it is run here; no part of the contract."""

    @model_validator(mode="after")
    def _limits_can_be_kept(self) -> Plan:
        timed = self.devices is not None
        allowed = [b.max_bytes for b in self.updates.budgets]
        if self.updates.max_bytes is not None:
            allowed.append(self.updates.max_bytes)
        most = max(allowed, default=None)
        why = contradiction(
            self.limits, self.rounds, self.stop, self.admission, timed=timed, max_bytes=most
        )
        if why:
            raise ValueError(why)
        return self

    @property
    def requirement(self) -> Requirement:
        """What the algorithm needs from the rest of the plan."""
        return self.algorithm.requirement()

    @property
    def weighting(self) -> WeightRule:
        """The weight rule in force: as stated, else what the algorithm and the promise need."""
        if self.privacy is not None and self.aggregation.weighting is None:
            return Uniform()  # a private sum bounds what one client counts
        return self.aggregation.rule_for(self.algorithm)

    def resolved(self) -> Plan:
        """The plan with everything stated that it would derive; it means the same."""
        return self.replace(
            aggregation=self.aggregation.replace(weighting=self.weighting),
            stop=self.stop.replace(direction=self.stop.better),
        )

    @property
    def callables(self) -> tuple[Reference, ...]:
        """The user's own classes and functions that the contract names, sorted by name."""
        named = (self.model.name,) if ":" in self.model.name else ()
        return references(self, named)

    @property
    def servable(self) -> bool:
        """Whether other machines can run this plan: every callable has an importable name."""
        return all(reference.importable for reference in self.callables)

    def contract(self) -> dict[str, object]:
        """The contract as a document of plain values; equal contracts, equal documents."""
        return contract_of(self.resolved(), self.callables)

    @property
    def contract_digest(self) -> str:
        """SHA-256 (hexadecimal) over the canonical JSON of the contract."""
        return contract_digest(self.contract())
