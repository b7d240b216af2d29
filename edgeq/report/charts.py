"""Charts → inline SVG and HTML, drawn with the page's own colours; each is named for screen readers."""

from __future__ import annotations

from edgeq.report.document import Bar, Bars, Histogram, Level, Levels, Mark
from edgeq.report.elements import Html, element, join

WIDTH, HEIGHT = 720.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 52.0, 26.0
PLOT = WIDTH - LEFT - RIGHT
FLOOR = HEIGHT - BOTTOM
LEAST = 1e-9
"""A scale's least length: bars of nothing are drawn as nothing."""


def bars(chart: Bars) -> Html:
    """Horizontal bars over one scale: plain boxes, so that they fit any width."""
    ends = [max(sum(part.value for part in bar.segments), (bar.interval or (0, 0))[1]) for bar in chart.bars]
    scale = 100 / max((*ends, LEAST))
    labels = list(dict.fromkeys(part.label for bar in chart.bars for part in bar.segments))
    rows = join(_bar(bar, labels, scale) for bar in chart.bars)
    keys = join(
        element("span", element("i", class_=f"s{place}"), label) for place, label in enumerate(labels)
    )
    legend = element("figcaption", keys, class_="legend") if len(labels) > 1 else Html("")
    return element("figure", rows, legend, class_="bars", role="group", aria_label=chart.title)


def _bar(bar: Bar, labels: list[str], scale: float) -> Html:
    parts = join(
        element(
            "span",
            class_=f"part s{labels.index(part.label)}",
            style=f"width:{part.value * scale:.2f}%",
            title=f"{part.label}: {part.text}",
        )
        for part in bar.segments
    )
    whisker = Html("")
    if bar.interval:
        low, high = bar.interval
        whisker = element(
            "span", class_="whisker", style=f"left:{low * scale:.2f}%;width:{(high - low) * scale:.2f}%"
        )
    track = element("span", parts, whisker, class_="track")
    return element(
        "div",
        element("span", bar.label, class_="name"),
        track,
        element("span", bar.text, class_="value"),
        class_="bar",
    )


def histogram(chart: Histogram) -> Html:
    """Counts as columns, with labelled percentiles above them."""
    most = max(chart.counts, default=0) or 1
    step = PLOT / max(len(chart.counts), 1)
    columns = join(
        element(
            "rect",
            x=LEFT + place * step + 0.5,
            y=FLOOR - (FLOOR - TOP) * times / most,
            width=max(step - 1, 0.5),
            height=(FLOOR - TOP) * times / most,
            class_="column",
        )
        for place, times in enumerate(chart.counts)
        if times
    )
    span = (chart.high - chart.low) or 1.0
    marks = join(_mark(mark, level, chart.low, span) for level, mark in enumerate(chart.marks))
    ends = (
        element("text", chart.low_text, x=LEFT, y=HEIGHT - 8),
        element("text", chart.high_text, x=WIDTH - RIGHT, y=HEIGHT - 8, text_anchor="end"),
    )
    return _figure(
        chart.title, element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=FLOOR, y2=FLOOR), columns, marks, *ends
    )


def _mark(mark: Mark, level: int, low: float, span: float) -> Html:
    """A vertical line; each next label stands lower, so that close ones don't collide."""
    place = min(max((mark.value - low) / span, 0.0), 1.0)
    x, y = LEFT + place * PLOT, 12.0 + level * 15
    anchor = "end" if place > 0.75 else "start"
    return join(
        (
            element("line", x1=x, x2=x, y1=y - 8, y2=FLOOR, class_="mark"),
            element(
                "text",
                f"{mark.label} {mark.text}",
                x=x + (-5 if anchor == "end" else 5),
                y=y,
                text_anchor=anchor,
            ),
        )
    )


def levels(chart: Levels) -> Html:
    """One point per layer; gaps where nothing could be observed; the lowest is named."""
    known = [level.value for level in chart.levels if level.value is not None]
    if not known:
        return Html("")
    low, high, ticks = _scale(min(0.0, *known), max(known))
    step = PLOT / max(len(chart.levels) - 1, 1)

    def place(index: int, value: float) -> tuple[float, float]:
        return LEFT + index * step, FLOOR - (FLOOR - 14) * (value - low) / (high - low)

    grid = join(_tick(tick, place(0, tick)[1], chart.unit) for tick in ticks)
    points = [
        (*place(index, level.value), level)
        for index, level in enumerate(chart.levels)
        if level.value is not None
    ]
    line = element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points), class_="line")
    dots = join(
        element("circle", element("title", f"{level.label}: {level.text}"), cx=x, cy=y, r=3)
        for x, y, level in points
    )
    x, y, least = min(points, key=lambda point: point[2].value or 0.0)
    ends = (
        element("text", chart.levels[0].label, x=LEFT, y=HEIGHT - 8),
        element("text", chart.levels[-1].label, x=WIDTH - RIGHT, y=HEIGHT - 8, text_anchor="end"),
    )
    return _figure(chart.title, grid, line, dots, _name(x, y, least), *ends)


def _name(x: float, y: float, level: Level) -> Html:
    anchor = "end" if x > WIDTH / 2 else "start"
    said = f"{level.label} {level.text}"
    return element("text", said, x=x, y=min(y + 17, FLOOR - 4), text_anchor=anchor, class_="named")


def _tick(value: float, y: float, unit: str) -> Html:
    return join(
        (
            element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"),
            element("text", f"{value:g} {unit}", x=LEFT - 5, y=y + 4, text_anchor="end"),
        )
    )


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """The least span of whole tens that holds both, with at most seven ticks."""
    stride = next(width for width in (10, 20, 50, 100, 200, 500) if (high - low) / width <= 6 or width == 500)
    first, last = int(low // stride), int(-(-high // stride))
    last = max(last, first + 1)
    return first * stride, last * stride, [index * stride for index in range(first, last + 1)]


def _figure(title: str, *parts: Html) -> Html:
    svg = element(
        "svg",
        element("title", title),
        *parts,
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        role="img",
    )
    return element(
        "figure", element("figcaption", title), element("div", svg, class_="scroll"), class_="chart"
    )
