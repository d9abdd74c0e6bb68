"""From measurements to the figures in `results/` and the table on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks import models
from benchmarks.harness import Measurement
from benchmarks.items import Item, load_work

__all__ = ["Figures", "figures", "gigaflop", "table", "write"]

Figures: TypeAlias = dict[str, object]


def gigaflop(item: Item) -> float:
    """Arithmetic of the median timed round, in units of 10^9 operations."""
    examples = load_work(item).examples_a_round()[item.warm_up : item.rounds]
    return float(np.median(examples)) * item.flops / 1e9


def figures(
    item: Item, found: Mapping[str, Measurement], peaks: Mapping[str, float]
) -> dict[str, Figures]:
    """All figures of one item by label; ratios are to the plain script and the tuned loop."""
    work = load_work(item)
    plain, tuned = found.get("plain"), found.get("tuned")
    answer = {}
    for label, measurement in found.items():
        if measurement.ms is None or measurement.final is None:
            answer[label] = Figures(error=measurement.error)
            continue
        entry = Figures(
            ms=round(measurement.ms, 3),
            ms_turns=[round(ms, 3) for ms in measurement.runs],
            **(
                {"mean_ms_later": round(float(np.median(measurement.later)), 3)}
                if measurement.later
                else {}
            ),
            cores=measurement.cores,
            start_up_s=round(float(np.median(measurement.start_up)), 2),
            accuracy=models.accuracy(item.model, measurement.final, work.test_x, work.test_y),
            versions=measurement.versions,
        )
        entry |= _ratio("plain", plain, measurement) | _ratio("tuned", tuned, measurement)
        entry |= _fraction(item, label, measurement, peaks)
        answer[label] = entry | _difference(item, label, plain, measurement)
    return answer


def _ratio(name: str, other: Measurement | None, mine: Measurement) -> Figures:
    """How many times faster than ``other``, per machine and per core."""
    if other is None or other is mine or other.ms is None or mine.ms is None:
        return {}
    ratio = other.ms / mine.ms
    return {
        f"ratio_to_{name}": round(ratio, 2),
        f"ratio_to_{name}_per_core": round(ratio * other.cores / mine.cores, 2),
    }


def _fraction(
    item: Item, label: str, measurement: Measurement, peaks: Mapping[str, float]
) -> Figures:
    """GFLOP/s reached, and its share of the peak of the cores and the number type used."""
    if measurement.ms is None:
        return {}
    rate = gigaflop(item) / measurement.ms * 1e3
    peak = peaks.get(f"{'bf16' if label.startswith('bf16') else 'f32'}_{measurement.cores}")
    share = Figures(fraction_of_peak=round(rate / peak, 4)) if peak else Figures()
    return Figures(gflops=round(rate, 2)) | share


def _difference(item: Item, label: str, plain: Measurement | None, mine: Measurement) -> Figures:
    """Largest differences of a parameter to the plain script's, and whether they are small.

    ``equal`` is judged after one step a client where a whole round is chaotic, and not for bf16.
    """
    if plain is None or plain.equal is None or mine.equal is None or mine is plain:
        return {}
    whole = float(np.abs(plain.equal - mine.equal).max())
    entry, judged = Figures(max_abs_difference=whole), whole
    if plain.step is not None and mine.step is not None:
        judged = float(np.abs(plain.step - mine.step).max())
        entry["max_abs_difference_one_step"] = judged
    if not label.startswith("bf16"):
        entry |= Figures(equal=judged <= item.tolerance, within_target=whole <= item.tolerance)
    return entry


def table(item: Item, entries: Mapping[str, Figures]) -> str:
    """The figures of one item as lines of text."""
    heading = (
        f"{item.name}: {item.model}, {item.clients} clients, {item.cohort} a round, "
        f"{gigaflop(item):.3g} GFLOP a round"
    )
    columns = (
        f"  {'':<20}{'ms':>9}{'cores':>7}{'x plain':>9}{'a core':>8}{'x tuned':>9}"
        f"{'a core':>8}{'of peak':>9}{'difference':>12}"
    )
    return "\n".join([heading, columns, *(_row(name, e) for name, e in entries.items())])


def _row(label: str, entry: Figures) -> str:
    if "error" in entry:
        return f"  {label:<20} {entry['error']}"
    return (
        f"  {label:<20}{_text(entry, 'ms', '.1f', 9)}{_text(entry, 'cores', 'd', 7)}"
        f"{_text(entry, 'ratio_to_plain', '.2f', 9)}"
        f"{_text(entry, 'ratio_to_plain_per_core', '.2f', 8)}"
        f"{_text(entry, 'ratio_to_tuned', '.2f', 9)}"
        f"{_text(entry, 'ratio_to_tuned_per_core', '.2f', 8)}"
        f"{_text(entry, 'fraction_of_peak', '.1%', 9)}"
        f"{_text(entry, 'max_abs_difference', '.1e', 12)}"
        f"{_verdict(entry)}"
    )


def _verdict(entry: Figures) -> str:
    if entry.get("equal") is False:
        return "  NOT EQUAL"
    step = entry.get("max_abs_difference_one_step")
    return f"  (one step: {step:.1e})" if isinstance(step, float) else ""


def _text(entry: Figures, key: str, form: str, width: int) -> str:
    value = entry.get(key)
    return f"{format(value, form) if value is not None else '-':>{width}}"


def write(path: Path, content: Figures) -> None:
    """Store ``content`` as JSON, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)
