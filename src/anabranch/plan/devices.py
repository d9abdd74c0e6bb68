"""The plan's table ``[devices]``: the devices that a simulation pretends its clients to be.

It describes whom a run is tried with, not what is agreed, so it is no part of the contract: with
it, without it and deployed, the contract has one digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from anabranch.fleet.devices.classes import CLASSES
from anabranch.fleet.devices.profiles import Profiles, draw_profiles, read_profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.devices.simulated import SimulatedFleet
from anabranch.fleet.devices.traces import read_trace
from anabranch.values import Value

__all__ = ["DevicesPlan"]

_MEGABYTE = 1e6
Share = Annotated[float, Field(ge=0)]
Offset = Annotated[float, Field(ge=-12, le=14)]


class DevicesPlan(Value):
    """Simulated devices: what they are, where they live, and how they behave.

    >>> DevicesPlan(mix={"entry": 0.7, "mid": 0.3}).behaviour.spread
    0.4
    """

    mix: dict[str, Share] = Field(
        default={"flagship": 0.05, "mid": 0.3, "entry": 0.45, "ultra-low": 0.2},
        json_schema_extra={"unit": "share by class"},
    )
    """Shares of the device classes: ``flagship``, ``mid``, ``entry``, ``ultra-low``, ``board``."""
    regions: dict[str, Offset] = Field(
        default={"UTC": 0.0}, json_schema_extra={"unit": "hours ahead of UTC"}
    )
    """Where devices live: names of regions and their time zones; clients are dealt evenly."""
    profiles: str = ""
    """A table (CSV or Parquet) with one device for each client, instead of ``mix``."""
    trace: str = ""
    """A table of what was seen of devices over time, which is replayed."""
    data_mb_a_day: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "MB"})
    """What each device may send and receive over metered networks in a day."""
    flops_per_example: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "floating-point operations"}
    )
    """Of one training example: six for each multiply-add of the model. Left out: counted."""
    frozen_bytes: float | None = Field(default=None, ge=0, json_schema_extra={"unit": "bytes"})
    """Of the part of the model that never changes (`model.freeze`): each device downloads it once,
    with its first task. Left out: four for each parameter; 0 where it comes with the program."""
    behaviour: DeviceSettings = DeviceSettings()
    """How devices behave; selection and admission never see it."""

    @field_validator("mix")
    @classmethod
    def _known_classes(cls, mix: dict[str, float]) -> dict[str, float]:
        strange = [name for name in mix if name not in CLASSES]
        if strange:
            raise ValueError(f"unknown device class {strange[0]!r}; known: {', '.join(CLASSES)}")
        if sum(mix.values()) <= 0:
            raise ValueError("the shares of mix add up to nothing")
        return mix

    @model_validator(mode="after")
    def _somewhere(self) -> DevicesPlan:
        if not self.regions:
            raise ValueError("regions is empty; give one, or leave it out")
        return self

    def words(self) -> str:
        """What a simulation pretends, in a sentence or two.

        >>> DevicesPlan(mix={"entry": 3.0, "mid": 1.0}).words()[:40]
        'Devices of the classes entry (75 %), mid'
        """
        total = sum(self.mix.values())
        shares = ", ".join(
            f"{name} ({share / total:.0%})".replace("%", " %")
            for name, share in self.mix.items()
            if share
        )
        what = f"Devices of the classes {shares}" if not self.profiles else "Devices of a table"
        where = f", in {', '.join(self.regions)}" if not self.profiles else ""
        when = "as a trace shows" if self.trace else "drawn"
        spread = self.behaviour.spread
        hidden = (
            f"Real speed and power lie {spread:g} (log) around what the planner believes, hidden "
            "from it."
            if spread
            else "The planner's model of speed and power is perfect."
        )
        return f"{what}{where}; what they do is {when}. {hidden} Time is virtual; training is real."

    def fleet(self, names: tuple[str, ...], seed: int) -> SimulatedFleet:
        """The devices of the clients called ``names``.

        Raises:
            AnabranchError: AB-530 to AB-534 the tables.
        """
        profiles = self._profiles(names, seed)
        if not self.trace:
            return SimulatedFleet.drawn(profiles, self.behaviour, seed)
        trace = read_trace(Path(self.trace), names)
        return SimulatedFleet.replayed(profiles, self.behaviour, seed, trace)

    def _profiles(self, names: tuple[str, ...], seed: int) -> Profiles:
        if self.profiles:
            return read_profiles(Path(self.profiles), names)
        budget = float("inf") if self.data_mb_a_day is None else self.data_mb_a_day * _MEGABYTE
        return draw_profiles(len(names), self.mix, seed, regions=self.regions, data_budget=budget)
