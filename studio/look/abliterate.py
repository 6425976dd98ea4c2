"""A behaviour found as one direction and taken out of the weights: for refusal this is called abliteration.

After Arditi et al. 2024, https://arxiv.org/abs/2406.11717. Prompts are split in three: a direction for every layer comes from the
first part, the layer is chosen on the second by what taking it out does, and what is told is measured on the third.
"""

from __future__ import annotations

import json
import platform
import random
import re
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.evals.probes import redteam, words
from studio.evals.probes.intervals import rate
from studio.library import refs
from studio.look import inside
from studio.mergers import tools
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

DIRECTION, MODEL = "direction.safetensors", "model"
LEAST = 8  # prompts of each set
PARTS = (0.5, 0.2)  # shares of the prompts that the direction and the layer come from; the rest is measured
SAFETY = ("Without its refusals a model also answers what it was taught to decline. It has no safety of its own any more: do not "
          "put it in front of other people, and say what it is wherever it goes. It is meant for research on how refusals work.")
OTHER = "What else the direction carried went with it. Measure what matters to you before this model is used."


class AbliterateRecipe(Recipe):
    """Which behaviour, in which model, and how the layer is chosen."""

    kind: ClassVar[str] = "look"
    method: ClassVar[str] = "abliterate"

    model: str = inside.model_field("The model that shows the behaviour. It stays as it is; the result is a copy. An adapter is "
                                    "folded into its base first.")
    behaviour: Literal["refusal", "own"] = field(
        "refusal", "Behaviour", "Refusal uses the studio's own prompts: mild harmful asks, and harmless ones that look alike. "
        "Another one is given by two lists of prompts. A model without its refusals has no safety of its own.",
        choices={"refusal": "Refusal", "own": "Another, by two lists"})
    prompts_with: list[str] = field([], "Prompts that bring it out", "One a line, at least 8: here the model does it. For refusal "
                                    "left empty, the studio's own.", widget="lines", max_length=2000)
    prompts_without: list[str] = field([], "Prompts that do not", "One a line, at least 8, as alike as can be: here the model does "
                                       "not do it. For refusal left empty, the studio's own.", widget="lines", max_length=2000)
    sign: str = field("", "Sign of it", "A regular expression that is found in an answer which shows the behaviour, as ^Of course. "
                      "Capitals do not matter.", max_length=500, when={"behaviour": ["own"]})
    dataset: str = field("shipped:story-endings", "Data for the perplexity", "Good answers or plain texts on which the model is "
                         "measured before and after: they show what else is lost.", widget="dataset", max_length=1000)
    samples: int = field(50, "Rows for the perplexity", "How many rows, drawn by the seed.", unit="rows", ge=2, le=2000)
    questions: int = field(128, "Prompts of each list", "At most so many of each list are used, drawn by the seed.", ge=LEAST, le=2000)
    layer: int | None = field(None, "Layer", "Behind which layer the direction is taken, counted from 1. Left empty, the one "
                              "that removes most of the behaviour and changes least else.", ge=1, le=512)
    candidates: int = field(12, "Layers tried", "So many layers, evenly spaced over the first four fifths, are tried.",
                            group="advanced", ge=1, le=128)
    kl_threshold: float = field(0.1, "Most side effect", "A layer whose removal changes the next token after the other prompts by "
                                "more (Kullback-Leibler divergence, in nats) is taken only where none is below.", group="advanced",
                                ge=0.0001, le=100)
    max_new_tokens: int = field(32, "Longest answer", "Answers in which the behaviour is looked for are cut here.", unit="tokens",
                                group="advanced", ge=1, le=512)
    batch_size: int = field(8, "Answers at once", "More is faster and needs more memory.", group="advanced", ge=1, le=128)
    seed: int = field(42, "Seed", "Which prompts and rows are drawn, and how they are split.", group="advanced", ge=0, le=2**32 - 1)
    trust_remote_code: bool = inside.trust_field()


@dataclass
class Split:
    """Prompts of one list: for the direction, for the choice of the layer, for the measurement."""

    learned: list[str]
    chosen: list[str]
    measured: list[str]


class Abliterate(Method):
    """One direction less."""

    title = "Remove a direction"
    summary = "Finds the direction of refusal, or of another behaviour, takes it out of the weights, and measures both models."
    paper = "https://arxiv.org/abs/2406.11717"
    Recipe = AbliterateRecipe

    @classmethod
    def check(cls, recipe: AbliterateRecipe) -> None:
        from studio import hardware
        from studio.datasets import formats

        model = inside.opened(recipe.model)
        lists(recipe)
        if recipe.behaviour == "own":
            if not recipe.sign:
                raise StudioError("Nothing says how the behaviour is recognised.", "Write what is found in such answers.", "sign")
            try:
                re.compile(recipe.sign)
            except re.error as err:
                raise StudioError(f"'{recipe.sign}' is no regular expression: {err}.", "Escape dots and brackets, or write plain "
                                  "words.", "sign") from err
        deep = tools.facts(model).get("layers")
        if recipe.layer and deep and recipe.layer >= deep:
            raise StudioError(f"{model.label} has {deep} layers, and behind the last one nothing is left to be changed.",
                              f"Choose 1 to {deep - 1}.", "layer")
        formats.check(recipe.dataset, {})
        hardware.need_disk(tools.size(model), "The model")

    @classmethod
    def estimate(cls, recipe: AbliterateRecipe) -> Estimate:
        model = inside.opened(recipe.model)
        made = inside.estimate(model)
        made.disk = tools.size(model) or None
        return made

    @classmethod
    def run(cls, recipe: AbliterateRecipe, ctx: Any) -> dict[str, Any]:
        model = inside.opened(recipe.model)
        made = inside.loaded(model, ctx, recipe.trust_remote_code)
        if made is None:
            return {}
        work = Work(recipe, ctx, model, *made)
        try:
            return work.done()
        except tools.Stopped:
            return {}


def lists(recipe: AbliterateRecipe) -> tuple[Split, Split]:
    """The two lists of prompts, drawn and split.

    Raises:
        StudioError: too few (``prompts_with``, ``prompts_without``), or one prompt in both.
    """
    made = []
    for name, category in (("prompts_with", "harmful"), ("prompts_without", "harmless")):
        own = list(dict.fromkeys(filter(None, (one.strip() for one in getattr(recipe, name)))))
        if not own and recipe.behaviour == "refusal":
            own = [one.asked for one in redteam.attacks([category], 10_000, recipe.seed)]
        if len(own) < LEAST:
            raise StudioError(f"There are {len(own)} prompts, and at least {LEAST} are needed.", "Add some, one a line; thirty make "
                              "a good direction.", name)
        made.append(own)
    if both := set(made[0]) & set(made[1]):
        raise StudioError(f"'{min(both)[:60]}' stands in both lists.", "Remove it from one.", "prompts_without")
    rng, parts = random.Random(recipe.seed), []
    for own in made:
        own = rng.sample(own, min(len(own), recipe.questions))
        one = round(len(own) * PARTS[0])
        two = one + max(2, round(len(own) * PARTS[1]))
        parts.append(Split(own[:one], own[one:two], own[two:]))
    return parts[0], parts[1]


class Work:
    """One run: every step asks whether it was stopped (:class:`studio.mergers.tools.Stopped`)."""

    def __init__(self, recipe: AbliterateRecipe, ctx: Any, model: refs.ModelRef, tokenizer: Any, net: Any):
        self.recipe, self.ctx, self.model, self.tokenizer, self.net = recipe, ctx, model, tokenizer, net
        self.having, self.other = lists(recipe)
        self.sign = re.compile(recipe.sign, re.IGNORECASE) if recipe.behaviour == "own" else None
        self.shown: dict[str, Any] = {}  # rate of the behaviour on the prompts that the layer is chosen by, before

    def done(self) -> dict[str, Any]:
        from safetensors.torch import save_file

        from studio.look import direction as vectors
        from studio.trainers.finish import native_dtype, save

        import torch

        began, recipe, ctx, net = time.time(), self.recipe, self.ctx, self.net
        parts = vectors.writers(net)
        before = self.measured("before", 0.0)
        if not before["with"]["k"]:
            raise StudioError(f"{self.model.label} shows the behaviour in none of its {before['with']['n']} answers, so there is "
                              "nothing to take away.", "Choose a model that does it, or other prompts, or another sign.",
                              "sign" if self.sign else "model")
        found = self.tried(vectors, parts)
        best = self.best(found)
        unit, dtype = best.pop("unit"), native_dtype(refs.resolve_model(self.model.base) if self.model.is_adapter else self.model)
        rounding = vectors.project(net, parts, unit, getattr(torch, dtype) if dtype else None)
        after = self.measured("after", 0.7)
        for kind, one in (("before", before), ("after", after)):
            ctx.metric(1 if kind == "before" else 2, {f"behaviour/{name}": one[name]["value"] for name in ("with", "without")}
                       | {"perplexity": one["perplexity"]})
        name = recipe.name or f"{self.model.label} without {self.word}"[:80]
        save(net, self.tokenizer, ctx.output / MODEL, dtype)
        save_file({"direction": unit.float().contiguous()}, str(ctx.output / DIRECTION))
        told = [("Layer", best["layer"]), (f"Shows {self.word}, before", share(before["with"])), (f"Shows {self.word}, after",
                share(after["with"])), ("Perplexity before", f"{before['perplexity']:.4g}"), ("Perplexity after", f"{after['perplexity']:.4g}")]
        (ctx.output / MODEL / "README.md").write_text(self.card(name, told), "utf-8")
        ctx.artifact("model", ctx.output / MODEL, name, {"method": "look/abliterate", "parameters": tools.parameters(ctx.output / MODEL),
                                                         "removed": self.word}, [(recipe.model, "base"), (recipe.dataset, "data")])
        if recipe.behaviour == "refusal":
            ctx.warning("no-refusals", SAFETY)
        facts = {"behaviour": recipe.behaviour, "sign": recipe.sign, "candidates": found, "layer": best["layer"], "shown": self.shown, "before": before,
                 "after": after, "rounding": rounding, "matrices": len(parts), "prompts": {"with": _counts(self.having), "without": _counts(self.other)},
                 "threshold": recipe.kl_threshold}
        return inside.finish(recipe, ctx, self.model, facts, "Direction", layer=best["layer"], behaviour_before=before["with"]["value"],
                             behaviour_after=after["with"]["value"], perplexity_before=before["perplexity"],
                             perplexity_after=after["perplexity"], seconds=round(time.time() - began, 2))

    @property
    def word(self) -> str:
        return "refusals" if self.recipe.behaviour == "refusal" else "the behaviour"

    def tried(self, vectors: Any, parts: dict[str, Any]) -> list[dict[str, Any]]:
        """Every layer that is tried: ``{layer, length, rate, kl, unit}``; ``rate`` of the behaviour and ``kl`` with its direction out."""
        recipe, net = self.recipe, self.net
        deep = len(vectors.layers(net))
        if recipe.layer and recipe.layer >= deep or deep < 2:
            raise StudioError(f"{self.model.label} has {deep} layers, and behind the last one nothing is left to be changed.",
                              "Choose an earlier layer, or a deeper model.", "layer")
        most = max(1, int(deep * 0.8)) if deep > 2 else 1
        count = min(recipe.candidates, most)
        wanted = [recipe.layer] if recipe.layer else sorted({1 + round(i * (most - 1) / max(1, count - 1)) for i in range(count)})
        every = [self.ids(one) for one in (*self.having.learned, *self.other.learned)]
        done = iter(range(1, len(every) + 1))
        averages = []
        for own in (self.having.learned, self.other.learned):
            made = vectors.means(net, [self.ids(one) for one in own], self.stop, lambda: self.tell(0.15 + 0.15 * next(done) / len(every)))
            averages.append(self.alive(made))
        asked = [self.ids(one) for one in self.other.chosen]
        plain = self.alive(vectors.outcomes(net, asked, self.stop))
        self.shown = rate([float(self.shows(text)) for text in self.answers(self.having.chosen)])
        found = []
        for number, layer in enumerate(wanted):
            way = averages[0][layer] - averages[1][layer]
            length = float(way.norm())
            if length < 1e-9:
                raise StudioError("The two lists look the same to the model.", "Choose lists that differ more.", "prompts_without")
            unit = (way / length).float()
            with vectors.without(parts.values(), unit):
                if number == 0 and (rest := vectors.left(net, asked[:2], unit)) > vectors.LEFT:
                    raise StudioError(f"{self.model.label} also writes into its stream in ways that this method does not know: {rest:.1%} "
                                      "of the direction's share would stay.", "Choose a model of a plainer architecture, as Llama or "
                                      "Qwen.", "model")
                changed = self.alive(vectors.outcomes(net, asked, self.stop))
                shown = rate([float(self.shows(text)) for text in self.answers(self.having.chosen)])
            kl = float((plain.exp() * (plain - changed)).sum(-1).mean())
            found.append({"layer": layer, "length": length, "rate": shown, "kl": max(0.0, kl), "unit": unit})
            self.ctx.log(f"Layer {layer}: shown in {share(shown)}, side effect {kl:.3g}.")
            self.tell(0.3 + 0.4 * (number + 1) / len(wanted))
        return found

    def best(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Least behaviour, then least side effect, of those that remove some of it at a small enough side effect, else of all; the
        units leave the list."""
        calm = [one for one in found if one["kl"] <= self.recipe.kl_threshold and one["rate"]["value"] < self.shown["value"]]
        if not calm:
            self.ctx.warning("side-effects", "No layer that was tried removes the behaviour and leaves other answers as they were.",
                             "Look at the perplexity and at answers before you use this model.")
        best = dict(min(calm or found, key=lambda one: (one["rate"]["value"], one["kl"])))
        for one in found:
            one.pop("unit")
        return best

    def measured(self, when: str, at: float) -> dict[str, Any]:
        """``{with, without: rate of the behaviour, perplexity, examples}`` on the prompts kept for it."""
        from studio.evals import compare

        recipe = self.recipe
        made: dict[str, Any] = {"examples": []}
        for place, (name, prompts) in enumerate((("with", self.having.measured), ("without", self.other.measured))):
            texts = self.answers(prompts)
            made[name] = rate([float(self.shows(text)) for text in texts])
            made["examples"] += [{"list": name, "prompt": prompt, "answer": text, "shown": self.shows(text)}
                                 for prompt, text in list(zip(prompts, texts, strict=True))[:6]]
            self.tell(at + 0.05 * (place + 1))
        items = compare.drawn(recipe.dataset, {}, recipe.samples, recipe.seed)
        scores = self.alive(compare.evaluate(self.net, self.tokenizer, items, stop=self.stop, batch_size=recipe.batch_size))
        made["perplexity"], made["perplexity_stderr"] = scores.figures()["perplexity"]
        self.ctx.log(f"{when.capitalize()}: shown in {share(made['with'])} where it should, {share(made['without'])} elsewhere, "
                     f"perplexity {made['perplexity']:.4g}.")
        return made

    def answers(self, prompts: list[str]) -> list[str]:
        """Greedy answers."""
        from studio.evals import compare

        made: list[str] = []
        chat, size = bool(self.tokenizer.chat_template), self.recipe.batch_size
        for place in range(0, len(prompts), size):
            part = [[{"role": "user", "content": one}] if chat else one for one in prompts[place:place + size]]
            made += self.alive(compare.written(self.net, self.tokenizer, part, self.recipe.max_new_tokens, self.stop))[0]
        return made

    def shows(self, text: str) -> bool:
        return bool(self.sign.search(text)) if self.sign else words.refused(text)

    def ids(self, prompt: str) -> list[int]:
        return inside.encoded(self.tokenizer, prompt, True)

    def stop(self) -> bool:
        return self.ctx.stop_requested

    def tell(self, share_done: float) -> None:
        self.ctx.progress(round(share_done, 4), 1.0)

    def alive(self, made: Any) -> Any:
        if made is None or self.ctx.stop_requested:
            raise tools.Stopped
        return made

    def card(self, name: str, rows: list[tuple[str, Any]]) -> str:
        """The model card: what was taken out, what that means, the figures, the recipe."""
        from studio.mergers import licences

        licence = licences.of(self.model, ask=True).name
        refusal = self.recipe.behaviour == "refusal"
        behaviour = "refusing" if refusal else f"answers with `{self.recipe.sign}`"
        front = ["---", "library_name: transformers", "pipeline_tag: text-generation", *([f"license: {licence}"] if licence else []),
                 *(["base_model:", f"- {self.model.hub_id}"] if self.model.hub_id else []), "tags:", "- atelier",
                 f"- {'abliterated' if refusal else 'direction-removed'}", "---"]
        versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers"))
        shown = {key: value for key, value in self.recipe.to_dict().items() if key not in ("prompts_with", "prompts_without")}
        return "\n".join([*front, "", f"# {name}", "", f"{self.model.label} (`{self.recipe.model}`) without one direction of its residual "
                          f"stream, that of {behaviour} (https://arxiv.org/abs/2406.11717).", "", SAFETY if refusal else OTHER, "",
                          "| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows), "", "## Recipe", "", "```json",
                          json.dumps(shown, indent=1, ensure_ascii=False), "```", "", f"Made {time.strftime('%Y-%m-%d')} with Atelier on "
                          f"{platform.machine()}, Python {platform.python_version()}, {versions}.", ""])


def share(one: dict[str, Any]) -> str:
    """``40% (4 of 10)``."""
    return f"{one['value']:.0%} ({one['k']} of {one['n']})"


def _counts(one: Split) -> dict[str, int]:
    return {"learned": len(one.learned), "chosen": len(one.chosen), "measured": len(one.measured)}
