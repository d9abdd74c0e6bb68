"""Noise that is made inside local training (DP-SGD): what one site does to keep its own promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.data.bounded import unit_means
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.learners.metrics import MetricTask, example_losses
from anabranch.learners.private_sgd import PrivateSteps
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import local_schedule, promise_of, share_event
from anabranch.plan.schema import Plan
from anabranch.plan.site_units import declared_units, known_units
from anabranch.privacy.events import GaussianEvent, Unit
from anabranch.privacy.mechanisms import SiteScores
from anabranch.privacy.noise import SecretStream
from anabranch.updates.sections import Update

__all__ = ["InsideNoise", "no_persons", "refused_metrics", "units_of"]


def units_of(data: Examples, unit: Unit, client: str) -> int:
    """How many units of privacy one site's training examples hold.

    Raises:
        AnabranchError: AB-981 the unit is a subject, and the data do not say whose rows they are.
    """
    if unit is Unit.EXAMPLE:
        return len(data)
    if data.subjects is None:
        raise no_persons(f"client {client!r}")
    return len(np.unique(data.subjects))


def no_persons(who: str) -> AnabranchError:
    """The promise is to persons, and ``who`` does not say which rows belong to one."""
    return AnabranchError(
        "AB-981",
        f"{who}: the unit of privacy is 'subject', and nothing says which rows belong to one "
        "person.",
        fix='name the column of the person in the data schema (subject = "patient_id"), or '
        'promise privacy for examples (privacy.unit = "example").',
        kept="Nothing was trained.",
    )


def refused_metrics() -> AnabranchError:
    """The coordinator asks for metrics that the contract does not pay for."""
    return AnabranchError(
        "AB-984",
        "the coordinator asks for metrics of this client's examples, and the contract sets no part "
        "of the privacy budget aside for them.",
        fix="ask who runs the coordinator; a plan can set privacy.evaluation_share.",
        kept="Nothing was computed and nothing was sent.",
    )


@dataclass(frozen=True)
class InsideNoise:
    """The mechanism of every site, and each site's noise.

    Attributes:
        plan: says what is promised.
        mechanism: clip norm, batch, contributions.
        multipliers: noise of simulated sites by name; a deployed site finds its own.
        scores: what a site tells of the model's quality; None if nothing.
    """

    plan: Plan
    mechanism: LocalDpSgd
    multipliers: Mapping[str, float] = field(default_factory=dict)
    scores: SiteScores | None = None

    def steps(
        self, data: Examples, client: str, stream: Callable[[], SecretStream]
    ) -> PrivateSteps:
        """How ``client`` trains on ``data`` in one round.

        Raises:
            AnabranchError: AB-981 as `units_of`; AB-982, AB-991 the noise of this site is not
                known; AB-901 dp-accounting is not installed where the site must find it.
        """
        assert self.plan.privacy is not None  # a plan with a mechanism
        own = units_of(data, self.plan.privacy.unit, client)
        units = (declared_units(self.plan, (client,)) or {client: own})[client]
        rate, steps = local_schedule(self.mechanism, self.plan.local, units)
        return PrivateSteps(
            clip=float(self.mechanism.clip.first),
            multiplier=self._multiplier(client, own),
            batch=float(self.mechanism.batch),
            rate=rate,
            steps=steps,
            max_examples=self.mechanism.max_examples if self._subjects else 1,
            stream=stream,
        )

    def scored(
        self,
        outputs: NDArray[np.float32],
        data: Examples,
        task: MetricTask,
        client: str,
        stream: SecretStream,
    ) -> Update:
        """How good the model is on ``data``: sums over units, with this site's noise.

        Raises:
            AnabranchError: AB-981 as `units_of`; AB-984 no budget pays for it.
        """
        event = share_event(self.plan, "evaluation")
        if self.scores is None or event is None:
            raise refused_metrics()
        assert self.plan.privacy is not None  # a plan with a mechanism
        units_of(data, self.plan.privacy.unit, client)
        rows = self.scores.rows(*example_losses(outputs, data.y, task))
        means = unit_means(
            rows, data.subjects if self._subjects else None, self.mechanism.max_examples
        )
        sums = self.scores.sums
        return sums.update(sums.exact(means) + sums.noise(event.noise_multiplier, stream))

    @property
    def _subjects(self) -> bool:
        return self.plan.privacy is not None and self.plan.privacy.unit is Unit.SUBJECT

    def _multiplier(self, client: str, own: int) -> float:
        if self.mechanism.noise_multiplier is not None:
            return self.mechanism.noise_multiplier
        if client in self.multipliers:
            return self.multipliers[client]
        known = known_units(self.plan, client, own)
        charge = promise_of(self.plan, 1, known).at(client).lines[0].charges[0]
        if not isinstance(charge, GaussianEvent):
            raise TypeError("noise inside a site is charged as Gaussian noise")
        return charge.noise_multiplier
