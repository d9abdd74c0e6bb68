"""Flower's steps of a private update, timed in Flower's own environment; prints JSON.

Run by `benchmarks.privacy` with the interpreter of ``.venvs/flower``; it imports nothing of ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.differential_privacy import add_gaussian_noise_inplace, clip_inputs_inplace

DIM, NEIGHBOURS = 1_200_000, 20


def best(work: Callable[[], object], repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return round(1000 * min(taken), 2)


def main() -> None:
    vector = [np.random.default_rng(0).normal(size=DIM).astype(np.float32)]
    figures = {
        "clip_ms": best(lambda: clip_inputs_inplace(vector, 1.0)),
        "float_noise_ms": best(lambda: add_gaussian_noise_inplace(vector, 0.1)),
        "quantize_ms": best(lambda: quantize(vector, 8.0, 1 << 22)),
        "masks_k20_ms": best(
            lambda: [
                pseudo_rand_gen(bytes([number] * 32), 1 << 32, [(DIM,)])
                for number in range(NEIGHBOURS + 1)
            ],
            1,
        ),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
