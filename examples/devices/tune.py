"""Choose the settings of ``asynchrony.py`` on pictures and seeds that it does not use.

    python examples/devices/tune.py                    # both policies; writes tuning.json
    python examples/devices/tune.py fedbuff --most 4   # at most four settings that are not there

The last 10,000 training pictures belong to no client and are what models are measured on; the test
pictures play no part. Over-selection and FedBuff go through the same search, with 40 or 80 tasks
open at a time: one dimension after the other, each value with every seed, and the one that reaches
80 % soonest in virtual time (the mean over the seeds) is kept for the next dimension. The last one
of over-selection says which part of those asked is taken: before it three of four, as is customary.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asynchrony import one
from measure import mean

TUNING = Path(__file__).parent / "tuning.json"
SEEDS = (100, 101)
TARGET = 0.8
UPDATES = 2400
"""Updates that a run merges at most."""
HELD_OUT: dict[str, object] = {
    "data.options": {"public": 10_000, "holdout": "public"},
    "runtime.commit_seconds": 60,
}

Setting = dict[str, float | str]
SERVERS = ("1", "1.5", "2")
RATES = (0.05, 0.1)
OPEN = (40.0, 80.0)
DIMENSIONS: dict[str, dict[str, tuple[float | str, ...]]] = {
    "fedbuff": {
        "time": ("600", "300", "predicted"),
        "server": SERVERS,
        "buffer": (5.0, 10.0),
        "exponent": (0.0, 0.5),
        "rate": RATES,
        "open": OPEN,
    },
    "over-selection": {
        "server": SERVERS,
        "open": OPEN,
        "taken": (0.75, 0.5),
    },
}
FIRST: dict[str, Setting] = {
    "fedbuff": {
        "open": 40.0,
        "buffer": 10.0,
        "time": "600",
        "server": "1",
        "rate": 0.1,
        "exponent": 0.5,
    },
    "over-selection": {"open": 40.0, "taken": 0.75, "server": "1", "rate": 0.1},
}


def changes(policy: str, setting: Setting) -> dict[str, object]:
    """What a setting changes in ``asynchrony.toml``."""
    asked = int(setting["open"])
    wanted = round(asked * float(setting.get("taken", 0))) or int(setting["buffer"])
    found: dict[str, object] = {
        "rounds.count": UPDATES // wanted,
        "local.learning_rate": setting["rate"],
        **_server(str(setting["server"])),
    }
    if policy == "over-selection":
        return {**found, "rounds.cohort": wanted, "rounds.over_selection": asked / wanted}
    time = None if setting["time"] == "predicted" else float(setting["time"])
    return {
        **found,
        "rounds.deadline": time,
        "rounds.cohort": None,
        "rounds.asynchronous": {"buffer": wanted, "concurrency": asked, "max_staleness": 20},
        "rounds.staleness": {"kind": "polynomial", "exponent": setting["exponent"]},
    }


def _server(words: str) -> dict[str, object]:
    if words.startswith("momentum"):
        rate = float(words.removeprefix("momentum"))
        return {"algorithm": {"name": "fedavgm", "server_learning_rate": rate}}
    return {"algorithm": {"name": "fedavg", "server_learning_rate": float(words)}}


def seconds(policy: str, setting: Setting) -> list[float | None]:
    """Virtual seconds to the target with each seed; None where it is not reached."""
    found: list[float | None] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            wanted = {**changes(policy, setting), **HELD_OUT}
            run = one(wanted, seed, Path(folder), until=TARGET)
            time = run.reached(TARGET)
            found.append(None if math.isnan(time) else round(time, 1))
    return found


def _known() -> dict[str, dict[str, list[float | None]]]:
    return dict(json.loads(TUNING.read_text(encoding="utf-8"))) if TUNING.exists() else {}


def _key(setting: Setting) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(setting.items()))


@dataclass
class Search:
    """One policy's search; what is measured is kept in the file at once.

    Attributes:
        policy: whose settings.
        most: settings that may still be measured.
    """

    policy: str
    most: int

    def run(self) -> bool:
        """Whether it came to its end; prints what each dimension ended with."""
        best = FIRST[self.policy]
        for name, values in DIMENSIONS[self.policy].items():
            tried: list[Setting] = [{**best, name: value} for value in values]
            scores = []
            for setting in tried:
                times = self._times(setting)
                if times is None:
                    return False
                scores.append(mean([math.inf if t is None else t for t in times]))
            best = tried[int(np.argmin(scores))]
            print(f"{self.policy}, {name}: {_key(best)}, {min(scores):.0f} s", flush=True)
        return True

    def _times(self, setting: Setting) -> list[float | None] | None:
        known = _known().get(self.policy, {}).get(_key(setting))
        if known is not None or not self.most:
            return known
        self.most -= 1
        times = seconds(self.policy, setting)
        found = _known()
        found.setdefault(self.policy, {})[_key(setting)] = times
        TUNING.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(self.policy, _key(setting), times, flush=True)
        return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="*", choices=[[], *DIMENSIONS])
    parser.add_argument("--most", type=int, default=1000, help="settings that are measured")
    given = parser.parse_args()
    through = [Search(policy, given.most).run() for policy in given.policies or DIMENSIONS]
    return 0 if all(through) else 1


if __name__ == "__main__":
    sys.exit(main())
