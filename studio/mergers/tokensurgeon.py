"""A model with the tokenizer of another one. mergekit-tokensurgeon.

Tokens that both know keep their embedding. The others get one that is made of the model's own, in the way that the donor's
embedding of that token is made of the donor's: nothing is trained, so a short continued pretraining usually follows.
Its ways ``stb`` and ``mp_rope`` fail in mergekit 0.1.5 with this transformers and are not offered.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.library import refs
from studio.mergers import tools
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

NEIGHBOURS = ("common_interpolation", "omp")


class TokenSurgeonRecipe(Recipe):
    """Whose weights, whose tokenizer, and how missing embeddings are made."""

    kind: ClassVar[str] = "merge"
    method: ClassVar[str] = "tokensurgeon"

    model: str = field("", "Model", "The model that gets another tokenizer; all other weights stay as they are.", widget="model",
                       max_length=1000)
    donor: str = field("", "Tokenizer from", "The model whose tokenizer and chat template the result has. It must know how its "
                       "tokens are related, so its embeddings are read too.", widget="model", max_length=1000)
    approximation_method: Literal["omp", "common_interpolation", "subword", "mean", "zero", "randn", "john_hewitt",
                                  "landmark_pca"] = field(
        "omp", "Missing embeddings", "How a token that only the donor knows gets its embedding. Matching pursuit is the best as "
        "a rule; subwords need no donor embeddings; the mean, noise and zeros are for a training afterwards.",
        choices={"omp": "Matching pursuit: a few shared tokens that add up to it", "common_interpolation": "Its nearest shared "
                 "tokens, weighted", "subword": "The model's own tokens of the same text",
                 "mean": "The mean of all embeddings", "zero": "Zeros", "randn": "Noise",
                 "john_hewitt": "Drawn like the embeddings there are", "landmark_pca": "A map of all shared tokens"})
    k: int = field(64, "Tokens it is made of", "At most so many shared tokens make up a missing one.", ge=1, le=4096,
                   when={"approximation_method": list(NEIGHBOURS)})
    cosine_similarity: bool = field(False, "Nearest by direction", "On: neighbours are found by the angle between embeddings. Off: "
                                    "by their distance.", when={"approximation_method": ["common_interpolation"]})
    weight_scheme: Literal["distance_proportional", "barycentric", "least_squares"] = field(
        "distance_proportional", "Neighbours count by", "How the nearest shared tokens are weighed.",
        choices={"distance_proportional": "Their distance", "barycentric": "Barycentric coordinates",
                 "least_squares": "Least squares"}, when={"approximation_method": ["common_interpolation"]})
    subword_method: Literal["mean", "sum", "weighted_mean", "first_last"] = field(
        "mean", "Subwords are joined by", "How the model's own tokens of the same text become one embedding.",
        choices={"mean": "Their mean", "sum": "Their sum", "weighted_mean": "Their mean, longer ones count more",
                 "first_last": "First for reading, last for writing"}, when={"approximation_method": ["subword"]})
    prefix_match: bool = field(False, "Use beginnings", "On: a token the model lacks takes the embedding of the longest one it "
                               "begins with.", group="advanced")
    byte_match: bool = field(False, "Match bytes", "On: one-letter tokens are matched with byte tokens such as <0x41>.",
                             group="advanced")
    magikarp: bool = field(False, "Leave out badly trained tokens", "On: tokens that were hardly ever seen in training are not "
                           "used to make others.", group="advanced")
    batch_size: int = field(512, "Tokens at once", "Lower needs less memory.", group="advanced", ge=1, le=65_536)
    new_vocab_noise: float = field(0.0, "Noise on new embeddings", "Adds so much noise to the made ones. 0 = none.",
                                   group="advanced", ge=0, le=10)
    new_vocab_scale: float = field(1.0, "Scale of new embeddings", "Multiplies the made ones.", group="advanced", gt=0, le=100)
    random_seed: int = field(42, "Seed", "For noise and what is drawn.", group="advanced", ge=0, le=2**32 - 1)
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")


class TokenSurgeon(Method):
    """A tokenizer, transplanted."""

    title = "Tokenizer transplant"
    group = "tokens"
    summary = "Gives a model the tokenizer and chat template of another one, so that the two can be merged or compared."
    paper = "https://arxiv.org/abs/2506.06607"
    Recipe = TokenSurgeonRecipe

    @classmethod
    def check(cls, recipe: TokenSurgeonRecipe) -> None:
        from studio import hardware

        model, donor = cls._pair(recipe)
        hidden = (tools.facts(model).get("widths") or [0])[0]
        if recipe.approximation_method == "john_hewitt" and 0 < (tools.facts(model).get("vocab_size") or 0) <= hidden:
            raise StudioError(f"{model.label} has fewer tokens than an embedding has numbers ({hidden}), too few to tell how "
                              "embeddings are spread.", "Choose another way.", "approximation_method")
        if needed := cls._bytes(model, donor):
            hardware.need_disk(needed, "The model", "model")

    @classmethod
    def estimate(cls, recipe: TokenSurgeonRecipe) -> Estimate:
        model, donor = cls._pair(recipe)
        needed = cls._bytes(model, donor)
        words = [tools.facts(one).get("vocab_size") for one in (model, donor)]
        notes = [f"The vocabulary goes from {words[0]:,} to {words[1]:,} tokens."] if all(words) else []
        widest = max((tools.facts(one).get("widths") or [0])[0] for one in (model, donor))
        tables = 8 * 4 * widest * sum(word or 0 for word in words)  # embeddings of both, and what they are made of
        return Estimate(memory=int(tables + needed * 0.3 + 700_000_000) if needed else None, disk=needed or None,
                        notes=[*notes, "Memory is an estimate.", "What the new tokens mean is a good guess, not learned: train a "
                               "little afterwards."])

    @classmethod
    def run(cls, recipe: TokenSurgeonRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import load

        began = time.time()
        load.quiet()
        model, donor = cls._pair(recipe)
        ctx.progress(0, 1)
        try:
            with tools.whole([model, donor], ctx, recipe.trust_remote_code) as folders, tools.folder(ctx) as part:
                told = cls._cut(recipe, ctx, folders, part)
                shared, words = _shared(folders, recipe.trust_remote_code)
                _end_tokens(folders, part)
                parameters = tools.parameters(part)
        except tools.Stopped:
            return {}
        for text in told:
            if "experimental" not in text:
                ctx.warning("mergekit", text)
        name = recipe.name or f"{model.label} with the tokenizer of {donor.label}"[:80]
        rows = [("Parameters", parameters), ("Tokens", words), ("Tokens that both know", shared),
                ("Missing embeddings", recipe.approximation_method)]
        intro = (f"{model.label} (`{recipe.model}`) with the tokenizer and chat template of {donor.label} (`{recipe.donor}`), "
                 "made by `mergekit-tokensurgeon`. Embeddings of tokens that it did not know are made up, not trained.")
        (ctx.output / "README.md").write_text(tools.card(recipe, name, intro, [model, donor], rows=rows), "utf-8")
        ctx.artifact("model", ctx.output, name, {"method": "merge/tokensurgeon", "parameters": parameters},
                     [(recipe.model, "base"), (recipe.donor, "tokenizer")])
        ctx.progress(1, 1)
        return {"parameters": parameters, "tokens": words, "shared_tokens": shared, "made_tokens": words - shared,
                "seconds": round(time.time() - began, 2)}

    @classmethod
    def _cut(cls, recipe: TokenSurgeonRecipe, ctx: Any, folders: list[str], part: Path) -> list[str]:
        from mergekit.scripts import tokensurgeon

        bars = {"Approximating tokens": (0.2, 0.8), "Saving weights": (0.8, 1.0)}
        with tools.watched(ctx, ["mergekit.scripts.tokensurgeon"], bars), _in_order(tokensurgeon):
            try:
                return tools.script(tokensurgeon.main, arguments(recipe, folders, part))
            except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as err:
                raise StudioError(f"mergekit cannot make the missing embeddings this way: {err or type(err).__name__}",
                                  "Choose another way, or fewer tokens to make them of.", "approximation_method") from err

    @staticmethod
    def _pair(recipe: TokenSurgeonRecipe) -> tuple[refs.ModelRef, refs.ModelRef]:
        model, donor = tools.source(recipe.model, "model"), tools.source(recipe.donor, "donor")
        if recipe.model == recipe.donor:
            raise StudioError("Model and donor are the same, so nothing would change.", "Choose another donor.", "donor")
        if donor.path and not (donor.meta.get("tokenizer") or donor.is_adapter):
            raise StudioError(f"{donor.label} has no tokenizer.", "Choose a model that has one.", "donor")
        return model, donor

    @staticmethod
    def _bytes(model: refs.ModelRef, donor: refs.ModelRef) -> int:
        """Of the result, 0 where the model's size is not known."""
        known, words = tools.facts(model), tools.facts(donor).get("vocab_size") or 0
        if not known.get("parameters"):
            return 0
        tables = max(0, words - (known.get("vocab_size") or 0)) * (known.get("widths") or [0])[0] * 2
        return int((known["parameters"] + tables) * tools.BYTES.get(known.get("dtype") or "", 4))


def arguments(recipe: TokenSurgeonRecipe, folders: list[str], out: Path) -> list[str]:
    """Of mergekit's script."""
    made = [*folders, str(out), "-k", str(recipe.k), "--approximation-method", recipe.approximation_method, "--weight-scheme",
            recipe.weight_scheme, "--subword-method", recipe.subword_method, "--batch-size", str(recipe.batch_size),
            "--prefix-match", "yes" if recipe.prefix_match else "no", "--byte-match", "yes" if recipe.byte_match else "no",
            "--random-seed", str(recipe.random_seed)]
    made += ["--cosine-similarity"] * recipe.cosine_similarity + ["--magikarp"] * recipe.magikarp
    made += ["--new-vocab-noise", str(recipe.new_vocab_noise)] if recipe.new_vocab_noise else []
    made += ["--new-vocab-scale", str(recipe.new_vocab_scale)] if recipe.new_vocab_scale != 1 else []
    return made + ["--trust-remote-code"] * recipe.trust_remote_code


@contextlib.contextmanager
def _in_order(script: Any) -> Iterator[None]:
    """Lets the script go through vocabularies by token id instead of a hash's order, so that the seed draws the same again."""
    real = script.normalized_vocabulary
    script.normalized_vocabulary = lambda words: dict(sorted(real(words).items(), key=lambda pair: pair[1]))
    try:
        yield
    finally:
        script.normalized_vocabulary = real


def _shared(folders: list[str], trust: bool) -> tuple[int, int]:
    """(tokens of the donor that the model knew, tokens of the donor), matched as mergekit does."""
    from mergekit.tokenizer.normalization import normalized_vocabulary
    from transformers import AutoTokenizer

    mine, theirs = (normalized_vocabulary(AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)) for folder in folders)
    return len(set(mine) & set(theirs)), len(theirs)


def _end_tokens(folders: list[str], part: Path) -> None:
    """The model's generation settings with the donor's token ids: the old ids are other words now."""
    from transformers import GenerationConfig

    mine, theirs = (Path(folder) / "generation_config.json" for folder in folders)
    if not mine.is_file() and not theirs.is_file():
        return
    made = GenerationConfig.from_pretrained(folders[0] if mine.is_file() else folders[1])
    ids = GenerationConfig.from_pretrained(folders[1]) if theirs.is_file() else GenerationConfig()
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(made, key, getattr(ids, key))
    made.save_pretrained(part)
