"""A small vision transformer as exporters write it: patches, two blocks, mean, head; a few outlier channels.

Trained transformers have channels whose normalised values are tens of times the others' (Xiao et al. 2023,
section 3); here the factors of the norms make them, and the weights that read them are small.
"""

from __future__ import annotations

import numpy as np

WIDTH, HEADS, TOKENS, CLASSES = 32, 4, 16, 10
OUTLIERS = (3, 17)
LOUD = 30.0

_HEAD_WIDTH = WIDTH // HEADS
_SHAPES = {
    "patches": (-1, WIDTH, TOKENS),
    "heads": (-1, TOKENS, HEADS, _HEAD_WIDTH),
    "joined": (-1, TOKENS, 3, HEADS, _HEAD_WIDTH),
    "merged": (-1, TOKENS, WIDTH),
}


def _block(k, joint):
    """Pre-norm attention and MLP; query, key and value by one product or by three."""
    if joint:
        attention = f"""
    qkv{k} = MatMul(n{k}, wqkv{k})
    qkvb{k} = Add(qkv{k}, bqkv{k})
    qkvs{k} = Reshape(qkvb{k}, joined)
    qkvt{k} = Transpose<perm=[2,0,3,1,4]>(qkvs{k})
    q{k} = Gather<axis=0>(qkvt{k}, zero)
    kr{k} = Gather<axis=0>(qkvt{k}, one)
    v{k} = Gather<axis=0>(qkvt{k}, two)
    k{k} = Transpose<perm=[0,1,3,2]>(kr{k})"""
    else:
        attention = "".join(
            f"""
    {part}m{k} = MatMul(n{k}, w{part}{k})
    {part}b{k} = Add(b{part}{k}, {part}m{k})
    {part}s{k} = Reshape({part}b{k}, heads)
    {part}{k} = Transpose<perm={"[0,2,3,1]" if part == "k" else "[0,2,1,3]"}>({part}s{k})"""
            for part in "qkv"
        )
    return f"""
    n{k} = LayerNormalization<axis=-1>(x{k}, gn{k}, hn{k}){attention}
    ql{k} = Mul(q{k}, root)
    s{k} = MatMul(ql{k}, k{k})
    a{k} = Softmax<axis=-1>(s{k})
    o{k} = MatMul(a{k}, v{k})
    ot{k} = Transpose<perm=[0,2,1,3]>(o{k})
    om{k} = Reshape(ot{k}, merged)
    p{k} = MatMul(om{k}, wp{k})
    pb{k} = Add(p{k}, bp{k})
    y{k} = Add(x{k}, pb{k})
    m{k} = LayerNormalization<axis=-1>(y{k}, gm{k}, hm{k})
    f{k} = MatMul(m{k}, wf{k})
    fb{k} = Add(f{k}, bf{k})
    e{k} = Div(fb{k}, rootwo)
    ee{k} = Erf(e{k})
    e1{k} = Add(ee{k}, unit)
    e2{k} = Mul(fb{k}, e1{k})
    g{k} = Mul(e2{k}, half)
    r{k} = MatMul(g{k}, wr{k})
    rb{k} = Add(r{k}, br{k})
    x{k + 1} = Add(y{k}, rb{k})"""


def transformer(graph, rng, joint=False, blocks=2):
    """The canonical graph; `graph` builds one from ONNX text. Takes [n, 3, 16, 16], gives 10 logits."""
    from edgeq.graph import canonicalise

    body = f"""net (float[n,3,16,16] image) => (float[n,{CLASSES}] logits) {{
    c = Conv<kernel_shape=[4,4], strides=[4,4]>(image, wc, bc)
    cr = Reshape(c, patches)
    ct = Transpose<perm=[0,2,1]>(cr)
    x0 = Add(ct, positions){"".join(_block(k, joint) for k in range(blocks))}
    last = LayerNormalization<axis=-1>(x{blocks}, gl, hl)
    mean = ReduceMean<keepdims=0>(last, middle)
    logits = Gemm<transB=1>(mean, wl, bl)
}}"""
    model = graph(body, **_constants(rng, joint, blocks))
    for node in model.graph:
        node.name = node.outputs[0].name
    return canonicalise(model)


def _constants(rng, joint, blocks):
    def weights(inputs, outputs, loud=True, gain=1.0):
        matrix = gain * rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        if loud:
            matrix[list(OUTLIERS)] /= LOUD / 2
        return matrix.astype(np.float32)

    def vector(size, mean=0.0, deviation=0.1):
        return (mean + deviation * rng.normal(size=size)).astype(np.float32)

    def norm(names):
        factors = vector(WIDTH, 1.0, 0.2)
        factors[list(OUTLIERS)] *= LOUD
        return dict(zip(names, (factors, vector(WIDTH)), strict=True))

    found = {
        "wc": vector((WIDTH, 3, 4, 4), deviation=1 / np.sqrt(48)),
        "bc": vector(WIDTH),
        "positions": vector((1, TOKENS, WIDTH), deviation=0.5),
        "root": np.float32(_HEAD_WIDTH**-0.5),
        "rootwo": np.float32(2**0.5),
        "unit": np.float32(1),
        "half": np.float32(0.5),
        "middle": np.array([1]),
        "wl": vector((CLASSES, WIDTH), deviation=0.5),
        "bl": vector(CLASSES),
        **{name: np.array(shape) for name, shape in _SHAPES.items() if (name == "joined") <= joint},
        **norm(("gl", "hl")),
    }
    if joint:
        del found["heads"]
        found |= {"zero": np.array(0), "one": np.array(1), "two": np.array(2)}
    for k in range(blocks):
        parts = {"qkv": 3 * WIDTH} if joint else dict.fromkeys("qkv", WIDTH)
        for part, size in parts.items():
            found |= {f"w{part}{k}": weights(WIDTH, size), f"b{part}{k}": vector(size)}
        found |= {f"wp{k}": weights(WIDTH, WIDTH, loud=False, gain=0.5), f"bp{k}": vector(WIDTH)}
        found |= {f"wf{k}": weights(WIDTH, 4 * WIDTH), f"bf{k}": vector(4 * WIDTH)}
        found |= {f"wr{k}": weights(4 * WIDTH, WIDTH, loud=False, gain=0.5), f"br{k}": vector(WIDTH)}
        found |= norm((f"gn{k}", f"hn{k}")) | norm((f"gm{k}", f"hm{k}"))
    return found
