"""Simulated devices around a run: what its tasks cost them, and the runtime in virtual time."""

from __future__ import annotations

import numpy as np

from anabranch.api.prepare import Prepared
from anabranch.coordinator.runtime import Runtime
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.devices.simulated import Content
from anabranch.fleet.view import unknown_fleet
from anabranch.learners.flops import flops_per_example
from anabranch.runtimes.local.virtual import DeviceRuntime
from anabranch.updates.layout import Policy

__all__ = ["device_runtime", "task_cost"]

_COPIES = 4.0
"""Vectors of the model's length that training holds: parameters, gradients, start, update."""


def task_cost(prepared: Prepared) -> TaskCost:
    """What one training task asks of a client, before anything was seen of encoded sizes."""
    program, plan = prepared.program, prepared.plan
    training, layout = program.training, program.learner.layout
    devices = plan.devices
    counted = devices.flops_per_example if devices is not None else None
    up = 4.0 * sum(section.length for section in program.sections)
    return TaskCost(
        bytes_down=4.0 * sum(section.length for section in program.broadcast_sections),
        bytes_up=min(up, float(plan.updates.max_bytes or up)),
        flops=counted if counted is not None else flops_per_example(program.learner),
        epochs=training.epochs,
        steps=training.steps,
        batch_size=training.batch_size or 0,
        examples=float(prepared.federation.train.counts.mean()),
        memory=_COPIES * 4.0 * layout.size,
        frozen=_frozen_bytes(prepared),
    )


def _frozen_bytes(prepared: Prepared) -> float:
    """Bytes of the frozen part, as the plan says or as float32; deployed clients have it."""
    devices = prepared.plan.devices
    if devices is None:
        return 0.0
    if devices.frozen_bytes is not None:
        return devices.frozen_bytes
    parameters = prepared.program.learner.layout.parameters
    return 4.0 * sum(p.size for p in parameters if p.policy is Policy.FREEZE)


def device_runtime(prepared: Prepared, inner: Runtime) -> DeviceRuntime:
    """``inner`` behind the devices of the plan's ``[devices]`` table.

    Raises:
        AnabranchError: AB-530 to AB-534 the tables of profiles and traces.
    """
    devices = prepared.plan.devices
    assert devices is not None  # asked for only where the plan has the table
    federation, cost = prepared.federation, task_cost(prepared)
    examples = federation.train.counts.astype(np.float64)
    view = unknown_fleet(len(federation)).with_columns(examples=examples)
    fleet = devices.fleet(federation.names, prepared.plan.seed)
    flops = cost.flops * cost.seen(view)
    content = None
    if prepared.plan.admission.stop_early:
        rows = np.ones(len(federation))
        content = Content(
            seconds=np.inf * rows,
            joules=prepared.plan.admission.joules_of_a_task(fleet.profiles.battery),
            bytes_up=cost.bytes_up * rows,
            least=1.0 / cost.planned_steps(view),
        )
    return DeviceRuntime(
        inner, fleet, flops, examples, memory=cost.memory, frozen=cost.frozen, content=content
    )
