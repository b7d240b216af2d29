"""The TFLite operators edgeq writes: codes, option tables, and the versions a reader must know.

Source: the TFLite schema (`BuiltinOperator`, `BuiltinOptions`) and LiteRT's own version tables,
tflite/converter/tools/versioning/op_version.cc and runtime_version.cc. A wrong code or version runs
unnoticed in one runtime and is refused by the next, hence one table and a test that compares it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto


class Padding(IntEnum):
    """How a convolution or pool pads (schema `Padding`)."""

    SAME = 0
    VALID = 1


class Activation(IntEnum):
    """A clamp that an operator applies to its result (schema `ActivationFunctionType`)."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3


class TensorType(IntEnum):
    """Element types of tensors (schema `TensorType`)."""

    FLOAT32 = 0
    FLOAT16 = 1
    INT32 = 2
    UINT8 = 3
    INT64 = 4
    BOOL = 6
    INT16 = 7
    INT8 = 9
    INT4 = 17


class Trait(Enum):
    """What about one use of an operator asks for a later version of it."""

    INT8 = auto()
    INT16 = auto()
    INT4 = auto()
    GROUPED = auto()
    DILATED = auto()
    BIAS = auto()
    KEEP_DIMS = auto()
    RESCALE_UP = auto()
    HALF_PIXEL = auto()
    RANK_5 = auto()
    RANK_6 = auto()


FUSING_OPTIONS = frozenset(
    {
        "AddOptions", "Conv2DOptions", "DepthwiseConv2DOptions", "DivOptions", "FullyConnectedOptions",
        "MulOptions", "Pool2DOptions", "SubOptions",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """One operator.

    Attributes:
        code: its `BuiltinOperator` number.
        options: its option table's name in the schema, "" where it has none.
        runtime: version → the first TensorFlow Lite release that runs it.
        since: trait → the version that brought it; version 1 has none of them.
    """

    code: int
    options: str
    runtime: Mapping[int, str]
    since: Mapping[Trait, int] = field(default_factory=dict)

    @property
    def fuses(self) -> bool:
        """Whether its option table has a fused activation that XNNPACK takes."""
        return self.options in FUSING_OPTIONS

    def version(self, traits: Iterable[Trait]) -> int:
        """The least version that covers all traits."""
        return max([1, *(self.since[trait] for trait in traits if trait in self.since)])


def _plain(code: int, options: str, runtime: str, int8: str = "") -> Spec:
    """An operator whose version 2, where it has one, is the int8 kernel."""
    if not int8:
        return Spec(code, options, {1: runtime})
    return Spec(code, options, {1: runtime, 2: int8}, {Trait.INT8: 2})


class Op(Enum):
    """The closed table of the operators edgeq writes."""

    ADD = Spec(0, "AddOptions", {1: "1.5.0", 2: "1.14.0", 3: "2.4.0"}, {Trait.INT8: 2, Trait.INT16: 3})
    AVERAGE_POOL_2D = _plain(1, "Pool2DOptions", "1.5.0", "1.14.0")
    CONCATENATION = _plain(2, "ConcatenationOptions", "1.5.0", "1.14.0")
    CONV_2D = Spec(
        3,
        "Conv2DOptions",
        {1: "1.5.0", 3: "1.14.0", 4: "2.3.0", 6: "2.9.0"},
        {Trait.INT8: 3, Trait.INT16: 4, Trait.GROUPED: 6},
    )
    DEPTHWISE_CONV_2D = Spec(
        4,
        "DepthwiseConv2DOptions",
        {1: "1.5.0", 2: "1.12.0", 3: "1.14.0", 5: "2.3.0"},
        {Trait.DILATED: 2, Trait.INT8: 3, Trait.INT16: 5},
    )
    DEPTH_TO_SPACE = _plain(5, "DepthToSpaceOptions", "2.1.0", "2.5.0")
    DEQUANTIZE = Spec(
        6, "DequantizeOptions", {1: "1.13.1", 2: "1.14.0", 3: "1.15.0"}, {Trait.INT8: 2, Trait.INT16: 3}
    )
    FLOOR = _plain(8, "", "1.9.0")
    FULLY_CONNECTED = Spec(
        9,
        "FullyConnectedOptions",
        {1: "1.5.0", 4: "1.14.0", 5: "2.0.0", 7: "2.3.0", 10: "2.11.0"},
        {Trait.INT8: 4, Trait.KEEP_DIMS: 5, Trait.INT16: 7, Trait.INT4: 10},
    )
    LOGISTIC = _plain(14, "", "1.14.0", "1.14.0")
    MAX_POOL_2D = _plain(17, "Pool2DOptions", "1.5.0", "1.14.0")
    MUL = Spec(18, "MulOptions", {1: "1.5.0", 2: "1.14.0", 3: "1.15.0"}, {Trait.INT8: 2, Trait.RESCALE_UP: 3})
    RELU = _plain(19, "", "1.5.0", "2.1.0")
    RELU_N1_TO_1 = _plain(20, "", "1.5.0")
    RELU6 = _plain(21, "", "1.5.0", "1.14.0")
    RESHAPE = _plain(22, "ReshapeOptions", "1.5.0")
    RESIZE_BILINEAR = Spec(
        23,
        "ResizeBilinearOptions",
        {1: "1.7.0", 2: "1.14.0", 3: "2.2.0"},
        {Trait.INT8: 2, Trait.HALF_PIXEL: 3},
    )
    SOFTMAX = _plain(25, "SoftmaxOptions", "1.5.0", "1.14.0")
    SPACE_TO_DEPTH = _plain(26, "SpaceToDepthOptions", "1.5.0", "1.14.0")
    TANH = _plain(28, "", "1.14.0", "1.14.0")
    PAD = Spec(
        34,
        "PadOptions",
        {1: "1.5.0", 2: "1.14.0", 3: "2.4.0", 4: "2.6.0"},
        {Trait.INT8: 2, Trait.INT16: 3, Trait.RANK_5: 4},
    )
    TRANSPOSE = Spec(
        39,
        "TransposeOptions",
        {1: "1.6.0", 2: "1.14.0", 4: "2.3.0", 5: "2.4.0", 6: "2.12.0"},
        {Trait.INT8: 2, Trait.RANK_5: 4, Trait.INT16: 5, Trait.RANK_6: 6},
    )
    MEAN = _plain(40, "ReducerOptions", "1.6.0", "1.14.0")
    SUB = Spec(41, "SubOptions", {1: "1.6.0", 2: "1.14.0", 3: "2.3.0"}, {Trait.INT8: 2, Trait.RANK_5: 3})
    DIV = Spec(42, "DivOptions", {1: "1.6.0", 2: "2.3.0"}, {Trait.RANK_5: 2})
    STRIDED_SLICE = Spec(
        45, "StridedSliceOptions", {1: "1.6.0", 2: "1.14.0", 4: "2.2.0"}, {Trait.INT8: 2, Trait.RANK_5: 4}
    )
    EXP = _plain(47, "ExpOptions", "1.7.0", "2.12.0")
    SPLIT = _plain(49, "SplitOptions", "1.5.0", "1.14.0")
    LOG_SOFTMAX = _plain(50, "LogSoftmaxOptions", "1.14.0", "1.14.0")
    CAST = _plain(53, "CastOptions", "1.5.0")
    PRELU = _plain(54, "", "1.8.0")
    MAXIMUM = Spec(
        55, "MaximumMinimumOptions", {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"}, {Trait.INT8: 2, Trait.RANK_5: 3}
    )
    MINIMUM = Spec(
        57, "MaximumMinimumOptions", {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"}, {Trait.INT8: 2, Trait.RANK_5: 3}
    )
    NEG = _plain(59, "NegOptions", "1.9.0")
    PADV2 = Spec(60, "PadV2Options", {1: "1.9.0", 2: "1.14.0", 4: "2.6.0"}, {Trait.INT8: 2, Trait.RANK_5: 4})
    SIN = _plain(66, "", "1.9.0")
    TRANSPOSE_CONV = Spec(
        67,
        "TransposeConvOptions",
        {1: "1.9.0", 2: "2.2.0", 3: "2.3.0"},
        {Trait.INT8: 2, Trait.BIAS: 3},
    )
    LOG = _plain(73, "", "1.14.0", "2.15.0")
    SUM = _plain(74, "ReducerOptions", "1.10.0", "1.15.0")
    SQRT = _plain(75, "", "1.10.0", "2.21.0")
    RSQRT = _plain(76, "", "1.10.0", "2.5.0")
    POW = _plain(78, "PowOptions", "1.10.0")
    REDUCE_MAX = _plain(82, "ReducerOptions", "1.11.0", "1.14.0")
    REDUCE_MIN = _plain(89, "ReducerOptions", "1.11.0", "1.14.0")
    RESIZE_NEAREST_NEIGHBOR = Spec(
        97,
        "ResizeNearestNeighborOptions",
        {1: "1.13.1", 2: "1.14.0", 3: "2.3.0"},
        {Trait.INT8: 2, Trait.HALF_PIXEL: 3},
    )
    LEAKY_RELU = _plain(98, "LeakyReluOptions", "1.13.1")
    MIRROR_PAD = _plain(100, "MirrorPadOptions", "1.13.1", "2.3.0")
    ABS = _plain(101, "AbsOptions", "1.13.0", "2.4.0")
    CEIL = _plain(104, "", "1.14.0")
    COS = _plain(108, "CosOptions", "1.14.0")
    ELU = _plain(111, "", "1.14.0")
    QUANTIZE = Spec(114, "QuantizeOptions", {1: "1.14.0", 2: "1.15.0"}, {Trait.INT16: 2})
    ROUND = _plain(116, "", "1.14.0")
    HARD_SWISH = _plain(117, "HardSwishOptions", "1.15.0")
    BATCH_MATMUL = _plain(126, "BatchMatMulOptions", "2.3.0", "2.3.0")
    GELU = _plain(150, "GeluOptions", "2.9.0", "2.9.0")
