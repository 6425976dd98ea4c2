"""Rows of a dataset on the Hub, for the worker: downloaded once into the Hub's cache by the ``datasets`` library."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from studio.errors import StudioError

_PART = re.compile(r"(?:(?P<config>[^\[\]]+)/)?(?P<split>[\w.-]+)?(?P<slice>\[(?P<from>\d*%?):(?P<to>\d*%?)\])?")


def part_of(text: str) -> tuple[str, str, tuple[str, str] | None]:
    """(config, split, slice) of what stands behind the ``#`` of a Hub reference.

    ``config/split[from:to]``, all of it optional; a slice counts rows, or per cent (``train[:10%]``). One word alone is
    a split, or a config where the dataset has several and one of this name.

    Raises:
        StudioError: it is written in another way.
    """
    found = _PART.fullmatch(text)
    if not found:
        raise StudioError(f"'#{text}' is not a config, split or slice.",
                          "Write it as #train, #config/train, #train[:1000] or #config/train[100:200].", "dataset")
    return found["config"] or "", found["split"] or "", (found["from"], found["to"]) if found["slice"] else None


class HubReader:
    """Rows of one split. ``part`` is as in :func:`part_of`; left empty: the default config and its train split.

    A slice that counts rows is streamed: no more of the dataset is fetched than it needs.

    Has the attributes of :class:`studio.datasets.readers.Reader` that :class:`studio.datasets.formats.Rows` uses.
    ``name`` may also be a local folder of data files, which ``datasets`` reads in the same way.
    """

    kind, encoding, mended = "hub", "", 0

    def __init__(self, name: str, revision: str | None = None, part: str = ""):
        self.name, self.revision = name, revision
        config, split, self.slice = part_of(part)
        self.config, self.split = (config or None), (split or None)
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._table: Any = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._table is None:
            self._table = self._load()
        self.rows = 0
        for row in self._table:
            self.rows += 1
            yield row

    def count(self) -> int | None:
        return len(self._table) if hasattr(self._table, "__len__") else None

    def _load(self) -> Any:
        from studio import hub

        try:
            import datasets
        except ImportError as err:
            raise StudioError("The 'datasets' library is not installed.", "Run: python launch.py", "dataset") from err
        asked = {"name": self.config, "revision": self.revision, "token": hub.token()}
        try:
            if self.slice:
                return self._sliced(datasets, asked)
            found = datasets.load_dataset(self.name, **asked)
        except StudioError:
            raise
        except Exception as err:  # the library raises its own, the Hub's, pyarrow's and requests' errors
            if not self.config and self.split and "onfig name is missing" in str(err) and f"'{self.split}'" in str(err):
                self.config, self.split = self.split, None  # what was written for a split is a config
                return self._load()
            raise _explain(err, self.name) from err
        splits = list(found)
        chosen = self.split or ("train" if "train" in splits else splits[0])
        if chosen not in splits:
            raise StudioError(f"{self.name} has no split '{chosen}'.",
                              f"It has {', '.join(splits)}: write hub:{self.name}#{splits[0]}.",
                              "dataset")
        if not len(found[chosen]):
            raise StudioError(f"The split '{chosen}' of {self.name} has no rows.", "Choose another split.", "dataset")
        return found[chosen]


    def _sliced(self, datasets: Any, asked: dict[str, Any]) -> Any:
        """The rows of a slice, whose bounds are counts of rows or shares."""
        assert self.slice is not None
        first, last = self.slice
        split = self.split or self._first_split(datasets, asked)
        if "%" in first + last:
            made = datasets.load_dataset(self.name, split=f"{split}[{first}:{last}]", **asked)
        else:
            start = int(first or 0)
            made = datasets.load_dataset(self.name, split=split, streaming=True, **asked)
            made = made.skip(start) if start else made
            made = made.take(max(0, int(last) - start)) if last else made
        if next(iter(made), None) is None:
            raise StudioError(f"The slice [{first}:{last}] of {self.name} has no rows.", "Choose another.", "dataset")
        return made

    def _first_split(self, datasets: Any, asked: dict[str, Any]) -> str:
        names = datasets.get_dataset_split_names(self.name, config_name=asked["name"], revision=asked["revision"],
                                                 token=asked["token"])
        return "train" if "train" in names else names[0]


def _explain(err: Exception, name: str) -> StudioError:
    """An error of ``load_dataset`` in a person's words."""
    kind, text = type(err).__name__, str(err).strip().split("\n")[0][:300]
    if "Gated" in kind or "gated" in text:
        return StudioError(f"{name} is gated: its owner must let you in.",
                           f"Ask for access at https://huggingface.co/datasets/{name} and log in here.", "dataset")
    if "Config name is missing" in str(err) or "BuilderConfig" in text:
        known = re.search(r"\[(.*?)\]", str(err), re.DOTALL)
        return StudioError(f"{name} has several configs: {known[1][:300] if known else text}.",
                           f"Write one behind a #, e.g. hub:{name}#default/train.", "dataset")
    if "Unknown split" in text or "Bad split" in text:
        return StudioError(f"{name} has no such split: {text}", f"Write one of its splits, e.g. hub:{name}#train.",
                           "dataset")
    if "NotFound" in kind or "doesn't exist" in text:
        return StudioError(f"There is no dataset {name} on the Hub, or it is private.", "Check the name, or log in.",
                           "dataset")
    if "script" in text.lower():
        return StudioError(f"{name} needs code from its repository to be read, which is not run.",
                           "Use a version of it that has been converted to Parquet.", "dataset")
    if "Connection" in kind or "Offline" in kind or "Timeout" in kind or "onnect" in text:
        return StudioError(f"{name} cannot be fetched: the Hub is not reachable.",
                           "Check the network, or use a local file.", "dataset")
    return StudioError(f"{name} cannot be read: {kind}: {text}", "Download its files and choose one of them.",
                       "dataset")


class HubHead:
    """The first rows of a Hub dataset as the Hub's viewer gives them: a quick look without a download, for the page.

    The service's address follows ``HF_ENDPOINT`` (``https://datasets-server.<host>``), or is
    ``HF_DATASETS_SERVER``.
    """

    kind, encoding, mended, size, consumed = "hub", "", 0, 0, 0

    def __init__(self, name: str, part: str = ""):
        self.name = name
        self.config, self.split, self.slice = part_of(part)
        self.bad: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._total: int | None = None

    def count(self) -> int | None:
        return self._total

    def __iter__(self) -> Iterator[dict[str, Any]]:
        splits = [(s["config"], s["split"]) for s in _ask("splits", dataset=self.name).get("splits", [])]
        fits = [s for s in splits if (not self.config or s[0] == self.config)
                and (not self.split or s[1] == self.split)]
        if not fits:
            shown = ", ".join(f"{c}/{s}" for c, s in splits[:8]) or "none"
            raise StudioError(f"{self.name} has no such config and split.", f"It has: {shown}.", "dataset")
        config, split = next((s for s in fits if s[1] == "train"), fits[0])
        where = {"dataset": self.name, "config": config, "split": split}
        rows = _ask("first-rows", **where).get("rows", [])
        if not rows:
            raise StudioError(f"{self.name} ({config}/{split}) has no rows.", "Choose another split.", "dataset")
        try:
            self._total = _within(_ask("size", **where)["size"]["split"]["num_rows"], self.slice)
        except (KeyError, TypeError, StudioError):
            self._total = None  # the size is a nicety; large or new datasets have none yet
        for item in rows:
            yield item["row"]


def _within(total: int, part: tuple[str, str] | None) -> int:
    """Rows of a slice out of ``total``."""
    if part is None:
        return total
    first, last = (round(total * int(end[:-1]) / 100) if end.endswith("%") else int(end) if end else default
                   for end, default in zip(part, (0, total), strict=True))
    return max(0, min(last, total) - min(first, total))


def _ask(what: str, **query: str) -> dict[str, Any]:
    """One answer of the Hub's dataset viewer.

    Raises:
        StudioError: unreachable, unknown, gated, or not viewable.
    """
    import os

    import httpx

    from studio import hub

    name = query["dataset"]
    server = os.environ.get("HF_DATASETS_SERVER") or hub.endpoint().replace("://", "://datasets-server.", 1)
    key = hub.token()
    with hub.explained(name, "dataset"):
        answer = httpx.get(f"{server}/{what}", params=query, timeout=8.0,
                           headers={"Authorization": f"Bearer {key}"} if key else {})
        if answer.status_code in (401, 404):
            raise StudioError(f"The Hub has no dataset {name} that you may see.",
                              "Check the spelling. If it is private or gated, log in.",
                              "dataset")
        if answer.status_code != 200:
            raise StudioError(f"The Hub cannot show the first rows of {name} ({answer.status_code}).",
                              "It can still be trained on: its columns are then detected in the run.", "dataset")
        return answer.json()
