"""What a coordinator may know of its fleet, as columns over clients.

Selection and admission see this and nothing else: what devices reported, and the priors of their
classes where they reported nothing. What a simulated device really does (`fleet.devices.truth`)
is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Codes", "Column", "FleetView", "Flags", "unknown_fleet"]

Column: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int16]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FleetView:
    """Row ``i`` is client ``i``. All columns have the length of the fleet; none is ever written.

    Attributes:
        now: the runtime's clock, in seconds (virtual in a simulation with devices).
        classes: names of the device classes.
        networks: names of the kinds of network.
        regions: names of the regions.
        device: code into ``classes``.
        network: code into ``networks``, of the connection in use now.
        region: code into ``regions``.
        available: reachable and willing now.
        busy: has an open task.
        charging: on a charger or on the mains now.
        metered: its connection in use costs money for each byte.
        battery: level from 0 to 1; 1 on the mains; NaN when not reported.
        battery_joules: energy of a full battery; NaN without a battery.
        flops: sustained FLOP/s in training, reported or the class's prior.
        watts: power above idle while training, in watts.
        down, up: bytes a second of the connection in use.
        latency: seconds of one round trip.
        joules_down, joules_up: radio energy of one byte.
        joules_session: radio energy of one session besides its bytes (promotion and tail).
        memory: bytes of memory that training may use.
        utc_offset: hours that local time is ahead of the clock.
        local_hour: local hour of the day, from 0 to below 24.
        data_left: bytes that may still go over a metered connection today; inf without a budget.
        examples: training examples that the client announced; NaN when not known.
    """

    now: float
    classes: tuple[str, ...]
    networks: tuple[str, ...]
    regions: tuple[str, ...]
    device: Codes
    network: Codes
    region: Codes
    available: Flags
    busy: Flags
    charging: Flags
    metered: Flags
    battery: Column
    battery_joules: Column
    flops: Column
    watts: Column
    down: Column
    up: Column
    latency: Column
    joules_down: Column
    joules_up: Column
    joules_session: Column
    memory: Column
    utc_offset: Column
    local_hour: Column
    data_left: Column
    examples: Column

    def __len__(self) -> int:
        return len(self.device)

    def with_columns(
        self, *, busy: Flags | None = None, examples: Column | None = None
    ) -> FleetView:
        """The same view with what the round loop knows: open tasks and announced examples."""
        changes = {"busy": busy, "examples": examples}
        return replace(self, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]  # of the declared columns only

    def check(self) -> None:
        """Assert that all columns have one length; for tests and makers of views."""
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                assert column.shape == (len(self),), field.name


def unknown_fleet(clients: int, now: float = 0.0) -> FleetView:
    """A fleet of which nothing is known: everybody is there, on the mains, at equal speed.

    The view of a plan without devices. Estimates are infinite or zero where that means "costs
    nothing", so that no admission rule bites.

    >>> view = unknown_fleet(3)
    >>> len(view), bool(view.available.all()), view.classes
    (3, True, ('unknown',))
    """

    def column(value: float) -> Column:
        return np.full(clients, value, np.float64)

    def flags(value: bool) -> Flags:
        return np.full(clients, value, np.bool_)

    zeros = np.zeros(clients, np.int16)
    hour = (now / 3600.0) % 24.0
    return FleetView(
        now=now,
        classes=("unknown",),
        networks=("unknown",),
        regions=("unknown",),
        device=zeros,
        network=zeros,
        region=zeros,
        available=flags(True),
        busy=flags(False),
        charging=flags(True),
        metered=flags(False),
        battery=column(1.0),
        battery_joules=column(np.nan),
        flops=column(np.inf),
        watts=column(0.0),
        down=column(np.inf),
        up=column(np.inf),
        latency=column(0.0),
        joules_down=column(0.0),
        joules_up=column(0.0),
        joules_session=column(0.0),
        memory=column(np.inf),
        utc_offset=column(0.0),
        local_hour=column(hour),
        data_left=column(np.inf),
        examples=column(np.nan),
    )
