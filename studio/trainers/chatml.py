"""The ChatML template given to models that have none, with the marks that say which words are the assistant's.

Format: https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md; tools as in Hermes and Qwen: one JSON
object a call.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

START, END = "<|im_start|>", "<|im_end|>"

_TEMPLATE = r"""
{%- if tools %}
{{- '@START@system\n' }}
{%- if messages and messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
{{- 'You may call these tools:' }}
{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}
{{- '\nTo call one, answer with <tool_call>{"name": ..., "arguments": ...}</tool_call>@END@\n' }}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'system' and loop.first and tools %}
{%- elif m.role == 'assistant' %}
{{- '@START@assistant\n' }}
{%- generation %}
{{- m.content or '' }}
{%- for call in m.tool_calls or [] %}
{%- set f = call.function if call.function is defined else call %}
{{- '<tool_call>' + ({'name': f.name, 'arguments': f.arguments} | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '@END@' }}
{%- endgeneration %}
{{- '\n' }}
{%- else %}
{{- '@START@' + m.role + '\n' + (m.content or '') + '@END@\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '@START@assistant\n' }}{%- endif %}
"""


def template(end: str = END) -> str:
    """The Jinja template; ``end`` closes every turn."""
    lines = [line for line in _TEMPLATE.strip().splitlines()]
    return "".join(lines).replace("@START@", START).replace("@END@", end.replace("'", "\\'"))


def for_tokenizer(tokenizer: Any) -> str | None:
    """The template for a tokenizer, without adding tokens: a turn ends with ``<|im_end|>``, else with its end token.

    Returns ``None`` when the tokenizer has neither, so that the model could never learn to stop.
    """
    if END in tokenizer.get_vocab():
        return template(END)
    return template(tokenizer.eos_token) if tokenizer.eos_token else None


def has_marks(text: str) -> bool:
    """The template itself says which words are the assistant's (``{% generation %}``)."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", text) is not None


def known_to_trl(text: str) -> bool:
    """TRL has a marked version of this very template. Reads TRL's files without importing it."""
    spec = find_spec("trl")
    folders = [Path(place) / "chat_templates" for place in (spec.submodule_search_locations or [])] if spec else []
    return any(path.read_text("utf-8") == text for folder in folders for path in folder.glob("*.jinja"))
