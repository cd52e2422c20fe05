"""Writes dequantize-goldens.json: digests of what the `gguf` package (0.19) makes of seeded random blocks.

Run: python3 test/kernels/reference/make_dequantize_goldens.py
dequantize.test.ts makes the same blocks; both sides draw bytes from one linear congruential generator.
"""

import hashlib
import json
import pathlib

import gguf
import numpy as np

BLOCKS = 40
HALF_FIELDS = {
    "f16": [0], "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82],
    "q3_k": [108], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "iq4_nl": [0], "mxfp4": [],
    "bf16": [0], "f32": [2],
}


def random_blocks(name: str, block_bytes: int) -> np.ndarray:
    state = 20
    out = np.zeros(BLOCKS * block_bytes, np.uint8)
    for i in range(out.size):
        state = (state * 1664525 + 1013904223) % 2**32
        out[i] = state >> 24
    for start in range(0, out.size, block_bytes):
        for field in HALF_FIELDS[name]:
            out[start + field + 1] &= 0xBF  # no infinity, no NaN
    return out


goldens = {}
for name in HALF_FIELDS:
    kind = gguf.GGMLQuantizationType[name.upper()]
    blocks = random_blocks(name, gguf.GGML_QUANT_SIZES[kind][1])
    if name == "f32":
        values = blocks.view(np.float32)
    elif name == "f16":
        values = blocks.view(np.float16).astype(np.float32)
    else:
        values = gguf.quants.dequantize(blocks.reshape(1, -1), kind)
    values = np.ascontiguousarray(values, np.float32).ravel()
    goldens[name] = {
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        "first": [float(v) for v in values[:4]],
    }
target = pathlib.Path(__file__).with_name("dequantize-goldens.json")
target.write_text(json.dumps(goldens, indent=2) + "\n")
