"""The same shapes in PyTorch with transformers: a static cache and a CUDA graph per step of decoding.

Takes one JSON object {shape, decode: [{batch, context}], prefill: [tokens], steps, device} and prints one.
On a processor there are no graphs; that run only shows that the script works.
"""

import json
import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache


def build(shape, device):
    config = LlamaConfig(
        hidden_size=shape["width"],
        intermediate_size=shape["feedForward"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["keyValueHeads"],
        head_dim=shape["headDim"],
        vocab_size=shape["vocabulary"],
        max_position_embeddings=shape["contextLength"],
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(previous)
    return model.eval(), config


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(action, device):
    wait(device)
    start = time.perf_counter()
    action()
    wait(device)
    return time.perf_counter() - start


def decode(model, config, batch, context, steps, device):
    cache = StaticCache(config=config, max_cache_len=context + 1)
    ids = torch.full((batch, 1), 3, device=device)
    position = torch.tensor([context], device=device)
    positions = position.expand(batch, 1)

    def run():
        return model(
            ids, past_key_values=cache, cache_position=position, position_ids=positions, use_cache=True
        ).logits.argmax(-1)

    def once():
        # The cache counts what was written where its layers do; every run must write the same place.
        for layer in cache.layers:
            if hasattr(layer, "cumulative_length") and torch.is_tensor(layer.cumulative_length):
                layer.cumulative_length.fill_(context)
        return run()

    if device != "cuda":
        once()
        return [timed(once, device) for _ in range(steps)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    for _ in range(3):
        graph.replay()
    return [timed(graph.replay, device) for _ in range(steps)]


def prefill(model, tokens, repetitions, device):
    ids = torch.randint(3, model.config.vocab_size, (1, tokens), device=device)

    def run():
        return model(ids, use_cache=True, logits_to_keep=1)

    run()
    return [timed(run, device) for _ in range(repetitions)]


@torch.no_grad()
def main():
    plan = json.loads(sys.argv[1])
    device = plan["device"]
    model, config = build(plan["shape"], device)
    result = {"torch": torch.__version__, "decode": [], "prefill": []}
    for case in plan["decode"]:
        try:
            times = decode(model, config, case["batch"], case["context"], plan["steps"], device)
            result["decode"].append({**case, "seconds": statistics.median(times)})
        except Exception as error:  # too little memory for this case, or a version without what it needs
            result["decode"].append({**case, "reason": f"{type(error).__name__}: {error}"[:200]})
        if device == "cuda":
            torch.cuda.empty_cache()
    for tokens in plan["prefill"]:
        try:
            times = prefill(model, tokens, plan["prefillRepetitions"], device)
            result["prefill"].append({"tokens": tokens, "seconds": statistics.median(times)})
        except Exception as error:
            result["prefill"].append({"tokens": tokens, "reason": f"{type(error).__name__}: {error}"[:200]})
    print(json.dumps(result))


main()
