"""report and compare over stored runs: every form, files written whole, gates with their exit code."""

import json

import numpy as np
import pytest

from edgeq.figures import Format, Precision
from edgeq.measure.environment import environment
from edgeq.measure.figures import AccuracyFigure, RunFigures, VariantFigures
from edgeq.measure.latency import latency
from edgeq.runners.trace import EngineKind, Facts, Status, Trace, VariantTrace
from edgeq.runs import Run, save_run
from edgeq.workspace import Workspace

FACTS = Facts("box", "x86_64", "linux", "6.1", "glibc 2.36", "3.11", "CPU", 2, (), None, None)
FIRST, SECOND = "261120-091200-aaaa", "261122-140500-bbbb"


def store(run_id, milliseconds, top1):
    """A run whose latencies are known."""
    series = np.random.default_rng(7).normal(milliseconds * 1e6, 1e4, 400).astype(int)
    seen = VariantTrace("int8.tflite", Status.DONE, latency_ns=tuple(map(int, series)))
    trace = Trace(run_id, FACTS, 1.8e9, (seen,))
    variant = VariantFigures(
        "int8.tflite",
        "net.int8.tflite",
        Format.TFLITE,
        Precision.INT8,
        EngineKind.LITERT,
        threads=1,
        batch=1,
        model_bytes=1000,
        status=Status.DONE,
        latency=latency(seen),
        accuracy=AccuracyFigure(900, top1),
    )
    figures = RunFigures("net", "local", "host", 1.8e9, (variant,), (), environment(trace), samples=900)
    save_run(Run(run_id, "build/net", figures, trace), Workspace.find())


@pytest.fixture
def two_runs(corner):
    store(FIRST, 10, 0.84)
    store(SECOND, 12, 0.83)
    return corner


@pytest.mark.usefixtures("two_runs")
class TestReport:
    def test_latest_and_the_start_of_an_id(self, edgeq):
        assert SECOND in edgeq("report", "latest").stdout
        assert FIRST in edgeq("report", FIRST[:6]).stdout

    def test_markdown(self, edgeq):
        told = edgeq("report", "latest", "--markdown")
        assert told.stdout.startswith("# net on local\n")
        assert "| int8.tflite |" in told.stdout

    def test_html(self, edgeq, corner):
        told = edgeq("report", "latest", "--html", corner / "pages" / "run.html")
        assert told.exit_code == 0
        assert told.stdout == ""
        page = (corner / "pages" / "run.html").read_text("utf-8")
        assert page.startswith("<!doctype html>")
        assert page.endswith("</html>\n")

    def test_json_is_the_figures(self, edgeq):
        raw = json.loads(edgeq("report", "latest", "--json").stdout)
        assert raw["run"] == SECOND
        (variant,) = raw["figures"]["variants"]
        assert variant["latency"]["p50_ns"] == pytest.approx(12e6, rel=0.01)
        assert variant["energy"] is None

    def test_a_page_that_cannot_be_written(self, edgeq):
        told = edgeq("report", "latest", "--html", "/proc/none/run.html")
        assert told.exit_code == 2
        assert "/proc/none" in told.stderr

    def test_a_damaged_run(self, edgeq, corner):
        (corner / ".edgeq" / "runs" / f"{SECOND}.json").write_text("{")
        told = edgeq("report", "latest")
        assert told.exit_code == 2
        assert "damaged" in told.stderr


@pytest.mark.usefixtures("two_runs")
class TestCompare:
    def test_says_how_much_slower(self, edgeq):
        told = edgeq("compare", FIRST, "latest")
        assert told.exit_code == 0
        assert "1.20×" in told.stdout
        assert "slower" in told.stdout
        assert "−1.0" in told.stdout
        assert "gate" not in told.stdout

    def test_a_kept_gate(self, edgeq):
        told = edgeq("compare", FIRST, SECOND, "--max-slowdown", "1.5", "--max-accuracy-drop", "0.02")
        assert told.exit_code == 0
        assert "No gate was missed" in told.stdout

    @pytest.mark.parametrize("gate", [("--max-slowdown", "1.05"), ("--max-accuracy-drop", "0.005")])
    def test_a_missed_gate_is_8(self, edgeq, gate):
        told = edgeq("compare", FIRST, SECOND, *gate)
        assert told.exit_code == 8
        assert "allowed" in told.stderr
        as_json = edgeq("compare", FIRST, SECOND, *gate, "--json")
        raw = json.loads(as_json.stdout)
        assert as_json.exit_code == raw["error"]["exit_code"] == 8
        assert raw["comparison"]["changes"][0]["slowdown"] == pytest.approx(1.2, rel=0.01)
        assert len(raw["comparison"]["missed"]) == 1
