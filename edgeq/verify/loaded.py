"""A model file that is ready to run on samples of the source model's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.artifact import ModelFile
from edgeq.execution import Arrays, Executable, OnnxExecutable, TfliteExecutable, feed, real
from edgeq.figures import Format
from edgeq.signature import TensorSpec

_OPEN: Mapping[Format, Callable[[Path], Executable]] = {
    Format.ONNX: OnnxExecutable,
    Format.TFLITE: TfliteExecutable,
}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model file in its runtime."""

    file: ModelFile
    executable: Executable

    @classmethod
    def open(cls, file: ModelFile) -> Loaded:
        """Loads the file.

        Raises:
            ModelError: the runtime refuses it.
        """
        return cls(file, _OPEN[file.format](file.path))

    def run(self, sample: Arrays, inputs: Sequence[TensorSpec]) -> list[NDArray[np.float32]]:
        """The reals of every output for one sample of the form that `inputs` tells."""
        wanted = {spec.name: spec for spec in self.file.inputs}
        outputs = self.executable.run({spec.name: feed(sample, spec, wanted[spec.name]) for spec in inputs})
        return [real(outputs[spec.name], spec) for spec in self.file.outputs]
