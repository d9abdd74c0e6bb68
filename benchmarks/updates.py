"""Codecs for updates: size, error and speed of each on one core. ``make bench-updates``.

Two vectors are encoded: numbers with heavy tails (Student's t with 2.2 degrees of freedom), and the
update of one client of a small convolutional network, the size of that in the accuracy figures.
Speeds are megabytes of float32 for each second of processor time, the best of several turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anabranch.randomness import generator
from anabranch.updates import (
    ECQ,
    EDEN,
    QSGD,
    STC,
    Codec,
    EncodeContext,
    Half,
    RandomMask,
    Sign,
    Ternary,
    TopK,
    Update,
    Vector,
    Zstd,
)

RESULT = Path(__file__).parent / "results" / "updates.json"
DIM = 1_217_738
"""Parameters of the convolutional network."""

CODECS: tuple[tuple[str, Codec], ...] = (
    ("ecq c=6 stochastic (default)", ECQ()),
    ("ecq c=3 stochastic", ECQ(coarseness=3)),
    ("ecq c=4 nearest", ECQ(coarseness=4, rounding="nearest")),
    ("ecq c=2 nearest", ECQ(coarseness=2, rounding="nearest")),
    ("ecq c=1 nearest", ECQ(coarseness=1, rounding="nearest")),
    ("ternary", Ternary()),
    ("qsgd 4 bit", QSGD(bits=4)),
    ("qsgd 8 bit", QSGD(bits=8)),
    ("eden 1 bit", EDEN(bits=1)),
    ("eden 2 bit", EDEN(bits=2)),
    ("eden 4 bit", EDEN(bits=4)),
    ("topk 1 %", TopK()),
    ("stc 1 %", STC()),
    ("sign", Sign()),
    ("mask 1/8", RandomMask()),
    ("fp16", Half()),
    ("zstd", Zstd()),
)


@dataclass(frozen=True)
class Figures:
    """One codec on one vector.

    Attributes:
        ratio: bytes of float32 to bytes of the frame.
        bits: of the frame for each coordinate.
        nmse: squared error over squared norm, of a single update.
        encode, decode: megabytes of float32 a second on one core.
    """

    ratio: float
    bits: float
    nmse: float
    encode: float
    decode: float


def synthetic(count: int = DIM) -> Vector:
    """Heavy tails, as training leaves them."""
    return (generator(0, "bench updates").standard_t(2.2, count) * 1e-3).astype(np.float32)


def trained() -> Vector:
    """What one epoch of a client changes in a convolutional network.

    Pictures are random blobs of ten classes, 28 x 28: no download. Convolutions 5 x 5 to 16 and 3 x
    3 to 32 channels with stride 2, then 768 and 10 units; 600 pictures, batches of 32, SGD at 0.05.
    """
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = generator(0, "bench pictures")
    y = rng.integers(0, 10, 600)
    centres = rng.normal(size=(10, 7, 7))
    x = np.kron(centres[y], np.ones((4, 4))) + rng.normal(size=(600, 28, 28))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, 2, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 7 * 7, 768),
        torch.nn.ReLU(),
        torch.nn.Linear(768, 10),
    )
    pictures, labels = torch.from_numpy(x[:, None].astype(np.float32)), torch.from_numpy(y)
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    steps = torch.optim.SGD(model.parameters(), 0.05)
    for low in range(0, 600, 32):
        steps.zero_grad()
        batch = slice(low, low + 32)
        torch.nn.functional.cross_entropy(model(pictures[batch]), labels[batch]).backward()
        steps.step()
    end = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    return np.asarray((end - start).numpy(), np.float32)


def measure(codec: Codec, delta: Vector, turns: int) -> Figures:
    """Size, error and speed of one codec."""
    memory = {"rest": np.zeros_like(delta)} if codec.remembers else {}
    context = EncodeContext("a", 1, generator(0, "encode"), {})
    update = Update({"delta": delta}, {})
    # Without feedback: adding and keeping the rest would count decoding as encoding.
    plain = codec.replace(feedback=False) if codec.remembers else codec
    sent = plain.encode(update, memory, context)[0]
    decoded = plain.decode_one(sent).vectors["delta"]
    error = float(((decoded - delta) ** 2).sum(dtype=float) / (delta**2).sum(dtype=float))
    return Figures(
        ratio=round(delta.nbytes / sent.nbytes, 2),
        bits=round(8 * sent.nbytes / len(delta), 4),
        nmse=float(f"{error:.4g}"),
        encode=_speed(lambda: plain.encode(update, memory, context), delta.nbytes, turns),
        decode=_speed(lambda: plain.decode_one(sent), delta.nbytes, turns),
    )


def _speed(work: Callable[[], object], size: int, turns: int) -> float:
    best = float("inf")
    for _ in range(turns):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return round(size / best / 1e6, 1)


def main() -> None:
    """Measure, print a table for each vector, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="encodings timed for each codec")
    turns = parser.parse_args().turns
    results: dict[str, object] = {
        "parameters": DIM,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
        },
        "load_before": round(os.getloadavg()[0], 2),
    }
    for name, delta in (("synthetic", synthetic()), ("trained", trained())):
        kurtosis = float(np.mean((delta - delta.mean()) ** 4) / np.var(delta) ** 2 - 3)
        print(f"\n{name}: {len(delta)} coordinates, excess kurtosis {kurtosis:.0f}")
        print(f"{'codec':30}{'ratio':>8}{'bits':>8}{'NMSE':>10}{'enc MB/s':>10}{'dec MB/s':>10}")
        table = {}
        for label, codec in CODECS:
            figures = measure(codec, delta, turns)
            table[label] = asdict(figures)
            print(
                f"{label:30}{figures.ratio:8.1f}{figures.bits:8.3f}{figures.nmse:10.4f}"
                f"{figures.encode:10.0f}{figures.decode:10.0f}"
            )
        results[name] = {"kurtosis": round(kurtosis, 1), "codecs": table}
    RESULT.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(f"\nwritten to {RESULT}")


if __name__ == "__main__":
    main()
