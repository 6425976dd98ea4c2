"""The Hugging Face Hub: search, facts, download, and what to tell a person when it says no.

``huggingface_hub`` is imported on first use only. The token comes from ``HF_TOKEN``, from ``hf auth login``, or from the
system keyring; it is never stored by the studio, shown, or written to a recipe.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.errors import StudioError

KEYRING_SERVICE = "atelier"
LOG_IN = "Run 'hf auth login' in a terminal, or set the environment variable HF_TOKEN, and try again."
_TIMEOUT = 6.0  # seconds; a person waits for these answers
_FACTS_KEPT = 300.0  # seconds
_facts: dict[tuple, tuple[float, dict[str, Any] | StudioError]] = {}
_bases: dict[tuple, tuple[float, list[tuple[str, str]]]] = {}
_lock = threading.Lock()


def endpoint() -> str:
    """Address of the Hub, or of a mirror named by ``HF_ENDPOINT``."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """True when the person switched the Hub off (``HF_HUB_OFFLINE=1``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def token() -> str | None:
    """The person's Hub token, or ``None``."""
    from huggingface_hub import get_token

    if found := get_token():
        return found
    try:
        import keyring

        return keyring.get_password(KEYRING_SERVICE, "hf_token") or None
    except Exception:  # no keyring installed, locked, or without a desktop session: simply no token
        return None


def account() -> dict[str, Any] | None:
    """``{"name", "orgs"}`` of the person logged in, ``None`` if nobody is.

    Raises:
        StudioError: the Hub cannot be reached or refuses the token.
    """
    key = token()
    if not key:
        return None
    with explained("your account"):
        who = api().whoami(token=key)
    return {"name": who.get("name", ""), "orgs": [org["name"] for org in who.get("orgs", [])]}


def api() -> Any:
    """A ``HfApi`` for the Hub in use, logged in if the person is."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), token=token() or False, library_name="atelier")


@contextmanager
def explained(what: str, field: str | None = None) -> Iterator[None]:
    """Turn what ``huggingface_hub`` raises inside the block into a StudioError about ``what``.

    Raises:
        StudioError: not found, gated, refused, rate-limited, offline, or unreachable.
    """
    import httpx
    from huggingface_hub import errors

    if offline():
        raise StudioError(f"The Hub is switched off (HF_HUB_OFFLINE is set), so {what} cannot be asked for.",
                          "Unset HF_HUB_OFFLINE, or use a local model or dataset.", field)
    try:
        yield
    except errors.GatedRepoError as err:
        raise StudioError(
            f"{what} is gated: its authors ask you to accept their terms first.",
            f"Open {endpoint()}/{what} in a browser, accept the terms, then log in: {LOG_IN}", field) from err
    except errors.DisabledRepoError as err:
        raise StudioError(f"{what} was disabled by the Hub.", "Choose another.", field) from err
    except errors.RevisionNotFoundError as err:
        raise StudioError(f"{what} has no such revision.", "Leave out the part behind '@', or check it.", field) from err
    except errors.RepositoryNotFoundError as err:
        raise StudioError(f"The Hub has no {what} that you may see.",
                          f"Check the spelling. If it is private: {LOG_IN}", field) from err
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as err:
        raise _unreachable(what, field, err) from err
    except errors.EntryNotFoundError as err:
        raise StudioError(f"{what} lacks a file that is needed.", "Choose another.", field) from err
    except errors.HfHubHTTPError as err:
        raise _refused(what, field, err.response.status_code if err.response is not None else 0) from err
    except errors.HFValidationError as err:
        raise StudioError(f"'{what}' is not a Hub id.", "Write it as owner/name.", field) from err
    except (httpx.TransportError, ConnectionError, TimeoutError) as err:
        raise _unreachable(what, field, err) from err


def _unreachable(what: str, field: str | None, err: Exception) -> StudioError:
    reason = str(getattr(err, "__cause__", None) or err).splitlines()[0][:120] if str(err) else type(err).__name__
    return StudioError(f"The Hub ({endpoint()}) cannot be reached, so {what} is not available ({reason}).",
                       "Check the network. The starter model, shipped datasets and local files work without it.", field)


def _refused(what: str, field: str | None, status: int) -> StudioError:
    if status == 401:
        return StudioError("The Hub does not accept your token.", f"It may have expired. {LOG_IN}", field)
    if status == 403:
        return StudioError(f"Your token may not do this with {what}.",
                           f"Make one with the 'write' role at {endpoint()}/settings/tokens. {LOG_IN}", field)
    if status == 429:
        return StudioError("The Hub asks you to slow down.", "Wait a few minutes and try again.", field)
    return StudioError(f"The Hub answered with an error ({status or 'unknown'}) for {what}.",
                       "Try again in a minute; see status.huggingface.co.", field)


def search(kind: str, query: str, limit: int = 20) -> list[dict[str, Any]]:
    """Models or datasets on the Hub whose name holds ``query``, the most downloaded first.

    Args:
        kind: ``model`` or ``dataset``.

    Returns:
        ``{ref, id, kind, parameters, size, license, downloads, likes, gated, updated, url}`` each; ``size`` in bytes of
        the repository, ``None`` what the Hub does not say; ``gated`` is an explanation, or empty.

    Raises:
        StudioError: the Hub cannot be reached or refuses.
    """
    wanted = ["cardData", "downloads", "likes", "gated", "lastModified", "usedStorage", "tags", "private"]
    common = {"search": query.strip() or None, "sort": "downloads", "limit": max(1, min(int(limit), 100))}
    with explained(f"{kind} search"):
        if kind == "model":
            found = list(api().list_models(pipeline_tag="text-generation", expand=[*wanted, "safetensors"], **common))
        elif kind == "dataset":
            found = list(api().list_datasets(expand=wanted, **common))
        else:
            raise StudioError(f"The Hub cannot be searched for '{kind}'.", "Search for 'model' or 'dataset'.")
    return [_found(kind, item) for item in found]


def _found(kind: str, item: Any) -> dict[str, Any]:
    weights = getattr(item, "safetensors", None)
    updated = getattr(item, "last_modified", None)
    return {"ref": f"hub:{item.id}", "id": item.id, "kind": kind, "parameters": weights.total if weights else None,
            "size": getattr(item, "used_storage", None), "license": _license(item), "downloads": item.downloads,
            "likes": item.likes, "gated": gated_note(item.gated), "updated": updated.timestamp() if updated else None,
            "url": f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{item.id}"}


def gated_note(gated: Any) -> str:
    """What a gate means for the person: an empty string for none."""
    if not gated:
        return ""
    by_hand = " and wait until they let you in" if gated == "manual" else ""
    return f"Gated: log in to the Hub, accept the authors' terms on its page{by_hand}."


def _license(item: Any) -> str | None:
    card = getattr(item, "card_data", None)
    named = (card.get("license") if card else None) or next(
        (tag.removeprefix("license:") for tag in item.tags or [] if tag.startswith("license:")), None)
    return ", ".join(named) if isinstance(named, list) else named


def model_facts(hub_id: str, revision: str | None = None) -> dict[str, Any]:
    """Facts about a model on the Hub, as in ``modelinfo.describe`` plus ``license``, ``gated`` and ``cached``.

    A copy in the local cache is enough; otherwise the Hub is asked, at most every five minutes for one model.

    Raises:
        StudioError: with ``field="model"``: unknown, gated without access, only pickles, or unreachable and not cached.
    """
    if folder := cached(hub_id, revision):
        from studio.library import modelinfo

        try:
            return modelinfo.describe(folder) | {"cached": True}
        except StudioError:
            pass  # only part of it is in the cache: ask the Hub
    key = (endpoint(), hub_id, revision, offline(), hash(token()))
    with _lock:
        kept = _facts.get(key)
    if kept is None or time.monotonic() - kept[0] > _FACTS_KEPT:
        answer: dict[str, Any] | StudioError
        try:
            answer = _ask(hub_id, revision)
        except StudioError as err:
            answer = err
        # a refusal is kept for a moment only, because the person is about to mend it
        kept = (time.monotonic() - (_FACTS_KEPT - 10 if isinstance(answer, StudioError) else 0), answer)
        with _lock:
            _facts[key] = kept
    if isinstance(kept[1], StudioError):
        raise StudioError(kept[1].message, kept[1].hint, kept[1].field)
    return dict(kept[1])


def _ask(hub_id: str, revision: str | None) -> dict[str, Any]:
    with explained(hub_id, "model"):
        info = api().model_info(hub_id, revision=revision, timeout=_TIMEOUT, files_metadata=True)
        if info.gated:
            api().auth_check(hub_id)
    files = {f.rfilename: f.size or 0 for f in info.siblings or []}
    weights = {n: s for n, s in files.items() if n.endswith(".safetensors")}
    adapter = "adapter_config.json" in files
    if not weights:
        kinds = "GGUF files, which can be run but not trained" if any(n.endswith(".gguf") for n in files) else \
            "pickle files, which can run code" if any(n.endswith((".bin", ".pt", ".pth")) for n in files) else "no weights"
        raise StudioError(f"{hub_id} holds {kinds}.", "Choose a repository with .safetensors files.", "model")
    config = info.config or {}
    base = (info.card_data.get("base_model") if info.card_data else None) if adapter else None
    return {"adapter": adapter, "architecture": (config.get("architectures") or [None])[0],
            "model_type": config.get("model_type"), "parameters": info.safetensors.total if info.safetensors else None,
            "dtype": None, "size": sum(weights.values()), "context": None, "vocab_size": None,
            "tokenizer": bool({"tokenizer.json", "tokenizer.model", "vocab.json"} & set(files)),
            "chat_template": "chat_template.jinja" in files or bool((config.get("tokenizer_config") or {}).get("chat_template")),
            "base": base[0] if isinstance(base, list) and base else base if isinstance(base, str) else None,
            "license": _license(info), "gated": gated_note(info.gated), "sha": info.sha, "cached": False}


def bases(hub_id: str) -> list[tuple[str, str]]:
    """(model, role) of what a model on the Hub was made from, as its card says; empty where that is not to be had.

    The card in the local cache is enough; otherwise the Hub is asked, and its answer kept for an hour, a refusal for a
    minute. The role is the card's ``base_model_relation`` (``finetune``, ``adapter``, ``merge``, ``quantized``).

    Fields: https://huggingface.co/docs/hub/model-cards#specifying-a-base-model
    """
    key = (endpoint(), hub_id, offline(), "bases")
    with _lock:
        kept = _bases.get(key)
    if kept and kept[0] > time.monotonic():
        return kept[1]
    found, lasts = _card_of(hub_id), 3600.0
    if found is None:
        try:
            with explained(hub_id, "model"):
                card = api().model_info(hub_id, timeout=_TIMEOUT, expand=["cardData"]).card_data
            found = card.to_dict() if card else {}
        except StudioError:
            found, lasts = {}, 60.0
    named = found.get("base_model")
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str) and "/" in name]
    role = found.get("base_model_relation") or ("merge" if len(names) > 1 else "base")
    answer = [(name.strip(), str(role)) for name in dict.fromkeys(names) if name.strip() != hub_id]
    with _lock:
        _bases[key] = (time.monotonic() + lasts, answer)
    return answer


def _card_of(hub_id: str) -> dict[str, Any] | None:
    """The front matter of a model's card in the local cache, or ``None``."""
    from studio.recipe import read_yaml

    folder = cached(hub_id)
    try:
        text = (folder / "README.md").read_text("utf-8") if folder else ""
        found = read_yaml(text.split("---\n", 2)[1]) if text.startswith("---\n") else None
    except (OSError, UnicodeDecodeError, IndexError, StudioError):
        return None
    return found if isinstance(found, dict) else None


def cached(hub_id: str, revision: str | None = None, kind: str = "model") -> Path | None:
    """Folder of a repository in the local cache, or ``None``. Asks nobody and imports nothing heavy.

    Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    repo = _cache_root() / f"{kind}s--{hub_id.replace('/', '--')}"
    try:
        commit = (repo / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        commit = revision or ""
    folder = repo / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def _cache_root() -> Path:
    base = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not base:
        base = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"), "hub")
    return Path(base).expanduser()


class Stopped(Exception):
    """A download was given up because its caller asked for that."""


def download(hub_id: str, revision: str | None = None, kind: str = "model",
             progress: Callable[[int, int], None] | None = None, stop: Callable[[], bool] | None = None) -> Path:
    """Fetch a repository into the local cache; what is there already is not fetched again.

    Args:
        progress: Called with bytes done and bytes in all.
        stop: Asked between pieces; a true answer ends the download with :class:`Stopped`.

    Raises:
        StudioError: see :func:`explained`, or a full disk.
        Stopped: if ``stop`` asked for it.
    """
    from huggingface_hub import snapshot_download

    from studio import hardware

    ignore = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.tflite"]
    ignore = ignore if kind == "model" else None
    with explained(hub_id, kind):
        needed = sum(f.file_size for f in snapshot_download(
            hub_id, repo_type=kind, revision=revision, endpoint=endpoint(), token=token() or False,
            ignore_patterns=ignore, dry_run=True, tqdm_class=_reporting()) if f.will_download)
        hardware.need_disk(needed, hub_id, kind, _cache_root())
        return Path(snapshot_download(
            hub_id, repo_type=kind, revision=revision, endpoint=endpoint(), token=token() or False,
            ignore_patterns=ignore, tqdm_class=_reporting(needed, progress, stop)))


def file(hub_id: str, path: str, revision: str | None = None, most: int | None = None) -> Path:
    """One file of a dataset repository in the local cache, fetched if it is not there yet.

    Args:
        most: Refuse to fetch a file of more bytes than this.

    Raises:
        StudioError: with ``field="dataset"``: see :func:`explained`, or too large.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    kept = try_to_load_from_cache(hub_id, path, repo_type="dataset", revision=revision)
    if isinstance(kept, str) and offline():
        return Path(kept)
    with explained(f"{hub_id}/{path}", "dataset"):
        if most is not None and not isinstance(kept, str):
            url = hf_hub_url(hub_id, path, repo_type="dataset", revision=revision, endpoint=endpoint())
            size = get_hf_file_metadata(url, token=token() or False, timeout=_TIMEOUT).size or 0
            if size > most:
                raise StudioError(f"{path} has {size / 1e6:,.0f} MB: it is looked at once it is brought in.",
                                  "Start the import; its format is detected there.", "dataset")
        return Path(hf_hub_download(hub_id, path, repo_type="dataset", revision=revision, endpoint=endpoint(),
                                    token=token() or False))


def _reporting(needed: int = 0, progress: Callable[[int, int], None] | None = None,
               stop: Callable[[], bool] | None = None) -> type:
    """A tqdm class that draws nothing and reports bytes written, of at least ``needed``."""
    from huggingface_hub.utils import tqdm as hub_tqdm

    class Reporting(hub_tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            self._bytes = kwargs.get("unit") == "B" and "Downloading" not in str(kwargs.get("desc"))
            self._sum = kwargs.get("initial") or 0
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            self._sum += n or 0
            if stop is not None and stop():
                raise Stopped
            if self._bytes and progress is not None:
                progress(int(self._sum), int(max(needed, self.total or 0, self._sum)))

    return Reporting
