"""Checks greedy tokens against a float64 evaluation of the same GGUF file by transformers' own model code.

    python3 check_greedy_float64.py MODEL.gguf TOKENS.jsonl [OUT.jsonl]

TOKENS.jsonl: one {"prompt", "tokens", "generated"} a line. The weights are dequantised to float64 with the `gguf` package,
the model is transformers' (Llama or Gemma 3). For every generated token it takes the float64 logits of its
position given all tokens before it, and reports whether the token is float64's best and by how much the best
leads the second. OUT.jsonl receives the same lines with "margins", one lead per token, negative where the token
is not float64's best. Needs torch, transformers, gguf, numpy.
"""

import json
import sys

import gguf
import numpy as np
import torch
from gguf.quants import dequantize

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LLAMA_NAMES = NAMES | {"ffn_norm": "post_attention_layernorm"}
GEMMA_NAMES = NAMES | {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}


def load(path):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    arch = field("general.architecture")
    weights = {}
    for tensor in reader.tensors:
        shape = [int(extent) for extent in reversed(tensor.shape)]
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(shape)
        weights[tensor.name] = torch.from_numpy(values)
    common = dict(
        vocab_size=weights["token_embd.weight"].shape[0],
        hidden_size=field(f"{arch}.embedding_length"),
        intermediate_size=field(f"{arch}.feed_forward_length"),
        num_hidden_layers=field(f"{arch}.block_count"),
        num_attention_heads=field(f"{arch}.attention.head_count"),
        num_key_value_heads=field(f"{arch}.attention.head_count_kv"),
        max_position_embeddings=field(f"{arch}.context_length"),
        rms_norm_eps=field(f"{arch}.attention.layer_norm_rms_epsilon"),
        rope_theta=field(f"{arch}.rope.freq_base"),
        tie_word_embeddings="output.weight" not in weights,
        attn_implementation="eager",
    )
    if arch == "llama":
        from transformers import LlamaConfig, LlamaForCausalLM

        config, model_class, names = LlamaConfig(**common), LlamaForCausalLM, LLAMA_NAMES
    elif arch == "gemma3":
        from transformers import Gemma3ForCausalLM, Gemma3TextConfig

        head_dim = field("gemma3.attention.key_length")
        window = field("gemma3.attention.sliding_window")
        config = Gemma3TextConfig(
            **common,
            head_dim=head_dim,
            query_pre_attn_scalar=head_dim,
            sliding_window=window,
            rope_local_base_freq=10000.0,
        )
        model_class, names = Gemma3ForCausalLM, GEMMA_NAMES
    else:
        sys.exit(f"architecture {arch} is not known here")
    torch.set_default_dtype(torch.float64)
    model = model_class(config).double().eval()
    state = {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "lm_head.weight": weights.get("output.weight", weights["token_embd.weight"]),
        "model.norm.weight": weights["output_norm.weight"],
    }
    for layer in range(config.num_hidden_layers):
        for stored, name in names.items():
            weight = weights[f"blk.{layer}.{stored}.weight"]
            if arch == "llama" and stored in ("attn_q", "attn_k"):
                # GGUF llama files pair neighbouring rows for the rotary embedding.
                heads = config.num_attention_heads if stored == "attn_q" else config.num_key_value_heads
                rows, width = weight.shape
                weight = weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
            state[f"model.layers.{layer}.{name}.weight"] = weight
    if arch == "gemma3":
        # GGUF files hold 1 + weight.
        state = {name: value - 1 if "norm" in name else value for name, value in state.items()}
    model.load_state_dict(state)
    return model


def main():
    model_path, tokens_path = sys.argv[1:3]
    model = load(model_path)
    texts = [json.loads(line) for line in open(tokens_path)]
    best, total, smallest = 0, 0, float("inf")
    for text in texts:
        ids = text["tokens"] + text["generated"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, len(text["tokens"]) - 1 : -1]
        top = logits.topk(2, dim=-1)
        chosen = logits.gather(1, torch.tensor(text["generated"])[:, None])[:, 0]
        is_best = top.indices[:, 0] == torch.tensor(text["generated"])
        margins = torch.where(is_best, top.values[:, 0] - top.values[:, 1], chosen - top.values[:, 0])
        text["margins"] = [round(margin, 4) for margin in margins.tolist()]
        best, total, smallest = best + int(is_best.sum()), total + len(margins), min(smallest, *text["margins"])
        print(f"{int(is_best.sum())} of {len(margins)} are float64's best; smallest lead {min(text['margins'])}")
    print(f"{best} of {total} tokens are float64's best; smallest lead {smallest}")
    if len(sys.argv) > 3:
        with open(sys.argv[3], "w") as out:
            out.writelines(json.dumps(text, separators=(",", ":"), ensure_ascii=False) + "\n" for text in texts)


main()
