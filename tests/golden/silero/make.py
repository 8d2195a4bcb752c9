"""Makes the golden values of the voice-activity tests: python make.py silero_vad_16k_op15.onnx > windows.json

Needs numpy and onnxruntime (written with 1.32.0). The network is the publisher's ONNX file, from the package that the
weights come from, run by onnxruntime over the recordings of examples/audio, window after window.
"""

import json
import pathlib
import sys
import wave

import numpy as np
import onnxruntime

AUDIO = pathlib.Path(__file__).parent.parent.parent.parent / "examples" / "audio"
WINDOW, CONTEXT = 512, 64


def main():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = onnxruntime.InferenceSession(sys.argv[1], options)
    clips = []
    for name in ("capital-of-france", "which-river"):
        with wave.open(str(AUDIO / f"{name}.wav")) as f:
            pcm = np.frombuffer(f.readframes(f.getnframes()), "<i2").astype(np.float32) / 32768
        pcm = np.concatenate([np.zeros(CONTEXT, np.float32), pcm])
        state, windows = np.zeros((2, 1, 128), np.float32), []
        for end in range(CONTEXT + WINDOW, len(pcm) + 1, WINDOW):
            inputs = {"input": pcm[None, end - WINDOW - CONTEXT : end], "state": state, "sr": np.array(16000)}
            out, state = network.run(["output", "stateN"], inputs)
            windows.append(round(float(out[0, 0]), 6))
        clips.append({"name": name, "windows": windows})
    json.dump(clips, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
