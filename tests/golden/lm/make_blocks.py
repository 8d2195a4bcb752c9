"""Writes blocks.json: a row of every type of weights that GGUF files have, and the floats that the `gguf` package (the
format's own, in NumPy) makes of it.

    pip install gguf==0.19.0 numpy==2.4.6
    python make_blocks.py
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Where a block has half floats: scales and minima.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}  # fmt: skip

rng = np.random.default_rng(7)
rows = []
for kind in [T.F32, T.F16, T.BF16, *HALVES]:
    length, size = GGML_QUANT_SIZES[kind]
    k = 512 if length == 256 else 64
    if kind in HALVES:
        blocks = rng.integers(0, 256, (k // length, size), dtype=np.uint8)
        for at in HALVES[kind]:
            halves = rng.uniform(-0.1, 0.1, (k // length, 1)).astype(np.float16)
            blocks[:, at : at + 2] = halves.view(np.uint8)
        data = blocks.reshape(-1)
    else:
        floats = rng.normal(size=k).astype(np.float32)
        data = {T.F32: floats, T.F16: floats.astype(np.float16), T.BF16: (floats.view(np.uint32) >> 16).astype(np.uint16)}
        data = data[kind].view(np.uint8)
    floats = np.asarray(dequantize(data.reshape(1, -1), kind), dtype=np.float32).reshape(-1)
    assert floats.size == k, (kind, floats.size)
    floats = [float(f"{v:.9g}") for v in floats]
    rows.append({"ggml_type": int(kind), "k": k, "bytes": data.tolist(), "floats": floats})

lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
(Path(__file__).parent / "blocks.json").write_text(f"[\n{lines}\n]\n")
