"""One contestant in a process of its own: `python -m benchmarks.contestant NAME ITEM ROUNDS OUT`.

The harness starts this module; nothing else runs in the process, so thread pools, allocator and
imports of one contestant cannot help or hurt another.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.items import ITEMS, Item, Work, load_work
from benchmarks.outcome import Outcome

__all__ = ["NAMES", "run"]

NAMES = {
    "plain": "benchmarks.plain",
    "tuned": "benchmarks.tuned",
    "float64": "benchmarks.tuned",
    "generic": "benchmarks.anabranch_items",
    "closed_form": "benchmarks.anabranch_items",
    "bf16": "benchmarks.anabranch_items",
    "flower": "benchmarks.peers.flower_items",
    "pfl": "benchmarks.peers.pfl_items",
    "fedjax": "benchmarks.peers.fedjax_items",
}
"""Module of each contestant; each has a function ``run(item, work, rounds[, engine])``."""


def run(name: str, item: Item, work: Work, rounds: int, engine_only: bool) -> Outcome:
    """Run contestant ``name``; ``engine_only`` leaves out the store (Anabranch alone)."""
    module = importlib.import_module(NAMES[name])
    if NAMES[name] == "benchmarks.anabranch_items":
        outcome = module.run(item, work, rounds, engine=name, engine_only=engine_only)
    else:
        outcome = (module.run_double if name == "float64" else module.run)(item, work, rounds)
    if not isinstance(outcome, Outcome):
        raise TypeError(f"{NAMES[name]}.run returned {type(outcome).__name__}")
    return outcome


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(NAMES))
    parser.add_argument("item", choices=sorted(ITEMS))
    parser.add_argument("rounds", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine-only", action="store_true")
    parser.add_argument("--first-batches", action="store_true", help="one step a client")
    options = parser.parse_args()
    item = ITEMS[options.item]
    work = load_work(item).first_batches() if options.first_batches else load_work(item)
    outcome = run(options.name, item, work, options.rounds, options.engine_only)
    outcome.write(options.out)


if __name__ == "__main__":
    main()
