"""References: the one string by which a recipe names a model or a dataset.

``starter`` · ``shipped:KEY`` · ``library:ID`` · ``run:RUNID/checkpoint-N`` · ``hub:owner/name[@revision]`` (datasets also
``#config/split[:1000]``, and the address of one file: ``hf://datasets/owner/name/file`` or its page on the Hub) · else a local path (absolute, ``~``, or relative to the workspace). Resolving reads small files only and
never imports torch.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from studio import settings
from studio.errors import StudioError

_ADDRESS = re.compile(r"datasets/(?P<id>[^/]+/[^/@]+)(?:@(?P<at>[^/]+))?(?:/(?P<word>resolve|blob|raw|tree|viewer)(?:/(?P<rest>.+))?)?/?")
_HUB = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<rev>[\w./-]+))?")
_CHECKPOINT = re.compile(r"(?P<run>[a-z0-9]{4,40})/(?P<part>checkpoint-\d+|output)")
_walk = threading.local()
_FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet|txt|md|ya?ml|safetensors|gguf|gz|zip)$", re.IGNORECASE)


@dataclass(frozen=True)
class ModelRef:
    """A model that can be loaded.

    Attributes:
        ref: The reference as the recipe writes it.
        label: What a person calls it.
        path: Its folder, or ``None`` for a model on the Hub.
        hub_id: ``owner/name`` on the Hub, else ``None``.
        revision: Branch, tag or commit on the Hub.
        base: Reference of the model an adapter belongs to; ``None`` for a whole model or an unknown base.
        is_adapter: Only an adapter, to be loaded on top of ``base``.
        meta: Facts from :func:`studio.library.modelinfo.describe`, plus the artifact's own meta.
    """

    ref: str
    label: str
    path: Path | None
    hub_id: str | None = None
    revision: str | None = None
    base: str | None = None
    is_adapter: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What ``from_pretrained`` takes as its first argument."""
        return str(self.path) if self.path else str(self.hub_id)


@dataclass(frozen=True)
class DatasetRef:
    """A dataset that can be read; the attributes are as in :class:`ModelRef`."""

    ref: str
    label: str
    path: Path | None
    hub_id: str | None = None
    revision: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def resolve_model(ref: str) -> ModelRef:
    """The model behind a reference.

    Raises:
        StudioError: with ``field="model"``: unknown, empty, broken, pickle-only, or not reachable.
    """
    ref = _text(ref, "model", "Choose the starter model, a folder, a Hub id or one you made.")
    if ref == "starter":
        if not (settings.STARTER / "config.json").is_file():
            raise StudioError("The starter model is missing from this installation.",
                              "Fetch the project again, or train it: studio run presets/pretrain/starter.yaml", "model")
        return _folder(ref, "Starter", settings.STARTER)
    kind, _, rest = ref.partition(":")
    if kind == "library" and rest:
        return _library_model(ref, rest)
    if kind == "run" and rest:
        return _checkpoint(ref, rest)
    if kind == "hub" and rest:
        return _hub_model(ref, rest)
    if kind == "shipped":
        raise StudioError(f"{ref} is a dataset, not a model.", "Write 'starter' for the model that is shipped.", "model")
    path = _local(ref, "model")
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise StudioError(f"{path.name} is a file; a model is a folder or a GGUF file.",
                          "Choose the folder that holds config.json.", "model")
    return _folder(ref, path.name, path)


def check_writes(model: ModelRef, field_name: str = "model") -> None:
    """Refuse a reward model where one that writes is needed.

    Raises:
        StudioError: in that field.
    """
    if model.meta.get("reward"):
        raise StudioError(f"{model.label} is a reward model: it gives a number for an answer and cannot write one.",
                          "Choose a model that writes. Reward models score data, and serve as rewards.", field_name)


def check_loads(model: ModelRef, field_name: str = "model") -> None:
    """Refuse a GGUF file where transformers has to load the model: it is run by llama.cpp only.

    Raises:
        StudioError: in that field.
    """
    if model.meta.get("format") == "gguf":
        raise StudioError(f"{model.label} is a GGUF file, which can be run but not trained, merged or taken apart.",
                          _instead(model), field_name)


def check_weights(model: ModelRef, field_name: str = "model", frozen: bool = False) -> None:
    """Refuse a model whose weights were packed into few bits where they have to be changed or read as numbers.

    Args:
        frozen: The weights stay as they are, below an adapter: then those of bitsandbytes will do.

    Raises:
        StudioError: in that field.
    """
    check_loads(model, field_name)
    base = model
    if model.is_adapter and model.base:
        base = resolve_model(model.base)
    kind = base.meta.get("format")
    if kind and not (frozen and kind == "bitsandbytes"):
        from studio.library.quantized import called

        may = "An adapter can be trained on it, but its own weights cannot." if kind == "bitsandbytes" and not frozen and \
            base is model else ""
        what = f"{model.label} is" if base is model else f"{model.label} belongs to {base.label}, which is"
        raise StudioError(f"{what} quantized ({called(base.meta)}): its weights are packed and cannot be trained, merged "
                          "or quantized again.", " ".join(filter(None, [_instead(base), may])), field_name)


def _instead(model: ModelRef) -> str:
    """Which model to choose in place of a quantized one."""
    source = model.meta.get("source")
    try:
        made_from = resolve_model(source).label if source else ""
    except StudioError:
        made_from = ""
    return f"Choose what it was made from: {made_from}." if made_from else "Choose the model that it was made from."


def resolve_dataset(ref: str) -> DatasetRef:
    """The dataset behind a reference. Its rows are not read; see ``studio.datasets`` for that.

    Raises:
        StudioError: with ``field="dataset"``: unknown, empty, or not reachable.
    """
    ref = _text(ref, "dataset", "Choose a shipped dataset, a file, or a Hub id.")
    kind, _, rest = ref.partition(":")
    if kind == "shipped":
        return _shipped(ref, rest)
    if kind == "library" and rest:
        from studio.library import artifacts

        row = artifacts.get(rest.partition("#")[0], field="dataset")  # behind '#': a split
        if row["kind"] not in ("dataset", "file"):
            raise StudioError(f"'{row['name']}' is a {row['kind']}, not a dataset.", "Choose a dataset.", "dataset")
        return DatasetRef(ref, row["name"], _existing(Path(row["path"]), "dataset"), meta=row["meta"])
    if kind == "hub" and rest:
        hub_id, revision = parse_hub(rest.partition("#")[0], "dataset")  # behind '#': config/split, read by studio.datasets
        return DatasetRef(ref, hub_id, None, hub_id, revision)
    if kind == "run":
        raise StudioError(f"{ref} is a checkpoint, not a dataset.", "Choose a dataset.", "dataset")
    if kind in ("hf", "http", "https") and rest.startswith("//"):
        return _address(ref)
    path = _existing(_local(ref, "dataset"), "dataset")
    return DatasetRef(ref, path.name, path)


def _address(ref: str) -> DatasetRef:
    """A file (``meta["file"]``) or a whole dataset by its address on the Hub.

    Raises:
        StudioError: another site, or nothing of a dataset.
    """
    from studio import hub

    url = urlsplit(ref)
    path = unquote(url.path).strip("/")
    if url.scheme == "hf":
        owner, _, file = f"{url.netloc}/{path}".removeprefix("datasets/").partition("/")
        name, _, file = file.partition("/")
        if url.netloc != "datasets" or not file:
            raise StudioError(f"{ref} is not the address of a file.", "Write it as hf://datasets/owner/name/file.", "dataset")
        hub_id, revision = parse_hub(f"{owner}/{name}", "dataset")
        return _hub_file(ref, hub_id, revision, file)
    if f"{url.scheme}://{url.netloc}" not in (hub.endpoint(), "https://huggingface.co", "https://hf.co"):
        raise StudioError("Only files of the Hub are fetched by their address.",
                          "Download the file yourself and choose it here.", "dataset")
    match = _ADDRESS.fullmatch(path)
    if not match:
        raise StudioError(f"{ref} is not the address of a dataset or of a file in one.",
                          f"It looks like {hub.endpoint()}/datasets/owner/name/resolve/main/train.jsonl.", "dataset")
    hub_id, revision = parse_hub(match["id"], "dataset")
    if match["word"] in ("resolve", "blob", "raw"):
        revision, _, file = (match["rest"] or "").partition("/")
        if not file:
            raise StudioError(f"{ref} names no file.", "Copy the address of a file, not of the folder.", "dataset")
        return _hub_file(ref, hub_id, revision, file)
    return DatasetRef(ref, hub_id, None, hub_id, match["rest"] if match["word"] == "tree" else None,
                      {"part": match["rest"]} if match["word"] == "viewer" and match["rest"] else {})


def _hub_file(ref: str, hub_id: str, revision: str | None, file: str) -> DatasetRef:
    if ".." in file.split("/") or (revision and not re.fullmatch(r"[\w.-][\w./-]*", revision)):
        raise StudioError(f"{ref} is not the address of a file.", "Copy it from the page of the file.", "dataset")
    return DatasetRef(ref, file.rsplit("/", 1)[-1], None, hub_id, None if revision == "main" else revision, {"file": file})


def parse_hub(text: str, field_name: str | None = None) -> tuple[str, str | None]:
    """``owner/name[@revision]`` -> (id, revision).

    Raises:
        StudioError: if it is not a Hub id.
    """
    match = _HUB.fullmatch(text.strip())
    if not match or ".." in text or "--" in match["id"]:
        raise StudioError(f"'{text}' is not a Hub id.", "Write it as hub:owner/name, or hub:owner/name@revision.",
                          field_name)
    return match["id"], match["rev"]


def _text(ref: Any, field_name: str, hint: str) -> str:
    text = ref.strip() if isinstance(ref, str) else ""
    if not text:
        raise StudioError(f"No {field_name} is chosen.", hint, field_name)
    if "\x00" in text or "\n" in text or len(text) > 1000:
        raise StudioError(f"That is not the name of a {field_name}.", hint, field_name)
    return text


def _local(ref: str, field_name: str) -> Path:
    path = Path(ref).expanduser()
    if not path.is_absolute():
        path = settings.home() / path
    if settings.on_space():  # a visitor of a Space must not read the rest of its disk
        try:
            path = settings.inside_home(path)
        except StudioError as err:
            raise StudioError(err.message, err.hint, field_name) from err
    try:
        found = path.exists()
    except OSError:  # a name too long, or a folder that may not be looked into
        found = False
    if not found:
        if (near := _near(ref, path)) is not None:
            hint = f"Did you mean '{near}'?"
        elif _HUB.fullmatch(ref) and ref.count("/") == 1 and not _FILE.search(ref):
            hint = f"If you mean the Hub, write hub:{ref}."
        else:
            hint = "Check the path."
        raise StudioError(f"There is no {field_name} at {ref}.", hint, field_name)
    return path


def _near(ref: str, path: Path) -> str | None:
    import difflib

    try:
        names = [p.name for p in path.parent.iterdir()][:2000]
    except OSError:
        names = []
    if close := difflib.get_close_matches(path.name, names, n=1, cutoff=0.75):
        return str(Path(ref).parent / close[0])
    words = ["starter", *(f"shipped:{key}" for key in shipped_datasets())]
    close = difflib.get_close_matches(ref, words, n=1, cutoff=0.6)
    return close[0] if close else None


def _folder(ref: str, label: str, path: Path, base: str | None = None, meta: dict | None = None) -> ModelRef:
    from studio.library import modelinfo

    facts = modelinfo.describe(path)
    adapter = facts["adapter"]
    return ModelRef(ref, label, path, base=(base or _written_base(facts.get("base"))) if adapter else None,
                    is_adapter=adapter, meta=facts | (meta or {}))


def _written_base(base: Any) -> str | None:
    """``base_model_name_or_path`` of an adapter as a reference."""
    if not isinstance(base, str) or not base:
        return None
    path = Path(base).expanduser()
    if path.is_absolute():
        return "starter" if path.resolve() == settings.STARTER.resolve() else base
    if _HUB.fullmatch(base) and not (settings.home() / base).exists():
        return f"hub:{base}"
    return base


def _library_model(ref: str, artifact_id: str) -> ModelRef:
    from studio.library import artifacts

    row = artifacts.get(artifact_id, field="model")
    if row["kind"] not in ("model", "adapter"):
        raise StudioError(f"'{row['name']}' is a {row['kind']}, not a model.", "Choose a model.", "model")
    base = next((p["ref"] for p in row["parents"] if p["role"] == "base"), None)
    source = next(({"source": p["ref"]} for p in row["parents"] if p["role"] == "source"), {})
    return _folder(ref, row["name"], _existing(Path(row["path"]), "model"), whole_base(base), row["meta"] | source)


def whole_base(base: str | None) -> str | None:
    """The whole model at the root of ``base``: an adapter trained further still belongs to the adapter's own base."""
    above = getattr(_walk, "refs", frozenset())  # what is being resolved by now: a lineage may run in a circle
    for _ in range(8):
        if base is None or not base.startswith(("library:", "run:")) or base in above:
            return base
        _walk.refs = above | {base}
        try:
            parent = resolve_model(base)
        except StudioError:
            return base
        finally:
            _walk.refs = above
        if not parent.is_adapter:
            return base
        base = parent.base
    return base


def _checkpoint(ref: str, rest: str) -> ModelRef:
    match = _CHECKPOINT.fullmatch(rest)
    if not match:
        raise StudioError(f"'{ref}' is not a checkpoint.", "Write it as run:RUNID/checkpoint-100.", "model")
    folder = settings.run_dir(match["run"])
    path = folder / match["part"] if match["part"] == "output" else folder / "checkpoints" / match["part"]
    if not path.is_dir() or (match["part"] != "output" and not (path / "COMPLETE").exists()):
        why = "is not complete" if path.is_dir() else "is not there"
        raise StudioError(f"The checkpoint {rest} {why}.", "Choose another checkpoint of the run.", "model")
    base, name = None, match["run"]
    try:
        from studio.recipe import read_values

        values = read_values(folder / "recipe.yaml")
        base, name = values.get("model"), values.get("name") or name
    except StudioError:
        pass  # the adapter's own config still names its base
    from studio.library import bases

    return _folder(ref, f"{name} · {match['part']}", path, whole_base(base) if isinstance(base, str) else None,
                   bases.meta(folder))


def _hub_model(ref: str, rest: str) -> ModelRef:
    from studio import hub

    hub_id, revision = parse_hub(rest, "model")
    facts = hub.model_facts(hub_id, revision)
    base = facts.get("base")
    return ModelRef(ref, hub_id, None, hub_id, revision, f"hub:{base}" if base and facts.get("adapter") else None,
                    bool(facts.get("adapter")), facts)


def _existing(path: Path, field_name: str) -> Path:
    if not path.exists():
        raise StudioError(f"{path.name} was moved or deleted from {path.parent}.", "Put it back or choose another.",
                          field_name)
    if path.is_file() and path.stat().st_size == 0:
        raise StudioError(f"{path.name} is empty.", "Choose a file with rows in it.", field_name)
    return path


def shipped_datasets() -> dict[str, dict[str, Any]]:
    """Key -> entry of ``assets/datasets/datasets.yaml`` (``file``, ``title``, ``summary``, ...)."""
    index = settings.DATASETS / "datasets.yaml"
    try:
        return _shipped_index(index, index.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=2)
def _shipped_index(index: Path, stamp: int) -> dict[str, dict[str, Any]]:
    import yaml

    entries = yaml.safe_load(index.read_text("utf-8")) or {}
    entries = entries.get("datasets", entries)
    if isinstance(entries, list):
        entries = {entry["key"]: entry for entry in entries}
    return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def _shipped(ref: str, key: str) -> DatasetRef:
    entries = shipped_datasets()
    if key not in entries:
        import difflib

        near = difflib.get_close_matches(key, entries, n=1)
        hint = f"Did you mean 'shipped:{near[0]}'?" if near else f"Shipped: {', '.join(entries) or 'none'}."
        raise StudioError(f"There is no shipped dataset '{key}'.", hint, "dataset")
    entry = entries[key]
    path = settings.DATASETS / str(entry.get("file", f"{key}.jsonl"))
    return DatasetRef(ref, entry.get("title", key), _existing(path, "dataset"), meta=dict(entry))


def check_owner(ref: str, owner: str | None, field_name: str) -> None:
    """Refuse what belongs to another person of a shared Space. ``owner=None`` may use everything.

    Raises:
        StudioError: naming the field; it does not tell whether the thing exists.
    """
    if owner is None:
        return
    ref = _text(ref, field_name, "Choose one from the list.")
    kind, _, rest = ref.partition(":")
    if ref == "starter" or kind in ("shipped", "hub") or (kind in ("hf", "http", "https") and rest.startswith("//")):
        return
    allowed = False
    if kind == "library":
        from studio.library import artifacts

        allowed = artifacts.get(rest.partition("#")[0], field_name)["owner"] == owner
    elif kind == "run":
        from studio.jobs import store

        allowed = store.get(rest.partition("/")[0])["owner"] == owner
    else:
        path = Path(ref).expanduser()
        path = (path if path.is_absolute() else settings.home() / path).resolve()
        allowed = path.is_relative_to(settings.home() / "uploads" / owner)
    if not allowed:
        raise StudioError(f"There is no {field_name} called {ref} that you may use.", "Choose one from your list.",
                          field_name)


def fetched(model: ModelRef, progress: Callable[[int, int], None] | None = None,
            stop: Callable[[], bool] | None = None) -> ModelRef:
    """The model with its files on this disk: the same one, or downloaded from the Hub first (see ``hub.download``).

    Raises:
        StudioError: the Hub cannot be reached or refuses, or the disk is full.
        studio.hub.Stopped: if ``stop`` asked for it.
    """
    if model.path is not None:
        return model
    from studio import hub

    return replace(model, path=hub.download(model.hub_id, model.revision, progress=progress, stop=stop))
