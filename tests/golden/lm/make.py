"""Writes tokens-*.json and logits-*.json: what other implementations make of the same GGUF files.

Tokens come from Hugging Face `tokenizers`, fed with the file's vocabulary and merges. Logits come from the plain f32
network below, on weights dequantised by the `gguf` package; activations are never quantised, so they differ from ours by
what that costs.

    pip install gguf==0.19.0 tokenizers==0.23.3 numpy==2.4.6
    python make.py FILE.gguf NAME
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXTS = [
    "",
    " ",
    "Hello",
    "Hello, world!",
    "I'm sure they'll say it's DON'T or we'VE",
    "What's 17 + 25? It's 42; 3.14159 and 1,000,000.",
    "  leading, trailing  and   inner   blanks   ",
    "tabs\tand\nnew lines\n\n\nand\r\nwindows\r\n  indented\n",
    "über naïve façade, Straße, coöperation, œuvre, Ångström",
    "Привет, как дела? Ελληνικά. שלום עולם. مرحبا بالعالم",
    "你好，世界。今天天气怎么样？ 日本語のテキスト 한국어 문장",
    "हिन्दी में नमस्ते, ไทยไม่มีวรรค",
    "👍🏽 👩‍👩‍👧‍👦 🇫🇷 e\u0301 ﬁ ① Ⅷ ½ ²",
    "def f(x):\n    return x ** 2  # squared\n\nprint(f'{f(3)!r}')",
    "https://example.com/a?b=c&d=%20e#f user@example.org",
    "zero\u200bwidth, no-break\u00a0space, ideographic\u3000space, bell\u0007",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "!!!???...---***___===+++~~~```",
    "<|im_start|>system\nYou talk.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "half a special <|im_st and <|im_end| > and <|endoftext|><|endoftext|>",
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
]

PROMPTS = [
    "The capital of France is",
    "<|im_start|>system\nYou are a voice assistant.<|im_end|>\n<|im_start|>user\nWhat is seventeen plus twenty-five?"
    "<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a small village at the edge of a great forest, there lived a",
]


def build_tokenizer(reader):
    get = lambda key: reader.fields[f"tokenizer.ggml.{key}"].contents()
    tokens, kinds = get("tokens"), get("token_type")
    merges = [tuple(m.split(" ")) for m in get("merges")]
    ordinary = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ordinary, merges=merges))
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    stages = {"qwen2": [split(QWEN2)], "smollm": [pre_tokenizers.Digits(individual_digits=True), split(GPT2)]}[get("pre")]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*stages, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(t, special=k == 3, normalized=False) for t, k in zip(tokens, kinds) if k in (2, 3, 4)]
    tokenizer.add_special_tokens([t for t in added if t.special])
    tokenizer.add_tokens([t for t in added if not t.special])
    return tokenizer


class Network:
    def __init__(self, reader):
        self.tensors = {t.name: t for t in reader.tensors}
        arch = reader.fields["general.architecture"].contents()
        get = lambda key: reader.fields[f"{arch}.{key}"].contents()
        self.adjacent = arch == "llama"
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads, self.eps = get("attention.head_count_kv"), get("attention.layer_norm_rms_epsilon")
        self.base, self.dim = get("rope.freq_base"), get("embedding_length") // self.heads

    def weight(self, name):
        t = self.tensors.get(name)
        return None if t is None else dequantize(t.data, t.tensor_type).astype(np.float32)

    def linear(self, x, name):
        y = x @ self.weight(f"{name}.weight").T
        bias = self.weight(f"{name}.bias")
        return y if bias is None else y + bias

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weight(f"{name}.weight")

    def rope(self, x):
        angles = np.arange(x.shape[0])[:, None] * self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
        y = np.empty_like(x)
        half = self.dim // 2
        a, b = (slice(0, None, 2), slice(1, None, 2)) if self.adjacent else (slice(0, half), slice(half, None))
        y[..., a], y[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., a] * sin + x[..., b] * cos
        return y

    def attend(self, x, i):
        t = x.shape[0]
        q = self.rope(self.linear(x, f"blk.{i}.attn_q").reshape(t, self.heads, self.dim))
        k = self.rope(self.linear(x, f"blk.{i}.attn_k").reshape(t, self.kv_heads, self.dim))
        v = self.linear(x, f"blk.{i}.attn_v").reshape(t, self.kv_heads, self.dim)
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.dim)
        scores[:, np.triu(np.ones((t, t), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return self.linear(np.einsum("hij,jhd->ihd", p, v).reshape(t, -1), f"blk.{i}.attn_output")

    def feed_forward(self, x, i):
        gate, up = self.linear(x, f"blk.{i}.ffn_gate"), self.linear(x, f"blk.{i}.ffn_up")
        return self.linear(gate / (1 + np.exp(-gate)) * up, f"blk.{i}.ffn_down")

    def logits(self, prompts):
        embedding = self.weight("token_embd.weight")
        xs = [embedding[p] for p in prompts]
        for i in range(self.layers):
            xs = [x + self.attend(self.norm(x, f"blk.{i}.attn_norm"), i) for x in xs]
            xs = [x + self.feed_forward(self.norm(x, f"blk.{i}.ffn_norm"), i) for x in xs]
        head = self.weight("output.weight")
        head = embedding if head is None else head
        return [head @ self.norm(x[-1], "output_norm") for x in xs]


def main():
    reader, name = GGUFReader(sys.argv[1]), sys.argv[2]
    here = Path(__file__).parent
    tokenizer = build_tokenizer(reader)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    tokens = [{"text": t, "tokens": encode(t)} for t in TEXTS]
    (here / f"tokens-{name}.json").write_text("[\n" + ",\n".join(json.dumps(t) for t in tokens) + "\n]\n")
    prompts = [encode(p) for p in PROMPTS]
    cases = []
    for prompt, logits in zip(prompts, Network(reader).logits(prompts)):
        top = np.argsort(-logits, kind="stable")[:32]
        cases.append({
            "tokens": prompt,
            "top": [int(i) for i in top],
            "logits": [round(float(logits[i]), 4) for i in top],
            "mean": round(float(logits.mean()), 4),
            "deviation": round(float(logits.std()), 4),
        })
    (here / f"logits-{name}.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
