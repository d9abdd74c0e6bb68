"""The ``[data]`` table of a plan: what is learnt from, how it is divided, split and protected."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from anabranch.data.noise import FeatureNoise
from anabranch.data.partition import Partition
from anabranch.data.schema import DataSchema
from anabranch.data.vocabulary import VocabularyRules
from anabranch.values import Value

__all__ = ["DataPlan"]


class DataPlan(Value):
    """Where data come from and what is made of them before learning starts.

    >>> DataPlan(source="digits", partition={"kind": "iid", "clients": 5}).partition.clients
    5
    """

    source: str = Field(default="heart", min_length=1)
    """A named source (``anabranch data list``), or ``folder`` (one file or folder a client),
    ``table`` (one file with a client column), ``arrays`` (given in Python)."""
    path: str = ""
    """Folder or file of the sources ``folder`` and ``table``."""
    client_column: str = ""
    """Column of a ``table`` that names the client; empty for the schema's own."""
    table: DataSchema | None = None
    """The data schema: what the columns mean; none for the source's own."""
    partition: Partition | None = None
    """How rows are divided among clients; none for the natural clients, or the source's own way."""
    noise: FeatureNoise | None = None
    """Feature noise on top of the partition."""
    test_fraction: float | None = Field(
        default=None, ge=0, lt=1, json_schema_extra={"unit": "share of a client's rows"}
    )
    """Rows of each client kept for testing; none for the source's own share."""
    holdout_fraction: float = Field(
        default=0.0, ge=0, lt=1, json_schema_extra={"unit": "share of a client's rows"}
    )
    """Rows of each client moved to a test set at the coordinator (simulation only)."""
    split_repeat: int = Field(default=0, ge=0)
    """Number of the random split; equal numbers give equal splits."""
    min_examples: int = Field(default=1, ge=0, json_schema_extra={"unit": "examples"})
    """Training examples that a client must have."""
    too_few: Literal["refuse", "drop"] = "refuse"
    """What happens to clients with fewer: an error, or they are left out."""
    min_count: int = Field(default=10, ge=1, json_schema_extra={"unit": "subjects"})
    """Subjects that must contribute to a statistic before it is used."""
    indicators: bool = True
    """Whether a column with missing cells gets a second feature that says so."""
    vocabulary: VocabularyRules = VocabularyRules()
    """How codes that the contract does not list are learnt."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Options of a named source."""

    @model_validator(mode="after")
    def _shares_fit(self) -> DataPlan:
        if (self.test_fraction or 0.0) + self.holdout_fraction >= 1:
            raise ValueError("test_fraction and holdout_fraction leave nothing for training")
        if self.source in ("folder", "table") and not self.path:
            raise ValueError(f"source {self.source!r} needs a path")
        return self
