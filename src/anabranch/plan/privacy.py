"""The plan's table ``[privacy]``: what is promised to whom, and the mechanism that keeps it.

A plan without this table promises nothing, and its trust line says so.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from anabranch.privacy.budget import Allocation, UniformAllocation
from anabranch.privacy.events import Relation, Unit
from anabranch.privacy.mechanisms.clipping import AdaptiveClip, ClipRule, FixedClip
from anabranch.values import Value

__all__ = [
    "AdaptiveClip",
    "CentralGaussian",
    "ClipRule",
    "DistributedNoise",
    "FixedClip",
    "LocalDpSgd",
    "MatrixMechanism",
    "MechanismPlan",
    "PrivacyPlan",
]


SamplingClaim: TypeAlias = Literal["none", "poisson"]
Units = Annotated[int, Field(ge=1)]


class MatrixMechanism(Value):
    """DP-FTRL: the coordinator adds noise that is correlated over the rounds (banded Toeplitz).

    Needs no assumption about who takes part when, only that a client comes at most
    ``participations`` times, at least ``separation`` rounds apart; both are reserved when it is
    asked and checked where its update is merged.
    """

    kind: Literal["ftrl"] = "ftrl"
    clip: ClipRule
    """Bound on an update."""
    participations: int = Field(default=1, ge=1, json_schema_extra={"unit": "rounds a client"})
    """Most rounds that one client takes part in, over the whole run."""
    separation: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "rounds"})
    """Fewest rounds from one participation of a client to its next. Left out: the rounds divided by
    the participations."""
    bands: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "rounds"})
    """Rounds over which noise is correlated, at most the separation. Left out: the separation."""
    noise_multiplier: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "clip norms"}
    )
    """Standard deviation of the noise before it is correlated, divided by the clip norm. Left out:
    the least that keeps the budget."""


class CentralGaussian(Value):
    """DP-FedAvg: the coordinator adds fresh discrete Gaussian noise to each round's sum."""

    kind: Literal["gaussian"] = "gaussian"
    clip: ClipRule
    """Bound on an update."""
    sampling: SamplingClaim = "none"
    """What is claimed of the selection. "poisson" needs the selector that tosses an independent
    secret coin for every enrolled client; "none" holds for any selection."""
    participations: int | None = Field(
        default=None, ge=1, json_schema_extra={"unit": "rounds a client"}
    )
    """Most rounds that one client takes part in, over the whole run, kept at both ends. Without a
    claimed sampling only these count. Left out: every round."""
    noise_multiplier: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "clip norms"}
    )
    """Standard deviation of the noise divided by the clip norm. Left out: the least that keeps the
    budget."""


class DistributedNoise(Value):
    """Every client adds a part of the noise before its update is masked: nobody sees a sum without.

    Needs secure aggregation. The parts are provisioned for the fewest survivors and for clients
    that collude with the coordinator.
    """

    kind: Literal["distributed"] = "distributed"
    clip: ClipRule
    """Bound on an update."""
    noise: Literal["discrete-gaussian", "skellam"] = "discrete-gaussian"
    """Distribution of a client's part. Sums of Skellam parts are Skellam again."""
    bits: int = Field(default=20, ge=8, le=32, json_schema_extra={"unit": "bits a coordinate"})
    """Size of the modulus."""
    sampling: SamplingClaim = "none"
    """What is claimed of the selection; see the central mechanism."""
    participations: int | None = Field(
        default=None, ge=1, json_schema_extra={"unit": "rounds a client"}
    )
    """Most rounds that one client takes part in, over the whole run, kept at both ends."""
    corrupt_share: float = Field(
        default=0.1, ge=0, lt=0.5, json_schema_extra={"unit": "fraction of the cohort"}
    )
    """Clients that may tell the coordinator their part of the noise."""
    dropout_share: float = Field(
        default=0.1, ge=0, lt=1, json_schema_extra={"unit": "fraction of the cohort"}
    )
    """Clients that may vanish; a round with fewer survivors is abandoned."""
    noise_multiplier: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "clip norms"}
    )
    """Standard deviation of the honest survivors' noise together, divided by the clip norm. Left
    out: the least that keeps the budget."""


class LocalDpSgd(Value):
    """DP-SGD inside each site: the unit is an example, or a subject with all of its examples."""

    kind: Literal["dp-sgd"] = "dp-sgd"
    clip: ClipRule
    """Bound on one unit's gradient."""
    batch: int = Field(ge=1, json_schema_extra={"unit": "units, expected"})
    """Expected units in a step, drawn by Poisson sampling inside the site."""
    max_examples: int = Field(default=1, ge=1, json_schema_extra={"unit": "examples a unit"})
    """Most examples of one unit that are used (subjects)."""
    units: Units | dict[str, Units] | None = Field(
        default=None, json_schema_extra={"unit": "units at a site"}
    )
    """How many units each site has, as far as anybody shall know: one number for all sites, or a
    table by site. Batches, steps and noise follow from it, and no site tells its own number. Left
    out, sites tell their numbers of examples; subjects over the network need it."""
    disjoint: bool = False
    """Whether the contract declares that no subject has data at two sites; only then the sites'
    epsilons combine by their maximum."""
    noise_multiplier: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "clip norms"}
    )
    """Standard deviation of the noise divided by the clip norm. Left out: the least that keeps the
    budget."""


MechanismPlan: TypeAlias = Annotated[
    MatrixMechanism | CentralGaussian | DistributedNoise | LocalDpSgd,
    Field(discriminator="kind"),
]
"""How the noise is made and by whom, told apart by ``kind``."""


class PrivacyPlan(Value):
    """What a run promises to the people behind the data."""

    epsilon: float = Field(gt=0, json_schema_extra={"unit": "nats"})
    """Privacy budget of the whole run: model, metrics, evaluation and clipping together."""
    delta: float = Field(ge=1e-12, lt=1, json_schema_extra={"unit": "probability"})
    """Probability with which the bound may fail; below one divided by the population."""
    population: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the people behind the data. All runs that name it share one ledger and one budget."""
    population_size: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "units"})
    """Units in the population. Left out: the enrolled clients, where a unit is a client."""
    population_epsilon: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "nats"})
    """Budget of the population over all runs. It is fixed by the first run that names the
    population, at this run's epsilon when it is left out."""
    unit: Unit = Unit.CLIENT
    """Whose presence is protected: "client", "site", "example" or "subject"."""
    relation: Relation | None = None
    """When two populations count as neighbours. Left out: add-or-remove where Poisson sampling is
    claimed or the noise is made inside a site, else zero-out."""
    mechanism: MechanismPlan
    """How the noise is made and by whom."""
    allocation: Allocation = UniformAllocation()
    """How the budget is dealt to the rounds."""
    spares: int = Field(default=0, ge=0, le=1000, json_schema_extra={"unit": "releases"})
    """Releases beyond the rounds that are paid in advance: a round that was reserved and then lost
    in a crash counts as released, and repeating it with other updates is one more."""
    evaluation_share: float = Field(
        default=0.0, ge=0, lt=1, json_schema_extra={"unit": "fraction of the budget"}
    )
    """Part of the budget for metrics of clients' own examples, dealt to the planned evaluations.
    At 0 the coordinator measures on data of its own."""
    loss_bound: float = Field(default=4.0, gt=0, json_schema_extra={"unit": "of the loss"})
    """Largest loss of one unit that an evaluation inside sites counts; larger ones count as it."""
    statistics_share: float = Field(
        default=0.0, ge=0, lt=1, json_schema_extra={"unit": "fraction of the budget"}
    )
    """Part of the budget for the statistics that tables are prepared with (counts, means,
    variances), which then leave with noise and within epsilon. Needs ranges and codes in the
    schema."""

    open_statistics: str = Field(default="", max_length=400)
    """Why statistics for preprocessing (counts, means, codes of columns) may leave without noise.
    They are outside epsilon, and the report says so. Left out, a plan whose data need them is
    refused, unless ``statistics_share`` pays for their noise."""

    @model_validator(mode="after")
    def _consistent(self) -> PrivacyPlan:
        if self.population_epsilon is not None and self.population_epsilon < self.epsilon:
            raise ValueError(
                f"population_epsilon {self.population_epsilon:g} is below the run's epsilon "
                f"{self.epsilon:g}, so that the run could not start; lower epsilon"
            )
        if self.evaluation_share + self.statistics_share >= 1:
            raise ValueError(
                f"evaluation_share {self.evaluation_share:g} and statistics_share "
                f"{self.statistics_share:g} leave nothing for the model; lower them"
            )
        return self

    @property
    def neighbours(self) -> Relation:
        """The neighbouring relation in force: as stated, else what suits the mechanism."""
        if self.relation is not None:
            return self.relation
        claimed = getattr(self.mechanism, "sampling", "none")
        inside = isinstance(self.mechanism, LocalDpSgd)
        return Relation.ADD_OR_REMOVE if inside or claimed == "poisson" else Relation.ZERO_OUT
