"""The thinker of Qwen3-Omni under transformers and torch, beside which `kernel-bench` is measured: a step of decoding with a
static cache, compiled, and what the device reaches in a copy and in a product of matrices.

Weights are random. `--tiny` runs the small checkpoint's shape on the CPU, without compiling, to see that the script runs;
its durations mean nothing and are not printed. Needs torch and transformers (5.17 or newer).
"""

import argparse
import json
import pathlib
import statistics
import time

import torch
from transformers import AutoConfig, StaticCache
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as omni

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"


# The first steps compile, fill the cache's memory and record the graph that later ones replay.
WARM_UP = 5


def timed(device, repeats, step):
    """Milliseconds of a step: the median of `repeats`, each between events."""
    for _ in range(WARM_UP):
        step()
    if device == "cpu":
        began = time.perf_counter()
        for _ in range(repeats):
            step()
        return (time.perf_counter() - began) * 1e3 / repeats
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    for first, last in events:
        first.record()
        step()
        last.record()
    torch.cuda.synchronize()
    return statistics.median(first.elapsed_time(last) for first, last in events)


def ceilings(device):
    size, side = 1 << 30, 8192
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    copy = timed(device, 20, lambda: target.copy_(source))
    print(f"torch, copy: {2 * size / copy / 1e6:.0f} GB/s")
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    product = timed(device, 20, lambda: torch.mm(a, b))
    print(f"torch, {side}³ in bf16: {2 * side**3 / product / 1e9:.0f} TFLOP/s")


def thinker(config, layers, device):
    text = config.thinker_config.text_config
    text.num_hidden_layers = layers
    torch.manual_seed(20)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        previous = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        model = omni.Qwen3OmniMoeThinkerTextModel(text).eval()
        head = torch.nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        torch.set_default_dtype(previous)
    return text, model, head


@torch.no_grad()
def decode(text, model, head, batch, context, device, repeats, compiled):
    cache = StaticCache(config=text, max_cache_len=context + repeats + 8)
    tokens = torch.zeros(batch, 1, dtype=torch.long, device=device)
    place = torch.tensor([context], device=device)

    def step(tokens, place):
        positions = place.view(1, 1, 1).expand(3, batch, 1)
        out = model(input_ids=tokens, position_ids=positions, past_key_values=cache, cache_position=place, use_cache=True)
        return head(out.last_hidden_state[:, -1]).argmax(-1)

    run = torch.compile(step, mode="reduce-overhead") if compiled else step
    return timed(device, repeats, lambda: run(tokens, place))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--config", type=pathlib.Path)
    args = parser.parse_args()
    device = "cpu" if args.tiny else "cuda"
    name = "qwen3-omni-tiny" if args.tiny else "qwen3-omni-30b"
    path = args.config or GOLDEN / name / "config.json"
    config = AutoConfig.for_model("qwen3_omni_moe", **{k: v for k, v in json.loads(path.read_text()).items() if k != "model_type"})
    if not args.tiny:
        ceilings(device)
    layers = config.thinker_config.text_config.num_hidden_layers
    # Where the whole model does not compile, eight of its layers do; the rest is arithmetic, and said to be.
    for count in [layers, min(8, layers)]:
        text = model = head = None
        if device != "cpu":
            torch.cuda.empty_cache()
        try:
            text, model, head = thinker(config, count, device)
            for batch in [1, 2] if args.tiny else [1, 8, 32]:
                context = 20 if args.tiny else 512
                repeats = 2 if args.tiny else 20
                took = decode(text, model, head, batch, context, device, repeats, not args.tiny)
                figure = "ran" if args.tiny else f"{took:.3f} ms"
                print(f"torch, thinker, a word, {count} layers, batch {batch}: {figure}", flush=True)
            return
        except (RuntimeError, torch.OutOfMemoryError) as error:
            print(f"torch, {count} layers: {str(error).splitlines()[0]}", flush=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
