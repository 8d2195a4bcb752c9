"""Writes phonemes.tsv: each line of sentences.txt with its reading by the released package.

    pip install hibari-tts==0.2.1 && python tests/golden/speech/make_phonemes.py
"""
import pathlib

from hibari.g2p import G2P

here = pathlib.Path(__file__).parent
g2p = G2P()
lines = (here / "sentences.txt").read_text(encoding="utf-8").splitlines()
rows = [f"{line}\t{g2p(line)}\n" for line in lines]
(here / "phonemes.tsv").write_text("".join(rows), encoding="utf-8")
