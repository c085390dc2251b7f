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


@dataclass(frozen=True)
class Heading:
    """A column: its title, units (or nothing), what it means, and whether its cells are numbers."""

    title: str
    units: str = ""
    description: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """Text, what to sort it by (None goes last in either direction), a spread beside it, whether to stress it."""

    text: str
    sort: float | str | None
    spread: str = ""
    best: bool = False


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
    """A line or point of a chart; ``mark`` is the short text (the rank) that ties it to its row."""

    mark: str
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines (several points a series) or a scatter (one point a series), drawn by `line_chart` or `scatter_chart`."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One table with what belongs to it."""

    title: str
    facts: tuple[tuple[str, str], ...]
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    lines: Chart | None = None
    scatter: Chart | None = None
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
    charts = [
        _figure(chart, draw(chart))
        for chart, draw in ((section.lines, line_chart), (section.scatter, scatter_chart))
        if chart is not None and chart.series
    ]
    if charts:
        parts.append('<div class="charts">' + "\n".join(charts) + "</div>")
        shown = section.lines or section.scatter
        assert shown is not None
        parts.append(_legend(shown))
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
        hint = f' title="{escape(heading.description)}"' if heading.description else ""
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
        if place == 1 and row.provenance:
            text = f'<a href="#{anchor}">{text}</a>'
        if cell.best:
            text = f"<strong>{text}</strong>"
        if cell.spread:
            text += f'<span class="spread">± {escape(cell.spread)}</span>'
        sort = "" if cell.sort is None else f' data-sort="{escape(str(cell.sort))}"'
        kind = "number" if heading.numeric else "text"
        opening, closing = ('th scope="row"', "th") if place == 1 else ("td", "td")
        cells.append(f'<{opening} class="{kind}"{sort}>{text}</{closing}>')
    return f"<tr>{''.join(cells)}</tr>"


def _provenance(row: Row, anchor: str) -> str:
    place, name = row.cells[0].text, row.cells[1].text
    parts = [f'<details id="{anchor}"><summary><span class="place">{escape(place)}</span> {escape(name)}</summary>']
    parts += [f'<p class="note">{escape(note)}</p>' for note in row.notes]
    for group in row.provenance:
        parts.append(f"<h4>{escape(group.title)}</h4>")
        items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in group.facts)
        parts.append(f'<dl class="provenance">{items}</dl>')
    return "".join([*parts, "</details>"])


def _figure(chart: Chart, drawing: str) -> str:
    note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{drawing}{note}</figure>"


def _legend(chart: Chart) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 34 18" width="34" height="18" aria-hidden="true" class="{_series_class(place)}">'
        f'<line x1="1" y1="9" x2="33" y2="9" class="line"/><circle cx="17" cy="9" r="8" class="dot"/>'
        f'<text x="17" y="12.6" class="mark">{escape(series.mark)}</text></svg>{escape(series.label)}</li>'
        for place, series in enumerate(chart.series)
    )
    return f'<ul class="legend" aria-label="legend">{items}</ul>'


_COLORS = 8
_WIDTH, _HEIGHT = 440.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 12.0, 44.0


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
        run = []
        for index, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            if not math.isfinite(y):
                break
            spread = series.spread[index] if series.spread else 0.0
            run.append((x, y, spread if math.isfinite(spread) else 0.0))
        if not run:
            continue
        band = ""
        if any(spread > 0 for _, _, spread in run):
            upper = [(x_axis(x), y_axis(min(y + spread, y_axis.high))) for x, y, spread in run]
            lower = [(x_axis(x), y_axis(max(y - spread, 0.0))) for x, y, spread in reversed(run)]
            band = f'<polygon class="band" points="{_points([*upper, *lower])}"/>'
        line = f'<polyline class="line" points="{_points([(x_axis(x), y_axis(y)) for x, y, _ in run])}"/>'
        end_x, end_y = x_axis(run[-1][0]), y_axis(run[-1][1])
        parts.append(
            f'<g class="{_series_class(place)}"><title>{escape(series.mark)} {escape(series.label)}</title>{band}{line}'
            f"{_mark(end_x, end_y, series.mark)}</g>"
        )
    return _frame(chart, x_axis, y_axis, parts)


def scatter_chart(chart: Chart) -> str:
    """An inline SVG of numbered points on logarithmic axes; points that are not positive and finite are left out."""
    found = [
        (place, series, series.x[0], series.y[0])
        for place, series in enumerate(chart.series)
        if all(math.isfinite(value) and value > 0 for value in (series.x[0], series.y[0]))
    ]
    if not found:
        return _frame(chart, None, None, [])
    x_axis = _log_axis([x for _, _, x, _ in found], _LEFT + 12, _WIDTH - _RIGHT - 12)
    y_axis = _log_axis([y for _, _, _, y in found], _HEIGHT - _BOTTOM - 12, _TOP + 12)
    parts = [
        f'<g class="{_series_class(place)}"><title>{escape(series.mark)} {escape(series.label)}: '
        f"{x:.3g}, {y:.3g}</title>{_mark(x_axis(x), y_axis(y), series.mark)}</g>"
        for place, series, x, y in reversed(found)
    ]
    return _frame(chart, x_axis, y_axis, parts)


def _log_axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.06, 1.25)
    return _Axis(low / margin, high * margin, start, end, log=True)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _mark(x: float, y: float, text: str) -> str:
    return (
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="8"/>'
        f'<text class="mark" x="{x:.1f}" y="{y + 3.6:.1f}">{escape(text)}</text>'
    )


def _frame(chart: Chart, x_axis: _Axis | None, y_axis: _Axis | None, parts: Sequence[str]) -> str:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    drawn = []
    if x_axis is None or y_axis is None:
        drawn.append(
            f'<text class="tick" x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">no finite values</text>'
        )
    else:
        for tick in y_axis.ticks():
            y = y_axis(tick)
            drawn.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            drawn.append(f'<text class="tick" x="{left - 7}" y="{y + 3.8:.1f}" text-anchor="end">{_tick(tick)}</text>')
        for tick in x_axis.ticks():
            x = x_axis(tick)
            drawn.append(f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>')
            drawn.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_tick(tick)}</text>')
    drawn.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    middle = (top + bottom) / 2
    label = escape(f"{chart.title}: {chart.y_label} against {chart.x_label}")
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{label}">'
        + "".join([*drawn, *parts])
        + f'<text class="name" x="{(left + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(chart.x_label)}</text>"
        f'<text class="name" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        f"{escape(chart.y_label)}</text></svg>"
    )


def _tick(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
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
  margin: 0 auto; max-width: 1320px; padding: 2.2rem clamp(1rem, 3vw, 2.5rem) 4rem; background: var(--paper);
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
th, td { padding: .5rem .6rem; white-space: nowrap; background: var(--paper); vertical-align: top; }
td, tbody th { border-top: 1px solid var(--rule); font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.text { text-align: left; }
tbody tr:hover > * { background: var(--panel); }
thead th { padding: 0; background: var(--panel); vertical-align: bottom; }
thead button {
  all: unset; box-sizing: border-box; display: block; width: 100%; min-width: 3.4rem; max-width: 6.2rem;
  margin-left: auto; padding: .5rem .6rem; cursor: pointer; font-weight: 600; font-size: .8rem; line-height: 1.25;
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
.mark { font-size: 10px; font-weight: 700; fill: var(--mark); text-anchor: middle; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); } .s7 { color: var(--s7); }
.d1 .line { stroke-dasharray: 6 3; } .d2 .line { stroke-dasharray: 2 3; }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: .35rem 1.3rem; margin: .8rem 0 0; padding: 0;
  font-size: .88rem;
}
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
@media print { .scroll { overflow: visible; } thead button { cursor: auto; } }
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
"""
