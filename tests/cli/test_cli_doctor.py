"""doctor: what is there, what is missing, and that it says so."""

import json
import re
from importlib.metadata import requires, version
from pathlib import Path

import pytest

from edgeq import doctor
from edgeq.doctor import Finding, Kind, State, examine

ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_is_examined():
    declared = {
        re.split(r"[<>=!~ ;\[]", line)[0].lower() for line in requires("edgeq") if "extra ==" not in line
    }
    needed = {finding.name.lower() for finding in examine() if finding.kind is Kind.NEEDED}
    assert needed == declared | {"python"}


def test_this_installation_is_fit(edgeq):
    told = edgeq("doctor", "--json")
    report = json.loads(told.stdout)
    assert told.exit_code == 0
    assert report["fit"] is True
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["onnxruntime"]["found"] == version("onnxruntime")
    assert Path(found["LiteRT library"]["found"]).is_file()
    assert all(finding["gives"] for finding in report["findings"])


def test_missing_parts_are_fatal_only_when_needed(edgeq, monkeypatch):
    gone = (
        Finding("torch", Kind.OPTIONAL, State.MISSING, "", "exports"),
        Finding("numpy", Kind.NEEDED, State.MISSING, "", "arithmetic", "pip install numpy"),
    )
    monkeypatch.setattr(doctor, "examine", lambda: gone[:1])
    assert edgeq("doctor").exit_code == 0
    monkeypatch.setattr(doctor, "examine", lambda: gone)
    told = edgeq("doctor")
    assert told.exit_code == 8
    assert "pip install numpy" in told.stdout
    assert json.loads(edgeq("doctor", "--json").stdout)["fit"] is False


def test_other_versions_are_said_to_be_untested(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "9.9.9")
    states = {finding.name: finding.state for finding in examine()}
    assert states["onnxruntime"] is State.UNTESTED
    assert states["ai-edge-litert"] is State.UNTESTED
    assert states["click"] is State.OK


def test_a_library_that_does_not_load_is_broken(monkeypatch, tmp_path):
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "libLiteRt.so").write_bytes(b"\x7fELF, but no more")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "ai_edge_litert", raising=False)
    found = {finding.name: finding for finding in examine()}["LiteRT library"]
    assert found.state is State.BROKEN
    assert found.fatal
    assert "cannot be loaded" in found.hint


def test_the_tested_versions_are_those_of_the_constraints():
    constraints = ROOT / "constraints.txt"
    if not constraints.is_file():
        pytest.skip("no constraints.txt beside the tests")
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", constraints.read_text("utf-8")))
    for package in doctor._NEEDED:
        if package.tested:
            assert pinned[package.name] in package.tested
