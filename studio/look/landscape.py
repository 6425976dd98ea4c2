"""The loss around a model's weights, on a plane through them.

After Li et al. 2018, https://arxiv.org/abs/1712.09913: two random directions, each filter of them scaled to the length of the same
filter of the weights. A filter is a row of a matrix (of a convolution, one output channel); norms and biases are left as they are.
The weights are put back exactly afterwards, and that is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.look import inside
from studio.mergers import tools
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST = 500_000_000  # parameters: beyond it a grid of forward passes is no sensible job here
KEPT = "landscape.json"


class LandscapeRecipe(Recipe):
    """Which model, on what data, how wide and how fine."""

    kind: ClassVar[str] = "look"
    method: ClassVar[str] = "landscape"

    model: str = inside.model_field("A small model, up to 500 million weights. An adapter is folded into its base first.")
    dataset: str = field("shipped:story-endings", "Dataset", "The loss is taken on good answers or plain texts from here.",
                         widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by itself.",
                                    widget="hidden")
    samples: int = field(32, "Rows", "How many rows, drawn by the seed. The same ones at every point.", unit="rows", ge=1, le=2000)
    points: int = field(5, "Points to each side", "The grid has twice as many and one more in each direction: 5 makes 11 × 11. The "
                        "work grows with the square.", ge=1, le=40)
    span: float = field(0.5, "Reach", "How far the grid goes to each side, as a share of the length of each filter.", ge=0.001, le=10)
    max_length: int = field(512, "Longest sample", "Rows are cut at so many tokens.", group="advanced", unit="tokens", ge=8, le=32_768)
    batch_size: int = field(16, "Rows at once", "More is faster and needs more memory.", group="advanced", ge=1, le=256)
    seed: int = field(42, "Seed", "Which rows and which directions are drawn.", group="advanced", ge=0, le=2**32 - 1)
    trust_remote_code: bool = inside.trust_field()


class Landscape(Method):
    """The ground that a model stands on."""

    title = "Loss landscape"
    summary = "Draws the loss on a plane around the weights of a small model: a flat valley, or a narrow one."
    paper = "https://arxiv.org/abs/1712.09913"
    Recipe = LandscapeRecipe

    @classmethod
    def check(cls, recipe: LandscapeRecipe) -> None:
        from studio.datasets import formats

        model = inside.opened(recipe.model)
        small(model.label, tools.facts(model).get("parameters") or 0)
        formats.check(recipe.dataset, recipe.columns)

    @classmethod
    def estimate(cls, recipe: LandscapeRecipe) -> Estimate:
        count = (2 * recipe.points + 1) ** 2
        return inside.estimate(inside.opened(recipe.model), 4.0, [f"The loss is computed {count:,} times on {recipe.samples} rows."])

    @classmethod
    def run(cls, recipe: LandscapeRecipe, ctx: Any) -> dict[str, Any]:
        from studio.evals import compare

        model = inside.opened(recipe.model)
        made = inside.loaded(model, ctx, recipe.trust_remote_code)
        if made is None:
            return {}
        tokenizer, net = made
        small(model.label, sum(one.numel() for one in net.parameters()))
        items = compare.drawn(recipe.dataset, recipe.columns, recipe.samples, recipe.seed, ctx)

        def loss() -> float | None:
            scores = compare.evaluate(net, tokenizer, items, max_length=recipe.max_length, batch_size=recipe.batch_size,
                                      stop=lambda: ctx.stop_requested)
            return None if scores is None else scores.loss

        steps = [recipe.span * number / recipe.points for number in range(-recipe.points, recipe.points + 1)]
        before = read_json(ctx.run_dir / KEPT) or {}  # of an attempt that was stopped
        kept = before["rows"] if before.get("steps") == steps else []
        rows, total = [*kept], len(steps) ** 2
        for row in surface(net, loss, steps, recipe.seed, len(kept), lambda done: ctx.progress(len(rows) * len(steps) + done, total)):
            rows.append(row)
            write_json(ctx.run_dir / KEPT, {"steps": steps, "rows": rows})
        if len(rows) < len(steps):
            return {}
        plain = loss()
        if plain is None:
            return {}
        flat = [value for row in rows for value in row if value == value and value != float("inf")]
        centre = rows[recipe.points][recipe.points]
        ctx.log(f"Loss {plain:.4f} at the weights, from {min(flat):.4f} to {max(flat):.4f} on the plane. The weights are as they were.")
        facts = {"steps": steps, "loss": rows, "centre": centre, "plain": plain, "rows": len(items), "restored": True,
                 "lowest": min(flat), "highest": max(flat)}
        return inside.finish(recipe, ctx, model, facts, "Loss landscape", loss=plain, lowest=min(flat), highest=max(flat),
                             points=total)


def small(label: str, count: int) -> None:
    """Refuse a model that is too large."""
    if count > MOST:
        raise StudioError(f"{label} has {count / 1e9:.1f} billion weights, too many for a landscape here.",
                          f"Choose one of up to {MOST // 10**6} million.", "model")


def surface(net: Any, loss: Callable[[], float | None], steps: list[float], seed: int = 0, first: int = 0,
            tell: Callable[[int], None] = lambda done: None) -> Iterator[list[float]]:
    """Rows of the grid from number ``first`` on: the loss at weights + steps[row] · a + steps[column] · b. Ends early where
    ``loss`` gives ``None``; the weights are then, and at the end, bit for bit what they were.

    Raises:
        RuntimeError: they could not be put back.
    """
    import torch

    held = {id(one): one for one in net.parameters() if one.dim() > 1}  # a shared matrix moves once
    weights = list(held.values())
    before = [one.detach().clone() for one in weights]
    ways = [directions(before, seed + number) for number in (0, 1)]
    try:
        with torch.no_grad():
            for row in range(first, len(steps)):
                made = []
                for column, along in enumerate(steps):
                    for one, own, a, b in zip(weights, before, *ways, strict=True):
                        one.copy_(own)
                        if steps[row]:
                            one.add_(a, alpha=steps[row])
                        if along:
                            one.add_(b, alpha=along)
                    value = loss()
                    if value is None:
                        return
                    made.append(value)
                    tell(column + 1)
                yield made
    finally:
        with torch.no_grad():
            for one, own in zip(weights, before, strict=True):
                one.copy_(own)
        if not all(torch.equal(one, own) for one, own in zip(weights, before, strict=True)):
            raise RuntimeError("the weights could not be put back")


def directions(weights: list[Any], seed: int) -> list[Any]:
    """A random direction for each tensor, every filter as long as the weights' own."""
    import torch

    generator, made = torch.Generator().manual_seed(seed), []
    for one in weights:
        drawn = torch.randn(one.shape, generator=generator, dtype=torch.float32).to(one.device)
        sides = tuple(range(1, one.dim()))
        length = one.float().norm(dim=sides, keepdim=True)
        made.append((drawn * (length / drawn.norm(dim=sides, keepdim=True).clamp_min(1e-12))).to(one.dtype))
    return made
