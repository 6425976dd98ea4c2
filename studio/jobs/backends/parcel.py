"""What travels with a run to another place: its recipe and all on this disk that it names, under the same names.

The other side gets a small workspace of its own in which every reference means what it means here, so that the method
that runs there needs to know nothing: files keep their place in the workspace, artifacts keep their ids and parents.
What lies outside the workspace travels as ``outside/N/name`` and is called by its own name again when it comes home.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.jobs.backends.desk import digest
from studio.jobs.context import checkpoints
from studio.recipe import Recipe, fields, parse

LIMIT = 20 << 30  # bytes; ATELIER_PARCEL_LIMIT overrides it
CODE = ("studio", "assets/starter", "assets/datasets", "requirements.txt")
# Of a run's folder: what belongs to one attempt on this machine and is made anew at the other place.
OWN = ("events.jsonl", "worker.log", "result.json", "exit.json", "stop", "guardian.json", "launch.json", "guardian.lock", "heartbeat",
       "reserve", "remote.json", "recipe.yaml")
HERE, STARTER = "@workspace", "@starter"  # how places of this machine are written for the other one


class Parcel:
    """What a recipe needs.

    Attributes:
        files: Name on the desk -> file here.
        rows: Artifacts to be known there, each with its parents.
        names: What a reference is called there -> what it is called here.
    """

    def __init__(self, recipe: Recipe, run_id: str | None = None, resume: bool = False):
        self.run_id, self.resume = run_id, resume
        self.files: dict[str, Path] = {}
        self.rows: list[dict[str, Any]] = []
        self.names: dict[str, str] = {}
        self._seen: set[str] = set()
        self._widgets = {spec.name: spec.widget for spec in fields(type(recipe))}
        values = {name: self._value(value, self._widgets.get(name) in ("model", "models", "dataset"))
                  for name, value in recipe.to_dict().items()}
        self.recipe = parse(values)
        if run_id and resume:
            self._add_run(run_id)

    @property
    def size(self) -> int:
        """Bytes that travel, the studio's own code left out."""
        return sum(path.stat().st_size for path in self.files.values())

    def check(self) -> int:
        """The size, if it may travel.

        Raises:
            StudioError: it is too large.
        """
        limit = int(os.environ.get("ATELIER_PARCEL_LIMIT", LIMIT))
        if (size := self.size) > limit:
            raise StudioError(f"Model and data have {size / 1e9:.1f} GB; at most {limit / 1e9:.1f} GB are sent.",
                              "Put them on the Hub and name them with hub:owner/name, or run it here.", "backend")
        return size

    def manifest(self) -> dict[str, Any]:
        """``parcel.json``: reads every file once."""
        return {"run": self.run_id, "resume": self.resume, "recipe": self.recipe.to_yaml(), "rows": self.rows,
                "files": {name: digest(path) for name, path in self.files.items()},
                "places": [[str(settings.STARTER), STARTER], [str(settings.home()), HERE]]}

    def _value(self, value: Any, named: bool) -> Any:
        """A recipe's value as it is written for the other place. ``named``: it is a model or a dataset."""
        if isinstance(value, dict):
            return {key: self._value(item, named) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, named) for item in value]
        if not isinstance(value, str):
            return value
        if value.startswith(("library:", "run:")):
            self._add_ref(value)
            return value
        return self._add_path(value) if named and value and not _elsewhere(value) else value

    def _add_ref(self, ref: str) -> None:
        if ref in self._seen:
            return
        self._seen.add(ref)
        kind, _, rest = ref.partition(":")
        if kind == "run":
            run_id, _, part = rest.partition("/")
            folder = settings.run_dir(run_id)
            for name in ("recipe.yaml", "base.json"):
                self._add_file(folder / name)
            self._add_folder(folder / ("output" if part == "output" else f"checkpoints/{part}"))
            from studio.recipe import read_values

            base = read_values(folder / "recipe.yaml").get("model")
            if isinstance(base, str) and base.startswith(("library:", "run:")):
                self._add_ref(base)
            return
        from studio.library import artifacts

        row = artifacts.get(rest.partition("#")[0])
        path = Path(row["path"])
        name = self._place(path)
        self._add_folder(path, name)
        self.rows.append({**{key: row[key] for key in ("id", "kind", "name", "created", "size", "meta")},
                          "path": name, "parents": row["parents"]})
        for parent in row["parents"]:
            if parent["role"] == "base" and parent["ref"].startswith(("library:", "run:")):
                self._add_ref(parent["ref"])

    def _add_path(self, ref: str) -> str:
        """What a path is called there."""
        path = Path(ref).expanduser()
        path = path if path.is_absolute() else settings.home() / path
        if not path.exists():
            return ref
        name = self._place(path)
        self._add_folder(path, name)
        if name != ref:
            self.names[name] = ref
        return name

    def _place(self, path: Path) -> str:
        path = path.resolve()
        if path.is_relative_to(settings.home()):
            return path.relative_to(settings.home()).as_posix()
        return f"outside/{len(self.names)}/{path.name}"

    def _add_run(self, run_id: str) -> None:
        """The run's own folder, as its next attempt must find it."""
        folder = settings.run_dir(run_id)
        for path in sorted(folder.iterdir()):
            if path.name in OWN or ".attempt-" in path.name or path.name in ("checkpoints", "output"):
                continue
            self._add_folder(path)
        for checkpoint in checkpoints(folder / "checkpoints"):
            self._add_folder(checkpoint)

    def _add_folder(self, path: Path, name: str | None = None) -> None:
        name = name or self._place(path)
        if path.is_file():
            self._add_file(path, name)
            return
        for part in sorted(path.rglob("*")):
            if part.is_file() and "__pycache__" not in part.parts:
                self._add_file(part, f"{name}/{part.relative_to(path).as_posix()}")

    def _add_file(self, path: Path, name: str | None = None) -> None:
        if path.is_file():
            self.files[f"home/{name or self._place(path)}"] = path


def _elsewhere(ref: str) -> bool:
    """True for what is no path of this disk: the starter, what is shipped, the Hub, an address."""
    return ref == "starter" or ref.startswith(("shipped:", "hub:")) or "://" in ref


def code() -> dict[str, Path]:
    """``relative path -> file`` of the studio itself, as much of it as a worker needs (9 MB)."""
    found: dict[str, Path] = {}
    for part in CODE:
        path = settings.ROOT / part
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                found[file.relative_to(settings.ROOT).as_posix()] = file
    return found


def pack_code(target: Path) -> Path:
    """:func:`code` as one compressed archive."""
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        for name, path in code().items():
            archive.add(path, name)
    return target


def needed() -> dict[str, str]:
    """Versions of the libraries a training must find at the other place, as here, by their first two numbers."""
    from importlib.metadata import version

    return {name: ".".join(version(name).partition("+")[0].split(".")[:2])
            for name in ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "pydantic", "SQLAlchemy")}
