"""The chat template of the original conversation ``llava_llama_3``, as Jinja.

Servers and `apply_chat_template` tokenize what a template renders and add nothing to it. The original code
puts a BOS at the head of the text and keeps the one that its tokenizer adds: where the checkpoint's tokenizer
adds one, the model was trained with two, and the template writes both. Where it adds none, the original code
takes the text's own BOS for the tokenizer's and cuts as much off what follows the picture, which is the line
break after ``<image>``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from share4video.chat import SYSTEM_PROMPT

IMAGE_TOKEN = "<image>"
HEADER, HEADER_END, END_OF_TURN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
# What the conversation is built of, beside the tokenizer's BOS.
CONTROL_TOKENS = (HEADER, HEADER_END, END_OF_TURN)

# A final assistant message under ``add_generation_prompt`` is a prefill: no end of turn, no new header.
_TEMPLATE = (
    "{{- BOS -}}"
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{- HEAD + 'system' + TAIL + SYSTEM + END -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- set prefill = add_generation_prompt and loop.last and message['role'] == 'assistant' -%}"
    "{{- HEAD + message['role'] + TAIL -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    "{%- if not prefill -%}{{- END -}}{%- endif -%}"
    "{%- endgeneration -%}"
    "{%- elif message['content'] is string -%}{{- message['content'] + END -}}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] in ('image', 'image_url') -%}"
    "{{- IMAGE -}}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}"
    "{{- part['text'] -}}{%- endfor -%}"
    "{{- END -}}"
    "{%- endif -%}"
    "{%- if add_generation_prompt and loop.last and not prefill -%}"
    "{{- HEAD + 'assistant' + TAIL -}}{%- endif -%}"
    "{%- endfor -%}"
)


@dataclass(frozen=True)
class Opening:
    """How prompts of a checkpoint begin.

    Attributes:
        bos_token: the text of the tokenizer's BOS.
        added_bos: whether the tokenizer puts one in front of a text by itself.
    """

    bos_token: str
    added_bos: bool


def chat_template(opening: Opening) -> str:
    """Return the template: system text, pictures in front of a turn's text, answers marked as generated."""
    texts = {
        "BOS": opening.bos_token * (2 if opening.added_bos else 1),
        "HEAD": HEADER,
        "TAIL": HEADER_END + "\n\n",
        "END": END_OF_TURN,
        "SYSTEM": SYSTEM_PROMPT,
        "IMAGE": IMAGE_TOKEN + ("\n" if opening.added_bos else ""),
    }
    named = "".join(f"{{%- set {name} = {json.dumps(text)} -%}}" for name, text in texts.items())
    return named + _TEMPLATE
