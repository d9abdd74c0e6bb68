"""The report is one file that needs nothing else, and says everything in words too."""

from __future__ import annotations

import builtins
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from sample_runs import HOSPITALS, fleet_run, heart_run

from anabranch.errors import AnabranchError
from anabranch.observe.report import render_report
from anabranch.observe.view import RunView

OUTSIDE = ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "content")


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def tags(self) -> Counter[str]:
        return Counter(tag for tag, _ in self.elements)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def heart() -> tuple[str, Page]:
    text = render_report(heart_run())
    return text, Page(text)


@pytest.fixture(scope="module", params=["heart", "fleet", "unborn"])
def any_page(request: pytest.FixtureRequest) -> tuple[str, Page]:
    unborn = RunView("r-0", "run", "running", "nobody reads anything.", 5, 3, ())
    view = {"heart": heart_run(), "fleet": fleet_run(), "unborn": unborn}[request.param]
    text = render_report(view)
    return text, Page(text)


def test_nothing_is_loaded_from_anywhere(any_page: tuple[str, Page]) -> None:
    text, page = any_page
    for tag, attributes in page.elements:
        for name in OUTSIDE:
            value = attributes.get(name, "")
            assert not re.match(r"\s*(https?:)?//", value), (tag, name, value)
            if name in ("src", "href", "xlink:href") and value:
                assert value.startswith("#"), (tag, name, value)
        assert not re.search(r"url\((?!#)", attributes.get("style", "")), attributes
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style.replace("url(#", "")
    assert not page.tags["script"] + page.tags["link"] + page.tags["img"] + page.tags["iframe"]
    assert "xmlns" not in text
    policy = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_accessible(any_page: tuple[str, Page]) -> None:
    _, page = any_page
    assert page.all("html") == [{"lang": "en"}]
    assert page.tags["main"] == page.tags["h1"] == page.tags["header"] == page.tags["footer"] == 1
    assert page.tags["title"] >= 1
    identifiers = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert [name for name, count in identifiers.items() if count > 1] == []
    for _, attributes in page.elements:
        for name in ("aria-labelledby",):
            if name in attributes:
                assert attributes[name] in identifiers
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in identifiers
    for used in re.findall(r"url\(#([^)]+)\)", any_page[0]):
        assert used in identifiers
    assert page.tags["figure"] == page.tags["figcaption"] == page.tags["svg"]
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert page.tags["caption"] == page.tags["table"] == page.tags["thead"]
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    assert all("tabindex" in pre for pre in page.all("pre"))


def test_light_and_dark_share_the_drawings(heart: tuple[str, Page]) -> None:
    text, _ = heart
    assert "prefers-color-scheme: dark" in text
    body = text[text.index("<main") :]
    assert not re.search(r"#0[0-9]0[0-9]0[0-9a-f]\b", body), "a marker colour was left"
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", text))
    defined = set(re.findall(r"(--[a-z0-9-]+):", text))
    assert used <= defined


def test_the_trust_line_comes_first(heart: tuple[str, Page]) -> None:
    text, page = heart
    assert page.text.index("The coordinator can read every update") < page.text.index("complete")
    assert text.index('class="trust"') < text.index("<h1")


def test_everything_is_said(heart: tuple[str, Page]) -> None:
    _, page = heart
    for words in (
        "20 of 20",
        "97.5 %",
        "22.4 kB",
        "400 ms",
        "Missed rounds_to_target: wanted <= 10 rounds, measured 14",
        "AUC goes from",
        "Over 20 rounds: 78 merged, 2 too late.",
        "no answer before the deadline",
        "unprotected",
        "mean and variance of 13 columns",
        'name = "fedavg"',
        "CC BY 4.0",
        "3.11.7",
        *HOSPITALS,
    ):
        assert words in page.text, words


def test_names_are_text_and_never_markup() -> None:
    view = heart_run(
        name="<script>alert(1)</script>",
        plan_text="note = '</code><img src=x onerror=y>'",
        reason="<b>bold</b>",
    )
    page = Page(render_report(view))
    assert not page.tags["script"] + page.tags["img"] + page.tags["b"]
    assert "<script>alert(1)</script>" in page.text


def test_a_client_name_with_dollars_and_angles_is_drawn_literally() -> None:
    first = heart_run().local_only
    assert first is not None
    odd = "a $x^2$ <b> & c"
    clients = {odd: {"auc": 0.7}, "other": {"auc": 0.6}}
    final = type(first)({"auc": 0.65}, clients)
    page = Page(render_report(heart_run(final=final, local_only=None, pooled=None)))
    assert page.text.count(odd) == 3  # in the drawing, its alternative and the table


def test_equal_runs_give_equal_files(heart: tuple[str, Page]) -> None:
    assert render_report(heart_run()) == heart[0]


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AnabranchError, match=r"AB-807.*matplotlib.*anabranch\[report\]"):
        render_report(heart_run())
