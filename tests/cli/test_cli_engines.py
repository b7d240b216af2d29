"""`edgeq engines`: what is kept for devices, what can be added, and what could not be had."""

import json
import zipfile

import pytest


@pytest.fixture(autouse=True)
def folder(corner, monkeypatch):
    """An empty folder of libraries, and no way to fetch anything."""
    monkeypatch.setenv("EDGEQ_ENGINES", str(corner / "engines"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return corner / "engines"


@pytest.fixture
def aar(corner):
    with zipfile.ZipFile(corner / "litert.aar", "w") as archive:
        archive.writestr("jni/arm64-v8a/libLiteRt.so", b"for phones")
    return corner / "litert.aar"


def test_an_archive_is_added_and_listed(edgeq, aar, folder):
    assert json.loads(edgeq("engines", "list", "--json").output) == {"folder": str(folder), "engines": []}
    assert "Nothing has been fetched" in edgeq("engines", "list").output
    added = json.loads(edgeq("engines", "add", aar, "--version", "2.3.0", "--json").output)
    listed = json.loads(edgeq("engines", "list", "--json").output)
    assert added == listed
    (one,) = listed["engines"]
    assert (one["engine"], one["version"], one["system"], one["machine"]) == (
        "litert",
        "2.3.0",
        "android",
        "aarch64",
    )
    assert one["bytes"] == len(b"for phones")
    assert "litert" in edgeq("engines", "list").output


def test_what_cannot_be_fetched_is_told(process, aar, folder):
    done = process("engines", "fetch", "--machine", "armv7l", "--json", EDGEQ_ENGINES=str(folder))
    assert done.returncode == 7
    error = json.loads(done.stdout)["error"]
    assert "litert on armv7l" in error["message"]
    assert "engines add" in error["hint"]


def test_a_file_that_holds_no_library(process, corner):
    (corner / "notes.aar").write_text("no archive")
    done = process("engines", "add", "notes.aar")
    assert done.returncode == 2
    assert "no library can be taken" in done.stderr
