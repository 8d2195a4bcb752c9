#!/usr/bin/env python3
"""Makes the labelled recordings of `cargo xtask turns`: python clips.py --out DIR --cache DIR

Needs numpy, scipy, soundfile and hibari-tts, and apt-get and dpkg for recordings of people: Debian's
asterisk-core-sounds-en-wav (one reader, 8 kHz), pocketsphinx-testdata (LibriVox, one reader) and
asterisk-moh-opsound-wav (music). Packages are fetched with their ordinary clients and unpacked without being installed.
Writes 16 kHz mono WAV files and labels.json.

kind
  turn/complete   a whole sentence
  turn/comma      the same, cut in its comma pause, whose length is pause_ms
  turn/phrase     the same, cut in the middle of a phrase
  turn/filler     the beginning of a sentence and "um" or "uh"
  turn/fragment   a prompt recorded as an open fragment
  backchannel, noise, music       not to interrupt a reply
  interrupt                       to interrupt it
A turn ends with --sil ms of silence; its speech is known to end there.
"""
import argparse, glob, gzip, json, os, re, subprocess
from math import gcd
import numpy as np, scipy.signal as ss, soundfile as sf
SR = 16000
# '|' = where the comma pause is, '~' = mid-phrase cut point (both removed before synthesis, comma kept)
SENT = [
 "If my flight is delayed,| can I get ~a refund?", "When I called last week,| who did I ~speak to?",
 "Before we start,| could you tell me what ~the weather is like in Boston?", "I have a dog, two cats,| and a very ~noisy parrot.",
 "My name is Sarah,| and I need some help with ~my internet connection.", "For dinner tonight,| I would like to book ~a table for two people.",
 "After the meeting on Tuesday,| please send the ~report to my manager.", "Since you know so much about history,| who built the ~great wall of China?",
 "Well, to be honest,| I was hoping for ~a different answer.", "Next to the station,| is there a good ~place to eat?",
 "If it rains tomorrow,| should I take the ~bus to work?", "My account number is four, seven, two,| nine, one, ~eight.",
 "Please add milk, eggs,| and a loaf of ~bread to my shopping list.", "When the light turns red,| how long do I ~have to wait?",
 "In the morning,| can you wake me up ~at half past six?", "Because my phone was broken,| I could not ~answer your call.",
 "Out of all the planets,| which one is the ~closest to the sun?", "If I invest a thousand dollars,| how much will I ~have in ten years?",
 "Between you and me,| do you think this is ~a good idea?", "Last night, around nine,| someone knocked on ~my front door."]
FILL = ["I would like to, um", "Can you tell me, uh", "My phone number is, um", "So what I wanted to ask is, uh", "Could you book me a, um",
        "I was thinking that maybe, um", "The problem with my car is, uh", "Well, um", "I need a flight to, uh", "How do I get to the, um"]
BACK = ["Uh-huh.", "Yeah.", "Mm-hmm.", "Okay.", "Right.", "Sure.", "I see.", "Got it.", "Oh.", "Hmm.", "Yes.", "Wow.", "Really?", "Yeah, yeah.", "Oh, okay."]
INTR = ["Stop.", "Wait.", "No.", "Hold on.", "No, wait.", "Stop talking please.", "Excuse me, I have a question.", "Actually, can you tell me something else?",
        "That is not what I asked.", "Let me stop you there.", "Sorry, what was the price again?", "Can we go back to the first one?"]
HUMAN_INTR = ["hello", "im-sorry", "one-moment-please", "please-try-again", "vm-goodbye", "pbx-invalid", "auth-incorrect", "conf-full", "number-not-answering", "tt-somethingwrong"]

def load(f):
    a, sr = sf.read(f, dtype="float32")
    if a.ndim > 1: a = a.mean(1)
    return to16(a, sr)
def to16(a, sr):
    g = gcd(int(sr), SR); return ss.resample_poly(np.asarray(a, np.float32), SR // g, int(sr) // g).astype(np.float32)
def env_db(a, hop=160, win=320):
    p = np.convolve(a.astype(np.float64) ** 2, np.ones(win) / win, "same")[::hop]; return 10 * np.log10(p + 1e-12)
def speech_mask(a, drop=32.0):
    """10 ms frames louder than (95th percentile of active level - drop dB)."""
    e = env_db(a); top = np.percentile(e[e > e.max() - 40], 95); return e > top - drop
def segs(mask, gap=0, minlen=3):
    """[(start,end)) of True runs in 10 ms frames; runs closer than `gap` frames are joined."""
    d = np.diff(np.r_[0, mask.astype(int), 0]); s = list(zip(np.flatnonzero(d == 1), np.flatnonzero(d == -1))); o = []
    for x in s:
        if o and x[0] - o[-1][1] < gap: o[-1] = (o[-1][0], x[1])
        else: o.append(x)
    return [x for x in o if x[1] - x[0] >= minlen]
def trim(a, pad=0.05):
    s = segs(speech_mask(a));
    if not s: return a
    return a[max(0, s[0][0] * 160 - int(pad * SR)): min(len(a), s[-1][1] * 160 + int(pad * SR))]
def pauses(a, mn, drop=28):
    s = segs(speech_mask(a, drop), 0, 2); return [(x[1], y[0]) for x, y in zip(s, s[1:]) if y[0] - x[1] >= mn]
def cut_comma(a, frac, mn=8):
    """(end sample of the speech before the interior pause nearest the expected position, pause ms); (None, 0) without a pause of mn*10 ms."""
    n = len(a) / 160; c = [p for p in pauses(a, mn) if .15 * n < p[0] < .9 * n]
    if not c: return None, 0
    p = max(c, key=lambda p: (p[1] - p[0]) - abs((p[0] + p[1]) / 2 / n - frac) * 100)
    return (None, 0) if abs((p[0] + p[1]) / 2 / n - frac) > .2 else (p[0] * 160 + 160, (p[1] - p[0]) * 10)
def cut_phrase(a, frac):
    e = env_db(a); n = len(e); k = int(frac * n); w = max(6, int(.06 * n)); lo, hi = max(0, k - w), min(n, k + w)
    return (lo + int(np.argmin(e[lo:hi]))) * 160
def finish(a, sil, rng):
    """5 ms fade, then digital near-silence (dither at about -80 dBFS) so that no encoder sees exact zeros."""
    a = a.copy(); k = min(80, len(a)); a[-k:] *= np.linspace(1, 0, k)
    return np.r_[a, np.zeros(int(sil * SR / 1000), np.float32)] + rng.normal(0, 1e-4, len(a) + int(sil * SR / 1000)).astype(np.float32)
def pink(n, rng):
    f = np.fft.rfft(rng.normal(size=n)); f[1:] /= np.sqrt(np.arange(1, len(f))); f[0] = 0; x = np.fft.irfft(f, n); return (x / x.std()).astype(np.float32)
def bp(x, lo, hi): return ss.sosfilt(ss.butter(2, [lo, hi], "band", fs=SR, output="sos"), x)
def cough(rng):
    """Explosive burst, noisy mid part with formant bands, optional voiced tail: rough stand-in for a cough."""
    out = []
    for _ in range(rng.integers(1, 4)):
        n = int(SR * rng.uniform(.18, .35)); t = np.arange(n) / SR; w = rng.normal(size=n)
        x = 1.2 * bp(w, 400, 900) + bp(w, 1200, 2200) + .5 * bp(w, 2800, 5000)
        x *= np.minimum(1, t / .006) * np.exp(-t / rng.uniform(.05, .1))
        f0 = rng.uniform(110, 260); v = ss.sawtooth(2 * np.pi * f0 * np.exp(-t) * t); x += rng.uniform(0, .6) * bp(v, 300, 2500) * np.exp(-((t - .12) / .06) ** 2)
        out += [x / np.abs(x).max() * .6, np.zeros(int(SR * rng.uniform(.08, .25)))]
    return np.concatenate(out).astype(np.float32)
def clicks(rng, sec, rate, ms, lo, hi, amp=.4):
    x = np.zeros(int(sec * SR)); t = .1
    while t < sec - .1:
        for dt, g in ((0, 1), (rng.uniform(.06, .11), .5)):        # key down, key up
            n = int(SR * ms / 1000 * 6); b = rng.normal(size=n) * np.exp(-np.arange(n) / (SR * ms / 1000)); i = int((t + dt) * SR)
            if i + n < len(x): x[i:i + n] += g * rng.uniform(.5, 1) * bp(b, lo, hi)
        t += rng.exponential(1 / rate) + .05
    return (x / np.abs(x).max() * amp).astype(np.float32)
def knock(rng):
    x = np.zeros(int(1.5 * SR)); 
    for k in range(3):
        n = 3000; t = np.arange(n) / SR; i = int((.1 + .25 * k) * SR); x[i:i + n] += np.sin(2 * np.pi * rng.uniform(90, 180) * t) * np.exp(-t / .03) + .3 * rng.normal(size=n) * np.exp(-t / .004)
    return (x / np.abs(x).max() * .6).astype(np.float32)
def breath(rng):
    n = int(SR * rng.uniform(.5, .9)); return (bp(pink(n, rng), 500, 4000) * np.hanning(n) * .1).astype(np.float32)

def sh(*c): subprocess.run(c, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def get(cache):
    os.makedirs(cache + "/deb", exist_ok=True)
    for p in ("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en", "asterisk-moh-opsound-wav", "pocketsphinx-testdata"):
        if not glob.glob(f"{cache}/{p}_*.deb"): subprocess.run(["apt-get", "download", "-q", p], cwd=cache, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sh("dpkg", "-x", glob.glob(f"{cache}/{p}_*.deb")[0], cache + "/deb")
    return cache + "/deb/usr/share"

def main():
    ap = argparse.ArgumentParser(); ap.add_argument("--out", default="set"); ap.add_argument("--cache", default="cache"); ap.add_argument("--sil", type=int, default=200); ap.add_argument("--seed", type=int, default=7)
    A = ap.parse_args(); rng = np.random.default_rng(A.seed); share = get(A.cache); os.makedirs(A.out, exist_ok=True); L = []
    def put(a, kind, voice, text, want, **k):
        f = f"{len(L):04d}_{kind.replace('/', '-')}_{voice}.wav"; sf.write(os.path.join(A.out, f), np.clip(a, -1, 1), SR, subtype="PCM_16")
        L.append(dict(file=f, kind=kind, voice=voice, text=text, want=want, dur=round(len(a) / SR, 3), **k))
    from hibari import Hibari
    hb = Hibari(threads=1)
    V = {"hibari": lambda t: to16(hb(t, seed=0), 24000)}
    for v, tts in V.items():
        for s in SENT:
            plain = s.replace("|", "").replace("~", ""); a = trim(tts(plain)); N = len(plain)
            put(finish(a, A.sil, rng), "turn/complete", v, plain, "complete")
            c = s.replace("~", "").index("|"); e, ms = cut_comma(a, c / N)
            if e: put(finish(a[:e], A.sil, rng), "turn/comma", v, plain[:c], "incomplete", pause_ms=ms)
            c = s.replace("|", "").index("~"); put(finish(a[:cut_phrase(a, c / N)], A.sil, rng), "turn/phrase", v, plain[:c], "incomplete")
        for t in FILL: put(finish(trim(tts(t + "...")), A.sil, rng), "turn/filler", v, t, "incomplete")
        for t in BACK: put(np.r_[np.zeros(8000, np.float32), trim(tts(t), .02), np.zeros(8000, np.float32)], "backchannel", v, t, "ignore")
        for t in INTR: put(np.r_[np.zeros(8000, np.float32), trim(tts(t), .02), np.zeros(8000, np.float32)], "interrupt", v, t, "interrupt", words=len(t.split()))
    # human, telephone band (Allison Smith, 8 kHz)
    ast = share + "/asterisk/sounds/en_US_f_Allison/"; T = {}
    for l in gzip.open(share + "/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz", "rt", errors="replace"):
        m = re.match(r"^([\w/-]+)\s*:\s*(.*)$", l.strip())
        if m: T[m[1]] = m[2].strip()
    for n, t in sorted(T.items()):
        if not os.path.exists(ast + n + ".wav") or "[" in t: continue
        w = len(t.split()); a = None
        if t.endswith("...") and not t.startswith("...") and w >= 3:
            put(finish(trim(load(ast + n + ".wav")), A.sil, rng), "turn/fragment", "human-allison", t, "incomplete"); continue
        if "..." in t or t.endswith(":"): continue
        if t[-1:] in ".!?" and 5 <= w <= 40:
            a = trim(load(ast + n + ".wav")); put(finish(a, A.sil, rng), "turn/complete", "human-allison", t, "complete")
            one = re.sub(r"[.!?]$", "", t)
            if not re.search(r"[.!?]", one):
                if "," in one:
                    c = one.index(","); e, ms = cut_comma(a, c / len(t))
                    if e: put(finish(a[:e], A.sil, rng), "turn/comma", "human-allison", one[:c + 1], "incomplete", pause_ms=ms)
                if 7 <= w: put(finish(a[:cut_phrase(a, .55)], A.sil, rng), "turn/phrase", "human-allison", one, "incomplete", note="cut at 55%")
    for n in HUMAN_INTR:
        if os.path.exists(ast + n + ".wav"): put(np.r_[np.zeros(8000, np.float32), trim(load(ast + n + ".wav"), .02), np.zeros(8000, np.float32)], "interrupt", "human-allison", T.get(n, n), "interrupt", words=len(T.get(n, n).split()))
    # human, wide band (LibriVox): sentence-final clips as the corpus has them, and interior pauses / mid-phrase cuts
    lv = glob.glob(A.cache + "/deb/**/librivox/*.wav", recursive=True)
    tr = {m[2]: m[1] for m in (re.match(r"<s> (.*) </s> \((.*)\)", l) for f in glob.glob(A.cache + "/deb/**/librivox/transcription", recursive=True) for l in open(f)) if m}
    for f in sorted(lv):
        a = trim(load(f)); t = tr.get(os.path.basename(f)[:-4], ""); put(finish(a, A.sil, rng), "turn/complete", "human-librivox", t, "complete", note="narration")
        for p in [p for p in pauses(a, 10, 22) if .12 < p[0] * 160 / len(a) < .9]: put(finish(a[:p[0] * 160 + 160], A.sil, rng), "turn/comma", "human-librivox", t, "incomplete", pause_ms=(p[1] - p[0]) * 10)
        put(finish(a[:cut_phrase(a, .55)], A.sil, rng), "turn/phrase", "human-librivox", t, "incomplete")
    # noises
    z = lambda s: np.zeros(int(s * SR), np.float32)
    for db in (-20, -30, -40):
        put((rng.normal(size=10 * SR) * 10 ** (db / 20)).astype(np.float32), "noise", "white", f"{db} dBFS", "ignore"); put(pink(10 * SR, rng) * 10 ** (db / 20), "noise", "pink", f"{db} dBFS", "ignore")
    for i in range(20): put(np.r_[z(.5), cough(rng), z(.5)], "noise", "cough", "synthetic", "ignore")
    for i in range(6): put(clicks(rng, 6, 6, 2.0, 1500, 6000), "noise", "keyboard", "synthetic", "ignore")
    for i in range(4): put(clicks(rng, 6, 1.0, .5, 500, 7500, .8), "noise", "click", "synthetic", "ignore")
    for i in range(6): put(np.r_[z(.5), knock(rng)], "noise", "knock", "synthetic", "ignore")
    for i in range(6): put(np.r_[z(.5), breath(rng), z(.5)], "noise", "breath", "synthetic", "ignore")
    for n in ("beep", "beeperr", "ascending-2tone", "descending-2tone", "tt-monkeys"):
        if os.path.exists(ast + n + ".wav"): put(np.r_[z(.5), load(ast + n + ".wav")[:15 * SR], z(.5)], "noise", "tone" if "monk" not in n else "monkeys", n, "ignore")
    for f in sorted(glob.glob(share + "/asterisk/moh/*.wav")):
        a = load(f)
        for k in range(4): s = int((len(a) - 30 * SR) * k / 3); put(a[s:s + 30 * SR], "music", os.path.basename(f)[:-4], f"30 s from {s // SR} s", "ignore")
    json.dump(dict(sr=SR, tail_silence_ms=A.sil, seed=A.seed, items=L), open(A.out + "/labels.json", "w"), indent=1, default=int)
    from collections import Counter
    for k, n in sorted(Counter((x["kind"], x["voice"]) for x in L).items()): print(n, *k)
if __name__ == "__main__": main()
