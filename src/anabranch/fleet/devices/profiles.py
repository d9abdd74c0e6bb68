"""Device profiles: what each client's device is, as columns, drawn from a mix or read from a table.

A profile says what the planner believes. What a simulated device really does is in `truth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.fleet.devices.classes import CLASS_NAMES, CLASSES, class_column
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.network import NETWORK_NAMES, network_column
from anabranch.fleet.devices.tables import Bounds, DeviceTable, read_device_table
from anabranch.fleet.view import Codes, Column, Flags

__all__ = ["PROFILE_COLUMNS", "Profiles", "draw_profiles", "profiles_of", "read_profiles"]

WIFI = NETWORK_NAMES.index("wifi")
_POSITIVE = {
    "gflops": "GFLOP/s",
    "watts": "W",
    "memory_mb": "MB",
    "down_mbps": "Mbit/s",
    "up_mbps": "Mbit/s",
}
PROFILE_COLUMNS: tuple[str, ...] = (
    "client",
    "class",
    "network",
    "gflops",
    "watts",
    "memory_mb",
    "battery_mah",
    "battery_volts",
    "down_mbps",
    "up_mbps",
    "latency_s",
    "metered",
    "data_mb_a_day",
    "home_wifi",
    "utc_offset",
    "region",
)
"""Columns that a table of devices may have; ``client`` and ``class`` it must have."""


@dataclass(frozen=True)
class Profiles:
    """What the planner believes of each client's device. Row ``i`` is client ``i``.

    Attributes:
        device: class of the device, a code into `CLASS_NAMES`.
        network: its cellular or fixed network, a code into `NETWORK_NAMES`.
        home_wifi: whether it has WiFi where it spends the night.
        region: code into ``regions``.
        regions: names of the regions.
        utc_offset: hours.
        flops, watts, memory: sustained FLOP/s, watts above idle, bytes.
        battery: joules of a full battery; 0 on the mains.
        down, up: bytes a second of ``network``.
        latency: seconds.
        metered: whether bytes over ``network`` cost money.
        data_budget: bytes that may go over a metered network in a day; inf without a budget.
    """

    device: Codes
    network: Codes
    home_wifi: Flags
    region: Codes
    regions: tuple[str, ...]
    utc_offset: Column
    flops: Column
    watts: Column
    memory: Column
    battery: Column
    down: Column
    up: Column
    latency: Column
    metered: Flags
    data_budget: Column

    def __len__(self) -> int:
        return len(self.device)

    @property
    def mains(self) -> Flags:
        """Devices without a battery."""
        return np.asarray(self.battery == 0.0)


def profiles_of(
    device: Codes,
    network: Codes,
    home_wifi: Flags,
    region: Codes,
    regions: tuple[str, ...],
    utc_offset: Column,
    data_budget: Column,
) -> Profiles:
    """Profiles whose numbers are the priors of class and network."""
    return Profiles(
        device=device,
        network=network,
        home_wifi=home_wifi,
        region=region,
        regions=regions,
        utc_offset=utc_offset,
        flops=class_column("gflops", device),
        watts=class_column("watts", device),
        memory=class_column("memory", device),
        battery=class_column("battery", device),
        down=network_column("down", network),
        up=network_column("up", network),
        latency=network_column("latency", network),
        metered=network_column("metered", network) > 0,
        data_budget=data_budget,
    )


def _picked(uniforms: Column, shares: Mapping[str, float], names: Sequence[str]) -> Codes:
    """Codes into ``names`` with the given shares."""
    held = [name for name in names if shares.get(name, 0.0) > 0]
    edges = np.cumsum([shares[name] for name in held])
    place = np.minimum(np.searchsorted(edges / edges[-1], uniforms, side="right"), len(held) - 1)
    return np.array([names.index(name) for name in held], np.int16)[place]


def draw_profiles(
    clients: int,
    mix: Mapping[str, float],
    seed: int,
    *,
    regions: Mapping[str, float] | None = None,
    data_budget: float = np.inf,
) -> Profiles:
    """A fleet drawn from shares of classes: a pure function of its arguments.

    Args:
        clients: number of devices.
        mix: share of each class by name; scaled to sum to one.
        seed: the plan's public seed.
        regions: hours ahead of UTC by name of the region; clients are dealt evenly.
        data_budget: bytes a day over metered networks, for every device.

    >>> fleet = draw_profiles(1000, {"entry": 0.75, "mid": 0.25}, seed=0)
    >>> len(fleet), round(float((fleet.device == CLASS_NAMES.index("mid")).mean()), 1)
    (1000, 0.2)
    """
    regions = regions or {"UTC": 0.0}
    draws, rows = Draws.of(seed, "device-profiles"), np.arange(clients)
    device = _picked(draws.uniforms(rows, 0), mix, CLASS_NAMES)
    network = np.zeros(clients, np.int16)
    wifi = np.zeros(clients, np.bool_)
    for code, entry in enumerate(CLASSES.values()):
        of = np.flatnonzero(device == code)
        network[of] = _picked(draws.uniforms(of, 1), entry.networks, NETWORK_NAMES)
        wifi[of] = draws.uniforms(of, 2) < entry.home_wifi
    region = np.minimum((draws.uniforms(rows, 3) * len(regions)), len(regions) - 1).astype(np.int16)
    offsets = np.array(list(regions.values()), np.float64)[region]
    budget = np.full(clients, data_budget, np.float64)
    return profiles_of(device, network, wifi, region, tuple(regions), offsets, budget)


def read_profiles(path: Path, names: Sequence[str]) -> Profiles:
    """Profiles from a table with one row for each client.

    Args:
        path: CSV or Parquet with the columns of `PROFILE_COLUMNS`; empty cells take the prior of
            the class or network.
        names: client identifiers in the order of client numbers.

    Raises:
        AnabranchError: AB-530 to AB-532 the table, AB-533 a client has no row or two.
    """
    table = read_device_table(path)
    table.require(("client", "class"), PROFILE_COLUMNS)
    order = _order(table, names)
    return _taken(_profiles(table), order)


def _order(table: DeviceTable, names: Sequence[str]) -> NDArray[np.int64]:
    clients = table.texts("client")
    row_of = {client: row for row, client in enumerate(clients)}
    missing = [name for name in names if name not in row_of]
    if missing or len(row_of) < len(clients):
        twice = next((c for row, c in enumerate(clients) if row_of[c] != row), "")
        what = f"no row for client {missing[0]!r}" if missing else f"two rows for client {twice!r}"
        raise AnabranchError(
            "AB-533",
            f"{table.name} has {what}.",
            fix="give every client of the federation exactly one row; others are ignored.",
            kept="Nothing was read.",
        )
    return np.array([row_of[name] for name in names], np.int64)


def _profiles(table: DeviceTable) -> Profiles:
    device = _codes(table.texts("class", CLASS_NAMES), CLASS_NAMES)
    usual = [max(entry.networks, key=lambda n: entry.networks[n]) for entry in CLASSES.values()]
    words = table.texts("network", (*NETWORK_NAMES, "usual"), default="usual")
    words = [
        usual[code] if word == "usual" else word for word, code in zip(words, device, strict=True)
    ]
    network = _codes(words, NETWORK_NAMES)
    regions = table.texts("region", default="UTC")
    names = tuple(dict.fromkeys(regions))
    numbers = {
        name: table.numbers(name, Bounds(positive=True, unit=u)) for name, u in _POSITIVE.items()
    }
    base = profiles_of(
        device,
        network,
        table.flags("home_wifi", default=False),
        _codes(regions, names),
        names,
        np.nan_to_num(table.numbers("utc_offset", Bounds(-12, 14, unit="hours"))),
        _or(table.numbers("data_mb_a_day", Bounds(0, unit="MB")) * 1e6, np.array(np.inf)),
    )
    return replace(
        base,
        flops=_or(numbers["gflops"] * 1e9, base.flops),
        watts=_or(numbers["watts"], base.watts),
        memory=_or(numbers["memory_mb"] * 1e6, base.memory),
        down=_or(numbers["down_mbps"] * 1e6 / 8, base.down),
        up=_or(numbers["up_mbps"] * 1e6 / 8, base.up),
        latency=_or(table.numbers("latency_s", Bounds(0, unit="s")), base.latency),
        battery=_or(_battery(table), base.battery),
        metered=_metered(table, base.metered),
    )


def _battery(table: DeviceTable) -> Column:
    """Joules of a full battery: 3.6 J for each mAh and volt."""
    charge = table.numbers("battery_mah", Bounds(0, unit="mAh"))
    volts = table.numbers("battery_volts", Bounds(positive=True, unit="V"))
    return np.asarray(3.6 * charge * _or(volts, np.array(3.85)))


def _metered(table: DeviceTable, usual: Flags) -> Flags:
    yes, no = table.flags("metered", default=True), table.flags("metered", default=False)
    return np.asarray(np.where(yes == no, yes, usual))  # where they differ nothing was said


def _codes(words: Sequence[str], names: Sequence[str]) -> Codes:
    place = {name: code for code, name in enumerate(names)}
    return np.array([place[word] for word in words], np.int16)


def _or(values: Column, otherwise: Column) -> Column:
    return np.asarray(np.where(np.isnan(values), otherwise, values))


def _taken(profiles: Profiles, order: NDArray[np.int64]) -> Profiles:
    columns = {k: v[order] for k, v in vars(profiles).items() if isinstance(v, np.ndarray)}
    return replace(profiles, **columns)  # type: ignore[arg-type]  # arrays only
