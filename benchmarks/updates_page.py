"""Write the figures of ``results/updates.json`` into the reference page on compression.

python -m benchmarks.updates_page
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from benchmarks.updates import RESULT

__all__ = ["figures", "written"]

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "compression.md"
START, END = "<!-- figures: written by benchmarks.updates_page -->\n", "<!-- end of figures -->\n"

Table: TypeAlias = Mapping[str, Mapping[str, float]]


def figures(results: Mapping[str, object]) -> str:
    """The tables as Markdown."""
    return "\n".join((*_codecs(results), "", *_accuracy(results), "", *_rest(results), ""))


def written(page: str, results: Mapping[str, object]) -> str:
    """The page with the figures between its two marks."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n" + figures(results) + "\n" + END + after


def _codecs(results: Mapping[str, object]) -> Iterator[str]:
    trained, synthetic = (_table(results, name) for name in ("trained", "synthetic"))
    yield (
        "| codec | bits a coordinate | smaller by (trained) | NMSE (trained) | smaller by "
        "(synthetic) | NMSE (synthetic) | encode / decode, MB/s of float32 |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, row in trained.items():
        other = synthetic[name]
        yield (
            f"| {name} | {row['bits']:.2f} | {row['ratio']:.1f} | {row['nmse']:.2g} | "
            f"{other['ratio']:.1f} | {other['nmse']:.2g} | "
            f"{row['encode']:.0f} / {row['decode']:.0f} |"
        )


def _accuracy(results: Mapping[str, object]) -> Iterator[str]:
    yield (
        "| runs of 100 rounds | seeds | smaller up | smaller down | accuracy, rounds 96–100 | "
        "against float32, each seed | the same, rounds 81–100 |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, row in _rows(results["accuracy"]).items():
        seeds, last, more = (
            _listed(row[key]) for key in ("seeds", "against_dense_last_5", "against_dense_last_20")
        )
        yield (
            f"| {name} | {', '.join(f'{seed:g}' for seed in seeds)} | {row['ratio_up']} | "
            f"{row['ratio_down']} | {row['accuracy_last_5']} % | {_signed(last)} | "
            f"{_signed(more)} |"
        )


def _rest(results: Mapping[str, object]) -> Iterator[str]:
    fused, down, secure = (_numbers(results[name]) for name in ("fused", "downlink", "secure"))
    yield (
        f"The fold adds {fused['from_levels_gb_s']} GB/s of float32 from whole numbers and a step, "
        f"{fused['from_vectors_gb_s']} GB/s from decoded vectors, to the same bits."
    )
    yield ""
    yield (
        f"The downlink on a made-up course with heavy-tailed steps: {down['ratio_after_1']}, "
        f"{down['ratio_after_4']} and {down['ratio_after_16']} times smaller than float32 for a "
        f"client that was away for 1, 4 and 16 rounds, {down['ratio_whole']} for the whole model; "
        f"{down['step_mb_s']:.0f} MB/s at the coordinator (two frames), "
        f"{down['receive_mb_s']:.0f} MB/s at a client."
    )
    yield ""
    yield (
        f"Under secure aggregation, a tenth of the coordinates in {secure['bits']:.0f} bits: "
        f"{secure['bytes']:,.0f} bytes, {secure['ratio']} times smaller."
    )

    yield ""
    yield from _shared(_rows(results["shared"]))


def _shared(rows: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    yield "Linear stages on the trained update: a shared basis beside a shared mask of its size."
    yield ""
    yield "| | smaller by | behind masks, 12 bits | NMSE |"
    yield "|---|---|---|---|"
    for name, row in rows.items():
        yield f"| {name} | {row['ratio']} | {row.get('ratio_masked', '')} | {row['nmse']} |"


def _table(results: Mapping[str, object], name: str) -> Table:
    section = results[name]
    assert isinstance(section, dict)
    table: Table = section["codecs"]
    return table


def _rows(value: object) -> Mapping[str, Mapping[str, object]]:
    assert isinstance(value, dict)
    return value


def _numbers(value: object) -> Mapping[str, float]:
    assert isinstance(value, dict)
    return value


def _listed(value: object) -> list[float]:
    assert isinstance(value, list)
    return value


def _signed(values: list[float]) -> str:
    return ", ".join(f"{value:+.2f}" for value in values)


def main() -> None:
    """Rewrite the page."""
    results = json.loads(RESULT.read_text("utf-8"))
    PAGE.write_text(written(PAGE.read_text("utf-8"), results), "utf-8")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
