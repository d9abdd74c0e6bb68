"""A client that tells what its tasks take: measured around the work, sent before the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from anabranch.client.measuring import DeviceMeter
from anabranch.client.program import ClientProgram
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.runtimes.http.reports import TaskMessage

__all__ = ["Reporter"]

_NO_HARM: Final = frozenset({"AB-535", "AB-713", "AB-717"})
"""A meter that says what cannot be, a task that was closed, an older coordinator: the answer to
the task goes out all the same."""


@dataclass
class Reporter:
    """Reports of one client.

    Attributes:
        meter: measures.
        refused: why the last report was not taken; empty when it was.
    """

    meter: DeviceMeter
    refused: str = ""

    @contextmanager
    def task(self, place: object, download_seconds: float) -> Iterator[None]:
        """Measure the training inside; the first time also the learner's speed."""
        place = getattr(place, "inner", place)  # one that keeps a log has the real one inside
        program, data = getattr(place, "program", None), getattr(place, "data", None)
        train = getattr(data, "train", None)
        if isinstance(program, ClientProgram) and isinstance(train, Examples):
            self.meter.measure_speed(program, train)
        with self.meter.task(download_seconds):
            yield

    def tell(self, line: Line, offer: TaskOffer) -> None:
        """Send the report of the last task, if there is one; a refusal is only noted."""
        try:
            report = self.meter.taken(line.name)
            if report is None:
                return
            content = TaskMessage.of_task(report).model_dump_json().encode()
            line.send("POST", f"/tasks/{offer.task}/report", content=content)
            self.refused = ""
        except AnabranchError as error:
            if error.code not in _NO_HARM:
                raise
            self.refused = str(error)
