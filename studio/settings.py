"""Where things live and what this installation allows. Read from the environment each time, so tests can move it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from studio.errors import StudioError

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
PRESETS = ROOT / "presets"
STARTER = ASSETS / "starter"
DATASETS = ASSETS / "datasets"

_RUN_ID = re.compile(r"[a-z0-9]{4,40}")


def on_space() -> bool:
    """True inside a Hugging Face Space."""
    return bool(os.environ.get("SPACE_ID"))


def shared() -> bool:
    """True where others than the person at this machine can reach the studio: on a Space, or bound to its network
    (``components.app`` then sets ``ATELIER_SHARED``, which runs inherit)."""
    return on_space() or os.environ.get("ATELIER_SHARED") == "1"


def home() -> Path:
    """The workspace folder, made if missing: ``STUDIO_HOME``, a Space's persistent ``/data``, or ``~/.atelier``."""
    if chosen := os.environ.get("STUDIO_HOME"):
        path = Path(chosen).expanduser()
    elif on_space() and os.access("/data", os.W_OK):
        path = Path("/data/atelier")
    else:
        path = Path.home() / ".atelier"
    try:
        for part in ("runs", "models", "datasets", "uploads", "exports", "recipes"):
            (path / part).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StudioError(f"The workspace {path} cannot be written: {err.strerror}.",
                          "Set STUDIO_HOME to a folder you own.") from err
    return path.resolve()


def database() -> Path:
    return home() / "studio.db"


def run_dir(run_id: str) -> Path:
    """Folder of a run. Ids are checked, because they arrive from the browser.

    Raises:
        StudioError: if ``run_id`` is not an id.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise StudioError("That is not a run id.", "Pick a run from the list.")
    return home() / "runs" / run_id


def inside_home(path: str | Path) -> Path:
    """``path`` resolved, if it stays inside the workspace.

    Raises:
        StudioError: if it points elsewhere (``..``, a link, an absolute path).
    """
    base = home()
    resolved = (base / Path(path)).resolve()
    if not resolved.is_relative_to(base):
        raise StudioError(f"{path} is outside the workspace.", "Choose a file inside the workspace or upload it.")
    return resolved
