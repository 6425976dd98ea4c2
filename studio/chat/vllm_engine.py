"""The chat engine of vLLM, where that is installed: ``vllm serve`` as the server behind the same records, key and idling.

Chosen by ``ATELIER_ENGINE=vllm``. The machine on which this was written has no graphics card and no vLLM: what is tested is this
side of it, against a stand-in that speaks the same words (``tests/jobs/test_vllm_engine.py``). Proposals, the decoding view and
``note`` are not there; adapters are LoRA only.

``python -m studio.chat.vllm_engine --base REF [--port N] [--record FILE]``
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import httpx

from studio.chat import engine, records
from studio.errors import StudioError
from studio.library.refs import ModelRef, resolve_model

LOAD_SECONDS = 900
LOOK_SECONDS = 5.0
_RUNNING = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE)
log = logging.getLogger("studio.chat")


def wanted(base: ModelRef) -> bool:
    """Whether a model's engine is to be vLLM."""
    return os.environ.get("ATELIER_ENGINE") == "vllm" and bool(shutil.which("vllm")) and base.meta.get("format") != "gguf"


def command(args: Any, port: int) -> list[str]:
    """What is run; the key is in its environment only.

    Raises:
        StudioError: unknown model or adapter.
    """
    base = resolve_model(args.base)
    made = ["vllm", "serve", base.source, "--host", args.host, "--port", str(port), "--served-model-name",
            args.serves if args.serves and not args.adapter else args.base]
    if base.revision:
        made += ["--revision", base.revision]
    made += ["--enable-lora"]
    modules = [(name, resolve_model(ref or name).source) for name, _, ref in (item.partition("=") for item in args.adapter)]
    return made + (["--lora-modules", *(f"{name}={path}" for name, path in modules)] if modules else [])


def main(argv: list[str] | None = None) -> int:
    """Start the server, tell the record when it answers, end it when it is stopped or idle. Returns the exit code."""
    args = engine.arguments(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    key = args.key or secrets.token_urlsafe(24)
    try:
        port = args.port or _free(args.host)
        child = subprocess.Popen(command(args, port), stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent,
                                 env=os.environ | {"VLLM_API_KEY": key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
                                                   "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})
        stopping: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda got, _: stopping.append(got))
        try:
            _serve(args, child, port, key, stopping)
        finally:
            _end(child)
    except StudioError as err:
        log.error("%s", err)
        if args.record:
            records.update(args.record, os.getpid(), state="failed", error=err.to_dict())
        return 1
    if args.record:
        records.remove(args.record, os.getpid())
    return 0


def _serve(args: Any, child: subprocess.Popen, port: int, key: str, stopping: list[int]) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(args.host, args.host)
    root = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    http = httpx.Client(base_url=root, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=5)
    deadline = time.monotonic() + LOAD_SECONDS
    while not _answers(http):
        if stopping:
            return
        if child.poll() is not None:
            raise StudioError(f"vLLM ended while it loaded {args.base}.", "Its log says why.", "model")
        if time.monotonic() > deadline:
            raise StudioError(f"vLLM is still loading {args.base} after {LOAD_SECONDS // 60} minutes.", "Choose a smaller model.", "model")
        time.sleep(0.2)
    used = time.time()
    if args.record:
        records.update(args.record, os.getpid(), state="ready", port=port, engine="vllm", active=0, used=used)
    print(f"serving on {root}/v1", flush=True)
    while not stopping:
        if child.poll() is not None:
            raise StudioError("vLLM ended by itself.", "Its log says why.", "model")
        active = _active(http)
        used = time.time() if active else used
        if args.record:
            records.update(args.record, os.getpid(), active=active, used=used)
        if args.idle > 0 and time.time() - used >= args.idle * 60:
            log.info("nothing to do for %.0f s: ending", args.idle * 60)
            return
        end = time.monotonic() + LOOK_SECONDS
        while not stopping and time.monotonic() < end:
            time.sleep(0.1)


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def _active(http: httpx.Client) -> int:
    """Answers that are written or wait; 1 where it does not say, so that nobody is cut off."""
    try:
        found = _RUNNING.findall(http.get("/metrics").text)
    except httpx.HTTPError:
        return 1
    return int(sum(map(float, found))) if found else 1


def health(record: dict[str, Any]) -> dict[str, Any]:
    """What :func:`studio.chat.manager._health` tells of other engines, from what this one wrote down."""
    active = int(record.get("active") or 0)
    return {"active": active, "idle_seconds": 0.0 if active else max(0.0, time.time() - float(record.get("used") or time.time()))}


def add_adapter(base_url: str, key: str, name: str, path: str) -> httpx.Response:
    """Asks a running one to load an adapter."""
    return httpx.post(f"{base_url}/load_lora_adapter", timeout=300, trust_env=False, headers={"Authorization": f"Bearer {key}"},
                      json={"lora_name": name, "lora_path": path})


def _end(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(2)  # whoever ends this process waits three seconds
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: it must not outlive an engine that is killed


def _free(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
