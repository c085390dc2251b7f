"""One self-contained HTML page: sortable tables, small drawn charts, provenance; it asks nothing of the network.

The page knows nothing of models or reports: it is given sections of plain text and numbers, and escapes all of them.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NamedTuple


@dataclass(frozen=True)
class Heading:
    """A column: its title, units (or nothing), what it means, and whether its cells are numbers."""

    title: str
    units: str = ""
    description: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """One figure or word.

    Attributes:
        text: what stands there.
        sort: what to sort it by; None goes last in either direction.
        spread: stands below, after ±.
        best: whether to stress it.
        hint: shown when pointed at.
        reason: why the text is what it is; shown when pointed at or focused, and leads to the row's provenance.
    """

    text: str
    sort: float | str | None
    spread: str = ""
    best: bool = False
    hint: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a row comes from: pairs of name and text, one group for each report."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """A line of a table: its cells (place first, name second) and where they come from."""

    cells: tuple[Cell, ...]
    provenance: tuple[Provenance, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """A line between two others that bound its band; ``mark`` is the short text (the rank) that ties it to its row."""

    mark: str
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines, drawn by `line_chart`."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True)
class Dot:
    """A point of a scatter.

    Attributes:
        mark: short text (the rank) that ties it to its row.
        label: stands beside it where there is room.
        x: position.
        y: position.
        hint: shown when pointed at or focused.
        comparable: whether its distance to the reference means anything; if not, it is drawn open.
    """

    mark: str
    label: str
    x: float
    y: float
    hint: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Setting:
    """A point of what dots are compared with; label and hint as those of a `Dot`."""

    label: str
    x: float
    y: float
    hint: str = ""


@dataclass(frozen=True)
class Front:
    """What the dots of a scatter are compared with.

    Attributes:
        label: of the line.
        settings: those that no other beats, joined by the line.
        others: drawn faintly.
        ringed: one of them all. The line to it is dashed: it is compared with itself.
        ringed_label: what is special about it.
    """

    label: str
    settings: tuple[Setting, ...]
    others: tuple[Setting, ...] = ()
    ringed: Setting | None = None
    ringed_label: str = ""


@dataclass(frozen=True)
class Scatter:
    """Dots on logarithmic axes, drawn by `scatter_chart`."""

    title: str
    x_label: str
    y_label: str
    dots: tuple[Dot, ...]
    note: str = ""
    front: Front | None = None


@dataclass(frozen=True)
class Section:
    """One table with what belongs to it."""

    title: str
    facts: tuple[tuple[str, str], ...]
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    lines: Chart | None = None
    scatter: Scatter | None = None
    excluded: tuple[tuple[str, str], ...] = ()


def render_page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The whole document; the same input gives the same bytes.

    Raises:
        ValueError: if a row has not as many cells as there are headings.

    Example:
        >>> table = Section("waves", (), (Heading("rank"), Heading("model", numeric=False)), ())
        >>> page = render_page("Leaderboard", "Made from <reports>.", [table])
        >>> "Made from &lt;reports&gt;." in page, "https://" in page
        (True, False)
    """
    body = "\n".join(_section(section, number) for number, section in enumerate(sections, start=1))
    contents = ""
    if len(sections) > 1:
        links = "".join(f'<li><a href="#t{n}">{escape(s.title)}</a></li>' for n, s in enumerate(sections, start=1))
        contents = f'<nav aria-label="tables"><ul>{links}</ul></nav>'
    # Only the style and the script below may run, and nothing may be fetched, whatever a report's texts hold.
    policy = f"default-src 'none'; style-src '{_digest(_STYLE)}'; script-src '{_digest(_SCRIPT)}'; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(introduction)}</p>
{contents}
</header>
<main>
{body}
</main>
<div id="tip" role="tooltip" hidden></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _section(section: Section, number: int) -> str:
    parts = [
        f'<section id="t{number}" aria-labelledby="h{number}">',
        f'<h2 id="h{number}">{escape(section.title)}</h2>',
    ]
    parts.append(_facts(section.facts))
    if section.rows:
        parts.append(_table(section, number))
    lines, scatter = section.lines, section.scatter
    figures = []
    if lines is not None and lines.series:
        figures.append(_figure(lines.title, line_chart(lines), lines.note))
    if scatter is not None and scatter.dots:
        figures.append(_figure(scatter.title, scatter_chart(scatter) + _key(scatter), scatter.note))
    if figures:
        parts.append('<div class="charts">' + "\n".join(figures) + "</div>")
        named = lines.series if lines is not None and lines.series else scatter.dots if scatter is not None else ()
        parts.append(_legend([(each.mark, each.label) for each in named]))
    if any(row.provenance for row in section.rows):
        parts.append("<h3>Provenance</h3>")
        parts += [_provenance(row, f"p{number}-{place}") for place, row in enumerate(section.rows, start=1)]
    if section.excluded:
        items = "".join(f"<li><b>{escape(name)}</b> {escape(reason)}</li>" for name, reason in section.excluded)
        parts.append(f'<h3>Not ranked</h3><ul class="excluded">{items}</ul>')
    return "\n".join([*parts, "</section>"])


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    return f'<dl class="facts">{items}</dl>'


def _table(section: Section, number: int) -> str:
    heads = []
    for place, heading in enumerate(section.headings):
        kind = "number" if heading.numeric else "text"
        sorted_by = ' aria-sort="ascending"' if place == 0 else ""
        units = f"<small>{escape(heading.units)}</small>" if heading.units else ""
        hint = _tip(heading.description)
        heads.append(
            f'<th scope="col" class="{kind}"{sorted_by}>'
            f'<button type="button"{hint}><span>{escape(heading.title)}</span>{units}</button></th>'
        )
    rows = [_row(row, section.headings, f"p{number}-{place}") for place, row in enumerate(section.rows, start=1)]
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="h{number}"><table>'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _row(row: Row, headings: Sequence[Heading], anchor: str) -> str:
    if len(row.cells) != len(headings):
        raise ValueError(f"Expected {len(headings)} cells, one for each heading, but got {len(row.cells)}.")
    cells = []
    for place, (cell, heading) in enumerate(zip(row.cells, headings, strict=True)):
        text = escape(cell.text)
        hint = _tip("\n".join(filter(None, (cell.reason, cell.hint))))
        if place == 1 and row.provenance:
            text = f'<a href="#{anchor}">{text}</a>'
        elif cell.reason:
            target = f'href="#{anchor}"' if row.provenance else 'tabindex="0"'
            text, hint = f'<a class="why" {target}{hint}>{text}</a>', ""
        if cell.best:
            text = f"<strong>{text}</strong>"
        if cell.spread:
            text += f'<span class="spread">± {escape(cell.spread)}</span>'
        sort = "" if cell.sort is None else f' data-sort="{escape(_sortable(cell.sort))}"'
        kind = "number" if heading.numeric else "text"
        opening, closing = ('th scope="row"', "th") if place == 1 else ("td", "td")
        cells.append(f'<{opening} class="{kind}"{sort}{hint}>{text}</{closing}>')
    return f"<tr>{''.join(cells)}</tr>"


def _tip(text: str) -> str:
    """The attribute whose text the script shows when the element is pointed at or focused."""
    return f' data-tip="{escape(text)}"' if text else ""


def _sortable(value: float | str) -> str:
    """As JavaScript reads it."""
    return "Infinity" if value == math.inf else str(value)


def _provenance(row: Row, anchor: str) -> str:
    place, name = row.cells[0].text, row.cells[1].text
    parts = [f'<details id="{anchor}"><summary><span class="place">{escape(place)}</span> {escape(name)}</summary>']
    parts += [f'<p class="note">{escape(note)}</p>' for note in row.notes]
    for group in row.provenance:
        parts.append(f"<h4>{escape(group.title)}</h4>")
        items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in group.facts)
        parts.append(f'<dl class="provenance">{items}</dl>')
    return "".join([*parts, "</details>"])


def _figure(title: str, drawing: str, note: str) -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}{below}</figure>"


def _legend(named: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 34 18" width="34" height="18" aria-hidden="true" class="{_series_class(place)}">'
        f'<line x1="1" y1="9" x2="33" y2="9" class="line"/><circle cx="17" cy="9" r="8" class="dot"/>'
        f'<text x="17" y="12.6" class="mark">{escape(mark)}</text></svg>{escape(label)}</li>'
        for place, (mark, label) in enumerate(named)
    )
    return f'<ul class="legend" aria-label="legend">{items}</ul>'


def _key(chart: Scatter) -> str:
    """What is drawn beside the dots, in words."""
    front = chart.front
    if front is None:
        return ""
    setting = '<circle cx="17" cy="9" r="3.2" class="setting"/>'
    entries = [(front.label, f'<line x1="1" y1="9" x2="33" y2="9" class="front"/>{setting}')]
    if front.others:
        entries.append(("other settings", f'<g class="faint">{setting}</g>'))
    if front.ringed is not None:
        entries.append((front.ringed_label, f'{setting}<circle cx="17" cy="9" r="7" class="ring"/>'))
    if not all(dot.comparable for dot in chart.dots):
        entries.append(("timed apart from it", '<circle cx="17" cy="9" r="7" class="dot open"/>'))
    items = "".join(
        f'<li><svg viewBox="0 0 34 18" width="34" height="18" aria-hidden="true">{drawing}</svg>{escape(text)}</li>'
        for text, drawing in entries
    )
    return f'<ul class="legend key" aria-label="key">{items}</ul>'


_COLORS = 8
_WIDTH, _HEIGHT = 440.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 12.0, 44.0
# Radii.
_MARK, _RING, _SETTING = 8.0, 7.0, 3.2


def _series_class(place: int) -> str:
    """Colour by place; the dashes change when the colours start again."""
    return f"s{place % _COLORS} d{place // _COLORS % 3}"


@dataclass(frozen=True)
class _Axis:
    """Maps values to pixels between ``start`` and ``end``, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return _linear_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5)):
            marks = [step * 10.0**decade for decade in decades for step in steps]
            marks = [mark for mark in marks if self.low <= mark <= self.high]
            if len(marks) >= 3:
                return marks[:: math.ceil(len(marks) / 7)]
        return _linear_ticks(self.low, self.high)


def _linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers, about five of them.

    Example:
        >>> _linear_ticks(0.0, 5.2)
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((1, 2, 2.5, 5, 10), key=lambda factor: abs(math.log(factor * power / raw))) * power
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(chart: Chart) -> str:
    """An inline SVG of lines with bands on linear axes from zero; a line ends where it is not finite."""
    points = [
        (x, y) for s in chart.series for x, y in zip(s.x, s.y, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]
    if not points:
        return _frame(chart, None, None, [])
    x_axis = _Axis(0.0, max(x for x, _ in points) or 1.0, _LEFT, _WIDTH - _RIGHT - 12)
    y_axis = _Axis(0.0, 1.06 * max(y for _, y in points) or 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    # Last in the table first, so that the best lie on top.
    for place, series in reversed(list(enumerate(chart.series))):
        finite = [math.isfinite(y) for y in series.y]
        length = finite.index(False) if False in finite else len(finite)
        if length == 0:
            continue
        run = list(zip(series.x, series.y, strict=True))[:length]
        band = ""
        if series.low and series.high:
            ends = [
                (x_axis(x), y_axis(max(low, 0.0)), y_axis(min(high, y_axis.high)))
                for (x, _), low, high in zip(run, series.low[:length], series.high[:length], strict=True)
                if math.isfinite(low) and math.isfinite(high)
            ]
            outline = [*((x, high) for x, _, high in ends), *((x, low) for x, low, _ in reversed(ends))]
            band = f'<polygon class="band" points="{_points(outline)}"/>' if ends else ""
        line = f'<polyline class="line" points="{_points([(x_axis(x), y_axis(y)) for x, y in run])}"/>'
        end_x, end_y = x_axis(run[-1][0]), y_axis(run[-1][1])
        parts.append(
            f'<g class="{_series_class(place)}"><title>{escape(series.mark)} {escape(series.label)}</title>{band}{line}'
            f"{_mark(end_x, end_y, series.mark)}</g>"
        )
    return _frame(chart, x_axis, y_axis, parts)


def scatter_chart(chart: Scatter) -> str:
    """An inline SVG of numbered dots and what they are compared with, on logarithmic axes.

    Points that are not positive and finite are left out. A dotted line leads from a dot to the front at its own height,
    where the front is solid and the dot comparable. Arrow keys move between the points.
    """
    dots = [(place, dot) for place, dot in enumerate(chart.dots) if _positive(dot)]
    front = chart.front or Front("", ())
    settings, others = (list(filter(_positive, found)) for found in (front.settings, front.others))
    points: list[Dot | Setting] = [*(dot for _, dot in dots), *settings, *others]
    if not points:
        return _frame(chart, None, None, [])
    x_axis = _log_axis([point.x for point in points], _LEFT + 12, _WIDTH - _RIGHT - 12)
    y_axis = _log_axis([point.y for point in points], _HEIGHT - _BOTTOM - 12, _TOP + 12)

    def pixel(point: Dot | Setting) -> _Pixel:
        return _Pixel(x_axis(point.x), y_axis(point.y))

    parts = [_setting(setting, pixel(setting), front.ringed, "point faint") for setting in others]
    solid: list[tuple[_Pixel, _Pixel]] = []
    for first, second in pairwise(settings):
        ends = pixel(first), pixel(second)
        dashed = second == front.ringed
        parts.append(f'<polyline class="{"front bound" if dashed else "front"}" points="{_points(ends)}"/>')
        if not dashed:
            solid.append(ends)
    parts += [_setting(setting, pixel(setting), front.ringed, "point") for setting in settings]
    # Last in the table first, so that the best lie on top.
    for place, dot in reversed(dots):
        at = pixel(dot)
        reach = _reach(at, solid) if dot.comparable else ""
        kind = "dot" if dot.comparable else "dot open"
        drawn = reach + _mark(at.x, at.y, dot.mark, kind)
        parts.append(_point(f"point {_series_class(place)}", dot.hint or f"{dot.mark} {dot.label}", drawn))
    radii = [_RING + 1 if setting == front.ringed else _SETTING for setting in settings]
    boxes = [_Box.around(pixel(dot), _MARK + 1) for _, dot in dots]
    boxes += [_Box.around(pixel(setting), radius) for setting, radius in zip(settings, radii, strict=True)]
    for place, dot in dots:
        parts.append(_label(dot.label, pixel(dot), _MARK + 3, f"name {_series_class(place)}", boxes))
    for setting, radius in zip(settings, radii, strict=True):
        parts.append(_label(setting.label, pixel(setting), radius + 2, "tick", boxes))
    return _frame(chart, x_axis, y_axis, parts, interactive=True)


def _positive(point: Dot | Setting) -> bool:
    return all(math.isfinite(value) and value > 0 for value in (point.x, point.y))


class _Pixel(NamedTuple):
    x: float
    y: float


def _point(kind: str, hint: str, drawn: str) -> str:
    """A group that can be focused; the script keeps one of a chart within reach of the tabulator."""
    return f'<g class="{kind}" tabindex="-1" role="img" aria-label="{escape(hint)}"{_tip(hint)}>{drawn}</g>'


def _setting(setting: Setting, at: _Pixel, ringed: Setting | None, kind: str) -> str:
    place = f'cx="{at.x:.1f}" cy="{at.y:.1f}"'
    drawn = f'<circle class="hit" {place} r="{_MARK:g}"/><circle class="setting" {place} r="{_SETTING:g}"/>'
    if setting == ringed:
        drawn += f'<circle class="ring" {place} r="{_RING:g}"/>'
    return _point(kind, setting.hint or setting.label, drawn)


def _reach(at: _Pixel, lines: Sequence[tuple[_Pixel, _Pixel]]) -> str:
    """A horizontal line to where one of these is as high; nothing if none is."""
    for first, second in lines:
        if first.y <= at.y <= second.y and first.y < second.y:
            end = first.x + (at.y - first.y) / (second.y - first.y) * (second.x - first.x)
            return f'<line class="reach" x1="{at.x:.1f}" y1="{at.y:.1f}" x2="{end:.1f}" y2="{at.y:.1f}"/>'
    return ""


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, at: _Pixel, radius: float) -> _Box:
        return cls(at.x - radius, at.y - radius, at.x + radius, at.y + radius)

    def meets(self, other: _Box) -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)

    def within(self, other: _Box) -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


# Of the sans-serif letters in a label, in pixels of the drawing; a little more than the average.
_LETTER_WIDTH, _LETTER_HEIGHT = 6.2, 12.0


def _label(text: str, at: _Pixel, distance: float, kind: str, taken: list[_Box]) -> str:
    """Text beside a point where it covers nothing that is in ``taken``, which it joins; nothing if there is no room."""
    width, half = _LETTER_WIDTH * len(text), _LETTER_HEIGHT / 2
    frame = _Box(_LEFT, _TOP, _WIDTH, _HEIGHT - _BOTTOM)
    above, below = at.y - distance - half, at.y + distance + half
    for anchor, x, middle in (
        ("start", at.x + distance, at.y),
        ("end", at.x - distance, at.y),
        ("middle", at.x, above),
        ("middle", at.x, below),
        ("end", at.x + distance, above),
        ("end", at.x + distance, below),
        ("start", at.x - distance, above),
        ("start", at.x - distance, below),
    ):
        left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        box = _Box(left, middle - half, left + width, middle + half)
        if text and box.within(frame) and not any(box.meets(other) for other in taken):
            taken.append(box)
            place = f'x="{x:.1f}" y="{middle + 3.8:.1f}" text-anchor="{anchor}"'
            return f'<text class="{kind} label" {place} aria-hidden="true">{escape(text)}</text>'
    return ""


def _log_axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.06, 1.25)
    return _Axis(low / margin, high * margin, start, end, log=True)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _mark(x: float, y: float, text: str, kind: str = "dot") -> str:
    return (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{_MARK:g}"/>'
        f'<text class="mark" x="{x:.1f}" y="{y + 3.6:.1f}">{escape(text)}</text>'
    )


def _frame(
    chart: Chart | Scatter,
    x_axis: _Axis | None,
    y_axis: _Axis | None,
    parts: Sequence[str],
    *,
    interactive: bool = False,
) -> str:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    drawn = []
    if x_axis is None or y_axis is None:
        drawn.append(
            f'<text class="tick" x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">no finite values</text>'
        )
    else:
        for tick, text in _ticks(y_axis):
            y = y_axis(tick)
            drawn.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            drawn.append(f'<text class="tick" x="{left - 7}" y="{y + 3.8:.1f}" text-anchor="end">{text}</text>')
        for tick, text in _ticks(x_axis):
            x = x_axis(tick)
            drawn.append(f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>')
            drawn.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    drawn.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    middle = (top + bottom) / 2
    label = escape(f"{chart.title}: {chart.y_label} against {chart.x_label}")
    role = "group" if interactive else "img"
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="{role}" aria-label="{label}">'
        + "".join([*drawn, *parts])
        + f'<text class="name" x="{(left + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(chart.x_label)}</text>"
        f'<text class="name" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        f"{escape(chart.y_label)}</text></svg>"
    )


def _ticks(axis: _Axis) -> list[tuple[float, str]]:
    """Marks and how they are written: all as powers of ten where one has to be."""
    marks = axis.ticks()
    plain = all(mark == 0 or 1e-3 <= abs(mark) < 1e4 for mark in marks)
    return [(mark, f"{mark:g}" if plain or mark == 0 else _power(mark)) for mark in marks]


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(_SUPERSCRIPTS)
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_STYLE = """
:root {
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1b1f24; --muted: #626a76; --rule: #dfe3e8; --link: #0b5cad;
  --s0: #0072b2; --s1: #d55e00; --s2: #00876a; --s3: #b8578f; --s4: #2f93c7; --s5: #b87d00;
  --s6: #7a5195; --s7: #6e6e6e; --mark: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --panel: #1c2026; --ink: #e7eaee; --muted: #9aa3af; --rule: #2e343c; --link: #7db8f0;
    --s0: #4aa8e0; --s1: #f08a4b; --s2: #35c79f; --s3: #e39cc4; --s4: #8fd0f5; --s5: #e9b44c; --s6: #b79ad0;
    --s7: #b0b0b0; --mark: #14171b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1560px; padding: 2.2rem clamp(1rem, 3vw, 2.5rem) 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.75rem; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 0 0 .5rem; }
h3 { font-size: .95rem; margin: 1.8rem 0 .5rem; }
h4 { font-size: .85rem; margin: .9rem 0 .3rem; color: var(--muted); font-weight: 600; overflow-wrap: anywhere; }
.lead { margin: 0; max-width: 72ch; color: var(--muted); }
nav ul { list-style: none; margin: 1rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin-top: 2.6rem; padding-top: 1.6rem; border-top: 1px solid var(--rule); }
.facts { display: flex; flex-wrap: wrap; gap: .2rem 1.8rem; margin: 0 0 1rem; font-size: .86rem; }
.facts div { display: flex; gap: .45rem; min-width: 0; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .86rem; }
th, td { padding: .5rem .42rem; white-space: nowrap; background: var(--paper); vertical-align: top; }
td, tbody th { border-top: 1px solid var(--rule); font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.text { text-align: left; }
tbody tr:hover > * { background: var(--panel); }
thead th { padding: 0; background: var(--panel); vertical-align: bottom; }
thead button {
  all: unset; box-sizing: border-box; display: block; width: 100%; min-width: 3.4rem; max-width: 6.2rem;
  margin-left: auto; padding: .5rem .42rem; cursor: pointer; font-weight: 600; font-size: .8rem; line-height: 1.25;
  white-space: normal;
}
thead .text button { margin-left: 0; max-width: none; }
thead small { display: block; color: var(--muted); font-weight: 400; }
thead button:hover { color: var(--link); }
thead button:focus-visible, .scroll:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid var(--link); outline-offset: -2px;
}
thead [aria-sort="ascending"] span::after { content: "\\a0\\2191"; color: var(--link); }
thead [aria-sort="descending"] span::after { content: "\\a0\\2193"; color: var(--link); }
tr > :nth-child(1), tr > :nth-child(2) { position: sticky; z-index: 1; }
tr > :nth-child(1) { left: 0; width: 3.9rem; min-width: 3.9rem; }
tr > :nth-child(2) { left: 3.9rem; border-right: 1px solid var(--rule); }
tbody th { font-weight: 600; }
.why { color: inherit; text-decoration: underline dotted var(--muted); text-underline-offset: 3px; }
.spread { display: block; color: var(--muted); font-size: .9em; }
strong { font-weight: 700; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 1.4rem;
  margin-top: 1.6rem;
}
figure { margin: 0; min-width: 0; max-width: 620px; }
figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .3rem; }
figure svg { display: block; width: 100%; height: auto; }
.note { color: var(--muted); font-size: .84rem; margin: .4rem 0 0; }
svg text { font-family: inherit; }
.tick { font-size: 11px; fill: var(--muted); }
.name { font-size: 11.5px; fill: var(--ink); }
.grid { stroke: var(--rule); }
.axis { stroke: var(--muted); }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.band { fill: currentColor; opacity: .16; }
.dot { fill: currentColor; stroke: var(--paper); stroke-width: 1.5; }
.open { fill: var(--paper); stroke: currentColor; }
.open + .mark { fill: currentColor; }
.front { fill: none; stroke: var(--ink); stroke-width: 1.6; }
.bound { stroke-dasharray: 4 4; }
.setting { fill: var(--ink); }
.faint .setting { opacity: .28; }
.ring { fill: none; stroke: var(--ink); stroke-width: 1.4; }
.hit { fill: transparent; }
.reach { stroke: currentColor; stroke-width: 1.6; stroke-dasharray: 1.5 3.5; stroke-linecap: round; }
.label { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; pointer-events: none; }
.name.label { fill: currentColor; font-weight: 600; }
.point { cursor: default; outline: none; }
.point:hover .dot, .point:hover .setting { stroke: var(--ink); stroke-width: 2; }
.point:focus .dot, .point:focus .setting { stroke: var(--link); stroke-width: 3; }
.point:hover .reach, .point:focus .reach { stroke-width: 2.6; }
.mark { font-size: 10px; font-weight: 700; fill: var(--mark); text-anchor: middle; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); } .s7 { color: var(--s7); }
.d1 .line { stroke-dasharray: 6 3; } .d2 .line { stroke-dasharray: 2 3; }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: .35rem 1.3rem; margin: .8rem 0 0; padding: 0;
  font-size: .88rem;
}
.key { margin-top: .2rem; color: var(--muted); font-size: .84rem; }
.legend svg { width: 34px; flex: none; }
.legend li { display: flex; align-items: center; gap: .45rem; }
details { border-bottom: 1px solid var(--rule); scroll-margin-top: 1rem; }
summary { cursor: pointer; padding: .5rem .2rem; font-weight: 600; font-size: .9rem; }
.place { display: inline-block; min-width: 1.4rem; color: var(--muted); font-weight: 400; }
details > :last-child { margin-bottom: 1rem; }
.provenance {
  display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: .15rem 1.2rem; margin: 0;
  font-size: .84rem;
}
.provenance dt { color: var(--muted); }
.provenance dd {
  margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; font-size: .95em;
  font-family: ui-monospace, "DejaVu Sans Mono", monospace;
}
#tip {
  position: fixed; z-index: 9; max-width: min(24rem, calc(100vw - 1rem)); padding: .45rem .65rem; border-radius: 6px;
  background: var(--ink); color: var(--paper); font-size: .82rem; line-height: 1.4; white-space: pre-line;
  overflow-wrap: anywhere;
}
#tip[hidden] { display: none; }
.excluded { margin: 0; padding-left: 1.1rem; font-size: .88rem; }
@media (max-width: 620px) {
  body { padding-top: 1.4rem; }
  h1 { font-size: 1.45rem; }
  .provenance { grid-template-columns: 1fr; }
  .provenance dd { margin-bottom: .4rem; }
  tr > :nth-child(1) { width: 2.9rem; min-width: 2.9rem; }
  tr > :nth-child(2) { left: 2.9rem; max-width: 8.5rem; white-space: normal; }
  tr > :nth-child(1) button { min-width: 0; padding: .5rem .35rem; }
}
@media print { .scroll { overflow: visible; } thead button { cursor: auto; } #tip { display: none; } }
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const numeric = head.classList.contains("number");
    const key = row => row.cells[column].dataset.sort;
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const first = key(a), second = key(b);
      if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
      const order = numeric ? Number(first) - Number(second) : first.localeCompare(second);
      return up ? order : -order;
    });
    body.append(...rows);
  }));
}
const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", open);
open();

const tip = document.getElementById("tip");
let owner = null;
const hide = () => {
  owner?.removeAttribute("aria-describedby");
  owner = null;
  tip.hidden = true;
};
const place = () => {
  const box = owner.getBoundingClientRect();
  const left = box.left + (box.width - tip.offsetWidth) / 2;
  const above = box.bottom + tip.offsetHeight > innerHeight && box.top > tip.offsetHeight;
  tip.style.left = Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (above ? box.top - tip.offsetHeight : box.bottom) + "px";
};
const show = target => {
  hide();
  owner = target;
  tip.textContent = target.dataset.tip;
  tip.style.left = "0";
  tip.hidden = false;
  // A point is named by the same text already.
  if (!target.matches(".point")) target.setAttribute("aria-describedby", "tip");
  place();
};
document.addEventListener("mouseover", event => {
  if (event.target.closest("#tip")) return;
  const focused = document.querySelector("[data-tip]:focus-visible");
  const target = event.target.closest("[data-tip]") ?? focused;
  if (!target) hide();
  else if (target !== owner) show(target);
});
document.addEventListener("focusin", event => event.target.matches("[data-tip]") && show(event.target));
document.addEventListener("focusout", hide);
document.addEventListener("keydown", event => event.key === "Escape" && hide());
document.addEventListener("scroll", () => owner && place(), true);

for (const chart of document.querySelectorAll("svg")) {
  const middle = point => { const box = point.getBoundingClientRect(); return box.left + box.width / 2; };
  const points = [...chart.querySelectorAll(".point")];
  // The last one drawn is the best model.
  points.at(-1)?.setAttribute("tabindex", "0");
  chart.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !points.includes(event.target)) return;
    event.preventDefault();
    const ordered = [...points].sort((a, b) => middle(a) - middle(b));
    const next = ordered.at((ordered.indexOf(event.target) + step) % ordered.length);
    event.target.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}
"""
