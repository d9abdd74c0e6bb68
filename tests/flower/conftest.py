"""One fleet for all tests that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flower_apps import NAMES
from flower_fleet import FlowerFleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowerFleet]:
    """A SuperLink and four SuperNodes, named as the clients of the heart data."""
    with FlowerFleet(tmp_path_factory.mktemp("flower"), NAMES) as started:
        yield started
