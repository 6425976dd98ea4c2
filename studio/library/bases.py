"""Whether an adapter still meets the weights it was trained on: its base may have been replaced since.

An adapter is a difference to the weights of its base. On other weights of the same shape it loads without complaint
and answers nonsense, so a training records what its base was.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.library import modelinfo, refs

FILE = "base.json"  # in the folder of a run: {"ref", "fingerprint"} of what its adapter is made for
KEY = "base_fingerprint"  # the same in the meta of an adapter
_SAMPLES, _BYTES = 64, 4096  # places of each weight file that are looked at


class Replaced(NamedTuple):
    """What a person is told: the reason and what to do."""

    message: str
    hint: str


def fingerprint(folder: Path) -> str:
    """Tells one set of weights from another without reading all of it.

    It is made of every weight file's name, size and header, and of 64 samples of 4 kB spread over it: another training
    changes nearly every weight, so it changes the samples.

    Raises:
        StudioError: they cannot be read.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter"))
    try:
        return _fingerprint(tuple((path, state.st_size, state.st_mtime_ns)
                                  for path in files if (state := path.stat())))
    except (OSError, struct.error) as err:
        raise StudioError(f"The weights of {folder.name} cannot be read.", "Download or save the model again.",
                          "model") from err


@lru_cache(maxsize=64)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path, size, _ in files:
        with open(path, "rb") as file:
            head = 8 + struct.unpack("<Q", file.read(8))[0]
            file.seek(0)
            digest.update(f"{path.name} {size} ".encode() + file.read(min(head, modelinfo.MAX_HEADER)))
            for sample in range(_SAMPLES):
                file.seek(head + max(0, size - head - _BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_BYTES))
    return digest.hexdigest()


def keep(run_dir: Path, ref: str, resumed: bool) -> None:
    """Record in a run's folder what its adapter is made for: the model ``ref``, or the base of that adapter.

    Raises:
        StudioError: a resumed run finds another base than it began with.
    """
    base = refs.resolve_model(ref)
    if base.is_adapter and base.base:
        base = refs.resolve_model(base.base)
    if base.path is None or base.is_adapter:
        return
    now, known = fingerprint(base.path), recorded(run_dir)
    if resumed and known and known != now:
        raise StudioError(f"{base.label} is not the model this run began with: it was replaced since.",
                          "Start a new run, or put the old files back.", "model")
    write_json(run_dir / FILE, {"ref": base.ref, "fingerprint": now})


def recorded(run_dir: Path) -> str | None:
    """Fingerprint of the base that a run's adapter is made for, if it recorded one."""
    found = (read_json(run_dir / FILE) or {}).get("fingerprint")
    return found if isinstance(found, str) else None


def meta(run_dir: Path) -> dict[str, Any]:
    """What an adapter's meta says about its base."""
    found = recorded(run_dir)
    return {KEY: found} if found else {}


def replaced(model: refs.ModelRef) -> Replaced | None:
    """What to tell about an adapter whose base is not the one it was trained on; ``None`` where that is not so or not
    known (made elsewhere, or its base is on the Hub only)."""
    known = model.meta.get(KEY)
    if not known or not model.is_adapter or not model.base:
        return None
    try:
        base = refs.resolve_model(model.base)
        if base.path is None or fingerprint(base.path) == known:
            return None
    except StudioError:
        return None  # a base that is gone or broken is told when it is loaded
    starter = base.ref == "starter"
    name = "the starter" if starter else base.label
    return Replaced(f"{model.label} was made for another version of {name}.",
                    f"{'The starter' if starter else name} was replaced since, so the adapter's answers are not what "
                    f"it learned. Train it again on {name} as it is now, or put the old files back.")


def replaced_by_ref(ref: str) -> Replaced | None:
    """As :func:`replaced`; ``None`` for what cannot be resolved."""
    try:
        return replaced(refs.resolve_model(ref))
    except StudioError:
        return None
