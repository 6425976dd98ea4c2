"""Rows of a dataset on the Hub, for the worker: downloaded once into the Hub's cache by the ``datasets`` library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from studio.errors import StudioError


class HubReader:
    """Rows of one split. ``part`` is ``split``, or ``config/split``; left empty: the default config, and its train split.

    Has the attributes of :class:`studio.datasets.readers.Reader` that :class:`studio.datasets.formats.Rows` uses.
    ``name`` may also be a local folder of data files, which ``datasets`` reads in the same way.
    """

    kind, encoding, mended = "hub", "", 0

    def __init__(self, name: str, revision: str | None = None, part: str = ""):
        self.name, self.revision = name, revision
        config, slash, split = part.rpartition("/")
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
        return None if self._table is None else len(self._table)

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as err:
            raise StudioError("The 'datasets' library is not installed.", "Run: python launch.py", "dataset") from err
        try:
            found = datasets.load_dataset(self.name, name=self.config, revision=self.revision)
        except Exception as err:  # the library raises its own, the Hub's, pyarrow's and requests' errors
            raise _explain(err, self.name) from err
        splits = list(found)
        chosen = self.split or ("train" if "train" in splits else splits[0])
        if chosen not in splits:
            raise StudioError(f"{self.name} has no split '{chosen}'.", f"It has {', '.join(splits)}: write hub:{self.name}#{splits[0]}.",
                              "dataset")
        if not len(found[chosen]):
            raise StudioError(f"The split '{chosen}' of {self.name} has no rows.", "Choose another split.", "dataset")
        return found[chosen]


def _explain(err: Exception, name: str) -> StudioError:
    """An error of ``load_dataset`` in a person's words."""
    kind, text = type(err).__name__, str(err).strip().split("\n")[0][:300]
    if "Gated" in kind or "gated" in text:
        return StudioError(f"{name} is gated: its owner must let you in.",
                           f"Ask for access at https://huggingface.co/datasets/{name} and log in here.", "dataset")
    if "Config name is missing" in str(err) or "BuilderConfig" in text:
        return StudioError(f"{name} has several configs: {text}", f"Write one behind a #, e.g. hub:{name}#default/train.", "dataset")
    if "NotFound" in kind or "doesn't exist" in text:
        return StudioError(f"There is no dataset {name} on the Hub, or it is private.", "Check the name, or log in.", "dataset")
    if "script" in text.lower():
        return StudioError(f"{name} needs code from its repository to be read, which is not run.",
                           "Use a version of it that has been converted to Parquet.", "dataset")
    if "Connection" in kind or "Offline" in kind or "Timeout" in kind or "onnect" in text:
        return StudioError(f"{name} cannot be fetched: the Hub is not reachable.", "Check the network, or use a local file.", "dataset")
    return StudioError(f"{name} cannot be read: {kind}: {text}", "Download its files and choose one of them.", "dataset")
