"""The coordinator: the round loop, what a runtime is, stop rules, limits and the store.

Start at `loop.Coordinator.round`: it is one round from the cohort to the commit.
"""

from anabranch.coordinator.events import Event, Listener
from anabranch.coordinator.loop import Coordinator, Ending
from anabranch.coordinator.runtime import Fate, Outcome, Partial, Payload, Runtime, Work
from anabranch.coordinator.state import RunState

__all__ = [
    "Coordinator",
    "Ending",
    "Event",
    "Fate",
    "Listener",
    "Outcome",
    "Partial",
    "Payload",
    "RunState",
    "Runtime",
    "Work",
]
