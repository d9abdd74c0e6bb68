"""What the machine can do: GFLOP/s of a 1024^3 matrix product, float32 and bfloat16.

Printed as JSON by `python -m benchmarks.peak`; the harness runs it in a process of its own.
"""

from __future__ import annotations

import json
import os
import time

import torch

__all__ = ["gemm"]

SIZE = 1024
SECONDS = 0.8


def gemm(dtype: torch.dtype, threads: int) -> float:
    """Median GFLOP/s of ``SIZE``^3 products with ``threads`` threads, over about a second."""
    torch.set_num_threads(threads)
    left, right = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
    out = torch.empty(SIZE, SIZE, dtype=dtype)
    for _ in range(5):
        torch.mm(left, right, out=out)
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(seconds) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(time.perf_counter() - begin)
    return 2 * SIZE**3 / sorted(seconds)[len(seconds) // 2] / 1e9


def main() -> None:
    """Measure one thread and all cores."""
    cores = len(os.sched_getaffinity(0))
    peaks = {
        f"{name}_{threads}": round(gemm(dtype, threads), 1)
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16))
        for threads in sorted({1, cores})
    }
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
