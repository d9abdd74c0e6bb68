"""A client measures itself: the speed of its learner, the time and energy of a task.

Nothing of this is needed to take part. Times and speed together tell roughly how many examples a
client has, so a site decides whether it reports (``anabranch join --report-device``), and speeds
are rounded to two digits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anabranch.algorithms.base import Correction
from anabranch.client.battery import EnergyMeter, PowerSources
from anabranch.client.program import ClientProgram
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.fleet.devices.report import DeviceReport, TaskReport, device_report
from anabranch.learners.base import TrainingJob
from anabranch.learners.flops import flops_per_example
from anabranch.learners.training import LocalTraining

__all__ = ["DeviceMeter", "learner_gflops"]

_LONG_ENOUGH = 0.05
_MOST_STEPS = 64


def learner_gflops(program: ClientProgram, data: Examples) -> float | None:
    """Speed of local training on this machine, in 10^9 operations a second, to two digits.

    Steps of one batch are timed, doubling until they take 50 ms. The model is thrown away.
    None when the data cannot be trained on.
    """
    size = min(program.training.batch_size or 32, len(data))
    if not size:
        return None
    batch = Examples(data.x[:size], data.y[:size])
    steps, seconds = 1, 0.0
    while seconds < _LONG_ENOUGH and steps <= _MOST_STEPS:
        job = TrainingJob(
            training=LocalTraining(steps=steps, batch_size=size, shuffle=False),
            learning_rate=0.0,
            correction=Correction(),
            batches=None,
            draws=0,
            client="",
        )
        started = time.perf_counter()
        try:
            program.learner.train(program.base, batch, job)
        except AnabranchError:
            return None
        seconds, steps = time.perf_counter() - started, 2 * steps
    done = flops_per_example(program.learner) * size * (steps // 2)
    return float(f"{done / seconds * 1e-9:.2g}") if seconds > 0 and done > 0 else None


@dataclass
class DeviceMeter:
    """What one client says of its device.

    Attributes:
        stated: what the site says itself (class, network, metered, data budget).
        sources: of power and energy.
        gflops: measured speed; None until `measure_speed`.
    """

    stated: DeviceReport = field(default_factory=DeviceReport)
    sources: PowerSources = field(default_factory=PowerSources)
    gflops: float | None = None
    _task: TaskReport | None = None

    def measure_speed(self, program: ClientProgram, data: Examples) -> None:
        """Time the learner, once."""
        if self.gflops is None:
            self.gflops = learner_gflops(program, data)

    def state(self, client: str = "") -> DeviceReport:
        """The device now; what cannot be read is left out.

        Raises:
            AnabranchError: AB-535 a meter says what cannot be.
        """
        power = self.sources.state()
        read = {
            "battery": power.level,
            "charging": power.charging,
            "battery_joules": power.full,
            "gflops": self.gflops,
        }
        stated = self.stated.model_dump(exclude_none=True)
        found = {name: value for name, value in read.items() if value is not None}
        return device_report({**found, **stated}, client)

    @contextmanager
    def task(self, download_seconds: float) -> Iterator[None]:
        """Measure the work inside; `taken` then has the report."""
        energy = EnergyMeter(self.sources)
        started = time.perf_counter()
        with energy:
            yield
        self._task = TaskReport(
            download_seconds=download_seconds,
            train_seconds=time.perf_counter() - started,
            joules=energy.joules,
            source=energy.source,
        )

    def taken(self, client: str = "") -> TaskReport | None:
        """The report of the last task, with the state of the device; None without one.

        Raises:
            AnabranchError: AB-535 as in `state`.
        """
        report, self._task = self._task, None
        return None if report is None else report.replace(device=self.state(client))
