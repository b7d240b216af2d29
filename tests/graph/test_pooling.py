"""Global pooling has one spelling."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import applied, operators, parse

from edgeq.graph.pooling import globalize_pools

AXES = {"axes": np.array([2, 3]), "negative": np.array([-1, -2]), "one": np.array([3])}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = ReduceMean<keepdims=1>(x, axes)", {"GlobalAveragePool": 1}),
        ("y = ReduceMean<keepdims=0>(x, negative)", {"GlobalAveragePool": 1, "Reshape": 1}),
        ("y = ReduceMax<keepdims=0>(x, axes)", {"GlobalMaxPool": 1, "Reshape": 1}),
        ("y = AveragePool<kernel_shape=[4,4]>(x)", {"GlobalAveragePool": 1}),
        ("y = MaxPool<kernel_shape=[4,4],strides=[2,2]>(x)", {"GlobalMaxPool": 1}),
        ("y = ReduceMean(x, one)", {"ReduceMean": 1}),
        ("y = AveragePool<kernel_shape=[3,3]>(x)", {"AveragePool": 1}),
        ("y = AveragePool<kernel_shape=[4,4],pads=[1,1,1,1]>(x)", {"AveragePool": 1}),
    ],
)
def test_pooling_over_the_whole_picture_is_global(body: str, expected: dict[str, int]) -> None:
    rank = 2 if "keepdims=0" in body else 4
    output = f"float[{', '.join(f'd{i}' for i in range(rank))}] y"
    result = applied(parse("float[n,3,4,4] x", output, body, AXES), globalize_pools)
    assert dict(operators(result)) == expected
    assert result.graph.outputs[0].name == "y"
