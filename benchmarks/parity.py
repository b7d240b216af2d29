"""The integers of the reference models on ARM cores: LiteRT and both dialects of ONNX Runtime against x86.

Every file runs on the same evaluation samples on each emulated core. The reference is LiteRT on this machine;
an output counts as different where it is not the same real. A final softmax is in float and may round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import arm, common, data, engines
from benchmarks.accuracy import SOFTMAX_ROUNDING
from edgeq.board.kinds import Cpu
from edgeq.measure.accuracy import dequantise
from edgeq.runners.session import Session

DIALECTS = ("u8", "s8")
HERE = "this machine"


def build(reference: data.Reference, scratch: Path, recipe: str) -> dict[str, Path]:
    """What is compared → file, all of one plan."""
    calibration = scratch / f"{reference.file}.npz"
    np.savez(calibration, x=data.split(reference, calibration=True)[0])
    files: dict[str, Path] = {}
    for dialect in DIALECTS:
        wanted = scratch / f"{dialect}.toml"
        wanted.write_text(f'base = "{recipe}"\nactivations = "{dialect}"\n')
        artifact = scratch / f"{reference.file}-{dialect}"
        common.convert(reference.path, calibration, artifact, "--recipe", str(wanted))
        files["LiteRT"] = artifact / f"{reference.stem}.int8.tflite"
        files[f"ONNX Runtime {dialect}"] = artifact / f"{reference.stem}.int8.onnx"
    return files


def on_board(
    session: Session, files: Mapping[str, Path], inputs: NDArray[np.float32]
) -> dict[str, arm.Reals]:
    """What is compared → reals [n, values] that a board gives."""
    trace = arm.run(session, files, inputs, timing=None)
    outputs = {variant.name: variant.outputs[0] for variant in trace.variants}
    reals = {name: dequantise(told, session.blob(trace.job, told.blob)) for name, told in outputs.items()}
    session.forget(trace.job)
    return {name: values.reshape(len(inputs), -1) for name, values in reals.items()}


def here(files: Mapping[str, Path], inputs: NDArray[np.float32]) -> dict[str, arm.Reals]:
    """What is compared → reals [n, values] of the runtimes' own packages; s8 is no dialect for x86."""
    return {
        name: engines.outputs(engines.load(path), inputs).astype(np.float64)
        for name, path in files.items()
        if not name.endswith("s8")
    }


def table(seen: Mapping[str, Mapping[str, Mapping[str, arm.Reals]]]) -> list[common.Row]:
    """One row per model and file, one column per place: outputs that differ from LiteRT's on this machine.

    Args:
        seen: place → model → what is compared → reals [n, values].
    """
    rows: list[common.Row] = []
    for model, expected in seen[HERE].items():
        for name in dict.fromkeys(name for results in seen.values() for name in results[model]):
            found = {place: results[model].get(name) for place, results in seen.items()}
            told = {place: _differing(values, expected["LiteRT"]) for place, values in found.items()}
            rows.append({"model": model, "file": name, **told})
    return rows


def _differing(values: arm.Reals | None, expected: arm.Reals) -> str:
    if values is None:
        return ""
    differing = ~np.isclose(values, expected, rtol=SOFTMAX_ROUNDING, atol=0)
    return f"{int(differing.sum())} of {expected.size}"


def measure(
    references: Sequence[data.Reference], cores: Sequence[Cpu], samples: int, recipe: str
) -> list[common.Row]:
    """Converts and runs everything."""
    with tempfile.TemporaryDirectory() as folder:
        files = {one.file: build(one, Path(folder), recipe) for one in references}
        inputs = {one.file: data.split(one, calibration=False)[0][:samples] for one in references}
        seen = {HERE: {name: here(files[name], inputs[name]) for name in files}}
        for cpu in cores:
            with arm.board(cpu) as session:
                seen[cpu.value] = {name: on_board(session, files[name], inputs[name]) for name in files}
    return table(seen)


def main() -> None:
    """Prints one table."""
    parser = common.arguments(__doc__)
    parser.add_argument("models", nargs="*", help="file names; all unless given")
    parser.add_argument("--core", type=Cpu, action="append", help=f"{', '.join(arm.CORES)} unless given")
    parser.add_argument("--samples", type=int, default=4, help="evaluation samples per model (4)")
    parser.add_argument("--recipe", default="fast", help="edgeq's recipe (fast)")
    parsed = parser.parse_args()
    common.shared_data()
    chosen = [one for one in data.REFERENCES if not parsed.models or one.file in parsed.models]
    rows = measure(chosen, parsed.core or arm.CORES, parsed.samples, parsed.recipe)
    common.show({"Outputs that differ from LiteRT's on this machine": rows}, as_json=parsed.json)


if __name__ == "__main__":
    main()
