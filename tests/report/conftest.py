"""Hand-made figures: a conversion and a run as MobileNetV2 would give, with the awkward cases in them."""

import math

import pytest

from edgeq.figures import (
    AgreementFigure,
    ConversionFigures,
    FileFigure,
    Format,
    LayerFigure,
    ParityFigure,
    Precision,
)
from edgeq.measure.figures import (
    AccuracyFigure,
    EnergyFigure,
    EnvironmentFigure,
    Histogram,
    Interval,
    LatencyFigure,
    OpFigure,
    RailFigure,
    RooflineFigure,
    RunFigures,
    SpeedUpFigure,
    Unavailable,
    VariantFigures,
)
from edgeq.quantize.plan import FloatOp
from edgeq.runners.trace import EngineKind, Status

HOSTILE = '<script>alert("x")</script>&\'conv'
"""A layer name as nobody hopes for."""


def file_figure(name, format_, precision, total, **kwargs):
    given = {
        "operators": {"CONV_2D": 36, "ADD": 10},
        "runtime_operators": {"CONV_2D": 52},
        "float_operators": {},
    }
    weights = int(total * 0.93)
    grids = 40_000 if precision is Precision.INT8 else 0
    rest = total - weights - grids
    return FileFigure(name, format_, precision, total, weights, grids, rest, **(given | kwargs))


@pytest.fixture
def conversion_figures():
    layers = tuple(
        LayerFigure(
            layer=HOSTILE
            if index == 7
            else f"block_{index // 3}_{('expand', 'depthwise', 'project')[index % 3]}",
            op_type="Conv",
            tensor=f"t{index}",
            scale=0.0235 + index * 1e-4,
            zero_point=-128 + index,
            low=-3.0,
            high=3.01 + index / 10,
            sqnr_db=None if index == 11 else 42 - index * 0.4 + 3 * math.sin(index),
            saturated=None if index == 11 else 0.0004 * index,
        )
        for index in range(52)
    )
    return ConversionFigures(
        source="models/mobilenet.h5",
        source_format="Keras .h5",
        recipe="balanced",
        target="raspberry-pi-5",
        calibrated="data",
        samples=100,
        preprocess="torch",
        operators_before={"Conv": 52, "BatchNormalization": 52, "Clip": 35, "Add": 10, "Gemm": 1},
        operators_after={"Conv": 52, "Clip": 35, "Add": 10, "Gemm": 1},
        fused=tuple(f"bn_{index} into conv_{index}" for index in range(52)),
        float_ops=(
            FloatOp("softmax", "Softmax", "the model's output stays float, 8 bits would cost precision"),
        ),
        files=(
            file_figure("mobilenet.int8.tflite", Format.TFLITE, Precision.INT8, 3_700_000, partitions=1),
            file_figure(
                "mobilenet.int8.onnx", Format.ONNX, Precision.INT8, 3_800_000, float_operators={"Softmax": 1}
            ),
            file_figure(
                "mobilenet.float.onnx", Format.ONNX, Precision.FLOAT32, 14_000_000, float_operators={}
            ),
        ),
        agreement=(
            AgreementFigure("mobilenet.int8.tflite", 100, 0.94, 19.61, 0.83, 0.84),
            AgreementFigure("mobilenet.int8.onnx", 100, 0.94, 19.61, 0.83, 0.84),
        ),
        parity=ParityFigure(samples=100, values=100_000, differing=0, max_steps=0),
        layers=layers,
        warnings=("two channels of block_3_depthwise are nearly dead; their scale was widened",),
        steps=("the output channels of 17 layers were scaled to use their grids evenly",),
        seconds={"read": 0.31, "calibrate": 1.42, "verify": 2.2},
        versions={"edgeq": "0.1.0", "onnxruntime": "1.31.1", "ai-edge-litert": "2.3.0"},
    )


def latency_figure(p50_ns, **kwargs):
    counts = tuple(int(400 * math.exp(-((bin_ - 8) ** 2) / (18 if bin_ < 8 else 90))) for bin_ in range(40))
    edges = tuple(p50_ns * (0.95 + 0.006 * edge) for edge in range(41))
    given = {
        "inferences": sum(counts),
        "seconds": 61.2,
        "min_ns": p50_ns * 0.95,
        "mean_ns": p50_ns * 1.01,
        "std_ns": p50_ns * 0.03,
        "p50_ns": p50_ns,
        "p90_ns": p50_ns * 1.05,
        "p95_ns": p50_ns * 1.08,
        "p99_ns": p50_ns * 1.17,
        "max_ns": p50_ns * 1.9,
        "p50_interval": Interval(p50_ns * 0.99, p50_ns * 1.01),
        "p90_interval": Interval(p50_ns * 1.04, p50_ns * 1.06),
        "round_p50_ns": (p50_ns,) * 5,
        "spread": 0.01,
        "drift": 0.002,
        "steady": True,
        "noisy": False,
        "quotable": True,
        "inferences_per_s": 1e9 / (p50_ns * 1.01),
        "histogram": Histogram(edges, counts),
    }
    return LatencyFigure(**(given | kwargs))


def variant_figures(name, precision, p50_ns, **kwargs):
    kind = Format.TFLITE if name.endswith("tflite") else Format.ONNX
    engine = EngineKind.LITERT if kind is Format.TFLITE else EngineKind.ONNXRUNTIME
    given = {
        "file": f"mobilenet.{name}",
        "format": kind,
        "precision": precision,
        "engine": engine,
        "threads": 1,
        "batch": 1,
        "model_bytes": 3_700_000 if precision is Precision.INT8 else 14_000_000,
        "status": Status.DONE,
        "runtime_version": "2.3.0" if kind is Format.TFLITE else "1.31.1",
        "load_ns": 31e6,
        "first_inference_ns": p50_ns * 3,
        "warm_up_inferences": 40,
        "peak_memory_bytes": 41_000_000,
        "latency": latency_figure(p50_ns),
        "ops": (OpFigure(f"{HOSTILE} 1x1", 12, p50_ns * 0.6, 0.6), OpFigure("add", 10, p50_ns * 0.4, 0.4)),
    }
    return VariantFigures(name=name, **(given | kwargs))


@pytest.fixture
def energy_figure():
    rails = (RailFigure("hwmon", "VDD_CPU", 3.1, True), RailFigure("hwmon", "VDD_IN", 6.2, False))
    return EnergyFigure(
        "hwmon", rails, 21.4, 12.2, 0.9, 1.1, 5.1, 2.1, 2.2, 5, (21.1, 21.4, 21.6, 21.3, 21.5)
    )


@pytest.fixture
def run_figures(energy_figure):
    unavailable = Unavailable({"hwmon": "no sensor under /sys/class/hwmon", "powercap": "permission denied"})
    accuracy = AccuracyFigure(900, 0.8367, Interval(0.811, 0.859), 0.951)
    against = AccuracyFigure(900, 0.829, Interval(0.803, 0.852), 0.949, "float.tflite", 0.948, 19.6)
    environment = EnvironmentFigure(
        hostname="pi5",
        machine="aarch64",
        system="linux",
        kernel="6.6.31",
        cpu_model="Cortex-A76",
        cpu_count=4,
        python="3.11.2",
        memory_bytes=8_300_000_000,
        governor="performance",
        frequency_hz_min=2.4e9,
        frequency_hz_max=2.4e9,
        frequency_share=1.0,
        temperature_before_c=48.2,
        temperature_max_c=61.0,
        temperature_after_c=59.4,
        load_1min=0.3,
        affinity=(3,),
        throttled=False,
    )
    return RunFigures(
        artifact="mobilenet",
        device="pi5",
        profile="raspberry-pi-5",
        started_unix_s=1_795_000_000.0,
        variants=(
            variant_figures("float.tflite", Precision.FLOAT32, 21.3e6, accuracy=accuracy, energy=unavailable),
            variant_figures(
                "int8.tflite",
                Precision.INT8,
                9.2e6,
                accuracy=against,
                energy=energy_figure,
                roofline=RooflineFigure(300_800_000, 3.27e10, 7.68e10, 0.426, 3.9e6),
            ),
            variant_figures(
                "int8.onnx",
                Precision.INT8,
                1.0,
                status=Status.FAILED,
                reason="killed by SIGILL",
                latency=None,
                ops=(),
            ),
        ),
        speed_ups=(
            SpeedUpFigure(
                "int8.tflite", "float.tflite", 2.31, Interval(2.26, 2.37), 2.32, Interval(2.28, 2.36), True
            ),
        ),
        environment=environment,
        samples=900,
        preprocess="torch",
        power_unavailable={"powercap": "permission denied"},
        warnings=("the rounds of float.tflite differ by 7 %: something else ran on the device",),
    )
