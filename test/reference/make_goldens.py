#!/usr/bin/env python3
"""Writes the reference logits and hidden states of tiny random models, computed by transformers, into goldens/.

Run by hand when a model family is added; the results are checked in, the weights are not: both this script and
tiny-checkpoint.ts compute them from the seed, the tensor's name and the element's index.

    pip install torch==2.15.0 transformers==5.23.0
    python test/reference/make_goldens.py [name ...]
"""
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / "goldens"
VOCABULARY = 160
PROMPT_TOKENS = 40
# Every row's most likely token is stored, all logits only for these.
FULL_ROWS = [0, 1, 7, 8, 9, 17, 31, 39]

SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)

LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)

MODELS = {
    "llama2": ("LlamaForCausalLM", dict(num_key_value_heads=4)),
    "llama3": ("LlamaForCausalLM", dict(max_position_embeddings=256, rope_parameters=LLAMA3_ROPE)),
    "llama-biases": ("LlamaForCausalLM", dict(attention_bias=True, mlp_bias=True)),
    "llama-yarn": (
        "LlamaForCausalLM",
        dict(rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)),
    ),
    "smollm2": (
        "LlamaForCausalLM",
        dict(
            hidden_size=72,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=100000.0),
        ),
    ),
    "mistral": ("MistralForCausalLM", dict(sliding_window=8)),
    "qwen2": ("Qwen2ForCausalLM", dict(tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen2-window": ("Qwen2ForCausalLM", dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)),
    "qwen3": ("Qwen3ForCausalLM", dict(head_dim=32, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "gemma3": (
        "Gemma3ForCausalLM",
        dict(
            num_hidden_layers=7,
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=8,
            final_logit_softcapping=5.0,
            tie_word_embeddings=True,
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                sliding_attention=dict(rope_type="default", rope_theta=1e4),
            ),
        ),
    ),
}


def hash_name(name):
    """FNV-1a, 32 bits."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def uniform(seed, name, count):
    """`count` values in [-1, 1), each a multiple of 2^-23 and so exact in f32 (murmur3's finaliser)."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(hash_name(name) ^ seed)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        x ^= x >> np.uint32(16)
    return ((x >> np.uint32(8)).astype(np.int32) - (1 << 23)).astype(np.float32) * np.float32(2.0**-23)


def weight(seed, name, shape, norm_offset):
    values = uniform(seed, name, int(np.prod(shape)))
    if "norm" in name:
        values = np.float32(1 - norm_offset) + values * np.float32(0.25)
    else:
        values = values * np.float32(0.25)
    return torch.from_numpy(values.reshape(shape))


def make(name, seed):
    architecture, changes = MODELS[name]
    model_class = getattr(transformers, architecture)
    config = model_class.config_class(**{**SIZES, **changes}, attn_implementation="eager")
    config.architectures = [architecture]
    model = model_class(config).float().eval()
    norm_offset = 1 if architecture.startswith("Gemma") else 0
    shapes = {}
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            shapes[parameter_name] = list(parameter.shape)
            parameter.copy_(weight(seed, parameter_name, parameter.shape, norm_offset))
        tokens = [int((value + 1) / 2 * VOCABULARY) for value in uniform(seed, "prompt", PROMPT_TOKENS)]
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()
        hidden = model.model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0].double().numpy()
    best = np.sort(logits, axis=1)[:, ::-1]
    stored_config = json.loads(config.to_json_string())
    return dict(
        transformers=transformers.__version__,
        seed=seed,
        config=stored_config,
        parameters=shapes,
        tokens=tokens,
        top1=logits.argmax(axis=1).tolist(),
        margins=[float(f"{m:.6g}") for m in best[:, 0] - best[:, 1]],
        logits={row: [float(f"{v:.9g}") for v in logits[row]] for row in FULL_ROWS},
        hidden=dict(
            last=[float(f"{v:.9g}") for v in hidden[-1]],
            mean=[float(f"{v:.9g}") for v in hidden.mean(axis=0)],
        ),
    )


def main():
    FOLDER.mkdir(exist_ok=True)
    for index, name in enumerate(MODELS):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        path = FOLDER / f"{name}.json"
        golden = make(name, seed=1000 + index)
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{path.name}: {path.stat().st_size} bytes, smallest margin {min(golden['margins']):.3g}")


if __name__ == "__main__":
    main()
