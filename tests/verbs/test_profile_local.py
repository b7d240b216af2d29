"""deploy and profile on this machine, through the public face, with a real model in both runtimes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.deployment import deployments
from edgeq.devices.check import Severity
from edgeq.errors import DataError, ModelError, UsageError
from edgeq.measure.figures import CostFigure, EnergyFigure, RunFigures, Unavailable
from edgeq.records import to_plain
from edgeq.runners.trace import Status

VARIANTS = {"int8.tflite", "float.tflite", "int8.onnx", "float.onnx"}


def _by_name(figures: RunFigures) -> dict[str, object]:
    return {variant.name: variant for variant in figures.variants}


def test_a_second_deployment_sends_nothing(artifact: Path, tmp_path: Path) -> None:
    first = edgeq.deploy(artifact, device="local")
    assert {model.name for model in first.models} == VARIANTS
    assert all(model.status is Status.DONE and model.load_ns for model in first.models)
    assert set(first.libraries) == {"litert", "onnxruntime"}
    assert first.bytes_sent > 0
    second = edgeq.deploy(artifact, device="local")
    assert (second.bytes_sent, second.bytes_there) == (0, first.bytes_sent + first.bytes_there)
    assert [one.id for one in deployments()] == [first.id, second.id]
    assert deployments()[0] == first
    assert (tmp_path / "device" / "records" / "small.json").is_file()


def test_profile_measures_what_was_deployed(artifact: Path, data: Path) -> None:
    edgeq.deploy(artifact, device="local")
    run = edgeq.profile(data=data, power=True, per_op=True)
    figures = run.figures
    assert (figures.artifact, figures.device, figures.samples) == ("small", "local", 24)
    variants = {variant.name: variant for variant in figures.variants}
    assert set(variants) == VARIANTS
    for variant in variants.values():
        assert variant.status is Status.DONE, variant.reason
        assert variant.latency is not None
        assert variant.latency.inferences >= 20
        assert not variant.latency.quotable
        assert variant.peak_memory_bytes
        assert variant.ops
        assert isinstance(variant.energy, Unavailable)
        assert {"hwmon", "powercap"} <= set(variant.energy.reasons)
        if isinstance(variant.cost, CostFigure):
            assert variant.cost.instructions_per_inference > 10_000
        else:  # most virtual machines
            assert variant.cost is not None
            assert variant.cost.reasons["perf events"]
    assert {(one.variant, one.baseline) for one in figures.speed_ups} == {
        ("int8.tflite", "float.tflite"),
        ("int8.onnx", "float.onnx"),
    }
    assert any("quick look" in warning for warning in figures.warnings)
    assert edgeq.load_run() == run
    assert edgeq.load_run(run.id[-4:]) == run


def test_accuracy_on_the_device_is_that_of_the_runtime_here(artifact: Path, data: Path) -> None:
    """The reference runs the same files through the runtimes' Python packages."""
    import onnxruntime as ort

    run = edgeq.profile(artifact, device="local", data=data)
    images, labels = (np.load(data)[key] for key in ("image", "labels"))
    logits = {}
    for name in ("float", "int8"):
        session = ort.InferenceSession(artifact / f"small.{name}.onnx", providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name
        logits[name] = np.concatenate([session.run(None, {feed: one[None]})[0] for one in images])
    variants = {variant.name: variant for variant in run.figures.variants}
    for name, scores in logits.items():
        accuracy = variants[f"{name}.onnx"].accuracy
        assert accuracy is not None
        assert accuracy.top1 == np.mean(scores.argmax(1) == labels)
    integer, same = (variants[name].accuracy for name in ("int8.onnx", "int8.tflite"))
    assert integer is not None
    assert same is not None
    assert (same.top1, same.agreement) == (integer.top1, integer.agreement)  # the same integers in both
    assert integer.agreement == np.mean(logits["int8"].argmax(1) == logits["float"].argmax(1))
    noise = np.square(logits["float"].astype(float) - logits["int8"]).sum(axis=1)
    expected = np.mean(10 * np.log10(np.square(logits["float"].astype(float)).sum(axis=1) / noise))
    assert integer.sqnr_db == pytest.approx(expected, abs=1e-6)


def test_integer_inputs_and_outputs_change_no_result(artifact: Path, data: Path, tmp_path: Path) -> None:
    """The agent quantises the samples; LiteRT tells the scale of the outputs."""
    small = artifact.parent / "small.onnx"
    edgeq.convert(small, calibration=data, io="int8", formats=("tflite",), out=tmp_path / "integers")
    figures = [edgeq.profile(folder, data=data).figures for folder in (artifact, tmp_path / "integers")]
    one, other = (next(v for v in each.variants if v.name == "int8.tflite") for each in figures)
    assert one.accuracy is not None
    assert other.accuracy is not None
    assert (one.accuracy.top1, one.accuracy.agreement) == (other.accuracy.top1, other.accuracy.agreement)
    assert one.accuracy.sqnr_db == pytest.approx(other.accuracy.sqnr_db, abs=1e-3)  # float32 dequantisation


def test_batches_side_by_side(artifact: Path, data: Path) -> None:
    run = edgeq.profile(artifact, batch=(1, 4), threads=2, data=data)
    variants = {variant.name: variant for variant in run.figures.variants}
    assert set(variants) == VARIANTS | {f"{name} b4" for name in VARIANTS}
    assert {variant.threads for variant in variants.values()} == {2}
    assert len(run.figures.speed_ups) == 4
    for name in VARIANTS:
        one, four = variants[name].accuracy, variants[f"{name} b4"].accuracy
        assert one is not None
        assert four is not None
        assert (one.top1, one.agreement) == (four.top1, four.agreement)


def test_a_real_power_reading(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 5 W sensor in a made-up sysfs: gross energy is 5 W times the time of an inference, net is nothing."""
    chip = tmp_path / "sys" / "class" / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina226\n")
    (chip / "power1_input").write_text("5000000\n")
    (chip / "update_interval").write_text("35\n")
    monkeypatch.setattr("edgeq.profiling.POWER_WINDOW_S", 0.5)
    monkeypatch.setattr("edgeq.profiling.IDLE_S", 0.5)
    run = edgeq.profile(artifact, power=True)
    for variant in run.figures.variants:
        assert isinstance(variant.energy, EnergyFigure)
        traced = next(one for one in run.trace.variants if one.name == variant.name)
        seconds = [(w.end_ns - w.start_ns) * 1e-9 / w.inferences for w in traced.windows]
        assert variant.energy.gross_mj == pytest.approx(5e3 * np.median(seconds), rel=1e-6)
        assert variant.energy.net_mj == pytest.approx(0.0, abs=1e-6)
        assert any("does not stand out" in finding for finding in variant.energy.findings)


def test_a_damaged_library_fails_one_engine_only(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that no library fits leaves the other one running, with a finding."""
    from edgeq.errors import DeviceError
    from edgeq.ondevice import installation
    from edgeq.runners.trace import EngineKind

    real = installation.library_for

    def half(engine: EngineKind, facts: object) -> object:
        if engine is EngineKind.LITERT:
            raise DeviceError("glibc 2.27 is too old for LiteRT")
        return real(engine, facts)  # type: ignore[arg-type]

    monkeypatch.setattr(installation, "library_for", half)
    monkeypatch.setattr(installation, "_wheel_on", lambda *_: False)
    deployment = edgeq.deploy(artifact, device="local")
    assert {model.name for model in deployment.models} == {"int8.onnx", "float.onnx"}
    told = [one for one in deployment.findings if "too old" in one.message]
    assert [one.severity for one in told] == [Severity.WARNING]


def test_what_cannot_be_used_is_told(artifact: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing has been converted"):
        edgeq.deploy(device="local")
    with pytest.raises(UsageError, match="no device 'pixle'"):
        edgeq.deploy(artifact, device="pixle")
    with pytest.raises(ModelError, match="no artifact"):
        edgeq.profile(tmp_path)
    with pytest.raises(DataError):
        edgeq.profile(artifact, data=tmp_path / "none")
    with pytest.raises(UsageError, match="is no count"):
        edgeq.profile(artifact, batch=(0,))
    with pytest.raises(UsageError, match="is no count"):
        edgeq.profile(artifact, threads=0)
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    (copy / "small.int8.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="has changed"):
        edgeq.deploy(copy, device="local")


def test_what_is_stored_holds_no_infinity(artifact: Path) -> None:
    run = edgeq.profile(artifact)
    assert run.path is not None
    assert "Infinity" not in run.path.read_text()
    assert to_plain(run.figures)["device"] == "local"
