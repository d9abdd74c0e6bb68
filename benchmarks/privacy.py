"""What privacy costs a client and a coordinator: ``make bench-privacy``.

One core, 1.2 million parameters. Times are the best of several, in milliseconds of processor time,
which other programs on the machine disturb less than the clock; its load is printed with them.
Where Flower is installed (``.venvs/flower``, made by ``make bench-peers``) its functions for the
same steps are timed beside ours in its own environment. Results go to
``benchmarks/results/privacy.json``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.privacy.accounting import exact_epsilon
from anabranch.privacy.mechanisms import (
    CentralNoise,
    DistributedNoise,
    FixedClip,
    MatrixNoise,
    RoundNoise,
)
from anabranch.privacy.mechanisms.rotation import Rotation
from anabranch.privacy.mechanisms.rounding import conditionally_rounded
from anabranch.privacy.noise import DiscreteGaussian, SecretStream, Skellam
from anabranch.privacy.secure_aggregation.packing import pack
from anabranch.privacy.secure_aggregation.streams import add_streams, reduce_lanes
from anabranch.updates.sections import Sections

DIM, BITS, CLIENTS, Z = 1_200_000, 20, 100, 3.7307
NEIGHBOURS = 46
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "privacy.json"

Figures = dict[str, float]


def best(work: Callable[[], object], repeats: int = 15) -> float:
    """The shortest of several runs, in milliseconds of processor time."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return round(1000 * min(taken), 2)


def sampler() -> Figures:
    """Samples of discrete noise, by standard deviation in lattice steps."""
    stream = SecretStream.system()
    figures = {}
    for sigma in (5.0, 50.0, 1000.0, 17_000.0, 1e6):
        noise = DiscreteGaussian(sigma)
        figures[f"discrete_gaussian_{sigma:g}_ms"] = best(lambda n=noise: n.sample(stream, DIM))
    for sigma in (5.0, 1000.0, 17_000.0):
        skellam = Skellam(sigma)
        figures[f"skellam_{sigma:g}_ms"] = best(lambda n=skellam: n.sample(stream, DIM))
    return figures


def client() -> Figures:
    """The whole client half with noise from clients, step by step and together."""
    made = DistributedNoise(DIM, CLIENTS, CLIENTS, 90, 5, FixedClip(norm=1.0), Z, BITS)
    own = SecretStream.system()
    delta = (SecretStream.system().fractions(DIM) - np.float32(0.5)) * np.float32(0.01)
    rotation = Rotation(DIM, 0, 1)
    rotated = rotation.forward(delta)
    rotated /= np.float32(np.linalg.norm(rotated))
    seeds = [os.urandom(32) for _ in range(NEIGHBOURS + 1)]

    def whole() -> bytes:
        integers = made.integers(delta, 1.0, 1.0, 1, 0, own)
        lanes = integers.astype(np.uint32)
        reduce_lanes(lanes, BITS)
        add_streams(lanes, seeds[: NEIGHBOURS // 2], seeds[NEIGHBOURS // 2 :], BITS)
        return pack(lanes, BITS)

    return {
        "rotate_ms": best(lambda: rotation.forward(delta)),
        "round_ms": best(lambda: conditionally_rounded(rotated, made.scale, own)),
        "noise_ms": best(lambda: made.distribution.sample(own, DIM)),
        "whole_encoding_k46_ms": best(whole),
        "upload_bytes": float(len(whole())),
    }


def coordinator() -> Figures:
    """Adding noise to a sum: fresh, and correlated over the rounds."""
    clip = FixedClip(norm=1.0)
    return {
        "release_central_ms": release(CentralNoise(DIM, CLIENTS, clip)),
        "release_correlated_20_bands_ms": release(MatrixNoise(DIM, CLIENTS, clip, bands=20)),
    }


def release(mechanism: CentralNoise | MatrixNoise) -> float:
    """One release of a run in which the band is full."""
    fold = Accumulator(FoldPlan(Sections(mechanism.sections()), 1))
    zeros = np.zeros(DIM, np.float32)
    fold.add(mechanism.encode(zeros, 1.0, 1.0, 1, 0, SecretStream.system()), "client")
    total, keys = fold.total(), {number: os.urandom(32) for number in range(1, 31)}
    rounds = iter(keys)

    def next_release() -> object:
        number = next(rounds)
        known = {r: key for r, key in keys.items() if r <= number}
        return mechanism.release(total, RoundNoise(1.0, 1.0, number, known, 0))

    for _ in range(20):
        next_release()
    return best(next_release, 10)


def inflation() -> Figures:
    """What 20 bits cost in epsilon at 2 million coordinates, beside exact central noise."""
    made = DistributedNoise(2_000_000, CLIENTS, CLIENTS, CLIENTS, 0, FixedClip(norm=1.0), Z, BITS)
    added = math.sqrt(CLIENTS) * made.local_deviation / made.scale
    plain = exact_epsilon(Z, 1e-5)
    return {
        "epsilon_central": round(plain, 6),
        "epsilon_inflation_20_bits": round(plain / exact_epsilon(added, 1e-5) - 1, 7),
        "bias_in_delta_100_releases": 100 * 2e6 * CLIENTS * made.distribution.bias * (1 + math.e),
    }


def flower() -> Mapping[str, float]:
    """Flower's steps for the same vector, where it is installed."""
    python = ROOT / ".venvs" / "flower" / "bin" / "python"
    script = ROOT / "benchmarks" / "peers" / "flower_privacy.py"
    if not python.exists():
        return {}
    done = subprocess.run(
        [python, script], capture_output=True, text=True, check=False, timeout=600
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def main() -> None:
    """Measure, print, and write the file; parts of other measurements in it stay."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known["noise"] = {
        "load": round(os.getloadavg()[0], 2),
        "cores": 1,
        "sampler": sampler(),
        "client": client(),
        "coordinator": coordinator(),
        "accuracy": inflation(),
        "flower": flower(),
    }
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(known["noise"], indent=1))


if __name__ == "__main__":
    main()
