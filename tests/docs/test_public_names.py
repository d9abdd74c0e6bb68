"""``__all__`` is the contract: it exists, names what is there, and what it names is explained."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil

import pytest

import anabranch

FLOWER = importlib.util.find_spec("flwr") is not None
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(anabranch.__path__, "anabranch.")
    if not info.name.endswith("__main__")
    # Flower has an environment of its own (make test-flower).
    and (FLOWER or not (".flower." in info.name or info.name.endswith("flower_app")))
)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_the_contract(name: str) -> None:
    module = importlib.import_module(name)
    assert inspect.getdoc(module), f"{name} has no docstring"
    names = module.__all__
    assert len(set(names)) == len(names)
    assert not [public for public in names if not hasattr(module, public)]


@pytest.mark.parametrize("name", MODULES)
def test_public_classes_and_functions_are_explained(name: str) -> None:
    module = importlib.import_module(name)
    silent = []
    for public in module.__all__:
        value = getattr(module, public)
        own = inspect.isclass(value) or inspect.isfunction(value)
        if own and value.__module__ == name and not value.__doc__:
            silent.append(public)
    assert not silent
