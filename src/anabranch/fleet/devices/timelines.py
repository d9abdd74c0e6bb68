"""The timeline of one simulated task, as the round record keeps it."""

from __future__ import annotations

import math

from anabranch.fleet.devices.classes import CLASS_NAMES
from anabranch.fleet.devices.network import NETWORK_NAMES
from anabranch.fleet.devices.simulated import Begun, Ended, SimulatedFleet
from anabranch.fleet.timeline import TaskTrace
from anabranch.fleet.view import Column

__all__ = ["task_trace"]


def task_trace(
    fleet: SimulatedFleet,
    begun: Begun,
    ended: Ended | None,
    spent: Column,
    now: float,
    fraction: float,
) -> TaskTrace:
    """What one task did to its device.

    Args:
        fleet: the devices, after this task was charged to them.
        begun: one row.
        ended: one row; None of a task that was given up or lost before its answer was sent.
        spent: joules really used, shape (1,).
        now: when it ended, on the virtual clock.
        fraction: of the planned local work that was asked.
    """
    client = int(begun.rows[0])
    asked = float(begun.asked[0])
    download = min(float(begun.download[0]), now - asked)
    train = min(float(begun.train[0]), now - asked - download)
    upload = 0.0 if ended is None else float(ended.upload[0])
    latest = begun if ended is None else ended
    mains = bool(fleet.profiles.mains[client])
    return TaskTrace(
        asked=asked,
        download=download,
        train=train,
        upload=min(upload, now - asked - download - train),
        idle=max(now - asked - download - train - upload, 0.0),
        bytes_down=round(float(begun.carried[0])),
        bytes_up=0 if ended is None else round(float(ended.carried[0])),
        modelled=float(latest.modelled[0]),
        reported=math.nan if ended is None else float(ended.reported[0]),
        spent=float(spent[0]),
        share=float(fleet.share(begun.rows, spent)[0]),
        level=math.nan if mains else float(fleet.batteries.level[client]),
        work=fraction * float(begun.done[0]),
        flops=float(begun.flops[0] * begun.done[0]),
        interruptions=int(latest.interruptions[0]),
        device=CLASS_NAMES[int(fleet.profiles.device[client])],
        network=NETWORK_NAMES[int(begun.network[0])],
        charging=bool(begun.charging[0]),
    )
