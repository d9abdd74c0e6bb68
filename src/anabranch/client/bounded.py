"""A client's statistics for preprocessing within a promise: bounded, noisy where they must be."""

from __future__ import annotations

import numpy as np

from anabranch.data.bounded import bounded_rows, unit_means
from anabranch.data.table import Table
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.mechanism import statistics_of
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import share_event
from anabranch.privacy.events import Unit
from anabranch.privacy.mechanisms import BoundedSums
from anabranch.privacy.noise import SecretStream
from anabranch.updates.sections import Sections, Statistics, Update

__all__ = ["bounded_statistics", "exact_statistics"]


def exact_statistics(plan: Plan, sums: BoundedSums, table: Table) -> Statistics:
    """One client's sums over its units, in steps, without noise; shape (dim,).

    Raises:
        AnabranchError: AB-981 the unit is a person, and the schema names no column of persons;
            AB-989 a column has no range or no codes.
    """
    assert plan.privacy is not None  # statistics within a promise
    rows, unit = bounded_rows(table), plan.privacy.unit
    if unit is Unit.EXAMPLE:
        return sums.exact(rows)
    if unit is Unit.SUBJECT:
        _require_subjects(table)
        most = getattr(plan.privacy.mechanism, "max_examples", 1)
        return sums.exact(unit_means(rows, table.subjects, most))
    everything = np.zeros(len(rows), np.int64)  # a client or a site is one unit
    return sums.exact(unit_means(rows, everything, len(rows)))


def bounded_statistics(plan: Plan, table: Table, stream: SecretStream) -> tuple[Update, Sections]:
    """What a client tells, and its type: with its own noise where sites make the noise.

    Args:
        plan: with a share for statistics.
        table: training rows under the final schema.
        stream: of this client, for this answer alone.

    Raises:
        AnabranchError: as `exact_statistics`; AB-901 dp-accounting is not installed.
        ValueError: the plan pays for no statistics.
    """
    sums, event = statistics_of(plan, table.schema), share_event(plan, "statistics")
    if sums is None or event is None or plan.privacy is None:
        raise ValueError("the plan pays for no statistics")
    steps = exact_statistics(plan, sums, table)
    if isinstance(plan.privacy.mechanism, LocalDpSgd):
        steps = steps + sums.noise(event.noise_multiplier, stream)
    return sums.update(steps), Sections(sums.sections())


def _require_subjects(table: Table) -> None:
    if table.schema.subject is None:
        raise AnabranchError(
            "AB-981",
            "the unit of privacy is 'subject', and the schema does not say which rows belong to "
            "one person.",
            fix='name the column of the person in the data schema (subject = "patient_id"), or '
            'promise privacy for examples (privacy.unit = "example").',
            kept="Nothing was computed and nothing was sent.",
        )
