"""Instructions per inference of MobileNetV2 on emulated ARM cores: edgeq's files beside the peers' and float.

A cost, no latency: it repeats within 0.1 % on any machine, but knows no cache and no pipeline. Each core is a
deterministic board of `edgeq board`, on which every file is counted by the agent as `edgeq profile` does.
The ratio is of edgeq's best dialect to the peer's best, in the same runtime on the same core.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import common, data
from edgeq.board import boards
from edgeq.board.kinds import Cpu, Kind
from edgeq.devices import inventory
from edgeq.devices.connect import open_session
from edgeq.runners.libraries import library_for
from edgeq.runners.session import Session, new_job_id
from edgeq.runners.trace import COUNTING, EngineKind, Feed, Job, Status, Timing, Trace, Variant

CORES = (Cpu.CORTEX_A72, Cpu.CORTEX_A76, Cpu.MAX)
"""Without dot products, with them, and with i8mm as well."""
ENGINES = {".tflite": EngineKind.LITERT, ".onnx": EngineKind.ONNXRUNTIME}
TIMEOUT_S = 7200.0

Reals = NDArray[np.float64]


def build(scratch: Path) -> dict[str, Path]:
    """Name → file; TFLite files take and give int8, ONNX files float32."""
    model = data.MOBILENET_H5
    calibration = scratch / "calibration.npz"
    np.savez(calibration, x=data.split(model, calibration=True)[0])
    images = common.calibration_images(scratch / "images")
    files: dict[str, Path] = {}
    for dialect in ("u8", "s8"):
        recipe = scratch / f"{dialect}.toml"
        recipe.write_text(f'base = "fast"\nactivations = "{dialect}"\nio = "int8"\n')
        artifact = scratch / dialect
        common.convert(model.path, calibration, artifact, "--recipe", str(recipe))
        files |= {
            "float LiteRT": artifact / f"{model.stem}.float.tflite",
            "float ONNX Runtime": artifact / f"{model.stem}.float.onnx",
            "edgeq int8.tflite": artifact / f"{model.stem}.int8.tflite",
            f"edgeq int8.onnx {dialect}": artifact / f"{model.stem}.int8.onnx",
        }
        peer = files[f"quantize_static {dialect}"] = scratch / f"static.{dialect}.onnx"
        plain = str(files["float ONNX Runtime"])
        common.run(*common.PEER, "quantize_static", plain, str(calibration), str(peer), dialect)
    peer = files["TFLiteConverter"] = scratch / "converter.tflite"
    common.run(*common.PEER, "tflite_converter", str(model.path), str(images), str(peer))
    return files


@contextmanager
def board(cpu: Cpu) -> Iterator[Session]:
    """A session on a deterministic board of the benchmark's own, which ends with the block."""
    started = boards.up(Kind(cpu, deterministic=True), name=f"bench-{cpu.short}-{os.getpid()}")
    try:
        with open_session(inventory.get(started.name)) as session:
            yield session
    finally:
        boards.down(started.name)


def run(
    session: Session, files: Mapping[str, Path], inputs: NDArray[np.float32], *, timing: Timing | None
) -> Trace:
    """Runs files on a board: with `timing` counted on the first input, without it once on every input.

    Args:
        inputs: reals NHWC or NCHW, [n, …]; stored in each model's own order and type.

    Raises:
        SystemExit: a file did not run.
    """
    facts = session.probe()
    variants = []
    for name, path in files.items():
        library = library_for(ENGINES[path.suffix], facts)
        session.upload(library.path)
        feeds = (_feed(session, path, inputs),)
        variants.append(Variant(name, session.upload(path), ENGINES[path.suffix], library.digest, feeds))
    job = Job(new_job_id(), tuple(variants), timing=timing, outputs=timing is None, timeout_seconds=TIMEOUT_S)
    with session.lease():
        trace = session.run(job)
    for variant in trace.variants:
        if variant.status is not Status.DONE:
            raise SystemExit(f"{variant.name}: {variant.reason}")
    return trace


def _feed(session: Session, path: Path, inputs: NDArray[np.float32]) -> Feed:
    from benchmarks import engines

    engine = engines.load(path)
    stored = np.concatenate([engine.bind(one[None]) for one in inputs])
    with tempfile.TemporaryDirectory() as folder:
        blob = Path(folder) / "inputs"
        blob.write_bytes(stored.tobytes())
        digest = session.upload(blob)
    return Feed(engine.input, digest, len(stored), stored.shape[1:], stored.dtype.name)


def counts(files: Mapping[str, Path], inputs: NDArray[np.float32], cores: Sequence[Cpu]) -> list[common.Row]:
    """One row per file: million user-space instructions per inference on every core."""
    columns: dict[str, dict[str, float]] = {}
    for cpu in cores:
        with board(cpu) as session:
            trace = run(session, files, inputs, timing=COUNTING)
        columns[cpu.value] = {
            variant.name: float(np.median(variant.instructions)) / 1e6 for variant in trace.variants
        }
    return [{"file": name, **{cpu: seen[name] for cpu, seen in columns.items()}} for name in files]


def ratios(rows: Sequence[common.Row], cores: Sequence[Cpu]) -> list[common.Row]:
    """One row per runtime: edgeq's instructions over the peer's, each by its best dialect."""
    pairs = {
        "edgeq / TFLiteConverter, LiteRT": ("edgeq int8.tflite", "TFLiteConverter"),
        "edgeq / quantize_static, ONNX Runtime": ("edgeq int8.onnx", "quantize_static"),
        "edgeq / float, LiteRT": ("edgeq int8.tflite", "float LiteRT"),
        "edgeq / float, ONNX Runtime": ("edgeq int8.onnx", "float ONNX Runtime"),
    }
    return [
        {"ratio": told, **{cpu: f"{_least(rows, ours, cpu) / _least(rows, other, cpu):.3f}" for cpu in cores}}
        for told, (ours, other) in pairs.items()
    ]


def _least(rows: Sequence[common.Row], name: str, cpu: Cpu) -> float:
    return min(float(row[cpu]) for row in rows if row["file"].startswith(name))


def main() -> None:
    """Prints the counts and their ratios."""
    parser = common.arguments(__doc__)
    parser.add_argument("cores", nargs="*", type=Cpu, help=f"{', '.join(CORES)} unless given")
    parsed = parser.parse_args()
    cores = tuple(parsed.cores) or CORES
    common.shared_data()
    inputs = data.split(data.MOBILENET_H5, calibration=True)[0][:1]
    with tempfile.TemporaryDirectory() as folder:
        rows = counts(build(Path(folder)), inputs, cores)
    tables = {"Million instructions per inference": rows, "Of the peer's": ratios(rows, cores)}
    common.show(tables, as_json=parsed.json)


if __name__ == "__main__":
    main()
