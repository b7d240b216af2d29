"""The agent as one zip file that runs and unpacks itself: the same bytes wherever it is packed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib import resources

NO_PYTHON = 21
"""The exit code of an interpreter that is too old; any of them can read this much."""
MAIN = (
    b"""import sys

if sys.version_info < (3, 8):
    sys.exit(%d)
from agent.main import main

raise SystemExit(main())
"""
    % NO_PYTHON
)


@cache
def agent() -> tuple[bytes, str]:
    """The agent's zip file and its SHA-256."""
    folder = resources.files("edgeq.runners") / "agent"
    sources = {
        f"agent/{item.name}": item.read_bytes() for item in folder.iterdir() if item.name.endswith(".py")
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in sorted({**sources, "__main__.py": MAIN}.items()):
            bundle.writestr(
                zipfile.ZipInfo(name), content
            )  # stored, dated 1980: nothing depends on zlib or clocks
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()
