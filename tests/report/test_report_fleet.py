"""One table of several devices: times where time tells something, instructions where it does not."""

from dataclasses import replace

from edgeq.figures import Precision
from edgeq.measure.figures import CostFigure
from edgeq.report import markdown
from edgeq.report.fleet import Entry, document


def counted(figures):
    """The same run on a deterministic board: integers take 50 M instructions, float 200 M."""
    variants = tuple(
        replace(v, latency=None, cost=CostFigure(5e7 if v.precision is Precision.INT8 else 2e8, 0.0, 3))
        for v in figures.variants
    )
    return replace(figures, latency_valid=False, speed_ups=(), variants=variants)


def rows(entries):
    """Device → column → what the first table says."""
    lines = [line for line in markdown.render(document(entries)).splitlines() if line.startswith("|")]
    heads, _, *found = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in found[: len(entries)]}


def test_instructions_stand_where_time_tells_nothing(run_figures):
    entries = (
        Entry("board", "net", "1", counted(run_figures)),
        Entry("pi", "net", "2", run_figures),
        Entry("dead", "net", failure="no connection"),
    )
    told = rows(entries)
    assert (told["board"]["p90"], told["board"]["Instructions"]) == ("–", "50.00 M")
    assert "int8" in told["board"]["Fastest"]
    assert told["pi"]["p90"] != "–"
    assert told["pi"]["Instructions"] == "–"
    assert told["dead"].pop("State").endswith("failed")
    assert set(told["dead"].values()) == {"dead", "–"}
    assert "net" in markdown.render(document(entries, every_variant=True))


def test_there_is_no_such_column_where_nothing_was_counted(run_figures):
    assert "Instructions" not in rows((Entry("pi", "net", "2", run_figures),))["pi"]
