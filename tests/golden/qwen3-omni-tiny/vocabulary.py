#!/usr/bin/env python3
"""The text side of the tiny checkpoint: a byte-level tokenizer.json, a chat_template.json with tools and thinking, and a
generation_config.json that caps answers.

The weights are noise and so is what the model says, but it says it in bytes: ids 0 to 255 are the bytes themselves, 300
to 315 the special tokens of make_tiny.py, everything else a control token without text. Needs no packages.
Usage: vocabulary.py OUT
"""

import json
import os
import sys

# As in make_tiny.py; the newline has an id of its own there, which is not used in text.
SPECIAL = {
    300: "<|im_start|>", 301: "<|im_end|>", 302: "<|system|>", 303: "<|user|>", 304: "<|assistant|>", 305: "<|newline|>",
    306: "<|audio_start|>", 307: "<|audio_end|>", 308: "<|vision_start|>", 309: "<|vision_end|>", 310: "<|image_pad|>",
    311: "<|video_pad|>", 312: "<|audio_pad|>", 313: "<tts_pad>", 314: "<tts_text_bos>", 315: "<tts_text_eod>",
}
THINKER_VOCAB = 320


def visible(byte: int) -> str:
    """The alphabet of byte-level tokenizers (GPT-2): printable bytes stand for themselves, the others follow 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in printable].index(byte))


# ChatML as the released checkpoints have it, with the special tokens of this vocabulary for the roles.
CHAT_TEMPLATE = """\
{%- set role = {'system': '<|system|>', 'user': '<|user|>', 'assistant': '<|assistant|>', 'tool': '<|user|>'} %}
{%- if tools %}
    {{- '<|im_start|><|system|>\\n' }}
    {%- if messages and messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- 'You may call functions, described in JSON:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\nA call: <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + role[message.role] + '\\n' }}
        {%- if message.role == 'tool' %}
            {{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|><|assistant|>\\n' }}
{%- endif %}
"""


def write(out: str) -> None:
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": SPECIAL.get(i, f"<|unused_{i}|>"), "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
            for i in range(256, THINKER_VOCAB)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "vocab": {visible(b): b for b in range(256)}, "merges": []},
    }
    generation = {
        "_from_model_config": True,
        "eos_token_id": 301,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "thinker_max_new_tokens": 12,
        "talker_max_new_tokens": 24,
        "talker_temperature": 0.9,
        "talker_top_k": 50,
        "talker_top_p": 1.0,
        "talker_repetition_penalty": 1.05,
    }
    template = {"chat_template": CHAT_TEMPLATE}
    files = [("tokenizer.json", tokenizer), ("generation_config.json", generation), ("chat_template.json", template)]
    for name, content in files:
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    write(sys.argv[1])
