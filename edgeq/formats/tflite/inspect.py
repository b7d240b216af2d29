"""What a TFLite file holds, and how much of it XNNPACK takes."""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from edgeq.errors import ModelError
from edgeq.execution import load_tflite

_SCALE_BYTES, _ZERO_POINT_BYTES = 4, 8
_FLOAT32 = 0
_LEAST_BYTES = 8  # up to the file's identifier
_BOUNDARY = frozenset({"QUANTIZE", "DEQUANTIZE"})
_NUMBERS = re.compile(r"/(int8|int16|float32)$")


class Sizes(NamedTuple):
    """Where the bytes of a file are."""

    weights: int
    quantization: int
    other: int


class Delegation(NamedTuple):
    """What XNNPACK takes: in how many pieces, and the operators left to the built-in kernels."""

    partitions: int
    left_over: Counter[str]


def count_operators(path: Path) -> Counter[str]:
    """Operator name → how many the file holds."""
    model = _load(path)
    return Counter(_name(model, operator) for operator in _operators(model))


def steps(path: Path) -> tuple[tuple[str, str], ...]:
    """Operator and the value that it gives (the first), in the order of the file.

    Of a value in other numbers than those it is called by (`value/int8`), the name of the value alone.
    """
    model = _load(path)
    graph = model.Subgraphs(0)
    found = ((_name(model, one), graph.Tensors(one.Outputs(0)).Name().decode()) for one in _operators(model))
    return tuple((kind, _NUMBERS.sub("", tensor)) for kind, tensor in found)


def float_operators(path: Path) -> Counter[str]:
    """Operator name → how many compute on reals and feed integers: what breaks an integer model apart.

    Those in front of the first QUANTIZE or behind the last DEQUANTIZE are the model's ends and don't count.
    """
    model = _load(path)
    graph = model.Subgraphs(0)
    steps = list(_operators(model))
    after = _reached([(_ends(step.InputsAsNumpy()), _ends(step.OutputsAsNumpy())) for step in steps], model)
    backwards = [(_ends(step.OutputsAsNumpy()), _ends(step.InputsAsNumpy())) for step in reversed(steps)]
    before = _reached(backwards, model)
    found: Counter[str] = Counter()
    for step in steps:
        target = step.Outputs(0)
        real = graph.Tensors(target).Type() == _FLOAT32 and _name(model, step) not in _BOUNDARY
        if real and target in after and target in before:
            found[_name(model, step)] += 1
    return found


def _reached(steps: list[tuple[list[int], list[int]]], model: Any) -> set[int]:
    """The tensors that integers flow into, following the steps in their order."""
    graph = model.Subgraphs(0)

    def holds_integers(tensor: int) -> bool:
        made = graph.Tensors(tensor)
        return bool(made.Type() != _FLOAT32 and made.Quantization() is not None and not made.Buffer())

    reached: set[int] = set()
    for sources, targets in steps:
        if any(tensor in reached or holds_integers(tensor) for tensor in sources):
            reached.update(targets)
    return reached


def sizes(path: Path) -> Sizes:
    """The file's bytes: weights and other constants, scales and zero points, and the rest."""
    model = _load(path)
    graph = model.Subgraphs(0)
    used = {graph.Tensors(index).Buffer() for index in range(graph.TensorsLength())}
    scales = {graph.Tensors(index).Buffer() for index in _scales(graph)}
    weights = sum(model.Buffers(index).DataLength() for index in used - scales)
    quantization = sum(model.Buffers(index).DataLength() for index in scales)
    for index in range(graph.TensorsLength()):
        grid = graph.Tensors(index).Quantization()
        if grid is not None:
            quantization += grid.ScaleLength() * _SCALE_BYTES + grid.ZeroPointLength() * _ZERO_POINT_BYTES
    return Sizes(weights, quantization, path.stat().st_size - weights - quantization)


def _scales(graph: Any) -> Iterator[int]:
    """The tensors that hold the scales of weights in groups."""
    from ai_edge_litert import schema_py_generated as schema

    for index in range(graph.TensorsLength()):
        grid = graph.Tensors(index).Quantization()
        if grid is not None and grid.DetailsType() == schema.QuantizationDetails.BlockwiseQuantization:
            details = schema.BlockwiseQuantization()
            details.Init(grid.Details().Bytes, grid.Details().Pos)
            yield details.Scales()


def delegated(path: Path) -> Delegation:
    """Loads the file in LiteRT with its defaults and tells what XNNPACK takes of it.

    The interpreter lists a DELEGATE node per partition beside all the operators of the file. An operator
    belongs to a partition if it lies between that node's outputs and its inputs.

    Raises:
        ModelError: LiteRT does not load the file.
    """
    interpreter = load_tflite(path)
    listed = interpreter._get_ops_details()
    steps = [step for step in listed if step["op_name"] != "DELEGATE"]
    maker = {int(tensor): index for index, step in enumerate(steps) for tensor in step["outputs"]}
    partitions = [step for step in listed if step["op_name"] == "DELEGATE"]
    taken: set[int] = set()
    for partition in partitions:
        ends, queue = set(_ends(partition["inputs"])), _ends(partition["outputs"])
        while queue:
            index = maker.get(queue.pop())
            if index is not None and index not in taken:
                taken.add(index)
                queue += [tensor for tensor in _ends(steps[index]["inputs"]) if tensor not in ends]
    left = Counter(step["op_name"] for index, step in enumerate(steps) if index not in taken)
    return Delegation(len(partitions), left)


def _load(path: Path) -> Any:
    """The file's root table.

    Raises:
        ModelError: no TFLite file, or a damaged one.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        with path.open("rb") as stream:  # mapped: of the weights, most of the file, nothing is looked at
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the model: {error}", where=str(path)) from error
    if len(data) < _LEAST_BYTES or not schema.Model.ModelBufferHasIdentifier(data, 0):
        raise ModelError("this is no TFLite file", where=str(path))
    return schema.Model.GetRootAs(data)


def _operators(model: Any) -> Iterator[Any]:
    graph = model.Subgraphs(0)
    return (graph.Operators(index) for index in range(graph.OperatorsLength()))


def _name(model: Any, operator: Any) -> str:
    code = model.OperatorCodes(operator.OpcodeIndex())
    return _names()[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]


@cache
def _names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def _ends(tensors: Any) -> list[int]:
    """Tensor numbers without the -1 of optional ones."""
    return [int(tensor) for tensor in tensors if tensor >= 0]
