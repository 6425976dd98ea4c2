"""Push a dataset with its splits, as typed Parquet with a card that says how it was made, to the Hugging Face Hub."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets.step import Stopped
from studio.datasets.version import META, Version
from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate, Method
from studio.publishers.hub import LICENSES, RepoFields, check_hub, send
from studio.recipe import Recipe, field

if TYPE_CHECKING:
    from studio.jobs.context import Context

DATA_LICENSES = LICENSES | {"cc0-1.0": "CC0 (public domain)", "cc-by-sa-4.0": "CC BY-SA 4.0", "odc-by": "ODC-By",
                            "cdla-permissive-2.0": "CDLA Permissive 2.0"}
FORMATS = {"as_is": "As they are", "messages": "Chats (messages)", "prompt_completion": "Prompts and completions",
           "preference": "Preference pairs", "reward": "Pairs for a reward model", "rated": "Rated answers",
           "text": "Plain text"}


class DatasetToPush(Recipe):
    """What to publish."""

    dataset: str = field("", "Dataset", "The dataset to publish: one of the library, with all of its splits.",
                         widget="dataset", max_length=1000)


class PushDatasetRecipe(RepoFields, DatasetToPush):
    """Which dataset to publish, and where."""

    kind, method = "publish", "dataset"

    license: str = field("", "Licence", "Under which others may use it. Mind the licences of the sources.",
                         choices=DATA_LICENSES, max_length=60)
    format: Literal["as_is", "messages", "prompt_completion", "preference", "reward", "rated", "text"] = field(
        "as_is", "Format", "How a row is written. Rows that the format cannot hold are left out and counted.", choices=FORMATS)
    with_tags: bool = field(False, "With tags and source", "Publish the tags and the source of every row too. They may name "
                            "people or places.")


class PushDataset(Method):
    title = "Push a dataset to the Hub"
    summary = "Puts a dataset with its splits and a card into a repository of your Hugging Face account, private unless you say " \
              "otherwise."
    Recipe = PushDatasetRecipe

    @classmethod
    def check(cls, recipe: PushDatasetRecipe) -> None:
        check_hub(recipe, "dataset")
        _version(recipe.dataset)

    @classmethod
    def estimate(cls, recipe: PushDatasetRecipe) -> Estimate:
        from studio.library import artifacts

        version = _version(recipe.dataset)
        return Estimate(disk=artifacts.size_of(version.path),
                        notes=[f"{sum(version.meta['rows'].values()):,} rows in {len(version.splits)} split"
                               f"{'s' * (len(version.splits) != 1)} are sent."])

    @classmethod
    def script(cls, recipe: PushDatasetRecipe) -> str:
        try:
            version = _version(recipe.dataset)
        except StudioError:
            return ""
        return "\n".join([
            "import json", "", "from datasets import Dataset, DatasetDict", "",
            f"files = {({split: str(version.file(split)) for split in version.splits})!r}",
            "splits = {}", "for name, file in files.items():",
            "    stored = Dataset.from_parquet(file)  # the column 'row' holds each row as JSON text",
            "    splits[name] = Dataset.from_list([json.loads(text) for text in stored['row']])",
            f"DatasetDict(splits).push_to_hub({recipe.repo_id!r}, private={recipe.private}, "
            f"commit_message={recipe.commit_message!r}, create_pr={recipe.create_pr})  # logged in with: hf auth login", ""])

    @classmethod
    def run(cls, recipe: PushDatasetRecipe, ctx: Context) -> dict[str, Any] | None:
        from studio.datasets.card import card
        from studio.datasets.steps.export import Source, write

        version = _version(recipe.dataset)
        source = Source(recipe.dataset, recipe.with_tags)
        folder = ctx.run_dir / "parquet"
        folder.mkdir(exist_ok=True)
        misfits: dict[str, int] = {}
        counts, parts = {}, []
        try:
            for split in source.splits:
                path = folder / f"{split}-00000-of-00001.parquet"
                if count := write(source, split, recipe.format, "parquet", path, ctx, misfits):
                    counts[split] = count
                    parts.append((f"data/{path.name}", path))
        except Stopped:
            return None
        if not parts:
            raise StudioError(f"No row fits the format: {'; '.join(misfits)}", "Choose another format.", "format")
        for said, count in misfits.items():
            ctx.warning("rows-left-out", f"{count:,} row{'s are' if count > 1 else ' is'} left out: {said}",
                        "Choose 'as they are' to keep them.")
        label = refs.resolve_dataset(recipe.dataset).label
        size = sum(path.stat().st_size for _, path in parts)
        text = card(version, recipe.name or label, counts, recipe.license, size, recipe.format, recipe.with_tags)
        parts.append(("README.md", text.encode()))
        try:
            made = send(recipe, parts, label, ctx, "dataset", lambda name: name.startswith("data/")
                        and name.endswith(".parquet"))
        finally:
            for path in folder.iterdir():
                path.unlink()
        return made | {"rows": sum(counts.values()), "left_out": sum(misfits.values()), "finished": time.time()}


def _version(ref: str) -> Version:
    path = refs.resolve_dataset(ref).path
    if path is None or not (path / META).exists():
        raise StudioError("Only a dataset of the library is published.",
                          "Bring it in first, then publish what was made.",
                          "dataset")
    return Version(path)
