"""Makes the golden values of the Whisper tests: python make.py MODELS_DIR (the folder with base/ and tiny.en/).

Needs numpy and ctranslate2 (written with 2.4.6 and 4.8.5). Spectrogram, encoder and decoder are computed here with
numpy in double precision from the weights in model.bin, after the definition of the network (arXiv 2212.04356), and
CTranslate2's own encoder and logits are required to agree. The signal is a formula, so that nothing needs to be kept.
Values are sampled: every one at `start + i * step` of the flattened array.
"""

import json
import math
import pathlib
import struct
import sys

import ctranslate2
import numpy as np

HERE = pathlib.Path(__file__).parent
ROWS = 300  # of the encoder: a window of 6 s
SAMPLES = 3 * 16000


def signal():
    """Three seconds that resemble vowels: harmonics of a gliding pitch under two gliding formants, in bursts."""
    n = np.arange(SAMPLES)
    t = n / 16000
    out = np.zeros(SAMPLES)
    phase = 2 * np.pi * (110 * t + 10 * t * t)
    for h in range(1, 30):
        hz = h * (110 + 20 * t)
        f1, f2 = 500 + 200 * np.sin(2 * t), 1500 + 500 * np.cos(3 * t)
        weight = np.exp(-(((hz - f1) / 150) ** 2)) + 0.5 * np.exp(-(((hz - f2) / 200) ** 2))
        out += weight * np.sin(h * phase)
    out *= 0.1 * np.maximum(0, np.sin(2 * np.pi * 1.3 * t))
    # Noise by a 32-bit congruence, so that every language makes the same.
    state, noise = 1, np.zeros(SAMPLES)
    for i in range(SAMPLES):
        state = (state * 1664525 + 1013904223) % 2**32
        noise[i] = state / 2**31 - 1
    return np.round((out + 1e-3 * noise) * 32768) / 32768


def mel_filters(mels):
    def hz_of(m):
        return m * 200 / 3 if m < 15 else 1000 * math.exp((m - 15) * math.log(6.4) / 27)

    top = 15 + math.log(8) * 27 / math.log(6.4)
    edges = [hz_of(top * i / (mels + 1)) for i in range(mels + 2)]
    bins = np.arange(201) * 40.0
    out = np.zeros((mels, 201))
    for i in range(mels):
        low, centre, high = edges[i : i + 3]
        triangle = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
        out[i] = np.maximum(0, triangle) * 2 / (high - low)
    return out


def log_mel(pcm, frames, mels):
    pcm = np.concatenate([pcm, np.zeros(frames * 160 - len(pcm))])
    pcm = np.pad(pcm, 200, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    windows = np.stack([pcm[i * 160 : i * 160 + 400] * hann for i in range(frames)])
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    log = np.log10(np.maximum(power @ mel_filters(mels).T, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def tensors(path):
    out = {}
    with open(path, "rb") as f:
        def take(fmt):
            return struct.unpack("<" + fmt, f.read(struct.calcsize("<" + fmt)))

        def string():
            return f.read(take("H")[0])[:-1].decode()

        take("I"), string(), take("I")
        for _ in range(take("I")[0]):
            name = string()
            shape = take("I" * take("B")[0])
            kind, size = take("BI")
            dtype = {0: "f4", 1: "i1", 2: "i2", 3: "i4", 4: "f2"}[kind]
            out[name] = np.frombuffer(f.read(size), dtype).reshape(shape).astype(np.float64)
    return out


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


class Network:
    def __init__(self, path):
        self.w = tensors(path)
        self.heads = int(self.w["encoder/num_heads"])

    def linear(self, name, x):
        return x @ self.w[name + "/weight"].T + self.w[name + "/bias"]

    def norm(self, name, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * self.w[name + "/gamma"] + self.w[name + "/beta"]

    def attend(self, q, k, v, causal=False):
        (m, width), n = q.shape, len(k)
        split = lambda x: x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
        q, k, v = split(q), split(k), split(v)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(width // self.heads)
        if causal:
            scores = np.where(np.tril(np.ones((m, n))) > 0, scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        return (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(m, width)

    def conv(self, name, x, stride):
        w, b = self.w[name + "/weight"], self.w[name + "/bias"]
        x = np.pad(x, ((1, 1), (0, 0)))
        rows = [np.einsum("kc,ock->o", x[t : t + 3], w) for t in range(0, len(x) - 2, stride)]
        return gelu(np.stack(rows) + b)

    def layer(self, p, x, causal, heard=None):
        q, k, v = np.split(self.linear(p + "/self_attention/linear_0", self.norm(p + "/self_attention/layer_norm", x)), 3, 1)
        x = x + self.linear(p + "/self_attention/linear_1", self.attend(q, k, v, causal))
        if heard is not None:
            q = self.linear(p + "/attention/linear_0", self.norm(p + "/attention/layer_norm", x))
            k, v = np.split(self.linear(p + "/attention/linear_1", heard), 2, 1)
            x = x + self.linear(p + "/attention/linear_2", self.attend(q, k, v))
        h = gelu(self.linear(p + "/ffn/linear_0", self.norm(p + "/ffn/layer_norm", x)))
        return x + self.linear(p + "/ffn/linear_1", h)

    def layers(self, side):
        return [p for i in range(99) if (p := f"{side}/layer_{i}") + "/ffn/linear_0/weight" in self.w]

    def encode(self, mel):
        x = self.conv("encoder/conv2", self.conv("encoder/conv1", mel, 1), 2)
        x = x + self.w["encoder/position_encodings/encodings"][: len(x)]
        for p in self.layers("encoder"):
            x = self.layer(p, x, False)
        return self.norm("encoder/layer_norm", x)

    def logits(self, heard, tokens):
        table = self.w["decoder/embeddings/weight"]
        x = table[tokens] + self.w["decoder/position_encodings/encodings"][: len(tokens)]
        for p in self.layers("decoder"):
            x = self.layer(p, x, True, heard)
        return self.norm("decoder/layer_norm", x) @ table.T


def sample(array, start, step):
    return {"start": start, "step": step, "values": [float(f"{v:.6g}") for v in np.ravel(array)[start::step]]}


def check(name, ours, theirs, tolerance):
    error = np.abs(ours - theirs).max()
    print(f"{name}: CTranslate2 differs by {error:.2g} at most")
    assert error < tolerance, name


def main():
    models = pathlib.Path(sys.argv[1])
    pcm = signal()
    for name, prompt, text in [
        ("base", [50258, 50259, 50359, 50363], [407, 291, 393]),
        ("tiny.en", [50257, 50362], [1406, 345, 460]),
    ]:
        network = Network(models / name / "model.bin")
        mel = log_mel(pcm, 2 * ROWS, 80)
        encoded = network.encode(mel)
        logits = network.logits(encoded, prompt + text)
        peer = ctranslate2.models.Whisper(str(models / name), compute_type="float32")
        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel.T[None], dtype=np.float32))
        output = peer.encode(features)
        check(f"{name} encoder", encoded, np.array(output)[0], 2e-3)
        result = peer.generate(
            output,
            [prompt + text],
            beam_size=1,
            max_length=20,
            suppress_blank=False,
            suppress_tokens=[],
            return_logits_vocab=True,
        )
        # It returns the logits behind the prompt and behind every token of the text, without those of timestamps.
        for i in range(len(text) + 1):
            theirs = np.array(result[0].logits[0][i]).reshape(-1)[:50000]
            check(f"{name} logits {i}", logits[len(prompt) - 1 + i][:50000], theirs, 1e-3)
        golden = {
            "rows": ROWS,
            "signal": sample(pcm, 1000, 3001),
            "mel": sample(mel, 7, 211),
            "encoded": sample(encoded, 11, 613),
            "prompt": prompt,
            "text": text,
            "logits_start": sample(logits[0], 3, 397),
            "logits_prompt": sample(logits[len(prompt) - 1], 3, 397),
            "logits_text": sample(logits[-1], 3, 397),
        }
        (HERE / f"{name}.json").write_text(json.dumps(golden).replace('"values"', '\n"values"') + "\n")


main()
