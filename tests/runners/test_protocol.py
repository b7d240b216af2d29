"""The protocol's dataclasses as JSON and back, and the agent's bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.runners import bundle
from edgeq.runners.agent import run as agent_run
from edgeq.runners.codec import CodecError, from_json, to_json
from edgeq.runners.trace import PROTOCOL, Facts, Job, Trace, Variant


@settings(deadline=None, max_examples=25)
@given(st.from_type(Job) | st.from_type(Trace))
def test_what_goes_over_the_wire_comes_back(value: Job | Trace) -> None:
    text = json.dumps(to_json(value), allow_nan=True)
    back = from_json(type(value), json.loads(text))
    assert json.dumps(to_json(back)) == text
    assert type(back) is type(value)


FACTS = {
    **dict.fromkeys(("hostname", "machine", "system", "kernel", "libc", "python", "cpu_model"), "x"),
    "cpu_count": 2,
    "cpu_features": ["a"],
    "memory_bytes": None,
    "free_disk_bytes": 5,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu_count": "2"}, r"Facts\.cpu_count: '2' is no int"),
        ({"cpu_count": True}, r"Facts\.cpu_count"),
        ({"cpu_features": ["a", 1]}, r"Facts\.cpu_features\[1\]"),
        ({"colour": 1}, "unknown"),
        ({"wheels": []}, r"Facts\.wheels"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, object], words: str) -> None:
    assert from_json(Facts, FACTS).cpu_features == ("a",)
    with pytest.raises(CodecError, match=words):
        from_json(Facts, {**FACTS, **changes})


def test_a_missing_field_and_a_wrong_kind() -> None:
    with pytest.raises(CodecError, match="missing"):
        from_json(Variant, {"name": "x"})
    with pytest.raises(CodecError, match="none of litert"):
        from_json(Variant, {"name": "x", "model": "", "engine": "tensorrt", "library": "", "feeds": []})


def test_host_and_agent_speak_the_same_protocol() -> None:
    assert agent_run.PROTOCOL == PROTOCOL


def test_the_agent_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    content, digest = bundle.agent()
    script = "from edgeq.runners import bundle; print(bundle.agent()[1])"
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == digest
    path = tmp_path / "agent.pyz"
    path.write_bytes(content[: len(content) // 2])
    cut = subprocess.run([sys.executable, path, str(tmp_path)], capture_output=True, check=False)
    assert cut.returncode != 0  # cut short it does not run at all, so it can verify itself
