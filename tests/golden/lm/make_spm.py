"""Writes spm.json: a small SentencePiece model trained here, and the tokens that SentencePiece makes of some texts.

    pip install sentencepiece==0.2.3
    python make_spm.py
"""

import io
import json
from pathlib import Path

import sentencepiece as spm

ROOT = Path(__file__).parents[3]
TEXTS = json.loads((Path(__file__).parent / "tokens-smollm2-135m.json").read_text())

model = io.BytesIO()
lines = [line.strip() for line in (ROOT / "LICENSE").read_text().splitlines() if line.strip()]
spm.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=700, byte_fallback=True,
    normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, character_coverage=0.999,
    num_threads=1,
)  # fmt: skip
sp = spm.SentencePieceProcessor(model_proto=model.getvalue())


def kind(i):
    """As GGUF counts them: 1 normal, 2 unknown, 3 control, 6 byte."""
    return 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1


size = sp.get_piece_size()
golden = {
    "pieces": [sp.id_to_piece(i) for i in range(size)],
    "scores": [sp.get_score(i) for i in range(size)],
    "kinds": [kind(i) for i in range(size)],
    "cases": [{"text": case["text"], "tokens": sp.encode(case["text"])} for case in TEXTS],
}
(Path(__file__).parent / "spm.json").write_text(json.dumps(golden, ensure_ascii=False, indent=None) + "\n")
