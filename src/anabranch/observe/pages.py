"""Self-contained HTML pages of sections: facts, tables, pictures. No script, no network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from anabranch.errors import AnabranchError
from anabranch.observe.svg import Picture

__all__ = ["Page", "PageSection", "PageTable", "render_page"]


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table with its caption; ``folded`` tables open on demand, ``words`` are flush left."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    words: bool = True


@dataclass(frozen=True, slots=True)
class PageSection:
    """A part of a page.

    Attributes:
        name: identifier on the page.
        title: heading.
        texts: paragraphs.
        facts: label and text.
        tables: below them.
        picture: below the tables.
    """

    name: str
    title: str
    texts: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[PageTable, ...] = ()
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page.

    Attributes:
        title: heading.
        trust_line: who can read what; the first thing on the page.
        lead: paragraphs below the heading.
        sections: in order.
        footer: where the numbers come from.
    """

    title: str
    trust_line: str
    lead: tuple[str, ...]
    sections: tuple[PageSection, ...]
    footer: str


def render_page(page: Page) -> str:
    """The page as HTML text.

    Raises:
        AnabranchError: AB-807 jinja2 is not installed (extra ``report``).
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise AnabranchError(
            "AB-807",
            "the page needs jinja2, which is not installed.",
            fix='pip install "anabranch[report]".',
        ) from error
    environment = Environment(
        loader=PackageLoader("anabranch.observe", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files("anabranch.observe") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template("privacy.html").render(page=page, style=Markup(style))
