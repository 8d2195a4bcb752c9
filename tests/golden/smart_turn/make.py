"""Makes the golden values of the end-of-turn tests: python make.py MODELS_DIR > turns.json

Needs numpy and onnxruntime (written with 1.32.0). The features are computed here by the definition, in double
precision with numpy's own Fourier transform; the network is run by onnxruntime. The clips are the recordings of
examples/audio, cut at energy minima between its words, each with 200 ms of silence behind it. Features are sampled:
every one at `start + i * step` of the flattened [80, 800] array.
"""

import json
import pathlib
import sys
import wave

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent
AUDIO = HERE.parent.parent.parent / "examples" / "audio"
SPAN, N_FFT, HOP, MELS = 128_000, 400, 160, 80
START, STEP = 17, 997
# File and where it is cut, in samples: between its words, and last where its speech ends.
CLIPS = [("capital-of-france", cut) for cut in (10_560, 13_120, 17_920, 23_040, 28_160, 31_040)]
CLIPS += [("which-river", cut) for cut in (10_880, 14_000, 21_120, 27_200, 30_000, 33_600)]


def slaney(hz):
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / np.log(6.4))


def filters():
    mels = np.linspace(slaney(np.array(0.0)), slaney(np.array(8000.0)), MELS + 2)
    hz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mels - 15)))
    bins = np.fft.rfftfreq(N_FFT, 1 / 16000)
    up = (bins[None] - hz[:-2, None]) / (hz[1:-1] - hz[:-2])[:, None]
    down = (hz[2:, None] - bins[None]) / (hz[2:] - hz[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)) * (2 / (hz[2:] - hz[:-2]))[:, None]


def features(pcm):
    x = np.concatenate([np.zeros(SPAN), pcm])[-SPAN:]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
    x = np.pad(x, N_FFT // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    frames = np.stack([x[i * HOP : i * HOP + N_FFT] * hann for i in range(SPAN // HOP)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    log = np.log10(np.maximum(filters() @ power.T, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def main():
    path = f"{sys.argv[1]}/smart-turn/smart-turn-v3.2-cpu.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = onnxruntime.InferenceSession(path, options)
    clips = []
    for name, cut in CLIPS:
        with wave.open(str(AUDIO / f"{name}.wav")) as f:
            pcm = np.frombuffer(f.readframes(f.getnframes()), "<i2") / 32768
        pcm = np.concatenate([pcm[: cut], np.zeros(3200)])
        mel = features(pcm)
        (out,) = network.run(["logits"], {"input_features": mel[None].astype(np.float32)})
        values = [round(float(v), 5) for v in mel.flatten()[START::STEP]]
        clips.append({"name": name, "cut": cut, "finished": round(float(out[0, 0]), 4), "features": values})
    json.dump({"start": START, "step": STEP, "clips": clips}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
