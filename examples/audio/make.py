"""Speaks a list of questions into WAV files (16 kHz, mono, 16 bit), the same bits each time.

    pip install hibari-tts==0.2.1
    python make.py LIST.tsv FOLDER

A list has a name and a question in each line, with a tab between; what follows is not spoken. The recordings beside
this script were made by `python make.py demo.tsv .`.
"""

import pathlib
import sys
import wave

import numpy as np
from hibari import Hibari

LEAD_IN = 0.2  # seconds of silence before the first word, as a microphone would have
RATE = 16_000


def to_16k(audio):
    """24 kHz to 16 kHz by cutting the spectrum, padded so that the ends do not meet."""
    length = len(audio) + 2400
    length += -length % 3
    padded = np.zeros(length)
    padded[1200 : 1200 + len(audio)] = audio
    out = np.fft.irfft(np.fft.rfft(padded)[: length // 3 + 1], length * 2 // 3) * 2 / 3
    return out[800 : 800 + len(audio) * 2 // 3]


def main():
    questions, folder = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    voice = Hibari()
    for line in questions.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, text = line.split("\t")[:2]
        parts = [voice.from_phonemes(phonemes, seed=1) for phonemes in voice.phonemize(text)]
        speech = np.concatenate([np.zeros(int(LEAD_IN * RATE)), to_16k(np.concatenate(parts))])
        samples = (np.clip(speech, -1, 1) * 32767).round().astype("<i2")
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())
        print(f"{name}.wav  {len(samples) / RATE:.2f} s  {text}")


main()
