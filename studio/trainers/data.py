"""Rows -> tokens and labels. The preview and every trainer use this code and no other.

Labels are made as TRL makes them (``SFTTrainer._prepare_dataset``): ``-100`` where nothing is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from studio.datasets.thinking import for_template
from studio.errors import StudioError
from studio.trainers import chatml
from studio.trainers.script_parts import answer_mask

IGNORE = -100


@dataclass
class Sample:
    """One row as the model sees it, already cut to the longest length."""

    input_ids: list[int]
    labels: list[int]
    length: int  # tokens before the cut
    ends: bool  # an end token is among the trained ones, so the model can learn to stop

    @property
    def truncated(self) -> bool:
        return self.length > len(self.input_ids)

    @property
    def trained(self) -> int:
        return sum(label != IGNORE for label in self.labels)


@dataclass
class Prepared:
    """Samples of a split and what happened on the way."""

    samples: list[Sample] = field(default_factory=list)
    rows: int = 0
    truncated: int = 0
    endless: int = 0  # whole samples that train no end token
    untrained: int = 0  # dropped: nothing left to learn from
    empty: int = 0  # dropped: no text

    @property
    def tokens(self) -> int:
        return sum(len(s.input_ids) for s in self.samples)

    @property
    def learned(self) -> float:
        """Share of the tokens that are learned from."""
        return sum(s.trained for s in self.samples) / max(1, self.tokens)


def set_template(tokenizer: Any, mode: str) -> list[tuple[str, str, str]]:
    """Gives a tokenizer the chat template that a recipe asks for; returns warnings (code, message, hint).

    Args:
        mode: ``auto`` | ``keep`` | ``chatml`` | ``none``, which takes away the one it has.

    Raises:
        StudioError: it has none and is to keep it, or has no end token for ChatML.
    """
    if mode == "none":
        tokenizer.chat_template = None
        return []
    if mode == "keep" and not tokenizer.chat_template:
        raise StudioError("This model has no chat template, and the data are chats.",
                          "Set 'Chat template' to automatic: ChatML is then added.", "model")
    if mode == "keep" or (mode == "auto" and tokenizer.chat_template):
        return []
    text = chatml.for_tokenizer(tokenizer)
    if text is None:
        raise StudioError("This model has no chat template and no end token, so it could never learn to stop.",
                          "Choose a model with an end token, or train on plain text.", "model")
    own, tokenizer.chat_template = tokenizer.chat_template, text
    if own and own != text:
        return [("template-replaced", "The model's own chat template is replaced by ChatML, which it has never seen.",
                 "Choose 'The model's own' unless you mean to teach it another.")]
    return [] if mode == "chatml" else [
        ("chat-template-added", "The model has no chat template: ChatML was added to it.",
         "The result carries the template, so chatting with it works as trained.")]


class Encoder:
    """Turns normalised rows into samples.

    Args:
        tokenizer: A transformers tokenizer; its chat template may be set here (``chat_template``).
        recipe: A recipe with ``max_length`` and, for chats, ``assistant_only_loss`` and ``chat_template``.
        chat: The data holds conversations, or prompts with completions.

    Raises:
        StudioError: chats without a chat template, or a template whose answers cannot be told from the questions.
    """

    def __init__(self, tokenizer: Any, recipe: Any, chat: bool):
        self.tokenizer, self.max_length = tokenizer, recipe.max_length
        self.answers_only = bool(getattr(recipe, "assistant_only_loss", False))
        self.warnings: list[tuple[str, str, str]] = []
        mode = getattr(recipe, "chat_template", "auto")
        if chat or mode == "none":
            self.warnings += set_template(tokenizer, mode)
        self.training_template: str | None = None
        self.marked = False
        if chat and tokenizer.chat_template and self.answers_only:
            self._find_marks()
        self._ends = {tokenizer.eos_token_id} | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special and i != tokenizer.pad_token_id}
        self._ends.discard(None)

    def _find_marks(self) -> None:
        if chatml.has_marks(self.tokenizer.chat_template):
            self.marked = True
            return
        from trl.chat_template_utils import get_training_chat_template

        try:
            self.training_template, self.marked = get_training_chat_template(self.tokenizer), True
        except ValueError:
            self.marked = False  # the answers are then found by rendering the conversation up to each

    def __call__(self, row: dict[str, Any]) -> Sample | None:
        """A row's sample, or ``None`` for a row without text."""
        if "messages" in row:
            ids, mask = self._chat(row["messages"], row.get("tools"))
        elif "prompt" in row:
            ids, mask = self._completion(row["prompt"], row["completion"], row.get("tools"))
        else:
            ids, mask = self._text(row["text"])
        if not ids:
            return None
        labels = ids if mask is None else [i if m else IGNORE for i, m in zip(ids, mask, strict=True)]
        cut_ids, cut_labels = ids[: self.max_length], labels[: self.max_length]
        # The first token is never predicted, so a mask that leaves only it has nothing to learn.
        ends = any(label in self._ends for label in cut_labels[1:])
        return Sample(list(cut_ids), list(cut_labels), len(ids), ends)

    def _text(self, text: str) -> tuple[list[int], None]:
        if not text.strip():
            return [], None
        end = self.tokenizer.eos_token
        return self.tokenizer(text if end is None or text.endswith(end) else text + end)["input_ids"], None

    def _completion(self, prompt: Any, completion: Any, tools: Any) -> tuple[list[int], list[int] | None]:
        if isinstance(prompt, list) or self.tokenizer.chat_template:
            prompt = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
            ids, mask = self._chat([*prompt, *answer], tools)
            if mask is None or not any(m["role"] == "assistant" for m in prompt):
                return ids, mask
            # Answers inside the prompt were given by somebody else: only the completion is learned.
            prompt = for_template(prompt, self.training_template or self.tokenizer.chat_template)
            head = self.tokenizer.apply_chat_template(prompt, tools=tools or None,
                                                      chat_template=self.training_template, tokenize=True,
                                                      return_dict=True, add_generation_prompt=True)["input_ids"]
            start = _shared(head, ids)
            return ids, [0] * start + mask[start:]
        end = self.tokenizer.eos_token
        whole = prompt + (completion if end is None or completion.endswith(end) else completion + end)
        ids = self.tokenizer(whole)["input_ids"]
        if not self.answers_only:
            return ids, None
        start = _shared(self.tokenizer(prompt)["input_ids"], ids)
        return ids, [0] * start + [1] * (len(ids) - start)

    def _chat(self, messages: list[dict[str, Any]], tools: Any) -> tuple[list[int], list[int] | None]:
        if not messages:
            return [], None
        if not self.tokenizer.chat_template:
            raise StudioError("The data are chats, and the chat template is set to none.",
                              "Set 'Chat template' to automatic.", "chat_template")
        messages = for_template(messages, self.training_template or self.tokenizer.chat_template)
        kwargs = {"tools": tools or None, "chat_template": self.training_template, "tokenize": True,
                  "return_dict": True}
        try:
            if not self.answers_only:
                return self.tokenizer.apply_chat_template(messages, **kwargs)["input_ids"], None
            if self.marked:
                out = self.tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, **kwargs)
                return out["input_ids"], out["assistant_masks"]
            try:
                return answer_mask(self.tokenizer, messages, tools)
            except ValueError as err:
                raise StudioError("In this model's chat template the answers cannot be told from the questions.",
                                  "Turn off 'Learn from the answers only', or set 'Chat template' to ChatML.",
                                  "assistant_only_loss") from err
        except StudioError:
            raise
        except Exception as err:  # templates are programs of the model's author: they raise what they like
            raise StudioError(f"The model's chat template refuses a conversation: {err}.",
                              "Set 'Chat template' to ChatML, or mend the row (roles must take turns).",
                              "dataset") from err

    def prepare(self, rows: Iterable[dict[str, Any]]) -> Prepared:
        """All rows; those with nothing to learn from are dropped and counted."""
        made = Prepared()
        for row in rows:
            made.rows += 1
            sample = self(row)
            if sample is None:
                made.empty += 1
                continue
            made.truncated += sample.truncated
            if all(label == IGNORE for label in sample.labels[1:]):
                made.untrained += 1
                continue
            made.endless += not sample.ends and not sample.truncated
            made.samples.append(sample)
        return made


def _shared(a: list[int], b: list[int]) -> int:
    """Number of tokens that two lists begin with alike."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def is_chat(rows: list[dict[str, Any]]) -> bool:
    """Conversations, or prompts with completions, are among the rows."""
    return any("messages" in row or "prompt" in row for row in rows)


def read(recipe: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """(training rows, validation rows, the :class:`studio.datasets.formats.Rows` they come from) of a recipe.

    Raises:
        StudioError: unreadable data, or no rows left.
    """
    from studio.datasets import formats

    rows, found = _rows(recipe.dataset, recipe.columns)
    if recipe.eval_dataset:
        try:
            return rows, _rows(recipe.eval_dataset, recipe.columns)[0], found
        except StudioError as err:
            raise StudioError(err.message, err.hint, "eval_dataset") from err
    if own := formats.own_validation(recipe.dataset):
        return rows, _rows(own, {})[0], found
    train, held = formats.split(rows, recipe.eval_share, recipe.seed)
    return train, held, found


def check(recipe: Any) -> None:
    """Refuse data that cannot be trained on, as far as a quick look tells, and a tracker that is not there.

    Raises:
        StudioError: in the field ``dataset``, ``columns``, ``eval_dataset`` or ``report_to``.
    """
    from studio import extras
    from studio.datasets import formats

    formats.check(recipe.dataset, recipe.columns)
    if recipe.eval_dataset:
        try:
            formats.check(recipe.eval_dataset, recipe.columns)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "eval_dataset") from err
    if recipe.report_to != "none":
        extras.require(recipe.report_to, "report_to")


def _rows(ref: str, columns: dict[str, str]) -> tuple[list[dict[str, Any]], Any]:
    from studio.datasets import formats

    found = formats.load_rows(ref, columns)
    texts = _texts_beside_chats(found)
    return list(found) + texts, found


class _Part:
    """The rows of a reader for which ``chosen`` says yes."""

    def __init__(self, source: Any, chosen: Callable[[dict[str, Any]], bool], bad: Any, examples: Any):
        self.source, self.chosen, self.bad, self.examples = source, chosen, bad, examples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (row for row in self.source if self.chosen(row))


def _texts_beside_chats(found: Any) -> list[dict[str, Any]]:
    """The plain texts of a file that mixes them with chats, as a corpus does; ``found`` keeps the chats."""
    from studio.datasets import formats

    column = found.detected.roles.get("messages")
    if found.detected.format != "messages" or "text" not in found.detected.columns or column == "text":
        return []

    def plain(row: dict[str, Any]) -> bool:
        return not row.get(column) and isinstance(row.get("text"), str)

    whole = found.source
    found.source = _Part(whole, lambda row: not plain(row), whole.bad, whole.examples)
    try:
        return list(formats.Rows(_Part(whole, plain, {}, {}), formats.Detected("text", {"text": "text"})))
    except StudioError:  # every one of them is empty
        return []


def tell(found: Any, warn: Any, log: Any) -> None:
    """Say what was read, and warn about the rows that were left out."""
    for line in [f"{found.detected.title}. {' '.join(found.detected.evidence)}", *found.notes]:
        log(line)
    lost = {code: entry for code, entry in found.rejects.items() if code != "rated_bad"}
    if lost:
        why = "; ".join(f"{entry['count']} because {entry['message']}" for entry in lost.values())
        warn("rows-left-out", f"{sum(e['count'] for e in lost.values())} of {found.total} rows are left out: {why}.",
             "Check the dataset's findings in its preview.")


def report(made: Prepared, recipe: Any, warn: Any, what: str = "samples") -> None:
    """Warn about what was cut or dropped.

    Raises:
        StudioError: nothing is left.
    """
    if not made.samples:
        why = (f"all {made.untrained} have their answer cut off or empty" if made.untrained else "all are empty")
        raise StudioError(f"Nothing is left to learn from: of {made.rows} {what}, {why}.",
                          "Raise 'Longest sample', or check the columns." if made.untrained else "Check the columns.",
                          "max_length" if made.truncated and made.untrained else "dataset")
    if made.truncated:
        warn("truncated", f"{made.truncated} of {made.rows} {what} are cut at {recipe.max_length} tokens.",
             "Raise 'Longest sample' to keep their ends.")
    if made.untrained or made.empty:
        warn("rows-dropped", f"{made.untrained + made.empty} of {made.rows} {what} were left out: nothing to learn "
             "from.", "They are empty, or their answer lies behind the cut.")
    if (learned := made.learned) < 0.02:
        warn("little-learned", f"Only {learned:.1%} of the tokens are learned from; the rest is context.",
             "Often that is meant (short answers to long questions). If not, check the columns and 'Learn from the answers "
             "only'.")
    if made.endless:
        warn("no-end-token", f"{made.endless} of {made.rows} {what} train no end token: the model may not learn to "
             "stop.", "Choose another chat template, or a model with an end token.")
