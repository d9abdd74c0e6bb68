"""Does the time of the noise sampler tell what it drew? Welch's t test on two classes of keys.

    python -m benchmarks.sampler_timing [--batches 4000]

One class draws with one key again and again, so that it draws the same numbers; the other with
fresh keys. The classes alternate at random. After Reparaz, Balasch and Verbauwhede 2017, "Dude, is
my code constant time?": the slowest tenth, which the machine's other work decides, is left out, and
|t| above 4.5 would say that the classes differ. A rejecting sampler is the control. Timings say
something of this machine only.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from anabranch.privacy.noise import DiscreteGaussian, SecretStream

_COUNT = 4096
_FIXED = bytes(range(32))


def table(stream: SecretStream) -> None:
    """The sampler that runs use."""
    DiscreteGaussian(900.0).sample(stream, _COUNT)


def rejecting(stream: SecretStream) -> None:
    """Uniform proposals, drawn again until one is accepted: time depends on what comes out."""
    left = 64
    while left:
        words = stream.words(2)
        value = float(int(words[0]) % 6001 - 3000)
        left -= int(words[1]) / 2**64 < np.exp(-value * value / (2 * 900.0**2))


def welch(sampler: Callable[[SecretStream], None], batches: int) -> float:
    """The t statistic between keys that repeat and keys that do not."""
    order = np.random.default_rng(0).integers(0, 2, batches)
    times = np.empty(batches)
    for number, fresh in enumerate(order):
        stream = SecretStream.keyed(os.urandom(32) if fresh else _FIXED, "timing")
        started = time.perf_counter_ns()
        sampler(stream)
        times[number] = time.perf_counter_ns() - started
    kept = times < np.quantile(times, 0.9)
    one, two = times[kept & (order == 0)], times[kept & (order == 1)]
    spread = np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two))
    return float((one.mean() - two.mean()) / spread)


def main() -> None:
    """Print both statistics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=4000, help="timings a sampler")
    batches = parser.parse_args().batches
    for name, sampler in (("table sampler", table), ("rejecting sampler (control)", rejecting)):
        t = welch(sampler, batches)
        print(f"{name:28s} t = {t:8.2f}  {'differs' if abs(t) > 4.5 else 'no difference seen'}")


if __name__ == "__main__":
    main()
