from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import pytest
from fake_reports import SWEEP
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.evaluation.cost import Performance, speed_up
from pdesurrogate.viz.page import (
    Cell,
    Chart,
    Dot,
    Front,
    Heading,
    Provenance,
    Row,
    Scatter,
    Section,
    Series,
    Setting,
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
    series = (Series("1", text, (0.5, 1.0), (0.1, 0.2), (0.09, 0.18), (0.11, 0.22)),)
    setting = Setting(text, 2.0, 0.2, text)
    front = Front(text, (setting, Setting(text, 4.0, 0.05)), (Setting(text, 3.0, 0.3, text),), setting, text)
    return Section(
        title=text,
        facts=((text, text),),
        headings=(Heading("rank"), Heading(text, numeric=False), Heading("error", text, text)),
        rows=(
            Row(
                (Cell("1", 1), Cell(text, text), Cell("0.1", 0.1, "0.01", best=True, hint=text, reason=text)),
                (Provenance(text, ((text, text),)),),
                (text,),
            ),
            Row((Cell("–", None), Cell("B", "B"), Cell("–", None))),
        ),
        lines=Chart(text, text, text, series, text),
        scatter=Scatter(text, text, text, (Dot("1", text, 1.0, 0.1, text), Dot("–", "B", 1.0, math.nan)), text, front),
        excluded=((text, text),),
    )


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_no_text_becomes_markup(text: str) -> None:
    hostile = f"<script>alert(1)</script>\"'><b {text}&"
    plain, injected = _parse(render_page("T", "I", [_section("A")])), _parse(render_page("T", "I", [_section(hostile)]))
    assert [tag for tag, _ in plain.tags] == [tag for tag, _ in injected.tags]
    assert hostile in injected.text
    assert {a["data-tip"] for _, a in injected.tags if a.get("data-tip")} >= {hostile, f"{hostile}\n{hostile}"}


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


def _scatter(*dots: Dot, front: Front | None = None) -> str:
    return scatter_chart(Scatter("t", "x", "y", dots, "", front))


def test_points_lie_where_their_values_are() -> None:
    """Cost on a logarithmic axis: equal ratios are equal distances."""
    drawing = _scatter(*(Dot(str(i), "s", 10.0**i, 10.0 ** (-2 * i)) for i in range(3)))
    circles = {
        m[3]: (float(m[1]), float(m[2]))
        for m in re.finditer(r'cx="(.*?)" cy="(.*?)".*?class="mark".*?>(.*?)<', drawing)
    }
    (x0, y0), (x1, y1), (x2, y2) = (circles[str(i)] for i in range(3))
    assert x0 < x1 < x2
    assert y0 < y1 < y2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.11)


def _ends(drawing: str, kind: str) -> list[tuple[float, ...]]:
    found = re.findall(rf'<line class="{kind}" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)"', drawing)
    return [tuple(map(float, place)) for place in found]


@given(error=st.floats(0.2, 0.8), seconds=st.floats(1e-5, 1e-1))
@settings(max_examples=30, deadline=None)
def test_the_reach_of_a_dot_is_its_speed_up_at_equal_error(error: float, seconds: float) -> None:
    """The picture and `evaluation.cost` read the same solver off the same front."""
    found = speed_up(Performance((error,), seconds), SWEEP)
    assert found.solver_seconds_per_frame is not None
    line = [Setting("", point.performance.seconds_per_frame, point.performance.errors[0]) for point in SWEEP.front]
    # A second dot, too wrong to be compared, marks where the reach has to end.
    dots = Dot("1", "", seconds, error), Dot("2", "", found.solver_seconds_per_frame, 1.0)
    drawing = _scatter(*dots, front=Front("solver", tuple(line), ringed=line[-1]))
    ((_, y1, end, y2),) = _ends(drawing, "reach")
    circles = {mark: float(x) for x, mark in re.findall(r'class="dot" cx="(.*?)" .*?class="mark".*?>(.*?)<', drawing)}
    assert y1 == y2
    assert end == pytest.approx(circles["2"], abs=0.11)  # places are written to a tenth of a pixel


def test_nothing_is_read_off_a_bound_or_from_a_dot_that_was_timed_apart() -> None:
    line = (Setting("a", 0.01, 0.9), Setting("b", 0.1, 0.3), Setting("c", 1.0, 0.1))
    front = Front("solver", line, ringed=line[-1], ringed_label="made the data")
    worse, between, data, better = (Dot("1", "", 0.5, error) for error in (1.5, 0.5, 0.2, 0.05))
    apart = Dot("1", "", 0.5, 0.5, comparable=False)
    assert [len(_ends(_scatter(dot, front=front), "reach")) for dot in (worse, between, data, better, apart)] == [
        0, 1, 0, 0, 0,
    ]  # fmt: skip
    drawing = _scatter(apart, front=front)
    assert drawing.count('class="front"') == 1
    assert drawing.count('class="front bound"') == 1
    assert drawing.count('class="ring"') == 1
    assert drawing.count('class="dot open"') == 1


def test_every_point_can_be_focused_and_names_itself() -> None:
    page = _parse(render_page("T", "I", [_section()]))
    points = [a for tag, a in page.tags if tag == "g" and "point" in (a.get("class") or "").split()]
    assert len(points) == 4
    assert all(a["tabindex"] == "-1" and a["role"] == "img" and a["aria-label"] == a["data-tip"] for a in points)
    (tip,) = [a for _, a in page.tags if a.get("role") == "tooltip"]
    assert "hidden" in tip


def test_a_reason_leads_to_the_row_s_provenance_and_can_be_focused_without_one() -> None:
    headings = (Heading("rank"), Heading("model", numeric=False), Heading("speed-up"))
    cells = (Cell("1", 1), Cell("A", "A"), Cell("–", None, reason="why not"))
    rows = (Row(cells, (Provenance("p", (("a", "b"),)),)), Row(cells))
    links = [
        a
        for tag, a in _parse(render_page("T", "I", [Section("t", (), headings, rows)])).tags
        if a.get("class") == "why"
    ]
    assert [(a.get("href"), a.get("tabindex")) for a in links] == [("#p1-1", None), (None, "0")]
    assert {a["data-tip"] for a in links} == {"why not"}


def test_never_sorts_after_every_number() -> None:
    headings = (Heading("rank"), Heading("model", numeric=False))
    page = render_page("T", "I", [Section("t", (), headings, (Row((Cell("never", math.inf), Cell("A", "A"))),))])
    assert 'data-sort="Infinity"' in page


def test_labels_neither_overlap_nor_leave_the_drawing() -> None:
    names = ("FNO", "UNet of forty modes", "persistence", "solver 32 x 32", "SineNet", "SFNO")
    dots = [Dot(str(i), name, 1.0 + 0.02 * i, 0.1 * (1 + 0.3 * (i % 3))) for i, name in enumerate(names)]
    drawing = _scatter(*dots, Dot("8", "far", 9.0, 2.0))
    boxes = []
    for x, y, anchor, text in re.findall(
        r'class="name[^"]*label" x="(.*?)" y="(.*?)" text-anchor="(.*?)".*?>(.*?)<', drawing
    ):
        width = 6.2 * len(text)
        left = float(x) - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        boxes.append((left, float(y), left + width))
    assert len(boxes) >= 4
    assert all(left >= 0 and right <= 440 for left, _, right in boxes)
    for i, (left, y, right) in enumerate(boxes):
        assert all(right <= a or b <= left or abs(y - other) >= 11.9 for a, other, b in boxes[:i])


def test_a_band_lies_between_its_bounds() -> None:
    series = (Series("1", "s", (1.0, 2.0), (1.0, 1.0), (0.5, math.nan), (2.0, math.nan)),)
    drawing = line_chart(Chart("t", "x", "y", (*series, Series("2", "t", (1.0, 2.0), (2.0, 2.0)))))
    band = re.search(r'<polygon class="band" points="(.*?)"', drawing)
    assert band is not None
    high, low = (float(place.split(",")[1]) for place in band[1].split())
    lines = sorted(float(y) for y in re.findall(r'<polyline class="line" points="[\d.]+,([\d.]+) ', drawing))
    assert high == pytest.approx(lines[0], abs=0.11)  # the upper bound is where the second line runs
    assert low > lines[1]


def test_a_line_ends_where_it_is_not_finite() -> None:
    series = (Series("1", "s", (1.0, 2.0, 3.0, 4.0), (0.1, 0.2, math.nan, 0.4)),)
    drawing = line_chart(Chart("t", "x", "y", series))
    line = re.search(r'<polyline class="line" points="(.*?)"', drawing)
    assert line is not None
    assert len(line[1].split()) == 2
    assert "nan" not in drawing


def test_a_chart_without_finite_values_says_so() -> None:
    assert "no finite values" in line_chart(Chart("t", "x", "y", (Series("1", "s", (1.0,), (math.nan,)),)))
    assert "no finite values" in _scatter(Dot("1", "s", 1.0, math.nan), Dot("2", "t", 0.0, 1.0))


@given(
    values=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6),
    costs=st.lists(st.floats(1e-9, 1e9), min_size=6, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_all_marks_and_ticks_lie_inside_the_drawing(values: list[float], costs: list[float]) -> None:
    pairs = list(zip(costs, values, strict=False))
    series = tuple(Series("1", "s", (x,), (y,)) for x, y in pairs)
    front = Front("solver", (Setting("16", costs[-1], values[-1]),), (Setting("32", costs[0], values[-1]),))
    dots = (Dot("1", "a label", x, y) for x, y in pairs)
    for drawing in (line_chart(Chart("t", "x", "y", series)), _scatter(*dots, front=front)):
        horizontal = [float(v) for v in re.findall(r' (?:x|cx|x1|x2)="(.*?)"', drawing)]
        vertical = [float(v) for v in re.findall(r' (?:y|cy|y1|y2)="(.*?)"', drawing)]
        assert all(0 <= v <= 440 for v in horizontal)
        assert all(0 <= v <= 290 for v in vertical)
        assert 'class="tick"' in drawing
