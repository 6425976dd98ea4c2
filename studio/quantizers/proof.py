"""Whether a variant still is the model: loaded by the program that will run it, and compared with the source.

Both read the same tokens (perplexity, divergence of the probabilities, agreement on the likeliest token), answer the same
prompts greedily by their own chat templates, and cut the same texts into tokens. ``docs/quantize.md`` says what the verdict
means and on which measurements its limits stand.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.library import artifacts, refs
from studio.quantizers import calibration, runtimes
from studio.quantizers.base import Stopped

SAME_KL, SAME_TOP1, SAME_GREEDY = 0.002, 0.98, 0.8  # nats a token; share of tokens; share of answers
CLOSE_KL, CLOSE_TOP1, CLOSE_PERPLEXITY = 0.1, 0.9, 1.05  # the last: times the source's
BROKEN_TOP1, BROKEN_PERPLEXITY = 0.5, 2.0  # beyond these it writes something else
TEXTS = 64  # read at most, of which the half counts that the source reads best
TOKENS = 4096
LOGITS = 512 * 1024 * 1024  # bytes of the source's logits on the disk
NEW_TOKENS = 48
OWN_PROMPTS = 6  # of the recipe's dataset
SHOWN = 1500  # characters of an answer that are kept

_USER = ("What is the opposite of hot?", "Where does Anna live?", "Tell me a story.", "What is 3 plus 4?", "Count from 2 to 6.",
         "What is the capital of France?", "Explain in one sentence why leaves are green.",
         "Write a Python function that adds two numbers.", "Translate into German: Good morning, my friend!")
PROMPTS: list[list[dict[str, str]]] = [
    *([{"role": "user", "content": text}] for text in _USER),
    [{"role": "system", "content": "You are polite and brief."}, {"role": "user", "content": "Please greet a new colleague."}],
    [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! How can I help you?"},
     {"role": "user", "content": "Name three colours."}]]
TEMPLATES: list[list[dict[str, str]]] = [
    *PROMPTS,
    [{"role": "user", "content": "  Two lines,\n\n\twith  odd   spaces. \n"}],
    [{"role": "user", "content": "Grüße, 世界, мир, שלום 👋🏽 — “quoted” {braces} {{x}} 100 %"}],
    [{"role": "system", "content": "Line one.\nLine two."}, {"role": "user", "content": "1"}, {"role": "assistant", "content": "2"},
     {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]]
WORDS = ["Hello world", " leading space", "trailing space ", "a\n\nb\tc\r\n", "It's 12345.678 + 90,000 = ?", "naïve café Straße",
         "日本語とcode", "for (int i = 0; i < 10; ++i) { x += i; }", "👩‍👩‍👧 🇩🇪 \u200b|", "UPPER lower MiXeD snake_case kebab-case", "    four"]
RUNTIMES = {"gguf": "llama.cpp", "bitsandbytes": "transformers", "compressed-tensors": "transformers",
            "hqq": "transformers"}


class Reference:
    """What the source says, to which variants are held.

    Args:
        model: Whole and on this disk; see :func:`studio.quantizers.source.whole`.
        ctx: Of the run; its ``threads`` are those of the runtimes.

    Raises:
        StudioError: the source itself cannot be run, or there are no texts.
        Stopped: a stop was asked for.
    """

    def __init__(self, model: refs.ModelRef, recipe: Any, ctx: Any):
        from studio.trainers import load

        load.quiet()
        self.model, self.recipe, self.ctx = model, recipe, ctx
        self.folder = ctx.run_dir / "proof"
        self.tokenizer = load.tokenizer(model, recipe.trust_remote_code)
        context = model.meta.get("context") or 4096
        vocab = model.meta.get("vocab_size") or len(self.tokenizer)
        self.conversations = [p for p in [*PROMPTS, *self._own_prompts()] if self._fits(p, context)]
        held = calibration.held_out(recipe, self.tokenizer, TEXTS)
        self.words = WORDS + [text[:2000] for text in held[:16]]
        texts = [ids[:context] for ids in calibration.tokens(recipe, self.tokenizer, held)]
        texts = _within(texts, min(TOKENS, LOGITS // (4 * vocab)))
        self.ends = sorted(_ends(model, self.tokenizer))
        self.job = {"threads": ctx.threads, "trust": recipe.trust_remote_code, "conversations": self.conversations,
                    "new_tokens": min(NEW_TOKENS, context // 4), "ends": self.ends}
        try:
            self.found = runtimes.ask(self.job | {
                "path": str(model.path), "runtime": "transformers", "exact": True, "templates": [], "words": [], "texts": texts,
                "keep": str(self.folder / "logits.npy")}, self.folder, ctx)
        except runtimes.Failed as err:
            raise StudioError(f"{model.label} itself cannot be run, so nothing can be compared with it: {err}",
                              "Choose another model, or turn off 'Prove each variant'.", "prove") from err
        if told := self.found.get("broken"):
            raise StudioError(f"{model.label} computes nonsense. {told}", "Choose another model.", "model")
        first, rows = 0, []
        for ids in texts:
            rows.append(first)
            first += len(ids) - 1
        best = calibration.best_read(self.found["read"]["losses"])
        self.texts, self.rows = [texts[i] for i in best], [rows[i] for i in best]
        self.losses = {key: [self.found["read"][key][i] for i in best] for key in ("losses", "counts")}
        self.templates = [rendered(self.tokenizer, messages) for messages in TEMPLATES]
        self.cut = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.words]

    def close(self) -> None:
        """Remove the source's logits."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def compare(self, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
        """A variant against the source.

        Args:
            facts: Its ``format``, as :meth:`studio.quantizers.base.QuantizeMethod.make` gives it.

        Returns:
            ``runtime``; ``perplexity`` {source, variant} of the same texts; ``kl`` and ``kl_max`` (nats a token); ``top1``
            (share of tokens); ``greedy`` {same, of, rows: [{prompt, source, variant}]}; ``template`` {same,
            first_difference}; ``tokens`` {same, first_difference}; ``end`` {source, variant} (whether answers come to their
            end); ``tokens_per_second``, ``load_seconds``, ``memory`` (peak bytes of the runtime with the model),
            ``memory_before`` (before it was loaded), ``size`` (bytes); ``verdict`` (``same`` | ``close`` | ``worse`` |
            ``broken``, or ``None`` where nothing here can run it); ``reasons`` (sentences). What was not measured is ``None``.
            Empty if a stop was asked for.
        """
        runtime = RUNTIMES.get(facts["format"])
        made: dict[str, Any] = {"runtime": runtime, "perplexity": {"source": self.perplexity(), "variant": None}, "kl": None,
                                "kl_max": None, "top1": None, "greedy": {"same": 0, "of": 0, "rows": []}, "template": {},
                                "tokens": {}, "end": {}, "tokens_per_second": None, "load_seconds": None, "memory": None,
                                "memory_before": None, "size": artifacts.size_of(folder), "verdict": None, "reasons": []}
        if runtime is None:
            made["reasons"] = [f"Not compared: no program here runs {facts['format']}."]
            return made
        job = self.job | {"path": str(folder), "runtime": runtime, "exact": False, "templates": TEMPLATES, "words": self.words,
                          "texts": self.texts, "source": str(self.folder / "logits.npy"), "rows": self.rows}
        try:
            found = runtimes.ask(job, self.folder / "variant", self.ctx)
        except runtimes.Failed as err:
            return made | {"verdict": "broken", "reasons": [f"{runtime} could not run it: {err}"]}
        except Stopped:
            return {}
        made |= {key: found[key] for key in ("load_seconds", "memory", "memory_before")}
        made |= {"greedy": self._greedy(found["answers"]), "tokens_per_second": _speed(found["answers"]),
                 "template": self._template(found["templates"]), "tokens": self._tokens(found["tokens"]),
                 "end": self._end(found)}
        if read := found.get("read"):
            made["perplexity"]["variant"] = perplexity(read["losses"], read["counts"])
            made |= {key: read[key] for key in ("kl", "kl_max", "top1")}
        made["verdict"], made["reasons"] = verdict(made, found.get("broken", ""), found.get("unread", ""))
        return made

    def perplexity(self) -> float:
        """The source's, over the texts that count."""
        return perplexity(self.losses["losses"], self.losses["counts"])

    # ---- parts

    def _own_prompts(self) -> list[list[dict[str, str]]]:
        """First questions of chats that nothing is fitted to."""
        from studio.datasets.convert import turns_of

        found = []
        for row in calibration.held_rows(self.recipe, 4 * OWN_PROMPTS):
            turns = turns_of(row)
            if "text" not in row and turns and turns[0].get("role") == "user" and isinstance(turns[0].get("content"), str):
                found.append([{"role": "user", "content": turns[0]["content"]}])
        fresh = [one for one in found if one not in PROMPTS]
        return fresh[:OWN_PROMPTS]

    def _fits(self, messages: list[dict[str, str]], context: int) -> bool:
        ids = rendered(self.tokenizer, messages)
        if ids is None:
            ids = self.tokenizer(messages[-1]["content"])["input_ids"]
        return 0 < len(ids) + 16 < context - min(NEW_TOKENS, context // 4)

    def _greedy(self, answers: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [{"prompt": asked[-1]["content"][:SHOWN], "source": ours["text"][:SHOWN], "variant": theirs["text"][:SHOWN]}
                for asked, ours, theirs in zip(self.conversations, self.found["answers"], answers)]
        same = sum(ours["text"] == theirs["text"] for ours, theirs in zip(self.found["answers"], answers))
        return {"same": same, "of": len(rows), "rows": rows}

    def _template(self, theirs: list[list[int] | None]) -> dict[str, Any]:
        for number, (ours, other) in enumerate(zip(self.templates, theirs)):
            if (ours is None) != (other is None):
                told = "The source has a chat template and the variant none." if other is None else \
                    "The variant has a chat template and the source none."
                return {"same": False, "first_difference": told}
            if ours and (told := self._difference(ours, other)):
                return {"same": False, "first_difference": f"Conversation {number + 1}, {told}"}
        return {"same": True, "first_difference": ""}

    def _tokens(self, theirs: list[list[int]]) -> dict[str, Any]:
        for text, ours, other in zip(self.words, self.cut, theirs):
            if told := self._difference(ours, other):
                return {"same": False, "first_difference": f"In {text[:40]!r}, {told}"}
        return {"same": True, "first_difference": ""}

    def _difference(self, ours: list[int], theirs: list[int]) -> str:
        if ours == theirs:
            return ""
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))

        def word(ids: list[int]) -> str:
            if place >= len(ids):
                return "nothing"
            piece = self.tokenizer.convert_ids_to_tokens(ids[place]) if ids[place] < len(self.tokenizer) else "?"
            return f"{piece!r} ({ids[place]})"

        return f"token {place + 1}: {word(ours)} in the source, {word(theirs)} in the variant."

    def _end(self, found: dict[str, Any]) -> dict[str, Any]:
        """``source``: some of its answers come to an end; ``variant``: it knows the same end, and so do some of those."""
        pairs = [(a["finish"] == "stop", b["finish"] == "stop") for a, b in zip(self.found["answers"], found["answers"])]
        source = any(a for a, _ in pairs)
        ended = any(b for a, b in pairs if a)
        return {"source": source, "variant": all(found["ends"]) and (ended or not source),
                "ended": {"source": sum(a for a, _ in pairs), "variant": sum(b for _, b in pairs), "of": len(pairs)}}


def verdict(made: dict[str, Any], broken: str = "", unread: str = "") -> tuple[str, list[str]]:
    """(verdict, reasons) of what was measured; see ``docs/quantize.md``."""
    bad = [broken] if broken else []
    if made["template"].get("same") is False:
        bad.append(f"Its chat template writes other tokens: {made['template']['first_difference']}")
    if made["tokens"].get("same") is False:
        bad.append(f"It cuts texts into other tokens: {made['tokens']['first_difference']}")
    if made["end"].get("variant") is False:
        bad.append("It does not know the end of an answer, and writes on.")
    kl, top1, seen = made["kl"], made["top1"], made["perplexity"]
    greedy = made["greedy"]
    other = greedy["of"] - greedy["same"]
    answers = f"{other} of {greedy['of']} greedy answers are worded otherwise." if other else ""
    if top1 is not None and top1 < BROKEN_TOP1:
        bad.append(f"It agrees with the source on {top1:.0%} of the tokens only.")
    ratio = seen["variant"] / seen["source"] if seen["variant"] else None
    if ratio and ratio > BROKEN_PERPLEXITY:
        bad.append(f"Its perplexity is {seen['variant']:.4g}, {ratio:.1f} times the source's.")
    if bad:
        return "broken", bad
    if kl is None:
        why = f"Its probabilities could not be compared: {unread}" if unread else "Its probabilities could not be compared."
        return ("worse" if other > greedy["of"] / 2 else "close"), [*filter(None, [why, answers])]
    rise = f"Its perplexity is {seen['variant']:.4g}, {abs(ratio - 1):.1%} {'above' if ratio > 1 else 'below'} the source's."
    agree = f"It takes another token for the likeliest at {1 - top1:.1%} of the places."
    if kl <= SAME_KL and top1 >= SAME_TOP1 and other <= (1 - SAME_GREEDY) * greedy["of"]:
        return "same", [answers] if answers else []
    if kl <= CLOSE_KL and top1 >= CLOSE_TOP1 and ratio <= CLOSE_PERPLEXITY:
        return "close", [*filter(None, [agree, answers])]
    return "worse", [*filter(None, [rise, agree, answers])]


def perplexity(losses: list[float], counts: list[int]) -> float:
    """Of texts with these mean losses, each weighed by its tokens."""
    mean = sum(loss * count for loss, count in zip(losses, counts)) / max(1, sum(counts))
    return math.exp(min(mean, 100.0))


def rendered(tokenizer: Any, messages: list[dict[str, str]]) -> list[int] | None:
    """Token ids of a conversation, up to where an answer begins if it ends with a question. ``None``: no template; empty: it
    refuses this conversation."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=messages[-1]["role"] != "assistant", tokenize=True,
                                            return_dict=True)["input_ids"]
    except Exception:  # a template refuses by whatever error it likes
        return []
    return list(ids)


def _ends(model: refs.ModelRef, tokenizer: Any) -> set[int]:
    """Tokens that end an answer of the source."""
    from transformers import GenerationConfig

    try:
        own = GenerationConfig.from_pretrained(model.source).eos_token_id
    except OSError:  # it has none
        own = None
    ends = set(own if isinstance(own, list) else [] if own is None else [own])
    return ends | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())


def _within(texts: list[list[int]], most: int) -> list[list[int]]:
    """As many of the texts as fit into ``most`` tokens; the last is cut."""
    found: list[list[int]] = []
    for ids in texts:
        left = most - sum(map(len, found))
        if left < 2:
            break
        found.append(ids[:left])
    return found


def _speed(answers: list[dict[str, Any]]) -> float | None:
    """Tokens a second after the first, over all answers."""
    timed = [(a["tokens"] - 1, (a["tokens"] - 1) / a["speed"]) for a in answers if a["speed"] and a["tokens"] > 1]
    return round(sum(n for n, _ in timed) / sum(s for _, s in timed), 1) if timed else None
