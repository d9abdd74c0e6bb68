"""A fleet of simulated devices: what the coordinator sees of it, and what tasks really do there.

Everything works in columns; ten or a hundred thousand devices differ in the length of arrays. The
fleet's only state is that of its batteries and data budgets: the rest is a pure function of (seed,
client, time), so a simulation goes on after a restart where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.availability import DailyPresence, Presence, local_hour
from anabranch.fleet.devices.batteries import Batteries
from anabranch.fleet.devices.classes import CLASS_NAMES
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.energy import compute_joules, radio_joules, share_of_battery
from anabranch.fleet.devices.network import NETWORK_NAMES, network_column
from anabranch.fleet.devices.phases import Begun, Content, Ended
from anabranch.fleet.devices.profiles import WIFI, Profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.devices.tasks import IN_FLIGHT, Phase, Stop, sent_again, work_through
from anabranch.fleet.devices.traces import Trace, TracePresence, TraceTruth
from anabranch.fleet.devices.truth import DrawnTruth, Performance, Truth
from anabranch.fleet.view import Codes, Column, Flags, FleetView

__all__ = ["Begun", "Content", "Ended", "SimulatedFleet"]

Rows: TypeAlias = NDArray[np.int64]
_DOWNLOAD, _TRAIN, _UPLOAD, _OWN = 1000, 2000, 3000, 4000
"""First lanes of a task's draws for each phase, and for what belongs to the whole task."""
_AT_HOME = (19.0, 7.0)
_ROUND_TRIPS = 2.0
"""Round trips of each direction of a transfer."""
_CHECKPOINTS = 20.0
_KEPT_BACK = 0.1
"""Share of a task's time that is kept for the upload."""


@dataclass
class SimulatedFleet:
    """Devices with their hidden truth.

    Attributes:
        profiles: what the planner believes.
        settings: how devices behave.
        seed: the plan's public seed.
        presence, truth: when devices are there, and what they really do.
        trace: what is replayed, if anything is.
    """

    profiles: Profiles
    settings: DeviceSettings
    seed: int
    presence: Presence
    truth: Truth
    trace: Trace | None = None
    batteries: Batteries = field(init=False)

    @staticmethod
    def drawn(profiles: Profiles, settings: DeviceSettings, seed: int) -> SimulatedFleet:
        """A fleet whose behaviour is drawn from distributions."""
        return SimulatedFleet(
            profiles,
            settings,
            seed,
            DailyPresence(profiles, settings, seed),
            DrawnTruth(profiles, settings, seed),
        )

    @staticmethod
    def replayed(
        profiles: Profiles, settings: DeviceSettings, seed: int, trace: Trace
    ) -> SimulatedFleet:
        """A fleet that behaves as a trace shows; what it does not show is drawn."""
        truth = TraceTruth(trace, DrawnTruth(profiles, settings, seed))
        return SimulatedFleet(profiles, settings, seed, TracePresence(trace), truth, trace)

    def __post_init__(self) -> None:
        self.batteries = Batteries(self.profiles, self.presence, self.settings, self.seed)

    def __len__(self) -> int:
        return len(self.profiles)

    def network(self, rows: Rows, now: float) -> Codes:
        """The network that each of ``rows`` uses at ``now``: WiFi at home in the evening."""
        hour = local_hour(self.settings.start_hour, self.profiles.utc_offset[rows], now)
        home = self.profiles.home_wifi[rows] & ((hour >= _AT_HOME[0]) | (hour < _AT_HOME[1]))
        usual = np.where(home, np.int16(WIFI), self.profiles.network[rows])
        if self.trace is not None:
            seen = self.trace.network[self.trace.place(rows, now)[0]]
            usual = np.where(seen >= 0, seen, usual)
        return usual.astype(np.int16)

    def _levels(self, now: float) -> Column:
        """Battery levels at ``now``; those of a trace where it has them."""
        self.batteries.advance(now)
        if self.trace is None:
            return self.batteries.level
        seen = self.trace.battery[self.trace.place(np.arange(len(self)), now)[0]]
        return np.where(np.isnan(seen), self.batteries.level, seen)

    def view(self, now: float) -> FleetView:
        """What the coordinator may know at ``now``; devices report levels in whole per cent."""
        levels = self._levels(now)
        profiles, rows = self.profiles, np.arange(len(self))
        network = self.network(rows, now)
        own = network == profiles.network

        def rate(field: str, usual: Column) -> Column:
            return np.where(own, usual, network_column(field, network))

        return FleetView(
            now=now,
            classes=CLASS_NAMES,
            networks=NETWORK_NAMES,
            regions=profiles.regions,
            device=profiles.device,
            network=network,
            region=profiles.region,
            available=self.presence.available(rows, now),
            busy=np.zeros(len(self), np.bool_),
            charging=self.presence.charging(rows, now),
            metered=np.where(own, profiles.metered, network_column("metered", network) > 0),
            battery=np.round(levels, 2),
            battery_joules=np.where(profiles.mains, np.nan, profiles.battery),
            flops=profiles.flops,
            watts=profiles.watts,
            down=rate("down", profiles.down),
            up=rate("up", profiles.up),
            latency=rate("latency", profiles.latency),
            joules_down=network_column("joules_down", network),
            joules_up=network_column("joules_up", network),
            joules_session=network_column("joules_session", network),
            memory=profiles.memory,
            utc_offset=profiles.utc_offset,
            local_hour=local_hour(self.settings.start_hour, profiles.utc_offset, now),
            data_left=self.batteries.data_left(now),
            examples=np.full(len(self), np.nan),
        )

    def begin(
        self,
        rows: Rows,
        now: float,
        draw: int,
        flops: Column,
        bytes_down: Column,
        purpose: str = "device-task",
        content: Content | None = None,
    ) -> Begun:
        """Ask ``rows`` at ``now``: downloads and training as they will really go.

        Args:
            rows: client numbers.
            now: virtual time.
            draw: of the piece of work; unique in the run.
            flops: floating-point operations of each one's work.
            bytes_down: of each one's download.
            purpose: tells pieces of work with equal ``draw`` apart.
            content: when devices stop training although work is left; None for never.
        """
        draws, settings = Draws.of(self.seed, purpose, draw), self.settings
        network = self.network(rows, now)
        real = self.truth.perform(rows, network, now, draws)
        times = np.full(len(rows), now)
        left = self.presence.session(rows, times, draws, _OWN)
        chunk = np.full(len(rows), IN_FLIGHT) / real.down * settings.resumable
        needed = bytes_down / real.down + _ROUND_TRIPS * network_column("latency", network)
        down = work_through(needed, chunk, left, rows, times, self.presence, draws, _DOWNLOAD)
        seconds = flops / real.flops
        keep = np.minimum(settings.checkpoint_seconds, seconds / _CHECKPOINTS) * settings.resumable
        carried = bytes_down + np.maximum(down.active - needed, 0.0) * real.down
        stop = self._stop(content, rows, times, network, real, carried, down)
        begins = times + down.seconds
        train = work_through(
            seconds, keep, down.left, rows, begins, self.presence, draws, _TRAIN, stop
        )
        gone = draws.uniforms(rows, _OWN + 1) < settings.permanent_loss
        lost = down.broken | train.broken | gone
        radio = radio_joules(network, bytes_down, np.zeros(len(rows)))
        return Begun(
            rows=rows,
            draws=draws,
            asked=times,
            network=network,
            real=real,
            charging=self.presence.charging(rows, now),
            flops=flops,
            bytes_down=bytes_down,
            download=down.active,
            train=train.active,
            idle=down.idle + train.idle,
            downloaded=np.where(down.broken, np.inf, begins),
            carried=carried,
            interruptions=down.interruptions + train.interruptions,
            left=train.left,
            trained=np.where(lost, np.inf, begins + train.seconds),
            done=train.done,
            modelled=train.done * self._modelled(rows, flops) + radio,
        )

    def _modelled(self, rows: Rows, flops: Column) -> Column:
        """Joules that the model believes all of each one's work to cost."""
        return compute_joules(self.profiles.watts[rows], flops, self.profiles.flops[rows])

    def _stop(
        self,
        content: Content | None,
        rows: Rows,
        times: Column,
        network: Codes,
        real: Performance,
        carried: Column,
        down: Phase,
    ) -> Stop | None:
        """When training ends early: a tenth of the time and the radio's energy are kept back.

        A device that can measure what it uses goes by that, the others by the model.
        """
        if content is None:
            return None
        able = self._able(rows)
        watts = np.where(able, real.watts, self.profiles.watts[rows])
        factor = np.where(able, real.radio, 1.0)
        # One interruption of the upload, which then goes up twice, is provided for.
        sessions = 2.0 + down.interruptions.astype(np.float64)
        radio = factor * radio_joules(network, carried, 2.0 * content.bytes_up, sessions)
        watts = np.maximum(watts, 1e-9)
        most = np.maximum(content.joules - radio, 0.0) / watts
        each = factor * network_column("joules_session", network) / watts
        at = times + (1.0 - _KEPT_BACK) * content.seconds
        return Stop(at, most, each, content.least)

    def finish(self, begun: Begun, bytes_up: Column) -> Ended:
        """Send the answers of ``begun``, ``bytes_up`` of each. Tasks that were lost stay lost."""
        draws = begun.draws
        alive = np.isfinite(begun.trained)
        start = np.where(alive, begun.trained, begun.asked)
        latency = network_column("latency", begun.network)
        needed = np.where(alive, bytes_up / begun.real.up + _ROUND_TRIPS * latency, 0.0)
        chunk = sent_again(bytes_up) / begun.real.up * self.settings.resumable
        presence, rows = self.presence, begun.rows
        sent = work_through(needed, chunk, begun.left, rows, start, presence, draws, _UPLOAD)
        again = np.maximum(sent.active - needed, 0.0) * begun.real.up
        carried = np.where(alive, bytes_up + again, 0.0)
        ended = start + sent.seconds
        in_time = alive & ~sent.broken & (ended - begun.asked <= self.settings.task_seconds)
        interruptions = begun.interruptions + sent.interruptions
        sessions = 1.0 + interruptions.astype(np.float64)
        radio = radio_joules(begun.network, begun.carried, carried, sessions)
        spent = begun.real.watts * begun.train + begun.real.radio * radio
        return Ended(
            upload=sent.active,
            idle=begun.idle + sent.idle,
            carried=carried,
            interruptions=interruptions,
            ended=np.where(in_time, ended, np.inf),
            modelled=begun.modelled + network_column("joules_up", begun.network) * bytes_up,
            reported=self._measured(rows, spent, draws),
            spent=spent,
        )

    def _measured(self, rows: Rows, spent: Column, draws: Draws) -> Column:
        """What devices say that a task cost; NaN of those that cannot measure."""
        able = self._able(rows)
        error = np.exp(self.settings.report_noise * draws.normals(rows, _OWN + 2))
        return np.where(able, spent * error, np.nan)

    def _able(self, rows: Rows) -> Flags:
        """Which devices can measure what a task costs."""
        drawn = Draws.of(self.seed, "device-meter").uniforms(rows)
        return np.asarray(drawn < self.settings.reports_energy)

    def spent_by(self, begun: Begun, now: float) -> Column:
        """Joules that tasks given up at ``now`` have used: the download, and training so far."""
        span = np.maximum(begun.train + begun.idle, 1e-9)
        done = np.clip((now - begun.asked - begun.download) / span, 0.0, 1.0)
        radio = radio_joules(begun.network, begun.carried, np.zeros(len(begun)))
        return np.asarray(begun.real.watts * begun.train * done + begun.real.radio * radio)

    def charge(self, begun: Begun, joules: Column, carried: Column, now: float) -> Flags:
        """Take what tasks used out of batteries and data budgets, at ``now``.

        Args:
            begun: the tasks.
            joules: really spent.
            carried: bytes over the network in both directions.
            now: virtual time.

        Returns:
            Which devices had the energy; the others went dark.
        """
        rows = begun.rows
        held = self._levels(now)[rows] * self.profiles.battery[rows]
        enough = self.profiles.mains[rows] | begun.charging | (held >= joules)
        self.batteries.drain(rows, joules, begun.charging)
        own = begun.network == self.profiles.network[rows]
        usual = network_column("metered", begun.network) > 0
        metered = np.where(own, self.profiles.metered[rows], usual)
        self.batteries.spend(rows, np.where(metered, carried, 0.0), now)
        return np.asarray(enough)

    def share(self, rows: Rows, joules: Column) -> Column:
        """``joules`` as a part of each one's full battery; NaN on the mains."""
        return share_of_battery(joules, self.profiles.battery[rows])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state that a resumed run needs."""
        return self.batteries.arrays()

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """The inverse of `arrays`."""
        self.batteries.restore(arrays)
