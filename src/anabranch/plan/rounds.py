"""The plan's tables ``[rounds]`` and ``[clients]``: who is asked in a round, and what ends it."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

from pydantic import Field, model_validator

from anabranch.aggregation.staleness import PolynomialStaleness, Staleness
from anabranch.schedules import Constant, Schedule
from anabranch.values import Value

__all__ = ["AsynchronousPlan", "ClientsPlan", "Cohort", "RoundsPlan"]

Cohort: TypeAlias = (
    Annotated[int, Field(ge=1, json_schema_extra={"unit": "clients"})]
    | Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "fraction of the fleet"})]
)
"""A number of clients (an integer) or a fraction of the fleet (a number with a point)."""


class ClientsPlan(Value):
    """What the plan may rely on at the clients."""

    memory: bool = True
    """Clients may keep vectors of their own between rounds: control variates, parameters that are
    not shared, error feedback. Set it to false where clients come once, or may store nothing."""


class AsynchronousPlan(Value):
    """Rounds without cohorts: tasks stay open, and a round is a full buffer of updates.

    FedBuff (Nguyen et al. 2022); with a buffer of one and ``rebase`` FedAsync (Xie et al. 2019).
    """

    buffer: int = Field(default=10, ge=1, json_schema_extra={"unit": "updates"})
    """Updates that make a round (K)."""
    concurrency: int = Field(default=40, ge=1, json_schema_extra={"unit": "tasks"})
    """Tasks kept open (M); whoever answers is replaced at once."""
    max_staleness: int = Field(default=20, ge=0, json_schema_extra={"unit": "model versions"})
    """An update whose base is older is given up."""
    rebase: bool = False
    """Mix in the client's model itself instead of its update: w + s (w_client - w), the rule of
    FedAsync, whose mixing weight is ``algorithm.server_learning_rate``."""

    @model_validator(mode="after")
    def _enough_tasks(self) -> AsynchronousPlan:
        if self.concurrency < self.buffer:
            raise ValueError(
                f"concurrency {self.concurrency} is smaller than the buffer {self.buffer}; keep "
                "at least as many tasks open as make a round"
            )
        return self


class RoundsPlan(Value):
    """How many rounds, who takes part in each, and what makes a round."""

    count: int = Field(default=20, ge=1, json_schema_extra={"unit": "rounds"})
    """Rounds of the run; one round makes one version of the model."""
    cohort: Cohort | None = Field(default=None, json_schema_extra={"unit": "clients or fraction"})
    """Clients whose updates a round wants: a number (10), or a fraction of the fleet (0.1). Left
    out, everyone takes part in every round."""
    over_selection: float = Field(
        default=1.0, ge=1, le=10, json_schema_extra={"unit": "factor on the cohort"}
    )
    """Ask this many times the cohort, so that enough answer although some fail or are late. Every
    answer that arrives before the round closes counts."""
    confidence: float | None = Field(
        default=None, ge=0.5, lt=1, json_schema_extra={"unit": "probability"}
    )
    """Ask no more clients than needed for the cohort to answer with this probability, by what
    clients showed before; ``over_selection`` is then the most. Left out: always the most."""
    quorum: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "updates"})
    """Smallest number of updates that make a round. Left out: half the cohort, rounded up. A round
    below its quorum fails: its updates are dropped and it is tried again with other clients."""
    deadline: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "seconds"})
    """Longest time from asking to closing a round. Left out: derived from how long earlier rounds
    took; the first round waits for every client. In asynchronous rounds it is also the
    longest time of a task; left out, three times what its client is predicted to take."""
    late_window: int = Field(default=0, ge=0, le=100, json_schema_extra={"unit": "rounds"})
    """Rounds after its own in which an update is still merged, damped by ``staleness``. With 0 what
    comes late is dropped."""
    staleness: Staleness = PolynomialStaleness()
    """How much an update of an older model version counts."""
    asynchronous: AsynchronousPlan | None = None
    """Left out, rounds are synchronous: a cohort is asked, and the round closes on it."""
    max_failures: int = Field(default=3, ge=0, json_schema_extra={"unit": "failed rounds in a row"})
    """Failed rounds in a row that the run survives; one more stops it."""
    server_schedule: Schedule = Constant()
    """Factor on the server learning rate by round."""

    @model_validator(mode="after")
    def _consistent(self) -> RoundsPlan:
        if self.asynchronous is not None:
            # Not what was set: a plan that comes back from the store states its defaults, too.
            fields = type(self).model_fields
            names = ("cohort", "over_selection", "confidence", "late_window")
            given = [name for name in names if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(
                    f"{', '.join(sorted(given))} belong to synchronous rounds; leave them out, or "
                    "leave rounds.asynchronous out"
                )
        if self.over_selection > 1 and self.everyone:
            raise ValueError(
                "over_selection asks more clients than the cohort, but the cohort is everyone; "
                "give rounds.cohort or leave over_selection out"
            )
        if self.confidence is not None and self.over_selection == 1:
            raise ValueError(
                "confidence asks for as many more clients than the cohort as are needed, up to "
                "over_selection, which is 1; give the most, such as over_selection = 2"
            )
        if isinstance(self.cohort, int) and self.quorum is not None and self.quorum > self.cohort:
            raise ValueError(
                f"quorum {self.quorum} is larger than the cohort {self.cohort}, so that no round "
                "could succeed; lower the quorum or raise the cohort"
            )
        return self

    @property
    def everyone(self) -> bool:
        """Whether all clients take part in every round."""
        if self.asynchronous is not None:
            return False
        return self.cohort is None or (isinstance(self.cohort, float) and self.cohort == 1.0)

    def wanted(self, clients: int) -> int:
        """Updates that a round wants from a fleet of ``clients``.

        >>> RoundsPlan(cohort=0.1).wanted(25), RoundsPlan(cohort=10).wanted(25)
        (3, 10)
        """
        if self.asynchronous is not None:
            return min(self.asynchronous.buffer, clients)
        if self.cohort is None:
            return clients
        if isinstance(self.cohort, int):
            return self.cohort
        # The small slack keeps 0.1 * 30 = 3.0000000000000004 from becoming 4.
        return max(1, math.ceil(self.cohort * clients - 1e-9))

    def asked(self, clients: int) -> int:
        """Clients asked in a round: the cohort times ``over_selection``, at most everyone.

        >>> RoundsPlan(cohort=10, over_selection=1.3).asked(100)
        13
        """
        if self.asynchronous is not None:
            return min(clients, self.asynchronous.concurrency)
        return min(clients, math.ceil(self.wanted(clients) * self.over_selection - 1e-9))

    def most(self, clients: int) -> int:
        """Updates that one round can merge at most: its own, and late ones of earlier rounds."""
        if self.asynchronous is not None:
            return self.asynchronous.buffer + self.asynchronous.concurrency
        return self.asked(clients) * (1 + self.late_window)

    def needed(self, clients: int) -> int:
        """Updates that make a round: the quorum, or half the cohort rounded up.

        >>> RoundsPlan(cohort=5).needed(100), RoundsPlan(cohort=5, quorum=1).needed(100)
        (3, 1)
        """
        return self.quorum if self.quorum is not None else (self.wanted(clients) + 1) // 2
