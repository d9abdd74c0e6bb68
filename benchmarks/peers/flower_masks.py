"""Flower's SecAgg+ functions on the work of ``benchmarks.secure_aggregation``; prints JSON.

Runs in Flower's environment. The functions are Flower's own: quantisation to 2^22, modulus 2^32, a
stream for the client and one for each of 20 neighbours, secrets split 11 of 20.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs

LENGTH, NEIGHBOURS, MODULUS = 1_200_000, 20, 1 << 32


def best(work: Callable[[], object], repeats: int = 3) -> dict[str, float]:
    """The shortest of several runs, in milliseconds of wall clock and of processor time."""
    taken = []
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - begun, time.process_time() - used))
    return {
        "wall_ms": round(1000 * min(wall for wall, _ in taken), 2),
        "processor_ms": round(1000 * min(used for _, used in taken), 2),
    }


def main() -> None:
    """Measure and print."""
    vector = [np.random.default_rng(0).uniform(-1, 1, LENGTH).astype(np.float32)]
    quantised = quantize(vector, 8.0, 1 << 22)
    mine = generate_key_pairs()[0]
    others = [generate_key_pairs()[1] for _ in range(NEIGHBOURS)]
    shapes = [(LENGTH,)]

    def mask() -> list[np.ndarray]:
        total = parameters_addition(quantised, pseudo_rand_gen(os.urandom(32), MODULUS, shapes))
        for other in others:
            shared = generate_shared_key(mine, other)
            total = parameters_addition(total, pseudo_rand_gen(shared, MODULUS, shapes))
        return parameters_mod(total, MODULUS)

    stream = best(
        lambda: parameters_addition(quantised, pseudo_rand_gen(os.urandom(32), MODULUS, shapes))
    )
    shares = create_shares(os.urandom(48), 11, 20)[:11]
    combine = best(lambda: combine_shares(shares))
    # 90 survivors' own streams and 10 x 18 with clients that are gone; 100 secrets.
    server = 270 * stream["wall_ms"] + 100 * combine["wall_ms"]
    print(
        json.dumps(
            {
                "version": metadata.version("flwr"),
                "mask_k20": best(mask),
                "stream": stream,
                "combine_11_of_20": combine,
                "server_100_k20_from_parts_ms": round(server),
                "upload_bytes": len(ndarray_to_bytes(mask()[0])),
            }
        )
    )


if __name__ == "__main__":
    main()
