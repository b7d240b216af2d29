"""The public face: one sorted __all__, every name there, documented and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import edgeq


def test_all_is_sorted_and_complete() -> None:
    assert list(edgeq.__all__) == sorted(edgeq.__all__)
    for name in edgeq.__all__:
        assert getattr(edgeq, name) is not None
    assert {"EdgeqError", "convert", "deploy", "profile"} <= set(edgeq.__all__)


def test_every_public_callable_says_what_it_does() -> None:
    silent = [n for n in edgeq.__all__ if callable(getattr(edgeq, n)) and not getattr(edgeq, n).__doc__]
    assert silent == []


def test_importing_edgeq_loads_nothing_heavy() -> None:
    program = (
        "import sys, edgeq; print(sorted({'numpy', 'onnx', 'onnxruntime', 'paramiko'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(edgeq, "no_such_name")
