#!/usr/bin/env python3
"""Makes the media files beside it: one synthetic sound in every format that is taken in.

    pip install av==18.1.0 numpy && python3 make.py

The sound is 1.2 s of 440 Hz at amplitude 0.3 and 1250 Hz at 0.1, faded in and out over 50 ms. No person speaks in it.
Stereo files have it on the left, and at half the level on the right.
"""

import pathlib

import av
import numpy as np

SECONDS = 1.2
# Pages of 200 ms, as a live sender makes them; the default is a second.
OGG = {"page_duration": "200000"}


class Pipe:
    """Somewhere to write to that cannot go back to fill in sizes."""

    def __init__(self):
        self.written = b""

    def write(self, data):
        self.written += bytes(data)
        return len(data)


def tone(rate):
    t = np.arange(round(SECONDS * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 1250 * t)
    fade = np.minimum(1.0, np.minimum(t, SECONDS - t) / 0.05)
    return sound * fade


def encode(name, container, codec, rate, layout="mono", bit_rate=None, options=None, seekable=True):
    left = tone(rate)
    planes = np.stack([left] if layout == "mono" else [left, left / 2])
    target = name if seekable else Pipe()
    with av.open(target, "w", format=container, options={"fflags": "+bitexact", **(options or {})}) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        # FFmpeg's own Vorbis encoder counts as experimental. Bit-exact leaves out versions and random serial numbers.
        stream.codec_context.options = {"strict": "experimental", "flags": "+bitexact"}
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray((planes * 32767).round().astype(np.int16)), format="s16p", layout=layout
        )
        frame.sample_rate = rate
        frame.pts = 0
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 4096)
        for part in resampler.resample(frame) + resampler.resample(None):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    if not seekable:
        pathlib.Path(name).write_bytes(target.written)
    print(f"{name}: {pathlib.Path(name).stat().st_size} bytes")


encode("tone_16k_mono.flac", "flac", "flac", 16000)
encode("tone_44k1_stereo.mp3", "mp3", "libmp3lame", 44100, "stereo", 64000)
encode("tone_24k_mono.aac", "adts", "aac", 24000, bit_rate=48000)
encode("tone_opus_stereo.ogg", "ogg", "libopus", 48000, "stereo", 48000, options=OGG)
encode("tone_vorbis_22k05.ogg", "ogg", "vorbis", 22050, "stereo", 64000, options=OGG)
encode("tone_flac_16k.ogg", "ogg", "flac", 16000, options=OGG)
encode("tone_opus.webm", "webm", "libopus", 48000, bit_rate=32000, options={"live": "1"})
encode("tone_vorbis.webm", "webm", "vorbis", 48000, "stereo", 64000)
encode("tone_48k_fragmented.mp4", "mp4", "aac", 48000, bit_rate=64000,
       options={"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "200000"})
encode("tone_opus_fragmented.mp4", "mp4", "libopus", 48000, bit_rate=32000,
       options={"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "200000"})
encode("tone_44k1_faststart.m4a", "ipod", "aac", 44100, bit_rate=48000, options={"movflags": "faststart"})
encode("tone_44k1_moov_last.m4a", "ipod", "aac", 44100, bit_rate=48000)
encode("tone_aac.ts", "mpegts", "aac", 24000, bit_rate=48000)
encode("tone_mulaw_8k.wav", "wav", "pcm_mulaw", 8000)
encode("tone_s16_pipe_8k.wav", "wav", "pcm_s16le", 8000, seekable=False)
