"""Small graphs by hand, and both runtimes on them: what the tests of the TFLite writer share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.onnx import write_qdq
from edgeq.formats.tflite import IoType, write
from edgeq.formats.tflite.layout import storage_order
from edgeq.quantize.dialect import Activations
from edgeq.quantize.plan import FloatOp, Plan, Quant

Arrays = dict[str, NDArray[Any]]
Attributes = Mapping[str, Any]
NodeSpec = tuple[str, Sequence[str], Sequence[str], Attributes]


@dataclass(frozen=True)
class Case:
    """One graph: inputs by shape, constants by array, nodes in order."""

    inputs: Mapping[str, tuple[int | str, ...]]
    nodes: Sequence[NodeSpec]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)

    def model(self) -> ir.Model:
        """The canonical graph, shapes inferred by ONNX itself."""
        import onnx
        from onnx import helper, numpy_helper

        nodes = [
            helper.make_node(op, list(ins), list(outs), name=f"{op}_{index}", **attributes)
            for index, (op, ins, outs, attributes) in enumerate(self.nodes)
        ]
        graph = helper.make_graph(
            nodes,
            "case",
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in self.inputs.items()],
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 21)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))

    def sample(self, rng: np.random.Generator, batch: int = 1) -> Arrays:
        """Random inputs."""
        shapes = {n: tuple(batch if isinstance(d, str) else d for d in s) for n, s in self.inputs.items()}
        return {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in shapes.items()}


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> NodeSpec:
    """A node from space-separated names; `-` leaves an input out."""
    return op, ["" if name == "-" else name for name in inputs.split()], output.split(), attributes


def on_onnxruntime(model: ir.Model | Path, sample: Arrays) -> Arrays:
    """The outputs under ONNX Runtime with its defaults."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, sample), strict=True))


def on_litert(model: ir.Model, path: Path, sample: Arrays) -> Arrays:
    """The outputs of a written file under LiteRT with XNNPACK; inputs are given in ONNX's axes."""
    from ai_edge_litert.interpreter import Interpreter

    orders = {str(v.name): storage_order(v) for v in model.graph.inputs}
    fed = {name: np.ascontiguousarray(array.transpose(orders[name])) for name, array in sample.items()}
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return dict(interpreter.get_signature_runner()(**fed))


def random_grid(rng: np.random.Generator, low: float = 4.0, high: float = 7.0) -> Quant:
    """An activation grid whose range is somewhere around [-low, high]."""
    low, high = -float(rng.uniform(0.3, 1) * low), float(rng.uniform(0.3, 1) * high)
    return grid_of(low, high)


def grid_of(low: float, high: float) -> Quant:
    """The int8 grid that holds [low, high]."""
    scale = float(np.float32((high - low) / 255))
    return Quant((scale,), (int(np.clip(round(-128 - low / scale), -128, 127)),))


def weight_grid(weights: NDArray[np.float32], axis: int | None) -> Quant:
    """A symmetric grid, per channel along `axis` or per tensor."""
    if axis is None:
        peaks = np.abs(weights).max().reshape(1)
    else:
        peaks = np.abs(weights).max(axis=tuple(i for i in range(weights.ndim) if i != axis))
    scales = (np.maximum(peaks, 1e-3) / 127).astype(np.float32)
    return Quant(tuple(float(s) for s in scales), (0,) * len(scales), axis=axis, narrow=True)


def bias_grid(x: Quant, weights: Quant) -> Quant:
    """int32 on s_x · s_w."""
    scales = np.float32(x.scale[0]) * np.asarray(weights.scale, np.float32)
    axis = None if weights.axis is None else 0
    return Quant(tuple(float(s) for s in scales), (0,) * len(scales), bits=32, axis=axis)


def plan_of(grids: Mapping[str, Quant], floats: Sequence[str] = (), absorbed: Sequence[str] = ()) -> Plan:
    """A plan of these grids."""
    return Plan(dict(grids), tuple(FloatOp(name, "", "test") for name in floats), tuple(absorbed))


def both(case: Case, plan: Plan, folder: Path, sample: Arrays) -> tuple[Arrays, Arrays]:
    """The reals that LiteRT and ONNX Runtime give on the two files of one plan."""
    model = case.model()
    write(model, plan, folder / "m.tflite", IoType.FLOAT32)
    write_qdq(model, plan, folder / "m.onnx", Activations.U8)
    return on_litert(model, folder / "m.tflite", sample), on_onnxruntime(folder / "m.onnx", sample)
