"""The agent as one zip file that Python runs: the same bytes and digest wherever it is packed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib import resources

MAIN = b"from agent.main import main\n\nraise SystemExit(main())\n"


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
