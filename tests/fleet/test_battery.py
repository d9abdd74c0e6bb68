"""Batteries, chargers and counters, read from a made-up /sys and from Termux."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.client.battery import EnergyMeter, PowerSources, PowerState


def written(root: Path, **files: dict[str, object]) -> None:
    """Files of supplies: ``BAT0={"type": "Battery"}``."""
    for name, values in files.items():
        folder = root / "class" / "power_supply" / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            (folder / key).write_text(f"{value}\n")


def counter(root: Path, energy: int, zone: str = "intel-rapl:0") -> None:
    folder = root / "class" / "powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")


def sources(root: Path, termux: str | None = None) -> PowerSources:
    return PowerSources(root, lambda: termux)


def test_nothing_is_guessed(tmp_path: Path) -> None:
    assert sources(tmp_path).state() == PowerState()
    with EnergyMeter(sources(tmp_path)) as meter:
        pass
    assert (meter.joules, meter.source) == (None, "")


def test_a_battery_in_watt_hours(tmp_path: Path) -> None:
    battery = {"type": "Battery", "status": "Discharging", "capacity": 80}
    written(tmp_path, BAT0={**battery, "energy_now": 40_000_000, "energy_full": 50_000_000})
    written(tmp_path, AC={"type": "Mains", "online": 0})
    state = sources(tmp_path).state()
    assert state.level == pytest.approx(0.8)
    assert state.charging is False
    assert state.joules == pytest.approx(40 * 3600)
    assert state.full == pytest.approx(50 * 3600)


def test_a_battery_in_ampere_hours(tmp_path: Path) -> None:
    battery = {"type": "Battery", "status": "Charging", "capacity": 50, "voltage_now": 4_000_000}
    written(tmp_path, battery={**battery, "charge_now": 2_000_000, "charge_full": 4_000_000})
    state = sources(tmp_path).state()
    assert state.charging is True
    assert state.joules == pytest.approx(2 * 4 * 3600)


def test_the_battery_of_a_mouse_is_not_that_of_the_machine(tmp_path: Path) -> None:
    written(tmp_path, hidpp={"type": "Battery", "scope": "Device", "capacity": 5})
    written(tmp_path, AC={"type": "Mains", "online": 1})
    state = sources(tmp_path).state()
    assert (state.level, state.charging) == (None, True)


def test_two_batteries_are_weighed_by_their_energy(tmp_path: Path) -> None:
    one = {"type": "Battery", "capacity": 100, "energy_now": 30_000_000, "energy_full": 30_000_000}
    two = {"type": "Battery", "capacity": 0, "energy_now": 0, "energy_full": 10_000_000}
    written(tmp_path, BAT0=one, BAT1=two)
    assert sources(tmp_path).state().level == pytest.approx(0.75)


@pytest.mark.parametrize("text", ["", "?", "full"])
def test_files_without_sense_are_not_known(tmp_path: Path, text: str) -> None:
    written(tmp_path, BAT0={"type": "Battery", "capacity": text, "status": text})
    assert sources(tmp_path).state().level is None


def test_termux(tmp_path: Path) -> None:
    told = {"percentage": 50, "plugged": "UNPLUGGED", "charge_counter": 1_000_000, "voltage": 4000}
    state = sources(tmp_path, json.dumps(told)).state()
    assert state.level == pytest.approx(0.5)
    assert state.charging is False
    assert state.joules == pytest.approx(1 * 4 * 3600)
    assert state.full == pytest.approx(2 * 4 * 3600)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"percentage": true, "plugged": 3}'])
def test_a_broken_termux_is_not_known(tmp_path: Path, text: str) -> None:
    assert sources(tmp_path, text).state() == PowerState()


def test_a_task_on_the_battery(tmp_path: Path) -> None:
    battery = {"type": "Battery", "status": "Discharging", "energy_now": 10_000_000}
    written(tmp_path, BAT0=battery)
    with EnergyMeter(sources(tmp_path)) as meter:
        written(tmp_path, BAT0={"energy_now": 9_990_000})
    assert meter.source == "battery"
    assert meter.joules == pytest.approx(0.01 * 3600)


def test_a_task_on_the_charger_is_measured_by_the_processor(tmp_path: Path) -> None:
    battery = {"type": "Battery", "status": "Charging", "energy_now": 9_000_000}
    written(tmp_path, BAT0=battery)
    counter(tmp_path, 262_143_000_000)
    with EnergyMeter(sources(tmp_path)) as meter:
        written(tmp_path, BAT0={"energy_now": 9_100_000})
        counter(tmp_path, 5_000_000)  # it ran over
    assert meter.source == "processor"
    assert meter.joules == pytest.approx(262_143.328850 - 262_143.0 + 5.0)


def test_zones_within_a_package_are_not_counted_twice(tmp_path: Path) -> None:
    counter(tmp_path, 7_000_000)
    counter(tmp_path, 3_000_000, "intel-rapl:0:0")
    assert sources(tmp_path).state().processor == pytest.approx(7.0)
    counter(tmp_path, 3_000_000, "intel-rapl:1")
    assert sources(tmp_path).state().processor is None


def test_the_command_prints_marks_and_sources() -> None:
    priors = json.loads(CliRunner().invoke(app, ["device", "--priors", "--json"]).stdout)
    assert {row["mark"] for row in priors} == {"measured", "quoted", "assumed"}
    assert all(row["source"] for row in priors)
    told = CliRunner().invoke(app, ["device"])
    assert told.exit_code == 0
    assert "battery: " in told.stdout
