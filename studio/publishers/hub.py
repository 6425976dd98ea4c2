"""Push a model or adapter, with its card, to the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from studio import settings
from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

if TYPE_CHECKING:
    from studio.jobs.context import Context
    from studio.library.refs import ModelRef

_REPO = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
# what only a resumed training needs, pickles (which can run code), and the studio's own marks
_LEFT_OUT = ("optimizer*", "scheduler*", "rng_state*", "trainer_state.json", "training_args.bin", "*.bin", "*.pt",
             "*.pth",
             "*.pkl", "COMPLETE", ".*", "*.part", "*.log")
_TEXT = 20_000_000  # bytes; small files are read whole
LICENSES = {"": "Not said", "apache-2.0": "Apache 2.0", "mit": "MIT", "cc-by-4.0": "CC BY 4.0",
            "cc-by-nc-4.0": "CC BY-NC 4.0", "openrail": "OpenRAIL", "llama3.1": "Llama 3.1", "gemma": "Gemma",
            "other": "Other"}


class RepoFields(Recipe):
    """Which repository, and how it is written to."""

    repo_id: str = field("", "Repository", "Name on the Hub: owner/name, or only a name for your own account. It is made if it "
                         "does not exist.", max_length=193, placeholder="my-model")
    private: bool = field(True, "Private", "Only you can see it. Off: everybody can, and it may be copied at once. An existing "
                          "repository stays as it is.")
    commit_message: str = field("Add files", "Message", "One line for the history of the repository.", group="advanced",
                                max_length=200)
    create_pr: bool = field(False, "As a proposal", "Open a pull request instead of changing the repository.",
                            group="advanced", library="huggingface_hub.HfApi.create_commit")

    @field_validator("repo_id")
    @classmethod
    def _is_repo(cls, value: str) -> str:
        return repo_name(value)


class ModelToPush(Recipe):
    """What to publish."""

    model: str = field("", "Model", "The model or adapter to publish: one you made, a checkpoint, or a folder.",
                       widget="model", max_length=1000)


class PushRecipe(RepoFields, ModelToPush):
    """What to publish, and where."""

    kind, method = "publish", "hub"

    license: str = field("", "Licence", "Under which others may use it. Mind the licence of the base model and of the data.",
                         choices=LICENSES, max_length=60)


class PushToHub(Method):
    title = "Push to the Hub"
    summary = "Puts a model or adapter with its card into a repository of your Hugging Face account, private unless you say otherwise."
    paper = ""
    Recipe = PushRecipe

    @classmethod
    def check(cls, recipe: PushRecipe) -> None:
        check_hub(recipe, "model")
        _local(recipe.model)

    @classmethod
    def estimate(cls, recipe: PushRecipe) -> Estimate:
        model = _local(recipe.model)
        found = files(model.path)
        total = sum(p.stat().st_size for p in found)
        from studio.hardware import size

        return Estimate(disk=0, notes=[f"{len(found)} files, {size(total)}, are sent.", *_notes(model)])

    @classmethod
    def script(cls, recipe: PushRecipe) -> str:
        model = _local(recipe.model)
        return "\n".join([
            "from huggingface_hub import HfApi", "", "api = HfApi()  # logged in with: hf auth login",
            f"repo = api.create_repo({recipe.repo_id!r}, private={recipe.private}, exist_ok=True)",
            f"api.upload_folder(repo_id=repo.repo_id, folder_path={str(model.path)!r}, commit_message={recipe.commit_message!r},",
            f"                  ignore_patterns={list(_LEFT_OUT)!r}, create_pr={recipe.create_pr})", ""])

    @classmethod
    def run(cls, recipe: PushRecipe, ctx: Context) -> dict[str, Any]:
        model = _local(recipe.model)
        for note in _notes(model):
            ctx.warning("publish", note)
        parts = [_addition(path, model, recipe) for path in files(model.path)]
        parts.append(("README.md", card(model, recipe).encode()))
        return send(recipe, parts, model.label, ctx)


def send(recipe: Any, parts: list[tuple[str, Path | bytes]], label: str, ctx: Context, kind: str = "model",
         stale: Callable[[str], bool] = lambda name: False) -> dict[str, Any]:
    """Put files into a repository in one commit; until that, nothing of it is changed.

    Args:
        recipe: With ``repo_id``, ``private``, ``commit_message`` and ``create_pr``.
        parts: (name in the repository, file or content).
        kind: ``model`` | ``dataset``.
        stale: Says which files of the repository are removed where they are not sent again.

    Raises:
        StudioError: with ``field="repo_id"``: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    from studio import hub

    api = hub.api()
    with hub.explained(recipe.repo_id, "repo_id"):
        who = api.whoami()["name"]
        target = recipe.repo_id if "/" in recipe.repo_id else f"{who}/{recipe.repo_id}"
        repo = api.create_repo(target, private=recipe.private, exist_ok=True, repo_type=kind).repo_id
        page = f"{hub.endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        ctx.log(f"Sending {label} to {page} as {who}.")
        sizes = [len(data) if isinstance(data, bytes) else data.stat().st_size for _, data in parts]
        total, done = sum(sizes), 0
        operations: list[Any] = []
        for (name, data), count in zip(parts, sizes, strict=True):
            if ctx.stop_requested:
                ctx.log("Stopped before anything was committed: the repository is as it was.")
                return {"repo_id": repo, "files": 0, "bytes": done}
            addition = CommitOperationAdd(name, data if isinstance(data, bytes) else str(data))
            api.preupload_lfs_files(repo, [addition], create_pr=recipe.create_pr, repo_type=kind)
            operations.append(addition)
            done += count
            ctx.progress(done, total)
        sent = {name for name, _ in parts}
        if kind == "dataset":
            operations += [CommitOperationDelete(name) for name in api.list_repo_files(repo, repo_type=kind)
                           if name not in sent and stale(name)]
        commit = api.create_commit(repo, operations, commit_message=recipe.commit_message, create_pr=recipe.create_pr,
                                   repo_type=kind)
    url = commit.pr_url or page
    ctx.log(f"Published: {url}")
    return {"repo_id": repo, "url": url, "commit": commit.oid, "files": len(parts), "bytes": total}


def check_hub(recipe: Any, what: str) -> None:
    """Refuse what cannot be published now.

    Raises:
        StudioError: in ``repo_id`` or the field of what is published.
    """
    from studio import hub

    if settings.on_space():
        raise StudioError("A shared Space cannot publish: it would use the account of its owner.",
                          f"Download the {what} and push it from your own machine, or duplicate the Space.", what)
    if not recipe.repo_id:
        raise StudioError("The repository has no name.", "Write owner/name, or a name for your own account.",
                          "repo_id")
    if hub.offline():
        raise StudioError("The Hub is switched off (HF_HUB_OFFLINE is set).", "Unset HF_HUB_OFFLINE.", "repo_id")
    if not hub.token():
        raise StudioError("You are not logged in to the Hub.", hub.LOG_IN, "repo_id")


def repo_name(value: str) -> str:
    """A repository's name, checked.

    Raises:
        ValueError: it is none.
    """
    if value and (not _REPO.fullmatch(value) or "--" in value or ".." in value):
        raise ValueError("use owner/name with letters, digits, dots, dashes and underscores")
    return value


def files(folder: Path) -> list[Path]:
    """What of a model folder is published: its own level, without training state, pickles and hidden files."""
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != "README.md"
                  and not any(fnmatch(p.name, pattern) for pattern in _LEFT_OUT))


def _local(ref: str) -> ModelRef:
    from studio.library import refs

    model = refs.resolve_model(ref)
    if model.path is None:
        raise StudioError(f"{model.label} is on the Hub already.", "Choose a model of this workspace.", "model")
    if model.path.is_file():
        raise StudioError(f"{model.label} is a single file, and what lies beside it is not known to belong to it.",
                          "Put it into a folder of its own, with a README.md, and choose that.", "model")
    return model


def _hub_base(model: ModelRef) -> str | None:
    return model.base[4:].partition("@")[0] if model.base and model.base.startswith("hub:") else None


def _notes(model: ModelRef) -> list[str]:
    if model.is_adapter and not _hub_base(model):
        return [f"The base of this adapter ({model.base or 'unknown'}) is not on the Hub, so others cannot use it alone. "
                "Merge it into its base first, or publish the base too."]
    return []


def _addition(path: Path, model: ModelRef, recipe: PushRecipe) -> tuple[str, Path | bytes]:
    """A file as it is sent: an adapter must name its base as others know it, not by a path of this machine."""
    if path.name != "adapter_config.json":
        return path.name, path
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = _hub_base(model) or Path(str(config.get("base_model_name_or_path") or "")).name
    return path.name, json.dumps(config, indent=2).encode()


def card(model: ModelRef, recipe: PushRecipe) -> str:
    """The model's card with the licence in its front matter and without paths of this machine."""
    import yaml

    from studio.library import artifacts, cards

    own = model.path / "README.md"
    if model.ref.startswith("library:"):
        text = cards.card(artifacts.get(model.ref[8:]))
    elif own.is_file() and own.stat().st_size < _TEXT:
        text = own.read_text("utf-8", "replace")
    else:
        text = f"# {model.label}\n\nMade with Atelier.\n"
    front: dict[str, Any] = {}
    if match := re.match(r"---\n(.*?)\n---\n", text, re.DOTALL):
        try:
            front = yaml.safe_load(match[1]) or {}
        except yaml.YAMLError:
            front = {}
        text = text[match.end():].lstrip("\n")
    front |= {"license": recipe.license} if recipe.license else {}
    front |= {"base_model": base} if (base := _hub_base(model)) else {}
    front.setdefault("tags", ["atelier"])
    for place, word in ((settings.home(), "workspace"), (settings.ROOT, "studio"), (Path.home(), "~")):
        text = text.replace(str(place), word)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{text}"
