"""Does the time of the noise sampler tell what it drew? Welch's t test on small and large draws.

    python -m benchmarks.sampler_timing [--batches 4000]

Every timing draws with a fresh key; afterwards the timings are dealt into two classes, by whether
the noise that came out was small or large. A sampler whose time grows with what it draws betrays
the noise, and with it the sum (Jin, McMurtry, Rubinstein and Ohrimenko 2022, "Are We There Yet?
Timing and Floating-Point Attacks on Differential Privacy Systems"); one that counts coin flips is
the control. The slowest tenth, which the machine's other work decides, is left out, and |t| above
4.5 says that the classes differ (Reparaz, Balasch and Verbauwhede 2017).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.noise import DiscreteGaussian, SecretStream

_COUNT = 512


def table(stream: SecretStream) -> NDArray[np.int64]:
    """The sampler that runs use."""
    return DiscreteGaussian(900.0).sample(stream, _COUNT)


def counting(stream: SecretStream) -> NDArray[np.int64]:
    """Geometric noise by flipping coins until one falls on its side."""
    out = []
    for _ in range(8):
        flips = 0
        while int(stream.words(1)[0]) % 8:
            flips += 1
        out.append(flips)
    return np.array(out)


def welch(sampler: Callable[[SecretStream], NDArray[np.int64]], batches: int) -> float:
    """The t statistic between small and large draws."""
    keys = [os.urandom(32) for _ in range(batches)]
    times, sizes = np.empty(batches), np.empty(batches)
    for number, key in enumerate(keys):
        stream = SecretStream.keyed(key, "timing")
        started = time.perf_counter_ns()
        drawn = sampler(stream)
        times[number] = time.perf_counter_ns() - started
        sizes[number] = np.abs(drawn).mean()
    kept, large = times < np.quantile(times, 0.9), sizes > np.median(sizes)
    one, two = times[kept & ~large], times[kept & large]
    spread = np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two))
    return float((one.mean() - two.mean()) / spread)


def main() -> None:
    """Print both statistics."""
    parser = argparse.ArgumentParser(description="time of the sampler against what it drew")
    parser.add_argument("--batches", type=int, default=4000, help="timings a sampler")
    batches = parser.parse_args().batches
    for name, sampler in (("table sampler", table), ("counting sampler (control)", counting)):
        t = welch(sampler, batches)
        print(f"{name:28s} t = {t:8.2f}  {'differs' if abs(t) > 4.5 else 'no difference seen'}")


if __name__ == "__main__":
    main()
