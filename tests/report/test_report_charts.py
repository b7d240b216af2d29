"""Charts are well-formed XML and stay inside their frame, whatever the figures."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from edgeq.report.charts import HEIGHT, WIDTH, bars, histogram, levels
from edgeq.report.document import Bar, Bars, Histogram, Level, Levels, Mark, Segment

LABELS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20)
DB = st.floats(-40, 120)
AMOUNTS = st.floats(0, 1e12)


def inside(markup):
    """Every coordinate lies in the frame; sizes are not negative."""
    root = ElementTree.fromstring(markup)
    for shape in root.iter():
        for name, value in shape.attrib.items():
            if name in ("x", "x1", "x2", "cx"):
                assert -0.01 <= float(value) <= WIDTH + 0.01
            if name in ("y", "y1", "y2", "cy"):
                assert -0.01 <= float(value) <= HEIGHT + 0.01
            if name in ("width", "height"):
                assert float(value) >= 0
    return root


@given(st.lists(st.tuples(LABELS, st.none() | DB), max_size=60))
def test_levels(points):
    chart = levels(Levels("drift", tuple(Level(label, value, "text") for label, value in points), "dB"))
    known = [value for _, value in points if value is not None]
    if not known:
        assert chart == ""
        return
    root = inside(chart)
    heights = [float(dot.get("cy")) for dot in root.iter("circle")]
    assert len(heights) == len(known)
    for index in range(len(known) - 1):  # a higher level stands higher
        assert (known[index] - known[index + 1]) * (heights[index + 1] - heights[index]) >= 0


@given(
    st.lists(st.integers(0, 10**6), max_size=60),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.lists(st.floats(0, 3e9), max_size=3),
)
def test_histogram(counts, low, span, marks):
    drawn = tuple(Mark("p", value, "text") for value in marks)
    root = inside(histogram(Histogram("t", low, low + span, "a", "b", tuple(counts), drawn)))
    assert len(list(root.iter("rect"))) == sum(count > 0 for count in counts)


@given(st.lists(st.tuples(LABELS, st.lists(AMOUNTS, min_size=1, max_size=3)), max_size=5))
def test_bars_never_exceed_their_track(rows):
    made = tuple(
        Bar(label, tuple(Segment(f"s{place}", value, "t") for place, value in enumerate(values)), "t")
        for label, values in rows
    )
    root = ElementTree.fromstring(bars(Bars("sizes", made)))
    for track in root.iter("span"):
        if track.get("class") == "track":
            widths = [float(part.get("style")[6:-1]) for part in track if "part" in part.get("class")]
            assert sum(widths) <= 100.02
