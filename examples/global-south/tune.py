"""Choose settings of ``whole.toml`` on pictures that belong to no phone: writes ``tuning.json``.

    python examples/global-south/tune.py            # every setting that is not there yet
    python examples/global-south/tune.py --most 1

The phones' pictures are those of the plan; models are measured on the last 10,000 of the 40,000
public training pictures. The test pictures play no part, and the seed is not one that is run later.
A setting is scored by its mean accuracy in the last evaluations of 24 rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pooled import find_models

import anabranch as ab
from anabranch.coordinator.store import Store
from anabranch.plan import changed

HERE = Path(__file__).parent
TUNING = HERE / "tuning.json"
ROUNDS, SEED, LAST = 24, 100, 3


def fedavgm(rate: float) -> dict[str, object]:
    """Server momentum of 0.9."""
    return {"algorithm": {"name": "fedavgm", "server_learning_rate": rate, "beta": 0.9}}


def fedadam(rate: float) -> dict[str, object]:
    """Adaptive steps at the server."""
    return {"algorithm": {"name": "fedadam", "server_learning_rate": rate}}


TWENTY: dict[str, object] = {"rounds.cohort": 20}
SETTINGS: dict[str, dict[str, object]] = {
    "20 phones, momentum 0.1": {**TWENTY, **fedavgm(0.1)},
    "20 phones, FedAdam 0.003": {**TWENTY, **fedadam(0.003)},
    "20 phones": TWENTY,
    "20 phones, rate 0.1": {**TWENTY, "local.learning_rate": 0.1},
    "20 phones, rate 0.1, 4 epochs": {**TWENTY, "local.learning_rate": 0.1, "local.epochs": 4},
    "20 phones, rate 0.1, batches of 10": {
        **TWENTY,
        "local.learning_rate": 0.1,
        "local.batch_size": 10,
    },
    "as it was: 10 phones, rate 0.05, 2 epochs": {},
}


def score(changes: dict[str, object]) -> list[float]:
    """Accuracy in the evaluations of a short run."""
    plan = ab.load_plan(HERE / "whole.toml")
    own = {"data.options": {"public": 40_000, "holdout": "public"}, "limits": {}, "stop": {}}
    as_it_was = {"rounds.cohort": 10, "local.learning_rate": 0.05, "local.batch_size": 32}
    plain = {"algorithm": {"name": "fedavg"}, "rounds.count": ROUNDS, "seed": SEED}
    plan = changed(changed(plan, {**own, **as_it_was, **plain}), changes)
    with tempfile.TemporaryDirectory() as folder:
        run = ab.run_plan(plan, store=folder)
        with Store.open(folder) as opened:
            metrics = [stored.metrics for stored in opened.rounds(run.id) if stored.round]
    return [round(m["accuracy"], 4) for m in metrics if "accuracy" in m]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=len(SETTINGS), help="settings that are run")
    given = parser.parse_args()
    find_models()
    found = json.loads(TUNING.read_text(encoding="utf-8")) if TUNING.exists() else {}
    missing = [name for name in SETTINGS if name not in found]
    for name in missing[: given.most]:
        curve = score(SETTINGS[name])
        found[name] = {"score": round(sum(curve[-LAST:]) / LAST, 4), "curve": curve}
        TUNING.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, found[name], flush=True)
    return 1 if len(missing) > given.most else 0


if __name__ == "__main__":
    sys.exit(main())
