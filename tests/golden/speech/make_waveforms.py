"""Writes dsp.json and voice.json: waveforms of the released package, without its noise, for fixed inputs.

    pip install hibari-tts==0.2.1 && python tests/golden/speech/make_waveforms.py
"""
import json
import pathlib

import numpy as np
from hibari import Hibari, dsp

here = pathlib.Path(__file__).parent


def bands(wave):
    """Mean power in decibels of 16 bands, 240 Hz wide, for each 50 ms."""
    blocks = wave[: len(wave) // 1200 * 1200].reshape(-1, 1200) * dsp.WIN
    power = np.abs(np.fft.rfft(blocks, axis=1)) ** 2
    power = power[:, 1:193].reshape(len(blocks), 16, 12).mean(axis=2)
    return np.round(10 * np.log10(power + 1e-6), 1).tolist()


def synthetic():
    frames = 12
    b, f = np.meshgrid(np.arange(601), np.arange(frames), indexing="ij")
    part = lambda a, c, level: (level + np.sin(a * b + c * f)).astype(np.float32)
    silent = np.full((601, frames), -np.inf, np.float32)
    f0 = np.array([0, 0, 110, 120, 130, 180, 240, 230, 90, 60, 0, 0], np.float32)
    wave = dsp.synth(part(0.013, 0.7, -4), part(0.021, 0.3, 0), silent, part(0.017, 0.5, -6), part(0.9, 1.3, 0), f0,
                     np.random.default_rng(0))
    return [round(float(x), 6) for x in wave[::7]]


def spoken():
    tts = Hibari()
    rows = []
    for phonemes in ["həlˈO ðˈɛɹ.", "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˌOvəɹ ðə lˈAzi dˈɔɡ.", "ɹˈiəli? jˈɛs, ɹˈiəli!"]:
        ids = np.asarray([tts.ids(phonemes)], np.int64)
        lh, th, ln, lr, phi, f0 = (o[0] for o in tts.sess.run(None, {"ids": ids, "speed": np.ones(1, np.float32)}))
        wave = dsp.synth(lh, th, np.full_like(ln, -np.inf), lr, phi, f0, np.random.default_rng(0))
        rows.append({"phonemes": phonemes, "samples": len(wave), "bands": bands(wave)})
    return rows


(here / "dsp.json").write_text(json.dumps(synthetic()) + "\n")
(here / "voice.json").write_text(json.dumps(spoken(), ensure_ascii=False) + "\n", encoding="utf-8")
