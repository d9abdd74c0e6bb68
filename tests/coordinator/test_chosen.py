"""What is kept of a selection."""

from __future__ import annotations

import numpy as np

from anabranch.coordinator.chosen import SELECTION, codes_of, selection_events
from anabranch.fleet.selection import Code, Reason, Selection


def test_reasons_and_codes_are_counted_and_the_column_is_kept() -> None:
    first = Selection((0, 2), (Reason.FLOOR, Reason.UTILITY), np.array([0, 1, 0, 6], np.int8))
    second = Selection((1,), (Reason.UTILITY,), np.array([3, 0, 3, 6], np.int8))
    (event,) = selection_events([first, second])
    assert event.kind == SELECTION
    assert event.details["reasons"] == {"fairness floor": 1, "utility": 2}
    assert event.details["codes"] == {
        "selected": 3,
        "eligible, not drawn": 1,
        "has an open task": 2,
        "battery too low": 2,
    }
    assert codes_of(event.details).tolist() == [3, 0, 3, 6]
    assert event.text == "selected: 2 utility, 1 fairness floor; not selected: 5"


def test_nothing_is_kept_where_all_were_alike() -> None:
    plain = Selection((1,), (Reason.DRAWN,), np.array([1, 0, 1], np.int8))
    assert selection_events([plain]) == ()
    assert selection_events([]) == ()
    nobody = Selection((), (), np.array([2, 2], np.int8))
    (event,) = selection_events([nobody])
    assert event.details["codes"] == {Code.UNAVAILABLE.words: 2}
    assert codes_of({}).tolist() == []
