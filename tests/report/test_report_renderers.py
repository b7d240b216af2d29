"""Figures through documents into terminal, Markdown and JSON."""

import io
import itertools
import json
import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgeq.measure.figures import CostFigure, EnergyFigure, Interval, Unavailable
from edgeq.report import conversion, markdown, run, terminal
from edgeq.report.document import Cell, Column, Document, Items, Note, Section, Table, Tone, Verdict
from edgeq.report.plain import plain, to_json
from edgeq.runners.trace import Status

HOSTILE = '<script>alert("x")</script>&\'conv'


def on_terminal(document, width=110, brief=True):
    stream = io.StringIO()
    terminal.render(document, Console(file=stream, width=width, color_system=None), brief=brief)
    return stream.getvalue()


def test_conversion_says_size_agreement_parity_and_float(conversion_figures):
    text = " ".join(on_terminal(conversion.document(conversion_figures)).split())
    assert "INT8 takes 3.80 MB instead of 14.0 MB (3.68× smaller)" in text
    assert "94.0 % of 100 samples" in text
    assert "the same integers, all 100,000 of them" in text
    assert "1 operator computed in float" in text
    assert "8 bits would cost precision" in text
    assert "nearly dead" in text


def test_conversion_without_data_claims_no_accuracy(conversion_figures):
    figures = replace(conversion_figures, samples=0, calibrated="batch-norm statistics")
    document = conversion.document(figures)
    assert "no calibration data was used" in document.verdict.text
    assert "not measured, for want of data" in document.verdict.text
    assert "94" not in document.verdict.text
    assert document.verdict.tone is Tone.WARN
    assert "no data used: batch-norm statistics" in on_terminal(document)


def test_conversion_tells_when_the_runtimes_differ(conversion_figures):
    parity = replace(conversion_figures.parity, differing=12, max_steps=1)
    verdict = conversion.document(replace(conversion_figures, parity=parity, float_ops=())).verdict
    assert "differ in 12 of 100,000 integers, by at most 1 step" in verdict.text
    assert verdict.tone is Tone.WARN


def test_poor_agreement_is_bad(conversion_figures):
    worse = tuple(replace(figure, agreement=0.31) for figure in conversion_figures.agreement)
    assert conversion.document(replace(conversion_figures, agreement=worse)).verdict.tone is Tone.BAD


def test_run_compares_with_float_and_gives_intervals(run_figures):
    text = " ".join(on_terminal(run.document(run_figures, run_id="261122-aaaa")).split())
    assert "int8.tflite takes 9.66 ms (p90), 2.31× faster than float (2.26 – 2.37×)" in text
    assert "81.1 – 85.9 %" in text
    assert "21.40 ± 0.90 mJ" in text
    assert "Energy is unavailable for float.tflite" in text
    assert "no sensor under /sys/class/hwmon" in text


def test_slower_and_undecided_are_said(run_figures):
    (speed,) = run_figures.speed_ups
    slower = replace(speed, ratio=0.8, interval=Interval(0.75, 0.85))
    verdict = run.verdict(replace(run_figures, speed_ups=(slower,)))
    assert "1.25× slower than float (1.18 – 1.33×)" in verdict.text
    assert verdict.tone is Tone.BAD
    undecided = replace(speed, interval=Interval(0.95, 1.05), decided=False)
    assert "undecided" in run.verdict(replace(run_figures, speed_ups=(undecided,))).text


def test_emulated_time_is_no_latency(run_figures):
    counted = tuple(
        replace(variant, latency=None, cost=CostFigure(millions * 1e6, 0.0, 3))
        for variant, millions in zip(run_figures.variants, itertools.count(40))
    )
    figures = replace(run_figures, latency_valid=False, speed_ups=(), variants=counted)
    text = " ".join(on_terminal(run.document(figures)).split())
    assert "no latency" in text
    assert f"{counted[0].name} takes 40.00 M instructions, the fewest of all" in text
    assert "faster" not in text


def test_everything_failed(run_figures):
    failed = tuple(
        replace(variant, status=Status.FAILED, reason="killed by SIGILL", latency=None)
        for variant in run_figures.variants
    )
    verdict = run.verdict(replace(run_figures, variants=failed))
    assert verdict.tone is Tone.BAD
    assert "killed by SIGILL" in verdict.text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_terminal_stays_inside_its_width(run_figures, conversion_figures, width):
    for document in (run.document(run_figures), conversion.document(conversion_figures)):
        for brief in (True, False):
            lines = on_terminal(document, width, brief).splitlines()
            assert max(map(len, lines)) <= width


def test_long_tables_are_cut_and_say_so():
    rows = tuple((Cell(f"row {number}"),) for number in range(30))
    document = Document("t", "", Verdict("v"), (Section("s", (Table((Column("c"),), rows),)),))
    assert "18 more in the report" in on_terminal(document)
    assert "row 29" in on_terminal(document, brief=False)


def test_no_escape_sequence_reaches_a_terminal():
    evil = "layer\x1b]0;owned\x07\x9b31m"
    blocks = (Note(evil), Items((evil,)), Table((Column(evil),), ((Cell(evil),),)))
    text = on_terminal(Document(evil, evil, Verdict(evil), (Section(evil, blocks),)), brief=False)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_a_row_has_one_cell_per_column():
    with pytest.raises(ValueError, match="one cell per column"):
        Table((Column("a"), Column("b")), ((Cell("x"),),))


def test_markdown_tables_have_equal_cells_and_no_live_html(run_figures, conversion_figures):
    for document in (run.document(run_figures), conversion.document(conversion_figures)):
        text = markdown.render(document)
        widths = []
        for line in text.splitlines():
            assert not re.search(r"(?<!\\)<", line)
            widths = [*widths, len(re.findall(r"(?<!\\)\|", line))] if line.startswith("|") else []
            assert len(set(widths)) <= 1
    assert re.sub(r"\\(.)", r"\1", text).count(HOSTILE) == 1


def test_markdown_keeps_texts_on_one_line():
    blocks = (Note("a\n# b\n- c"), Items(("one\n\n## two",)))
    text = markdown.render(Document("t", "s", Verdict("v"), (Section("x", blocks),)))
    assert not re.search(r"(?m)^#+ (b|two)", text)


def test_json_is_strict_and_keeps_field_names(run_figures):
    raw = json.loads(to_json({"figures": run_figures}), parse_constant=pytest.fail)
    assert_mirrors(run_figures, raw["figures"])


def assert_mirrors(value, raw):
    if is_dataclass(value):
        assert list(raw) == [field.name for field in fields(value)]
        for field in fields(value):
            assert_mirrors(getattr(value, field.name), raw[field.name])
    elif isinstance(value, tuple):
        assert len(raw) == len(value)
        for one, other in zip(value, raw, strict=True):
            assert_mirrors(one, other)
    else:
        assert raw == value


def test_plain_forms():
    assert plain({"a": math.nan, "b": (math.inf, 1.5)}) == {"a": None, "b": [None, 1.5]}
    assert plain(Path("/x")) == "/x"
    assert plain(np.float32(0.5)) == 0.5
    assert plain(np.array([[1, 2]])) == [[1, 2]]
    assert plain(Unavailable({"hwmon": "none"})) == {"reasons": {"hwmon": "none"}}


def test_net_energy_without_an_idle_baseline(run_figures, energy_figure):
    only_gross = replace(
        energy_figure, net_mj=None, net_uncertainty_mj=None, idle_before_w=None, idle_after_w=None
    )
    assert isinstance(only_gross, EnergyFigure)
    variants = tuple(replace(variant, energy=only_gross) for variant in run_figures.variants)
    text = on_terminal(run.document(replace(run_figures, variants=variants)))
    assert "21.40 ± 0.90 mJ" in text
    assert "12.2" not in text
