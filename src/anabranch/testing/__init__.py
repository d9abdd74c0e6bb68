"""Contract suites for plug-ins: subclass one in a test module and say what is to be tested.

They need pytest and hypothesis (the extra ``dev``). A suite is a class of tests without the prefix
``Test``, so that only your subclasses are collected::

    from anabranch.testing import AlgorithmContract

    class TestMine(AlgorithmContract):
        def algorithm(self) -> Algorithm:
            return Mine()

Suites are imported when they are first asked for: processes that only inject faults need no pytest.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anabranch.testing.algorithm import AlgorithmContract
    from anabranch.testing.fold import FoldContract
    from anabranch.testing.learner import LearnerContract
    from anabranch.testing.mechanism import MechanismContract
    from anabranch.testing.selection import SelectorContract
    from anabranch.testing.stage import StageSuite
    from anabranch.testing.states import StatesContract
    from anabranch.testing.store import StoreContract

__all__ = [
    "AlgorithmContract",
    "FoldContract",
    "LearnerContract",
    "MechanismContract",
    "SelectorContract",
    "StageSuite",
    "StatesContract",
    "StoreContract",
]

_MODULES = {
    "AlgorithmContract": "anabranch.testing.algorithm",
    "FoldContract": "anabranch.testing.fold",
    "LearnerContract": "anabranch.testing.learner",
    "MechanismContract": "anabranch.testing.mechanism",
    "SelectorContract": "anabranch.testing.selection",
    "StageSuite": "anabranch.testing.stage",
    "StatesContract": "anabranch.testing.states",
    "StoreContract": "anabranch.testing.store",
}

if "pytest" in sys.modules:
    # Failed assertions in the suites show their values, as those in test modules do.
    sys.modules["pytest"].register_assert_rewrite(*_MODULES.values())


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
