from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.viz.page import (
    Cell,
    Chart,
    Heading,
    Provenance,
    Row,
    Section,
    Series,
    line_chart,
    render_page,
    scatter_chart,
)

VOID = {"meta", "link", "circle", "line", "polygon", "polyline"}


class _Checker(HTMLParser):
    """Collects text, tags and attributes, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parse(page: str) -> _Checker:
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def _section(text: str = "FNO") -> Section:
    series = (Series("1", text, (0.5, 1.0), (0.1, 0.2), (0.01, 0.02)),)
    return Section(
        title=text,
        facts=((text, text),),
        headings=(Heading("rank"), Heading(text, numeric=False), Heading("error", text, text)),
        rows=(
            Row(
                (Cell("1", 1), Cell(text, text), Cell("0.1", 0.1, "0.01", best=True)),
                (Provenance(text, ((text, text),)),),
                (text,),
            ),
            Row((Cell("–", None), Cell("B", "B"), Cell("–", None))),
        ),
        lines=Chart(text, text, text, series, text),
        scatter=Chart(text, text, text, (Series("1", text, (1.0,), (0.1,)),), text),
        excluded=((text, text),),
    )


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_no_text_becomes_markup(text: str) -> None:
    hostile = f"<script>alert(1)</script>\"'><b {text}&"
    plain, injected = _parse(render_page("T", "I", [_section("A")])), _parse(render_page("T", "I", [_section(hostile)]))
    assert [tag for tag, _ in plain.tags] == [tag for tag, _ in injected.tags]
    assert hostile in injected.text


def test_nothing_is_fetched_and_only_the_page_s_own_script_may_run() -> None:
    page = render_page("T", "I", [_section(), _section("B")])
    checker = _parse(page)
    assert not re.search(r"https?:|url\(|@import|\bsrc=", page)
    targets = [attributes["href"] for _, attributes in checker.tags if attributes.get("href")]
    assert all(target == "data:," or (target or "").startswith("#") for target in targets)
    policy = next(a["content"] for tag, a in checker.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not any(name.startswith("on") or name == "style" for _, attributes in checker.tags for name in attributes)


def test_links_lead_to_what_is_there() -> None:
    tags = _parse(render_page("T", "I", [_section(), _section("B")])).tags
    identifiers = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    links = {(attributes["href"] or "")[1:] for tag, attributes in tags if tag == "a"}
    assert links == {"t1", "t2", "p1-1", "p2-1"}
    assert links <= set(identifiers)


def test_headings_are_buttons_and_the_first_says_how_the_table_is_sorted() -> None:
    tags = _parse(render_page("T", "I", [_section()])).tags
    heads = [attributes for tag, attributes in tags if tag == "th" and attributes.get("scope") == "col"]
    assert [head.get("aria-sort") for head in heads] == ["ascending", None, None]
    assert sum(tag == "button" for tag, _ in tags) == 3
    keys = [attributes.get("data-sort") for tag, attributes in tags if tag == "td"]
    assert keys == ["1", "0.1", None, None]


def test_a_cell_too_few_is_an_error() -> None:
    section = Section("t", (), (Heading("rank"), Heading("model")), (Row((Cell("1", 1),)),))
    with pytest.raises(ValueError, match="2 cells"):
        render_page("T", "I", [section])


def test_points_lie_where_their_values_are() -> None:
    """Cost on a logarithmic axis: equal ratios are equal distances."""
    series = tuple(Series(str(i), "s", (10.0**i,), (10.0 ** (-2 * i),)) for i in range(3))
    drawing = scatter_chart(Chart("t", "x", "y", series))
    circles = {
        m[3]: (float(m[1]), float(m[2]))
        for m in re.finditer(r'cx="(.*?)" cy="(.*?)".*?class="mark".*?>(.*?)<', drawing)
    }
    (x0, y0), (x1, y1), (x2, y2) = (circles[str(i)] for i in range(3))
    assert x0 < x1 < x2
    assert y0 < y1 < y2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.11)


def test_a_line_ends_where_it_is_not_finite() -> None:
    series = (Series("1", "s", (1.0, 2.0, 3.0, 4.0), (0.1, 0.2, math.nan, 0.4)),)
    drawing = line_chart(Chart("t", "x", "y", series))
    line = re.search(r'<polyline class="line" points="(.*?)"', drawing)
    assert line is not None
    assert len(line[1].split()) == 2
    assert "nan" not in drawing


@pytest.mark.parametrize("draw", [line_chart, scatter_chart])
def test_a_chart_without_finite_values_says_so(draw: object) -> None:
    assert callable(draw)
    assert "no finite values" in draw(Chart("t", "x", "y", (Series("1", "s", (1.0,), (math.nan,)),)))


@given(
    values=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6),
    costs=st.lists(st.floats(1e-9, 1e9), min_size=6, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_all_marks_and_ticks_lie_inside_the_drawing(values: list[float], costs: list[float]) -> None:
    series = tuple(Series("1", "s", (x,), (y,)) for x, y in zip(costs, values, strict=False))
    for drawing in (line_chart(Chart("t", "x", "y", series)), scatter_chart(Chart("t", "x", "y", series))):
        horizontal = [float(v) for v in re.findall(r' (?:x|cx|x1|x2)="(.*?)"', drawing)]
        vertical = [float(v) for v in re.findall(r' (?:y|cy|y1|y2)="(.*?)"', drawing)]
        assert all(0 <= v <= 440 for v in horizontal)
        assert all(0 <= v <= 290 for v in vertical)
        assert 'class="tick"' in drawing
