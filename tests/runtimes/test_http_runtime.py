"""The HTTP runtime keeps the contract of every runtime, over real connections on loopback."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from http_fleets import Deployed

from anabranch.client.states import SlotFile
from anabranch.coordinator.runtime import Runtime
from anabranch.runtimes.http import ClientMemory
from anabranch.testing.runtime import RuntimeContract, SmallFleet
from anabranch.updates.sections import Vector


class TestHttp(RuntimeContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "clients"

    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        # Fates come with the next contact: a test that looks at memories asks often.
        return Deployed(fleet, self.directory, wait=5.0 if slots is None else 0.1)

    def memory(self, runtime: Runtime, slots: SlotFile, client: int) -> Vector | None:
        assert isinstance(runtime, Deployed)
        deadline = time.monotonic() + 10
        while runtime.http.unheard:
            assert time.monotonic() < deadline, "a client has not confirmed its fate"
            time.sleep(0.01)
        memory = ClientMemory(self.directory / f"client-{client}", slots.map.length)
        assert memory.pending() is None
        return memory.read()
