"""Scheduling of simulated devices: how fast 100,000 of them are. ``make bench-devices``.

Selection, admission, hidden truth, interrupted tasks, batteries and the virtual clock, without
training: 100 rounds on one core. Two sizes of cohort: a thousand clients a round, and everybody who
is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anabranch.fleet.admission import Admission
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.devices import DeviceSettings, SimulatedFleet, draw_profiles
from anabranch.fleet.rehearsal import Rehearsal, rehearse

RESULT = Path(__file__).parent / "results" / "devices.json"
MIX = {"flagship": 0.05, "mid": 0.3, "entry": 0.45, "ultra-low": 0.2}
REGIONS = {"nigeria": 1.0, "kenya": 3.0, "india": 5.5}
COST = TaskCost(bytes_down=6e5, bytes_up=1.5e5, flops=2e7, epochs=1, examples=600.0)
"""A network of 1.2 million parameters, compressed eight times down and 32 times up."""
TARGET = 60.0


@dataclass(frozen=True)
class Measured:
    """One run of the schedule."""

    devices: int
    rounds: int
    asked: int
    tasks: int
    real_seconds: float
    cpu_seconds: float
    load: float
    virtual_hours: float
    participation: float
    median_share: float
    over_five_per_cent: float
    peak_mb: float
    kept: bool


def measure(devices: int, rounds: int, asked: int) -> Measured:
    """Rehearse and time; making the fleet counts."""
    load = os.getloadavg()[0]
    started, used = time.perf_counter(), time.process_time()
    profiles = draw_profiles(devices, MIX, 0, regions=REGIONS)
    fleet = SimulatedFleet.drawn(profiles, DeviceSettings(), 0)
    goal = round(asked / 1.3)
    done = rehearse(fleet, Rehearsal(rounds, asked, goal, COST, Admission(max_battery=0.05)))
    seconds, used = time.perf_counter() - started, time.process_time() - used
    share = np.concatenate([found.tasks.share for found in done])
    return Measured(
        devices=devices,
        rounds=rounds,
        asked=asked,
        tasks=len(share),
        real_seconds=round(seconds, 2),
        cpu_seconds=round(used, 2),
        load=round(load, 2),
        virtual_hours=round((done[-1].started + done[-1].seconds) / 3600, 2),
        participation=round(float(np.mean([found.participation for found in done])), 4),
        median_share=float(f"{np.nanmedian(share):.3g}"),
        over_five_per_cent=float(np.mean(share > 0.05)),
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        kept=seconds < TARGET,
    )


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    found = [measure(options.devices, options.rounds, n) for n in (1000, options.devices)]
    for one in found:
        print(
            f"{one.devices} devices, {one.rounds} rounds, {one.asked} asked: {one.tasks} tasks, "
            f"{one.virtual_hours} h of virtual time in {one.real_seconds} s "
            f"({one.cpu_seconds} s of the processor, load {one.load}; wanted: below {TARGET:g} s), "
            f"{one.peak_mb} MB"
        )
    document = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "target_seconds": TARGET,
        "runs": [asdict(one) for one in found],
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
