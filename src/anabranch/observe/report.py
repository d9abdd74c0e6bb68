"""The report: one self-contained HTML file of a run, made from its view alone.

It opens with the trust line, needs no network and no script, follows light and dark, and says in
words and tables everything that its pictures show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path

from anabranch.errors import AnabranchError
from anabranch.observe.budgets import HEADER, budget_rows
from anabranch.observe.compare import are_repeats
from anabranch.observe.figures import pictures
from anabranch.observe.intervals import in_words
from anabranch.observe.measured import how_measured
from anabranch.observe.reading import RunSource, read_run
from anabranch.observe.tables import ClientRow, client_rows, mean_row
from anabranch.observe.view import ReleaseView, RoundView, RunView, overall
from anabranch.observe.words import (
    bytes_in_words,
    metric_in_words,
    metric_name,
    number_in_words,
    seconds_in_words,
    share_in_words,
    signed,
)

__all__ = ["render_report", "write_report"]

_MOST_REPEATS = 50
_MOST_ROWS = 500
_STATES = {"complete": "good", "failed": "bad"}


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure at the top: label, value with unit, and a note."""

    label: str
    value: str
    note: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption; ``folded`` tables open on demand, ``words`` are flush left."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    words: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table, and what to say when it is empty."""

    name: str
    title: str
    table: Table
    empty: str
    note: str = ""


def render_report(view: RunView, repeats: Sequence[RunView] = ()) -> str:
    """The report as HTML text.

    Args:
        view: the run.
        repeats: other runs of the same plan; clients then get intervals over all of them.

    Raises:
        AnabranchError: AB-807 jinja2 or matplotlib is not installed (extra ``report``).
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise AnabranchError(
            "AB-807",
            "the report needs jinja2, which is not installed.",
            fix='pip install "anabranch[report]".',
        ) from error
    environment = Environment(
        loader=PackageLoader("anabranch.observe", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number_in_words
    style = (files("anabranch.observe") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        run=view,
        style=Markup(style),
        tiles=_tiles(view, repeats),
        pictures=pictures(view, repeats),
        clients=_client_table(view, repeats),
        sections=_sections(view),
        how=how_measured,
    )


def write_report(store: RunSource, run_id: str, path: Path) -> Path:
    """Write the report of a stored run to ``path`` (folders are made) and return it.

    Complete runs of the same plan with other seeds in the same store become its repeats.

    Raises:
        AnabranchError: AB-608 no such run, AB-806 the file cannot be written, AB-807 the extra is
            not installed.
    """
    view = read_run(store, run_id)
    text = render_report(view, _repeats(store, view))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AnabranchError(
            "AB-806",
            f"{path} cannot be written: {error.strerror or error}.",
            fix="choose another place, or make room and give yourself the right to write there.",
            kept="The run is unchanged.",
        ) from error
    return path


def _repeats(store: RunSource, view: RunView) -> list[RunView]:
    """Other complete runs of the same plan, the latest ones, without their rounds' columns."""
    if view.status != "complete":
        return []
    others = (run for run in store.runs() if run.id != view.run_id and run.name == view.name)
    views = (read_run(store, run.id, clients=False) for run in others if run.status == "complete")
    return list(islice((other for other in views if are_repeats(view, other)), _MOST_REPEATS))


def _tiles(view: RunView, repeats: Sequence[RunView]) -> list[Tile]:
    done = view.rounds[-1].number if view.rounds else 0
    metric = view.shown_metric
    tiles = [
        Tile("State", view.status, state=_STATES.get(view.status, "")),
        Tile("Rounds", f"{done} of {view.rounds_planned}", f"{view.clients} clients"),
    ]
    if metric is not None:
        tiles.append(_metric_tile(view, repeats, metric))
    payload = view.bytes_up + view.bytes_down
    tiles += [
        Tile("Participation", share_in_words(view.participation), "of the clients asked"),
        Tile("Payload", bytes_in_words(payload), f"{bytes_in_words(view.bytes_up)} from clients"),
        Tile("Time", seconds_in_words(view.seconds), "wall time of all rounds"),
    ]
    if view.rounds and view.rounds[-1].virtual is not None:
        virtual = seconds_in_words(view.rounds[-1].virtual)
        tiles.append(Tile("Virtual time", virtual, "on the clock of the simulated devices"))
    return tiles


def _metric_tile(view: RunView, repeats: Sequence[RunView], metric: str) -> Tile:
    mean = mean_row([view, *repeats], metric)
    if mean is None:
        return Tile(
            metric_name(metric), metric_in_words(overall(view.result, metric)), "final model"
        )
    gain = f", {signed(mean.gain.mean)} over local" if mean.gain is not None else ""
    value = metric_in_words(mean.federated.mean)
    seeds = f" and {len(repeats) + 1} seeds" if repeats else ""
    return Tile(metric_name(metric), value, f"mean over clients{seeds}{gain}")


def _client_table(view: RunView, repeats: Sequence[RunView]) -> Table:
    metric = view.shown_metric or ""
    rows = client_rows([view, *repeats], metric) if metric else ()
    optional = {
        "local only": any(row.local_only for row in rows),
        "pooled": any(row.pooled for row in rows),
        "gain over local": any(row.gain for row in rows),
    }
    shown = tuple(name for name, wanted in optional.items() if wanted)
    header = ("client", "test examples", "federated", *shown)
    seeds = f", mean over {len(repeats) + 1} seeds with 95 % interval" if repeats else ""
    mean = mean_row([view, *repeats], metric) if rows else None
    every = rows if mean is None else (*rows, mean)
    cells = tuple(_client_cells(row, shown) for row in every[-_MOST_ROWS:])
    if len(every) > _MOST_ROWS:
        seeds += f"; {len(every) - _MOST_ROWS} more in `runs export --format clients`"
    return Table(f"{metric_name(metric)} by client{seeds}", header, cells, folded=len(rows) > 24)


def _client_cells(row: ClientRow, shown: Sequence[str]) -> tuple[str, ...]:
    cells = {
        "local only": in_words(row.local_only),
        "pooled": in_words(row.pooled),
        "gain over local": in_words(row.gain, sign="+"),
    }
    count = "–" if row.examples is None else str(row.examples)
    return (row.client, count, in_words(row.federated), *(cells[name] for name in shown))


def _sections(view: RunView) -> list[Section]:
    return [_rounds(view), *_budgets(view), _releases(view), _troubles(view), _versions(view)]


def _rounds(view: RunView) -> Section:
    metric = view.shown_metric
    header = ("round", "outcome", metric_name(metric or "metric"))
    rows = tuple(_round_cells(r, metric) for r in view.rounds)
    table = Table(
        "Every round in numbers",
        (*header, "merged", "asked", "from clients", "to clients", "time"),
        rows,
        folded=True,
    )
    return Section("rounds", "Rounds", table, "No round has been committed.")


def _budgets(view: RunView) -> list[Section]:
    """Sizes of updates by network, where the codec chooses how coarsely to encode."""
    rows = budget_rows(view)
    if not rows:
        return []
    table = Table("Encoded updates, by network and bytes allowed", HEADER, tuple(rows))
    what = "Coarseness is the step of the codec in root mean squares of the update."
    return [Section("budgets", "Sizes of updates", table, "Nothing was sent.", what)]


def _releases(view: RunView) -> Section:
    rows = [_release_cells(group) for group in _grouped(view.releases)]
    header = ("what", "rounds", "protection", "contributors", "sections")
    return Section(
        "releases",
        "What left the trust boundary",
        _words("Releases", header, rows),
        "Nothing was released.",
        "“unprotected” means that no mechanism bounds what a release tells about a person.",
    )


def _grouped(releases: Iterable[ReleaseView]) -> Iterator[list[ReleaseView]]:
    """Releases of the same kind together, in the order of their first round."""
    groups: dict[tuple[str, str, str], list[ReleaseView]] = {}
    for release in releases:
        key = (release.what, release.mechanism, release.detail)
        groups.setdefault(key, []).append(release)
    yield from groups.values()


def _release_cells(group: list[ReleaseView]) -> tuple[str, ...]:
    rounds = [release.round for release in group]
    counts = [release.contributors for release in group if release.contributors is not None]
    times = f" ({len(group)} times)" if len(group) > 1 else ""
    first = group[0]
    return (
        first.what,
        _span(rounds) + times,
        first.mechanism,
        _span(counts),
        first.detail or "–",
    )


def _span(numbers: list[int]) -> str:
    if not numbers:
        return "–"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _troubles(view: RunView) -> Section:
    rows = [(str(t.round), t.client, t.fate, t.reason) for t in view.troubles[:_MOST_ROWS]]
    left = len(view.troubles) - len(rows)
    more = f"{left} more are in `anabranch runs export --format events`." if left else ""
    header = ("round", "client", "fate", "reason")
    table = _words("Clients that did not contribute", header, rows)
    return Section("troubles", "Troubles", table, "Every client that was asked contributed.", more)


def _versions(view: RunView) -> Section:
    rows = sorted(view.versions.items())
    table = _words("Software that computed the run", ("name", "version"), rows)
    return Section("versions", "Versions", table, "Not recorded.")


def _words(caption: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(caption, header, tuple(rows), folded=len(rows) > 12, words=True)


def _round_cells(r: RoundView, metric: str | None) -> tuple[str, ...]:
    value = r.evaluation.metrics.get(metric) if r.evaluation and metric else None
    return (
        str(r.number),
        r.outcome,
        metric_in_words(value),
        str(r.contributors),
        str(r.cohort),
        bytes_in_words(r.bytes_up),
        bytes_in_words(r.bytes_down),
        seconds_in_words(r.seconds),
    )
