"""The agenda takes events as a heap would, however it is asked."""

from __future__ import annotations

import heapq

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fleet.clock import Agenda

EVENTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.integers(0, 5)), max_size=30)


@given(st.lists(EVENTS, max_size=4), st.lists(st.integers(0, 25), max_size=6))
def test_events_come_in_the_order_of_a_heap(
    batches: list[list[tuple[int, int, int]]], looks: list[int]
) -> None:
    agenda, heap = Agenda(), []
    times = iter(sorted(looks))
    for batch in batches:
        for time, kind, row in batch:
            agenda.add(np.array([float(time)]), kind, np.array([row]))
            heapq.heappush(heap, (float(time), kind, row))
        until = float(next(times, 25))
        due = agenda.take(until)
        wanted = []
        while heap and heap[0][0] <= until:
            wanted.append(heapq.heappop(heap))
        got = list(zip(due.times.tolist(), due.kinds.tolist(), due.rows.tolist(), strict=True))
        assert got == wanted
        assert agenda.next_time() == (heap[0][0] if heap else None)
        assert len(agenda) == len(heap)


def test_dropped_rows_never_happen() -> None:
    agenda = Agenda()
    agenda.add(np.array([3.0, 1.0, 2.0]), 0, np.array([0, 1, 2]))
    agenda.add(np.array([4.0]), 1, np.array([1]))
    agenda.drop(np.array([1]))
    assert agenda.take(np.inf).rows.tolist() == [2, 0]


def test_what_never_happens_is_not_kept() -> None:
    agenda = Agenda()
    agenda.add(np.array([np.inf, 5.0]), 0, np.array([0, 1]))
    assert len(agenda) == 1
