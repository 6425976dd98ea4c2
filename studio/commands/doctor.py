"""``studio doctor``: is this installation well, and if not, what to do."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import metadata
from typing import Any

from studio import settings
from studio.commands import common
from studio.errors import StudioError

_MARK = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
Check = tuple[str, str, str]  # state, what was found, what to do


def add(words: Any) -> None:
    """The parser of this group."""
    parser = words.add_parser("doctor", help="check the installation and say what to do")
    parser.add_argument("--json", action="store_true", help="answer as JSON (see docs/cli.md)")
    parser.set_defaults(call=doctor_command)


def doctor_command(args: argparse.Namespace) -> int:
    """Exit code 1 if something fails, else 0."""
    found = checks()
    if args.json:
        common.out_json({"checks": found})
    else:
        for check in found:
            print(f"{_MARK[check['state']]}  {check['name']}: {check['detail']}"
                  + (f"\n      -> {check['todo']}" if check["todo"] else ""))
    return common.FAILED if any(check["state"] == "fail" for check in found) else common.OK


def checks() -> list[dict[str, str]]:
    """``{name, state: ok | warn | fail, detail, todo}`` of every check."""
    found = []
    for name, check in CHECKS.items():
        try:
            state, detail, todo = check()
        except StudioError as err:
            state, detail, todo = "fail", err.message, err.hint
        except Exception as err:  # a check that breaks is itself a finding, and must not hide the others
            state, detail, todo = "fail", f"the check itself failed: {type(err).__name__}: {err}", "Report this."
        found.append({"name": name, "state": state, "detail": detail, "todo": todo})
    return found


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        return "fail", f"{version}, and the studio is made for 3.11", "Delete .venv and run launch.py with Python 3.11."
    return "ok", f"{version} in {sys.prefix}", ""


def _packages() -> Check:
    pins = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*])?==([^\s;]+)", (settings.ROOT / "requirements.txt").read_text(), re.M)
    missing, other = [], []
    for name, wanted in pins:
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if have.partition("+")[0] != wanted.partition("+")[0]:
            other.append(f"{name} {have} instead of {wanted}")
    if missing:
        return "fail", f"{len(missing)} of {len(pins)} are missing ({', '.join(missing[:4])})", "Run python launch.py once more."
    if other:
        return "warn", f"{len(other)} of {len(pins)} differ from requirements.txt ({'; '.join(other[:3])})", \
            "Delete .venv and run python launch.py to get the tested set."
    return "ok", f"all {len(pins)} as in requirements.txt", ""


def _gpu() -> Check:
    from studio.hardware import cores, gpus, size

    found = gpus()
    if not found:
        return "ok", f"none; the studio trains on {cores()} processor cores", ""
    return "ok", ", ".join(f"{gpu['name']} ({size(gpu['total'])})" for gpu in found), ""


def _memory() -> Check:
    from studio.hardware import size, snapshot

    memory = snapshot()["memory"]
    detail = f"{size(memory['free'])} free of {size(memory['total'])}"
    if memory["free"] < 2e9:
        return "warn", detail, "Close other programs; a small training needs about 1 GB."
    return "ok", detail, ""


def _workspace() -> Check:
    home = settings.home()
    with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-"):
        pass
    return "ok", f"{home} can be written", ""


def _disk() -> Check:
    from studio.hardware import size

    free = shutil.disk_usage(settings.home()).free
    if free < 300e6:
        return "fail", f"{size(free)} free for the workspace", "Delete runs you no longer need, or move it with STUDIO_HOME."
    return ("warn" if free < 3e9 else "ok"), f"{size(free)} free for the workspace", \
        "Enough for small models only." if free < 3e9 else ""


def _database() -> Check:
    from studio.library.database import reading

    with reading() as db:
        answer = db.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        runs = db.exec_driver_sql("SELECT count(*) FROM runs").scalar()
    if answer != "ok":
        return "fail", f"{settings.database()} is damaged: {answer}", "Move it away; the runs' folders hold their results."
    return "ok", f"{runs} runs", ""


def _starter() -> Check:
    from studio.library.modelinfo import count
    from studio.library.refs import resolve_model

    return "ok", f"{count(resolve_model('starter').meta['parameters'])} parameters", ""


def _runs() -> Check:
    from studio.jobs import process, store
    from studio.jobs.files import read_json

    active, stale = store.active(), []
    for run in active:
        guardian = read_json(settings.run_dir(run["id"]) / "guardian.json") or {}
        if guardian and not process.alive(guardian.get("pid"), guardian.get("started")):
            stale.append(run["id"])
    if stale:
        return "warn", f"{len(stale)} are called active but nothing runs them ({', '.join(stale[:3])})", \
            "Open the studio: it closes them and offers to resume."
    return "ok", f"{len(active)} active, {len(store.queue())} in the queue", ""


def _engines() -> Check:
    from studio.chat import manager, records

    alive = {engine["id"] for engine in manager.engines()}
    left = [path.stem for path, _ in records.everything() if path.stem not in alive]
    if left:
        return "warn", f"{len(alive)} running; {len(left)} ended without a word ({', '.join(left[:3])})", \
            "Nothing to do: a new chat starts them again."
    return "ok", f"{len(alive)} running", ""


def _hub() -> Check:
    from studio import hub

    if hub.offline():
        return "warn", "switched off (HF_HUB_OFFLINE is set)", "Unset it to search and download models."
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{hub.endpoint()}/api/models?limit=1"), timeout=4):  # noqa: S310
            pass
    except (OSError, ValueError) as err:
        if not isinstance(err, urllib.error.HTTPError):
            reason = getattr(err, "reason", err)
            return "warn", f"{hub.endpoint()} cannot be reached ({reason})", \
                "Local models and data work without it. Check the network, or HF_ENDPOINT."
        if err.code >= 500:
            return "warn", f"{hub.endpoint()} answers with an error ({err.code})", "Try again later."
    return "ok", f"{hub.endpoint()} answers; " + ("logged in" if hub.token() else "not logged in"), ""


def _exposed() -> Check:
    found = [name for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY") if os.environ.get(name)]
    return "ok", f"in the environment: {', '.join(found) or 'none'}; never stored or logged", ""


CHECKS: dict[str, Callable[[], Check]] = {
    "python": _python, "packages": _packages, "gpu": _gpu, "memory": _memory, "workspace": _workspace, "disk": _disk,
    "database": _database, "starter model": _starter, "runs": _runs, "chat engines": _engines, "hub": _hub, "secrets": _exposed,
}
