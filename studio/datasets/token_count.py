"""How many tokens a row is for a model, from the tokenizer file and the chat template; no torch, no transformers.

Counts agree with what the trainers feed the model (:class:`studio.trainers.data.Encoder`); a test holds them together.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from studio import settings
from studio.datasets.convert import turns_of
from studio.errors import StudioError

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")
_GENERATION = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")


class Tokens:
    """Counts tokens of canonical rows.

    Args:
        folder: Of a model, with ``tokenizer.json``.

    Attributes:
        template: Where the chat template is from: ``model``, ``chatml`` (added, as the trainers do) or ``none``.
        unrendered: Rows that the template refused; their texts alone were counted.

    Raises:
        StudioError: with ``field="model"``: there is no tokenizer in it that can be read.
    """

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as err:  # the library raises plain Exception for a missing or broken file alike
            raise StudioError(f"{folder.name} has no tokenizer.json that can be read.",
                              "Choose a model with a fast tokenizer.", "model") from err
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        config = _json(folder / "tokenizer_config.json")
        self.eos = _token(config.get("eos_token"))
        self.bos = _token(config.get("bos_token"))
        self.unrendered = 0
        text, self.template = self._template(folder, config)
        self._render = compiled(text) if text else None

    def _template(self, folder: Path, config: dict[str, Any]) -> tuple[str, str]:
        path = folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text("utf-8"), "model"
        text = config.get("chat_template")
        if isinstance(text, list):
            text = next((t.get("template") for t in text if isinstance(t, dict) and t.get("name") == "default"), None)
        if isinstance(text, str) and text:
            return text, "model"
        from studio.trainers import chatml

        end = chatml.END if self.tokenizer.token_to_id(chatml.END) is not None else self.eos
        return (chatml.template(end), "chatml") if end else ("", "none")

    def count(self, rows: list[dict[str, Any]]) -> list[int]:
        """Tokens of each row; the longer side of a pair."""
        texts: list[str] = []
        plain: list[bool] = []
        spans = []
        for row in rows:
            begin = len(texts)
            for text, special in self._texts(row):
                texts.append(text)
                plain.append(special)
            spans.append((begin, len(texts)))
        lengths = [0] * len(texts)
        for special in (False, True):
            chosen = [i for i, one in enumerate(plain) if one == special]
            found = self.tokenizer.encode_batch_fast([texts[i] for i in chosen], add_special_tokens=special)
            for i, encoded in zip(chosen, found, strict=True):
                lengths[i] = len(encoded)
        return [max(lengths[a:b], default=0) for a, b in spans]

    def _texts(self, row: dict[str, Any]) -> list[tuple[str, bool]]:
        """(text, with the tokenizer's own special tokens?) of each way a row is read."""
        if "text" in row:
            return [(self._ended(row["text"]), True)]
        if "rejected" in row:
            return [self._chat({**{k: row[k] for k in ("prompt", "tools") if k in row}, "completion": row[side]})
                    for side in ("chosen", "rejected")]
        return [self._chat(row)]

    def _chat(self, row: dict[str, Any]) -> tuple[str, bool]:
        turns = turns_of(row)
        if row.get("contexts"):  # as studio.datasets.convert.for_sft puts them before the question
            place = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=0)
            texts = "\n".join([*row["contexts"]]) + "\n\n" + (turns[place].get("content") or "")
            turns = [*turns[:place], {**turns[place], "content": texts}, *turns[place + 1:]]
        if self._render is not None:
            try:
                return self._render.render(messages=turns, tools=row.get("tools") or None, add_generation_prompt=False,
                                           bos_token=self.bos, eos_token=self.eos), False
            except Exception:  # a template may refuse a row in any way it likes
                self.unrendered += 1
        return self._ended("".join(str(turn.get("content") or "") for turn in turns)), True

    def _ended(self, text: str) -> str:
        return text if not self.eos or text.endswith(self.eos) else text + self.eos


def compiled(text: str) -> Any:
    """A chat template as transformers compiles it; the marks of what is learned stand for themselves.

    Raises:
        StudioError: it is no template.
    """
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def dumped(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
               sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def now(format: str) -> str:
        import datetime

        return datetime.datetime.now().strftime(format)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = dumped
    env.globals |= {"raise_exception": refuse, "strftime_now": now}
    try:
        return env.from_string(_GENERATION.sub(lambda m: m[1] + ("endif" if m[2] else "if true") + m[3], text))
    except jinja2.TemplateError as err:
        raise StudioError(f"The model's chat template cannot be read: {err}.", "Choose another model.",
                          "model") from err


def folder_of(ref: str) -> tuple[Path, str, int | None]:
    """(folder with the tokenizer, label, context in tokens) of a model; only its small files are fetched from the Hub.

    Raises:
        StudioError: unknown, or the Hub cannot be reached.
    """
    from studio.library import refs

    model = refs.resolve_model(ref)
    context = model.meta.get("context")
    if model.is_adapter and model.base:
        base_folder, _, context = folder_of(model.base)
        if model.path is None or not (model.path / "tokenizer.json").is_file():
            return base_folder, model.label, context
    if model.path is not None:
        return model.path, model.label, context
    folder = _fetched(str(model.hub_id), model.revision)
    config = _json(folder / "config.json")
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    return folder, model.label, context or text.get("max_position_embeddings") or text.get("n_positions")


def _fetched(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from studio import hub

    # Apart from the Hub's own cache, where a folder without weights would be taken for the model.
    name = f"{hub_id.replace('/', '--')}@{(revision or 'main').replace('/', '-')}"
    folder = settings.home() / "cache" / "tokenizers" / name
    with hub.explained(hub_id, "model"):
        for name in FILES:
            try:
                hf_hub_download(hub_id, name, revision=revision, endpoint=hub.endpoint(), token=hub.token() or False,
                                local_dir=folder)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                if name == FILES[0]:
                    raise
    return folder


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _token(value: Any) -> str:
    return value if isinstance(value, str) else str(value.get("content") or "") if isinstance(value, dict) else ""
