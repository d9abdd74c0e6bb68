"""Matplotlib figures as inline SVG that follows the page: its colours, its font, no outside links.

Figures are drawn in marker colours, which become CSS variables of the page, so that one drawing
serves light and dark. Text stays text; identifiers get a prefix, so that several drawings may share
a page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

__all__ = ["BARS_UP_TO", "INK", "MUTED", "RULE", "SERIES", "Picture", "drawing", "round_axis"]

INK, MUTED, RULE = "#010101", "#020202", "#030303"
"""Marker colours: text, secondary text, grid lines."""

SERIES = tuple(f"#0401{number:02x}" for number in range(1, 7))
"""Marker colours of the data series."""

BARS_UP_TO = 80
"""Rounds that are drawn as bars; more become a filled line."""

_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)
}

_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "lines.linewidth": 2.0,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing with its words.

    Attributes:
        name: identifier on the page.
        title: heading.
        svg: the drawing, inline.
        caption: what is drawn and how it was measured.
    """

    name: str
    title: str
    svg: str
    caption: str


def drawing(
    name: str,
    alternative: str,
    draw: Callable[[Axes], None],
    *,
    width: float = 9.0,
    height: float = 3.2,
) -> str:
    """Draw on fresh axes and return an ``<svg role="img">`` element.

    Args:
        name: prefix of the identifiers; unique on the page.
        alternative: what the picture says, for people who do not see it.
        draw: draws on the axes it is given.
        width: inches at 72 points.
        height: inches at 72 points.

    Raises:
        AnabranchError: AB-807 matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AnabranchError(
            "AB-807",
            "the report needs matplotlib, which is not installed.",
            fix='pip install "anabranch[report]".',
        ) from error
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, alternative)


def _inline(text: str, name: str, alternative: str) -> str:
    body = text[text.index("<svg") :]
    head, _, body = body.partition(">")
    box = re.search(r'viewBox="([^"]+)"', head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?px)[^;\"]*", r"font-size: \1", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    opening = f'<svg role="img" aria-labelledby="{name}-alt" viewBox="{box[1] if box else ""}">'
    return f'{opening}<title id="{name}-alt">{escape(alternative)}</title>{body.strip()}'


def round_axis(axes: Axes, rounds: Sequence[int]) -> None:
    """Whole rounds from left to right, with half a round of room where there are few."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    margin = 0.5 if len(rounds) <= BARS_UP_TO else 0.0
    axes.set_xlim(rounds[0] - margin, rounds[-1] + max(margin, 0.01))
    axes.set_xlabel("round")
