"""Attention by head: which earlier tokens every head of every layer looks at.

The model runs with ``attn_implementation="eager"``, the only one that gives its attention out. What a head looks at is not by
itself what the answer comes from: https://arxiv.org/abs/1902.10186.
"""

from __future__ import annotations

import base64
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.look import inside
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST_CELLS = 3_000_000  # of all maps together: as many bytes are sent to the page
MAPS = "attention.safetensors"


class AttentionRecipe(Recipe):
    """Which model, on what text."""

    kind: ClassVar[str] = "look"
    method: ClassVar[str] = "attention"

    model: str = inside.model_field("The model whose heads are looked at.")
    prompt: str = field("What is the colour of grass?", "Prompt", "What the model reads. Short prompts are easier to look at.",
                        widget="text", min_length=1, max_length=20_000)
    apply_chat_template: bool = field(True, "As a chat", "The prompt is a question in the model's chat template. Off: it is plain "
                                      "text that the model goes on with.")
    max_new_tokens: int = field(8, "Tokens of the answer", "The model's own greedy answer is looked at as well, up to so many "
                                "tokens. 0 = the prompt alone.", unit="tokens", ge=0, le=128)
    max_length: int = field(48, "Most tokens", "Of the prompt and the answer together; a longer prompt loses its beginning. Maps "
                            "grow with the square.", unit="tokens", ge=2, le=256)
    trust_remote_code: bool = inside.trust_field()


class Attention(Method):
    """Maps of all heads."""

    title = "Attention by head"
    summary = "Draws for every head which tokens it looks at, how widely, and how much of it goes to the first token."
    paper = "https://arxiv.org/abs/1706.03762"
    Recipe = AttentionRecipe

    @classmethod
    def check(cls, recipe: AttentionRecipe) -> None:
        inside.opened(recipe.model)

    @classmethod
    def estimate(cls, recipe: AttentionRecipe) -> Estimate:
        return inside.estimate(inside.opened(recipe.model))

    @classmethod
    def run(cls, recipe: AttentionRecipe, ctx: Any) -> dict[str, Any]:
        from safetensors.torch import save_file

        model = inside.opened(recipe.model)
        made = inside.loaded(model, ctx, recipe.trust_remote_code)
        if made is None:
            return {}
        tokenizer, net = made
        maps = read(net, ids := inside.sequence(net, tokenizer, recipe, ctx))
        if ctx.stop_requested:
            return {}
        cells = sum(one.numel() for one in maps.values())
        if cells > MOST_CELLS:
            raise StudioError(f"All heads at {ids.shape[1]} tokens make {cells:,} cells; the page draws up to {MOST_CELLS:,}.",
                              "Take fewer tokens.", "max_length")
        save_file({f"layer.{number}": one.contiguous() for number, one in maps.items()}, str(ctx.output / MAPS))
        facts = {"tokens": inside.words(tokenizer, ids[0]), "layers": [told(number, one) for number, one in maps.items()]}
        heads = sum(one.shape[0] for one in maps.values())
        first = [value for layer in facts["layers"] for value in layer["first"]]
        ctx.log(f"{heads} heads in {len(maps)} layers, {ids.shape[1]} tokens.")
        return inside.finish(recipe, ctx, model, facts, "Attention", tokens=int(ids.shape[1]), layers=len(maps), heads=heads,
                             first=round(sum(first) / len(first), 4))


def read(net: Any, ids: Any) -> dict[int, Any]:
    """Layer -> attention in 32 bits, (heads, tokens that look, tokens looked at); layers without attention are left out.

    Raises:
        StudioError: the model gives no attention out.
    """
    import torch

    try:
        net.set_attn_implementation("eager")
        with torch.no_grad():
            given = net(input_ids=ids, output_attentions=True, use_cache=False).attentions
    except (ValueError, AttributeError, RuntimeError) as err:
        raise StudioError(f"This model does not give its attention out: {str(err).splitlines()[0] if str(err) else type(err).__name__}",
                          "Choose another model.", "model") from err
    size = ids.shape[1]
    found = {number: one[0].float().cpu() for number, one in enumerate(given or ()) if one is not None and one.dim() == 4
             and one.shape[-2:] == (size, size)}
    if not found:
        raise StudioError("This model gives no attention out.", "Choose a model whose layers attend.", "model")
    return found


def told(number: int, maps: Any) -> dict[str, Any]:
    """One layer: ``entropy`` (bits), ``first``, ``previous`` and ``itself`` (shares that go to the first token, the one before and
    the own one) of each head, as means over the tokens from the second on; ``maps``: all cells in 0…255, as base64."""
    import torch

    seen = maps[:, 1:] if maps.shape[1] > 1 else maps
    entropy = -(seen * torch.where(seen > 0, seen, torch.ones_like(seen)).log2()).sum(-1).mean(-1)
    own, before = (torch.diagonal(maps, offset, 1, 2) for offset in (0, -1))
    return {"layer": number, "heads": int(maps.shape[0]), "entropy": inside.numbers(entropy), "first": inside.numbers(seen[..., 0].mean(-1)),
            "previous": inside.numbers(before.mean(-1) if before.shape[-1] else own.mean(-1) * 0),
            "itself": inside.numbers((own[:, 1:] if own.shape[-1] > 1 else own).mean(-1)),
            "maps": base64.b64encode((maps * 255).round().to(torch.uint8).numpy().tobytes()).decode()}
