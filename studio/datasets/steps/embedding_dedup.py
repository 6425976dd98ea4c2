"""Deduplicate by meaning: rows that say the same in other words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from studio import settings
from studio.datasets import embedding, passes
from studio.datasets.step import Step, StepRecipe
from studio.datasets.steps.dedup import KEEP, Ranking
from studio.datasets.steps.near_dedup import parts_of
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class EmbeddingDedupRecipe(StepRecipe):
    method = "embedding_dedup"

    model: str = field("", "Embedding model", "Folder of a static embedding model on this disk, as model2vec saves it "
                       "(model.safetensors and tokenizer.json).", max_length=1000, placeholder="models/potion-base-8M")
    threshold: float = field(0.9, "Similarity", "Rows whose vectors are at least this close (cosine) mean the same; lower leaves out "
                             "more. Look at what was dropped and adjust it.", gt=0.3, lt=1.0)
    by: Literal["row", "question", "answer"] = field(
        "row", "Compare", "Which text of a row is compared; the system message never is.",
        choices={"row": "The whole row", "question": "The last question", "answer": "The last answer"})
    keep: Literal["first", "longest", "best"] = field("longest", "Keep", "Which row of several stays.", choices=KEEP)
    seed: int = field(0, "Seed", "Seed of the clusters in which large sets are compared.", ge=0, le=2**31 - 1, group="advanced")


class EmbeddingDedup(Step):
    title, summary = "Deduplicate by meaning", "Leaves out rows that mean nearly the same as another, by an embedding model on this disk."
    paper = "https://arxiv.org/abs/2303.09540"
    Recipe = EmbeddingDedupRecipe
    others = {"model": "embedding"}
    texts = {"same_meaning": "mean nearly the same as another row"}

    @classmethod
    def check(cls, recipe: EmbeddingDedupRecipe) -> None:
        super().check(recipe)
        embedding.check(_folder(recipe.model))

    @classmethod
    def work(cls, recipe: EmbeddingDedupRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        model, total = embedding.StaticModel(_folder(recipe.model)), source.count()
        work, facts = passes.Work(ctx, 4 * total), Ranking(total, recipe.keep)
        path = ctx.run_dir / "vectors"
        try:
            vectors = np.memmap(path, np.float16, "w+", shape=(total, model.width))
            for _, first, batch in passes.batches(source, work, ["train"]):
                facts.add(first, batch)
                vectors[first:first + batch.num_rows] = model.embed(parts_of(passes.rows_of(batch), recipe.by))
            parent, cosine = embedding.duplicates(vectors, recipe.threshold, facts.rank(), recipe.seed, work.part(2 * total))
        finally:
            vectors = None
            path.unlink(missing_ok=True)
        for _, first, batch in passes.batches(source, work, ["train"]):
            part = slice(first, first + batch.num_rows)
            details = [f"{like:.2f} like row {of + 1:,}" if of >= 0 else ""
                       for of, like in zip(parent[part].tolist(), cosine[part].tolist(), strict=True)]
            out.keep_batch(batch, parent[part] < 0, "same_meaning", details)
        return {"groups": int(len(np.unique(parent[parent >= 0])))}


def _folder(ref: str) -> Path:
    """
    Raises:
        StudioError: with ``field="model"``: none is named, or it is not on this disk.
    """
    if not ref:
        raise StudioError("No embedding model is named.", "Download one, e.g. minishlab/potion-base-8M (30 MB), and name its folder; or use "
                          "near-deduplicate, which needs none.", "model")
    path = Path(ref).expanduser()
    path = path if path.is_absolute() else settings.home() / path
    if settings.on_space():  # a visitor of a Space must not read the rest of its disk
        path = settings.inside_home(path)
    if not path.exists():
        raise StudioError(f"There is no embedding model at {ref}.", "Check the path.", "model")
    if not path.is_dir():
        raise StudioError(f"{path.name} is a file; an embedding model is a folder.", "Name the folder.", "model")
    return path
