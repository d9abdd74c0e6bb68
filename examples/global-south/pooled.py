"""The targets, fixed before any federated run: 95 % of pooled training of the same network.

    python examples/global-south/pooled.py private whole

Pooled means that one machine holds all training pictures. It trains what the plan trains (the head
alone where the rest is frozen) by SGD with a cosine schedule, and is measured on the 10,000 test
pictures after the last epoch. ``pooled.json`` keeps accuracy and target; the plans carry the
target.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import anabranch as ab
from anabranch.data.sources.fashion import FashionMNIST
from anabranch.named import load_named
from anabranch.plan import Plan

__all__ = ["FOUND", "SHARE", "find_models"]

HERE = Path(__file__).parent
FOUND = HERE / "pooled.json"
SHARE = 0.95
EPOCHS, BATCH, RATE = 10, 32, 0.05
Pictures = tuple[Tensor, Tensor]


def find_models() -> None:
    """Let plans name what lies in this folder and in the repository."""
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def pictures(plan: Plan) -> tuple[Pictures, Pictures]:
    """All clients' pictures, and the test pictures; the network sees them as clients do."""
    pool = FashionMNIST.model_validate(dict(plan.data.options)).load(0)
    assert pool.holdout is not None

    def tensors(x: np.ndarray, y: np.ndarray) -> Pictures:
        scaled = np.asarray(x, np.float32) * np.float32(pool.scale)
        return torch.from_numpy(scaled), torch.from_numpy(np.asarray(y, np.int64))

    return tensors(pool.x, pool.y), tensors(pool.holdout.x, pool.holdout.y)


def _ahead(layers: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([layers(x[i : i + 500]) for i in range(0, len(x), 500)])


def accuracy(plan: Plan, seed: int) -> float:
    """Of pooled training, on the test pictures."""
    torch.manual_seed(seed)
    factory = load_named(plan.model.name)
    assert callable(factory)
    net = factory(**plan.model.parameters)
    (x, y), (x_test, y_test) = pictures(plan)
    trained: nn.Module = net
    if plan.model.freeze:  # the frozen layers need to look at each picture once only
        trained, net.head = net.head, nn.Identity()
        x, x_test = _ahead(net, x), _ahead(net, x_test)
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    optimizer = torch.optim.SGD(trained.parameters(), RATE / (10 if plan.model.freeze else 1))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x))
        for batch in (order[i : i + BATCH] for i in range(0, len(x), BATCH)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(trained(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch says no types here
            optimizer.step()
            schedule.step()
        print(f"{plan.name}, seed {seed}: epoch {epoch + 1} of {EPOCHS}", flush=True)
    right = _ahead(trained, x_test).argmax(1) == y_test
    return float(right.float().mean())


def main(names: list[str]) -> None:
    find_models()
    torch.set_num_threads(1)
    for name in names:
        plan = ab.load_plan(HERE / f"{name}.toml")
        reached = accuracy(plan, plan.seed)
        found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
        found[name] = {"pooled": round(reached, 4), "target": round(SHARE * reached, 4)}
        FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, found[name], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["private", "whole"])
