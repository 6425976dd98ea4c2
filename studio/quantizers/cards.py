"""The model card of a variant: what it was made from and how, what it was shown to be, how to load it."""

from __future__ import annotations

import platform
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from studio.hardware import size
from studio.library import refs
from studio.library.modelinfo import count

LIBRARY = {"gguf": "gguf", "hqq": "hqq", "exl2": "exllamav2", "exl3": "exllamav3"}  # others: transformers
MADE_WITH = {"bitsandbytes": ("bitsandbytes", "transformers"), "compressed-tensors": ("llmcompressor", "compressed-tensors"),
             "gguf": ("gguf", "xllamacpp"), "hqq": ("hqq",), "exl3": ("exllamav3",)}
VERDICTS = {"same": "answers the same", "close": "close to the source", "worse": "worse than the source", "broken": "broken"}


def card(name: str, recipe: Any, source: refs.ModelRef, facts: dict[str, Any]) -> str:
    """Markdown with the Hub's front matter. Fields: https://huggingface.co/docs/hub/model-cards#model-card-metadata

    Args:
        source: The whole model that was quantized, on this disk.
        facts: As :meth:`studio.quantizers.base.QuantizeMethod.make` gives them, with ``proof`` where it was proven.
    """
    front = ["---", f"library_name: {LIBRARY.get(facts['format'], 'transformers')}", "pipeline_tag: text-generation"]
    front += [line for line in _front(source.path) if line.startswith(("license:", "license_name:", "license_link:"))]
    front += [f"base_model: {source.hub_id}", "base_model_relation: quantized"] if source.hub_id else []
    front += ["tags:", "- atelier", "- quantized", f"- {facts['format']}", "---"]
    rows = [("Format", facts["format"]), ("Quantization", facts["quantization"]),
            ("Bits a weight", f"{facts['bits']:.2f}" if facts.get("bits") else None),
            ("Parameters", count(facts.get("parameters"))),
            ("Size", f"{size(facts.get('size'))} (the source: {size(source.meta.get('size'))})"),
            ("Time taken", f"{facts['seconds']:.0f} s" if facts.get("seconds") is not None else None)]
    lines = [*front, "", f"# {name}", "", f"{source.label} (`{recipe.model}`) in fewer bits.", "", "| | |", "|---|---|",
             *(f"| {key} | {value} |" for key, value in rows if value)]
    lines += ["", *_proof(facts.get("proof")), "## Use", "", *_use(facts), ""]
    if facts.get("notes"):
        lines += ["## Mind", "", *(f"- {note}" for note in facts["notes"]), ""]
    lines += ["## Recipe", "", "```yaml", recipe.to_yaml().rstrip(), "```", "",
              f"Made {time.strftime('%Y-%m-%d')} with Atelier on {platform.machine()}, Python {platform.python_version()}"
              f"{_versions(facts['format'])}.", ""]
    return "\n".join(lines)


def _front(folder: Path | None) -> list[str]:
    """Lines of the front matter of a model's own card."""
    try:
        text = (folder / "README.md").read_text("utf-8", "replace")[:20_000] if folder else ""
    except OSError:
        return []
    found = re.match(r"---\s*\n(.*?)\n---", text, re.S)
    return [line for line in found[1].splitlines() if re.fullmatch(r"[\w]+: [\w .:/+-]+", line)] if found else []


def _proof(proof: dict[str, Any] | None) -> list[str]:
    """What the comparison with the source said, as a section."""
    if not proof:
        return []
    seen, greedy = proof.get("perplexity") or {}, proof.get("greedy") or {}

    def number(value: Any, form: str = ".4g") -> str:
        return format(value, form) if isinstance(value, (int, float)) else "not measured"

    rows = [("Perplexity", f"{number(seen.get('variant'))} (source: {number(seen.get('source'))})"),
            ("KL divergence", f"{number(proof.get('kl'))} nats a token"),
            ("Same most likely token", number(proof.get("top1"), ".1%")),
            ("Same greedy answers", f"{greedy['same']} of {greedy['of']}" if greedy.get("of") else "not measured"),
            ("Tokens a second", number(proof.get("tokens_per_second"))),
            ("Memory", size(proof["memory"]) if proof.get("memory") else "not measured")]
    verdict = VERDICTS.get(str(proof.get("verdict")), str(proof.get("verdict")))
    lines = ["## Compared with its source", "", f"Loaded by {proof.get('runtime')}, on the same texts: **{verdict}**.", "",
             "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows), ""]
    if proof.get("reasons"):
        lines += [*(f"- {reason}" for reason in proof["reasons"]), ""]
    return lines


def _use(facts: dict[str, Any]) -> list[str]:
    if facts["format"] == "gguf":
        return ["```", "llama-cli -m FILE.gguf -cnv", "```"]
    if facts["format"] == "hqq":
        return ["```python", 'from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # pip install '
                '"transformers<5" hqq accelerate', "", 'folder = "."  # where this card lies',
                'model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")',
                'tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")',
                'tokenizer.chat_template = open(f"{folder}/chat_template.jinja").read()', "```"]
    if facts["format"] == "exl3":
        return ["```python", "from exllamav3 import Cache, Config, Generator, Model, Tokenizer  # needs an NVIDIA GPU", "",
                'config = Config.from_directory(".")  # where this card lies', "model = Model.from_config(config)",
                "cache = Cache(model, max_num_tokens=4096)", "model.load()",
                "generator = Generator(model=model, cache=cache, tokenizer=Tokenizer.from_config(config))", "```"]
    needed = {"compressed-tensors": "compressed-tensors", "bitsandbytes": "bitsandbytes"}.get(facts["format"], "")
    return ["```python", f"from transformers import AutoModelForCausalLM, AutoTokenizer  # pip install {needed} accelerate",
            "", 'folder = "."  # where this card lies', 'model = AutoModelForCausalLM.from_pretrained(folder)',
            "tokenizer = AutoTokenizer.from_pretrained(folder)", "```"]


def _versions(form: str) -> str:
    found = []
    for package in MADE_WITH.get(form, ()):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "".join(f", {word}" for word in found)
