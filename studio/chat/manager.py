"""Starting, finding, watching and ending the engine processes of a workspace. No torch here.

Engines belong to the workspace, not to the process that started them: a page that comes back finds them by their
records.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from studio import settings
from studio.chat import address, records, vllm_engine
from studio.chat.client import Endpoint
from studio.errors import StudioError
from studio.jobs import process, zygote
from studio.library.refs import ModelRef, check_loads, check_writes, resolve_model

IDLE_MINUTES = 10.0
START_SECONDS = 900  # a large model from a slow disk
_children: dict[int, subprocess.Popen] = {}


@dataclass(frozen=True)
class Opening:
    """An engine on its way.

    Attributes:
        seconds: Waited so far.
        crashed: Why the engine before this one ended by itself; empty if it did not.
    """

    seconds: float
    crashed: str = ""


def engine_for(ref: str) -> Endpoint:
    """The endpoint that answers as ``ref``, started if need be. Blocks until it is ready.

    Raises:
        StudioError: unknown model, one that cannot be loaded, no memory, no server at an address.
    """
    steps = opening(ref)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def opening(ref: str, stop: threading.Event | None = None) -> Iterator[Opening]:
    """As :func:`engine_for`, yielding twice a second while it waits; the generator's value is the endpoint.

    Args:
        ref: Any model reference, or an address.
        stop: When set, the waiting ends with a StudioError; the engine goes on loading for the next question.
    """
    if address.is_address(ref):
        return address.endpoint(ref)
    model = resolve_model(ref)
    base = base_of(model)
    path = records.path_of(_identity(model, base))
    began, crashed = time.monotonic(), ""
    with records.locked(path):
        record = records.read(path)
        if not _usable(record, base):
            if record:
                crashed = _crash(record, path) if not records.alive(record) and record["state"] == "ready" else ""
                _end(record)
            record = _spawn(base, path, rope_of(model))
    yield Opening(0.0, crashed)
    while record["state"] != "ready":
        if record["state"] == "failed":
            path.unlink(missing_ok=True)
            error = record.get("error") or {}
            raise StudioError(error.get("message") or "The model could not be loaded.", error.get("hint") or "",
                              "model")
        waited = time.monotonic() - began
        if not _running(record):
            record = records.read(path) or record
            if record["state"] == "loading":
                path.unlink(missing_ok=True)
                raise StudioError(f"The engine ended while it loaded {base.label}: {_crash(record, path)}",
                                  f"Its log is {path.with_suffix('.log')}.", "model")
            continue
        if waited > START_SECONDS:
            raise StudioError(f"{base.label} is still loading after {START_SECONDS // 60} minutes.",
                              "Try again later, or choose a smaller model.", "model")
        if stop is not None and stop.is_set():
            raise StudioError("Stopped while the model was loading.", "It goes on loading; send again.")
        yield Opening(waited, crashed)
        time.sleep(0.05 if waited < 3 else 0.3)
        record = records.read(path) or record
    endpoint = Endpoint(f"http://127.0.0.1:{record['port']}/v1", record["base"], record["key"])
    return _with_adapter(endpoint, path, model) if model.is_adapter else endpoint


def engines() -> list[dict[str, Any]]:
    """Engines that run: id, base, state, pid, memory in bytes, adapters, answers under way, seconds idle, log."""
    found = []
    for path, record in records.everything():
        if not _running(record):
            continue
        health = _health(record) if record["state"] == "ready" else {}
        found.append({
            "id": path.stem, "base": record["base"], "label": record.get("label") or record["base"],
            "state": record["state"], "pid": record["pid"], "port": record.get("port"),
            "rss_bytes": _rss(record["pid"]), "adapters": sorted(record.get("adapters") or {}),
            "active": health.get("active", 0), "idle_seconds": health.get("idle_seconds", 0.0),
            "log": str(path.with_suffix(".log"))})
    return found


def unload(ref: str) -> bool:
    """Ends the engine of a model (for an adapter: of its base) or of an engine id. False if none was running."""
    for path, record in records.everything():
        if ref in (path.stem, record["base"]) or ref in (record.get("adapters") or {}):
            return _close(path)
    return False


def free_memory(enough: Callable[[], bool] = lambda: False, why: str = "room") -> list[tuple[str, int]]:
    """Ends engines that are not answering just now, the longest idle first, until there is ``enough``.

    Args:
        why: Written down for the page: ``room`` for another engine, ``run:ID`` for a run.

    Returns:
        (label, bytes given back) of each that was ended.
    """
    idle = []
    for path, record in records.everything():
        if record["state"] == "ready" and _running(record) and not (health := _health(record)).get("active", 1):
            idle.append((health.get("idle_seconds", 0.0), path, record))
    ended = []
    for _, path, record in sorted(idle, key=lambda one: -one[0]):
        if enough():
            break
        held = _rss(record["pid"])
        if _close(path):
            ended.append((record.get("label") or record["base"], held))
            records.note(*ended[-1], why)
    return ended


def shutdown_all() -> int:
    """Ends all engines of the workspace. Returns how many there were."""
    return sum(_close(path) for path, _ in records.everything())


# ---- one engine


def base_of(model: ModelRef) -> ModelRef:
    check_writes(model)
    if not model.is_adapter:
        return model
    if not model.base:
        raise StudioError(f"{model.label} is an adapter, and its base model is not recorded.",
                          "Put the base's path into base_model_name_or_path of its adapter_config.json.", "model")
    base = resolve_model(model.base)
    if base.is_adapter:
        raise StudioError(f"The base of {model.label} is itself an adapter.", "Merge that one into its base first.",
                          "model")
    check_loads(base)
    return base


def _identity(model: ModelRef, base: ModelRef) -> str:
    """Two references to one folder are one engine. LoRA adapters share their base's; PEFT cannot mix the other kinds with
    them, so each of those gets an engine to itself."""
    moves = model.meta.get("start") in ("pissa", "olora")  # a checkpoint of such a run moves the weights it is put on
    alone = f"+{model.ref}" if model.is_adapter and (moves or model.meta.get("peft_type") not in (None, "LORA")) else ""
    return f"{base.path.resolve() if base.path else base.hub_id}@{base.revision or ''}{alone}{rope_of(model)}"


def rope_of(model: ModelRef) -> str:
    """How an adapter's base has to be loaded, as the engine's argument; empty: as it is."""
    rope = model.meta.get("rope") if model.is_adapter else None
    return f"{rope['rope_type']}:{rope['factor']}" if rope else ""


def _stamp(folder: Path | None) -> float:
    """Time of the newest weights; an engine that loaded older ones is not used."""
    if folder is None:
        return 0.0
    if folder.is_file():
        return folder.stat().st_mtime
    times = [p.stat().st_mtime for pattern in ("*.safetensors", "*config.json", "*.gguf") for p in folder.glob(pattern)]
    return max(times, default=0.0)


def _usable(record: dict[str, Any] | None, base: ModelRef) -> bool:
    if not record or record["state"] == "failed" or record.get("stamp") != _stamp(base.path):
        return False
    return _running(record)


def _running(record: dict[str, Any]) -> bool:
    if (child := _children.get(record.get("pid"))) is not None:
        child.poll()  # a child that has ended stays a zombie until it is asked
    return records.alive(record)


def _spawn(base: ModelRef, path: Path, rope: str = "") -> dict[str, Any]:
    """Starts an engine and writes its first record. The caller holds the record's lock."""
    _make_room(base, path)
    key, log = secrets.token_urlsafe(24), path.with_suffix(".log")
    if log.exists():
        os.replace(log, path.with_suffix(".log.1"))
    arguments = ["--base", base.ref, "--record", str(path), "--idle", str(idle_minutes())]
    arguments += ["--rope", rope] if rope else []
    paths = filter(None, [str(settings.ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"ATELIER_ENGINE_KEY": key, "STUDIO_HOME": str(settings.home()),
                                "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    # llama.cpp needs nothing of what the warm process holds: it starts afresh, as quickly and in a tenth of the memory
    module = module_of(base)
    with open(log, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        pid = None if module != "studio.chat.engine" else zygote.start_process(f"{module}:main", arguments, environment, log)
        if pid is None:
            command = [sys.executable, "-m", module, *arguments]
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
                                     cwd=settings.home(), start_new_session=True)
            _children[pid := child.pid] = child
    try:
        started = process.started(pid)
    except psutil.NoSuchProcess:  # it ended at once; its log says why
        started = 0.0
    record = {"base": base.ref, "label": base.label, "pid": pid, "started": started, "key": key,
              "state": "loading", "stamp": _stamp(base.path), "adapters": {}}
    records.write(path, record)
    return record


def module_of(base: ModelRef) -> str:
    """The program that serves a model."""
    if base.meta.get("format") == "gguf":
        return "studio.chat.gguf_engine"
    return "studio.chat.vllm_engine" if vllm_engine.wanted(base) else "studio.chat.engine"


def idle_minutes() -> float:
    """Minutes after which an unused engine ends: ``ATELIER_IDLE_MINUTES``, else ten; 0 keeps it."""
    try:
        return max(0.0, float(os.environ.get("ATELIER_IDLE_MINUTES", IDLE_MINUTES)))
    except ValueError:
        return IDLE_MINUTES


def _make_room(base: ModelRef, path: Path) -> None:
    """Ends idle engines if the model would not fit beside them, and refuses what cannot fit at all.

    A rough rule for CPU memory: four bytes a parameter (a GGUF file and weights of bitsandbytes: their own size) and a
    tenth on top. A graphics card's memory is not looked at.
    """
    packed = base.meta.get("format") in ("gguf", "bitsandbytes")
    held = base.meta.get("size") if packed else (base.meta.get("parameters") or 0) * 4
    if not held or Path("/dev/nvidia0").exists():
        return
    need = int(held * 1.1)
    if psutil.virtual_memory().available < need:
        free_memory(lambda: psutil.virtual_memory().available >= need)
        free = psutil.virtual_memory().available
        if free < need:
            raise StudioError(f"{base.label} needs about {need / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free.",
                              "Close other programs, stop a training, or choose a smaller model.", "model")


def _with_adapter(endpoint: Endpoint, path: Path, model: ModelRef) -> Endpoint:
    if model.path is None:
        raise StudioError(f"The adapter {model.label} is on the Hub only.", "Download it in the Library first.",
                          "model")
    with records.locked(path):
        record = records.read(path) or {}
        stamp = _stamp(model.path)
        if (record.get("adapters") or {}).get(model.ref) != stamp:
            try:
                if record.get("engine") == "vllm":
                    response = vllm_engine.add_adapter(endpoint.base_url, endpoint.key, model.ref, str(model.path))
                else:
                    response = httpx.post(f"{endpoint.base_url}/adapters", timeout=300, trust_env=False,
                                          headers={"Authorization": f"Bearer {endpoint.key}"},
                                          json={"name": model.ref, "path": str(model.path)})
            except httpx.HTTPError as err:
                raise StudioError(f"The engine ended while it loaded {model.label}.", "Send again.", "model") from err
            if response.status_code != 200:
                error = _error_of(response)
                raise StudioError(error.get("message", "The adapter could not be loaded."), error.get("hint", ""),
                                  "model")
            adapters = (record.get("adapters") or {}) | {model.ref: stamp}
            records.write(path, record | {"adapters": adapters})
    return Endpoint(endpoint.base_url, model.ref, endpoint.key)


def _error_of(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
        error = body.get("error", body)
        return error if isinstance(error, dict) else {"message": str(error)}
    except (ValueError, AttributeError):
        return {}


def _health(record: dict[str, Any]) -> dict[str, Any]:
    if record.get("engine") == "vllm":
        return vllm_engine.health(record)
    try:
        host = record.get("host") or "127.0.0.1"
        host = "127.0.0.1" if host in ("0.0.0.0", "localhost") else f"[{host}]" if ":" in host else host
        response = httpx.get(f"http://{host}:{record['port']}/health", timeout=2, trust_env=False,
                             headers={"Authorization": f"Bearer {record['key']}"})
        return response.json() if response.status_code == 200 else {}
    except (httpx.HTTPError, ValueError, KeyError):
        return {}


def _rss(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def _crash(record: dict[str, Any], path: Path) -> str:
    """Why an engine ended, as far as anyone can tell."""
    child = _children.get(record.get("pid"))
    try:  # its first thread is gone, but it can only be asked when the last one is
        code = child.wait(2) if child else None
    except subprocess.TimeoutExpired:
        code = None
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", often for want of memory" if name == "SIGKILL" else "")
    last = last_line(path.with_suffix(".log"))
    return last or "it left no word"


def last_line(log: Path) -> str:
    """The last line of an engine's log, if it is about a failure."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    told = ("Error", "ERROR", "Killed", "GGML_ASSERT")
    return lines[-1][:300] if lines and any(word in lines[-1] for word in told) else ""


def why_gone(ref: str) -> str:
    """What happened to the engine of ``ref``, for the person whose answer broke off."""
    try:
        model = resolve_model(ref)
        path = records.path_of(_identity(model, base_of(model)))
    except StudioError:
        return ""
    record = records.read(path)
    for _ in range(20):  # its connection closes a moment before the process is gone
        if record is None or not _running(record):
            break
        time.sleep(0.05)
    return _crash(record, path) if record and not _running(record) else ""


def _close(path: Path) -> bool:
    with records.locked(path):
        record = records.read(path)
        path.unlink(missing_ok=True)
    return bool(record) and _end(record)


def _end(record: dict[str, Any]) -> bool:
    """Ends a process: asked first, killed after three seconds. False if it was gone already."""
    if not _running(record):
        return False
    pid = record["pid"]
    for number, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _running(record):
                _children.pop(pid, None)
                return True
            time.sleep(0.02)
    return True
