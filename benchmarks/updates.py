"""Codecs for updates: size, error and speed of each on one core. ``make bench-updates``.

Two vectors are encoded: numbers with heavy tails (Student's t with 2.2 degrees of freedom), and the
update of one client of a small convolutional network, the size of that in the accuracy figures.
Speeds are megabytes of float32 for each second of processor time, the best of several turns.

Accuracy comes from whole runs, which take minutes each: ``python -m benchmarks.accuracy`` makes
them, and what it has made is merged in here (``--merge``: that alone). ``--short`` takes one turn
and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.privacy.secure_aggregation.packing import packed_bytes
from anabranch.privacy.secure_aggregation.section_codec import SectionCodec
from anabranch.randomness import generator
from anabranch.updates import (
    ECQ,
    EDEN,
    QSGD,
    STC,
    Codec,
    DeltaDownlink,
    EncodeContext,
    Half,
    Held,
    Lattice,
    LowRank,
    RandomMask,
    Section,
    Sections,
    SharedLowRank,
    Sign,
    Subsample,
    Ternary,
    TopK,
    Update,
    Vector,
    Zstd,
    compile_stages,
)
from benchmarks.accuracy import paired, read_cells

RESULT = Path(__file__).parent / "results" / "updates.json"
DIM = 1_217_738
"""Parameters of the convolutional network."""

SHAPES = ((16, 1, 5, 5), (16,), (32, 16, 3, 3), (32,), (768, 1568), (768,), (10, 768), (10,))
"""Of its parameters."""

CODECS: tuple[tuple[str, Codec], ...] = (
    ("ecq c=6 stochastic (default)", ECQ()),
    ("ecq c=12 stochastic", ECQ(coarseness=12)),
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
    ("topk 5 %", TopK(fraction=0.05)),
    ("topk 1 %", TopK()),
    ("stc 1 %", STC()),
    ("sign", Sign()),
    ("lowrank 8", LowRank(shapes=SHAPES)),
    ("mask 1/8", RandomMask()),
    ("lattice 1/8, 11 bit", Lattice()),
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
    context = EncodeContext("a", 1, generator(0, "encode"))
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


def fused(turns: int) -> dict[str, float]:
    """Gigabytes of float32 a second that the fold adds from whole numbers and a step, and from
    decoded vectors; the bits are the same."""
    delta = synthetic()
    sections = Sections((Section.vector("delta", len(delta)),))
    pipeline = compile_stages([ECQ()])
    context = EncodeContext("a", 1, generator(0, "encode"))
    sent, _ = pipeline.encode(Update({"delta": delta}, {}), {}, context)
    fold = Accumulator(FoldPlan(sections, capacity=10**6))
    levels, decoded = pipeline.decode_to_add(sent), pipeline.decode_one(sent)
    return {
        "from_levels_gb_s": round(
            _speed(lambda: fold.add(levels, "a"), delta.nbytes, turns) / 1e3, 2
        ),
        "from_vectors_gb_s": round(
            _speed(lambda: fold.add(decoded, "a"), delta.nbytes, turns) / 1e3, 2
        ),
    }


def downlink(turns: int, versions: int = 18) -> dict[str, float]:
    """Size and speed of differences over a made-up course of a model whose steps have heavy tails.

    Sizes by how many versions a client was away; the accuracy runs have those of real training.
    """
    way, rng = DeltaDownlink(), generator(0, "bench downlink")
    origin = {"model": (rng.normal(size=DIM) * 0.02).astype(np.float32)}
    vectors, state = origin, way.start(1)
    for version in range(1, versions + 1):
        before, state = state, way.step(vectors, origin, state, version).state
        moved = rng.standard_t(2.2, DIM) * 1e-3 / version**0.5
        vectors = {"model": (vectors["model"] + moved).astype(np.float32)}
    lengths, size = {"model": DIM}, 4 * DIM
    gaps = {gap: len(state.frames([versions - gap], lengths)[versions - gap]) for gap in (1, 4, 16)}
    held = Held()
    return {
        **{f"ratio_after_{gap}": round(size / sent, 2) for gap, sent in gaps.items()},
        "ratio_whole": round(size / len(state.whole), 2),
        "step_mb_s": _speed(lambda: way.step(vectors, origin, before, versions), size, turns),
        "receive_mb_s": _speed(lambda: way.receive(state.whole, held, origin), size, turns),
    }


def secure(clients: int = 10, bits: int = 12, bound: float = 0.1) -> dict[str, float]:
    """Bytes of a masked update with a shared part of the coordinates: exact, by the protocol's own
    packing; keys and shares of the round are a few kilobytes more."""
    stage = Subsample(fraction=0.1, length=DIM)
    sections = stage.encoded(Sections((Section.vector("delta", DIM), Section.count("examples"))))
    lanes = SectionCodec(sections, clients, bits, bound).length
    size = packed_bytes(lanes, bits)
    return {"bytes": float(size), "ratio": round(4 * DIM / size, 2), "bits": float(bits)}


def shared(turns: int, bits: int = 12) -> dict[str, dict[str, float]]:
    """Low rank on a shared basis beside a shared mask, both linear: size as float32 and behind
    masks, squared error of one update, and speed of projecting and of undoing the sum."""
    delta = trained()
    sections = Sections((Section.vector("delta", len(delta)), Section.count("examples")))
    found = {}
    for rank in (8, 32, 128):
        stage = SharedLowRank(rank=rank, feedback=False, shapes=SHAPES)
        sent = stage.projected(delta, 1).astype(np.float32)
        lifted = stage.lifted(sent.astype(np.float64), len(delta), 1)
        masked = SectionCodec(stage.encoded(sections), 10, bits, 0.1).length
        found[f"rank {rank}"] = {
            "ratio": round(len(delta) / len(sent), 2),
            "ratio_masked": round(4 * len(delta) / packed_bytes(masked, bits), 2),
            "nmse": _error(lifted, delta),
            "encode_mb_s": _speed(partial(stage.projected, delta, 1), delta.nbytes, turns),
            "decode_mb_s": _speed(
                partial(stage.lifted, sent.astype(np.float64), len(delta), 1), delta.nbytes, turns
            ),
        }
        mask = RandomMask(fraction=len(sent) / len(delta))
        kept = np.zeros_like(delta)
        places = mask.places(len(delta), 1)
        kept[places] = delta[places]
        found[f"mask of the size of rank {rank}"] = {
            "ratio": round(len(delta) / len(places), 2),
            "nmse": _error(kept, delta),
        }
    return found


def _error(decoded: NDArray[np.floating], delta: Vector) -> float:
    error = float(((decoded - delta) ** 2).sum(dtype=float) / (delta**2).sum(dtype=float))
    return float(f"{error:.4g}")


def _speed(work: Callable[[], object], size: int, turns: int) -> float:
    best = float("inf")
    for _ in range(turns):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return round(size / best / 1e6, 1)


Wanted = tuple[str, float, float | None]
"""What is wanted, the least value, and the value found (None: not measured)."""


def targets(results: dict[str, object]) -> list[dict[str, object]]:
    """What was to be reached, and whether it was."""
    tables = [_table(results, name) for name in ("synthetic", "trained")]
    runs = accuracy()
    slowest = {
        what: min(figures[what] for table in tables for figures in table.values())
        for what in ("encode", "decode")
    }
    wanted: list[Wanted] = [
        ("default uplink, times smaller", 64, _number(runs, "ecq-6", "ratio_up")),
        ("default uplink, points of accuracy", -0.5, _loss(runs, "ecq-6")),
        ("low-bandwidth uplink, times smaller", 100, _number(runs, "ecq-4-nearest", "ratio_up")),
        ("low-bandwidth uplink, points of accuracy", -1, _loss(runs, "ecq-4-nearest")),
        ("downlink, times smaller", 8, _number(runs, "downlink-delta", "ratio_down")),
        ("downlink, points of accuracy", -0.5, _loss(runs, "downlink-delta")),
        ("shared mask under secure aggregation, times smaller", 23, secure()["ratio"]),
        ("shared mask in integers, points of accuracy", -0.5, _loss(runs, "lattice-8-11bit")),
        ("top 5 % with feedback, points of accuracy", -0.5, _loss(runs, "topk-5-feedback")),
        ("slowest encoder, MB/s", 100, slowest["encode"]),
        ("slowest decoder, MB/s", 150, slowest["decode"]),
    ]
    return [
        {
            "what": what,
            "at_least": least,
            "found": found,
            "met": found is not None and found >= least,
        }
        for what, least, found in wanted
    ]


def accuracy() -> dict[str, dict[str, object]]:
    """From the runs that were made here, and for all others what the results said before."""
    before = json.loads(RESULT.read_text("utf-8")).get("accuracy", {}) if RESULT.exists() else {}
    return {**before, **paired(read_cells())}


def _table(results: dict[str, object], name: str) -> dict[str, dict[str, float]]:
    section = results[name]
    assert isinstance(section, dict)
    found: dict[str, dict[str, float]] = section["codecs"]
    return found


def _number(runs: dict[str, dict[str, object]], codec: str, key: str) -> float | None:
    value = runs.get(codec, {}).get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _loss(runs: dict[str, dict[str, object]], codec: str) -> float | None:
    """Mean difference to the dense runs of the same seeds, in points."""
    differences = runs.get(codec, {}).get("against_dense_last_5")
    if not isinstance(differences, list) or not differences:
        return None
    return round(sum(differences) / len(differences), 2)


def sizes_and_speeds(turns: int) -> dict[str, object]:
    """Every codec on both vectors, printed as it comes."""
    results: dict[str, object] = {}
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
    return results


def show(results: dict[str, object]) -> None:
    """The rest of the results, and what was met."""
    for name in ("fused", "downlink", "secure", "shared"):
        print(f"\n{name}: {json.dumps(results[name])}")
    print("\naccuracy after 100 rounds (mean of the last five), paired with the dense runs:")
    for codec, row in accuracy().items():
        print(
            f"{codec:22}{row['accuracy_last_5']:7.2f} %  {row['against_dense_last_5']}  "
            f"up {row['ratio_up']}x, down {row['ratio_down']}x"
        )
    print()
    for target in targets(results):
        word = "met" if target["met"] else "MISSED" if target["found"] is not None else "no figure"
        print(f"{target['what']:55} >= {target['at_least']:6}: {target['found']}  {word}")


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="encodings timed for each codec")
    parser.add_argument("--short", action="store_true", help="one turn, and nothing is written")
    parser.add_argument("--merge", action="store_true", help="only read the accuracy runs anew")
    asked = parser.parse_args()
    turns = 1 if asked.short else asked.turns
    stored: dict[str, object] = json.loads(RESULT.read_text("utf-8")) if asked.merge else {}
    results = stored or measured(turns)
    if "shared" not in results:  # written before it was measured
        results["shared"] = shared(turns)
    results["accuracy"] = accuracy()
    results["targets"] = targets(results)
    show(results)
    if not asked.short:
        RESULT.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
        print(f"\nwritten to {RESULT}")


def measured(turns: int) -> dict[str, object]:
    """Everything that is measured here, on this machine."""
    return {
        "parameters": DIM,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
        },
        "load_before": round(os.getloadavg()[0], 2),
        **sizes_and_speeds(turns),
        "fused": fused(turns),
        "downlink": downlink(turns),
        "secure": secure(),
        "shared": shared(turns),
    }


if __name__ == "__main__":
    main()
