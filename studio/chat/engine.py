"""A chat engine: one base model and its adapters, served on loopback (or where ``--host`` says) by a process of its own.

``python -m studio.chat.engine --base REF [--adapter NAME=REF ...] [--port N] [--record FILE]``

The key comes from ``ATELIER_ENGINE_KEY`` or ``--key`` (the environment is the better place: command lines can be read
by everyone on the machine). An engine that nobody asks anything for ``--idle`` minutes ends itself.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.chat import records
from studio.errors import StudioError

log = logging.getLogger("studio.chat")


def threads() -> int:
    """CPU threads of an engine: ``ATELIER_THREADS``, ``OMP_NUM_THREADS``, else half of the cores up to four."""
    for name in ("ATELIER_THREADS", "OMP_NUM_THREADS"):
        if (value := os.environ.get(name, "")).isdigit() and int(value) > 0:
            return int(value)
    return max(1, min(4, (os.cpu_count() or 2) // 2))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studio.chat.engine", description="Serve a model on loopback.")
    parser.add_argument("--base", required=True, help="reference of a whole model")
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=REF", help="an adapter of it")
    parser.add_argument("--rope", default="", metavar="TYPE:FACTOR", help="stretch the positions of the base")
    parser.add_argument("--serves", default="", metavar="NAME", help="the only name it answers to: of its adapter, or of the base")
    parser.add_argument("--host", default="127.0.0.1", help="network address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--key", default=os.environ.get("ATELIER_ENGINE_KEY", ""))
    parser.add_argument("--idle", type=float, default=10.0, help="minutes without a question until it ends; 0: never")
    parser.add_argument("--record", type=Path, help="file in which it says how it is doing")
    return parser.parse_args(argv)


def load(args: argparse.Namespace) -> Any:
    """The host of ``--base`` with its adapters.

    Raises:
        StudioError: something that cannot be loaded.
    """
    from studio.library.refs import resolve_model

    base = resolve_model(args.base)
    import torch

    from studio.chat.host import Host
    from studio.chat.vision_host import VisionHost, sees

    torch.set_num_threads(threads())
    kind, _, factor = args.rope.partition(":")
    made = VisionHost if sees(base.source, base.revision) else Host
    host = made(base.source, base.revision, rope={"rope_type": kind, "factor": float(factor)} if kind else None)
    for item in args.adapter:
        name, _, ref = item.partition("=")
        host.add_adapter(name, resolve_model(ref or name).source)
    return host


def main(argv: list[str] | None = None, load: Callable[[argparse.Namespace], Any] = load) -> int:
    """Load, then serve until stopped or idle. Returns the exit code."""
    args = arguments(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    key = args.key or secrets.token_urlsafe(24)
    if not args.key:
        print(f"key: {key}", flush=True)
    try:
        sock = socket.create_server((args.host, args.port), family=socket.AF_INET6 if ":" in args.host else socket.AF_INET)
    except OSError as err:
        print(f"Port {args.port} is not free: {err.strerror}. Choose another with --port.", file=sys.stderr)
        if args.record:
            told = StudioError(f"Port {args.port} of {args.host} cannot be used: {err.strerror}.", "Choose another.", "port")
            records.update(args.record, os.getpid(), state="failed", error=told.to_dict())
        return 2
    try:
        return _serve(args, key, sock, load)
    except StudioError as err:
        log.error("%s", err)
        if args.record:
            records.update(args.record, os.getpid(), state="failed", error=err.to_dict())
        return 1


def _serve(args: argparse.Namespace, key: str, sock: socket.socket, load: Callable[[argparse.Namespace], Any]) -> int:
    began = time.monotonic()
    host = load(args)
    import uvicorn

    from studio.chat import needs
    from studio.chat.server import Engine, build

    log.info("%s loaded in %.1f s on %s with %d threads", args.base, time.monotonic() - began, host.device, host.threads)

    async def run() -> None:
        engine = Engine(host, args.base, key, args.serves)
        server = uvicorn.Server(uvicorn.Config(build(engine), log_level="warning", access_log=False, lifespan="off",
                                               timeout_graceful_shutdown=1, timeout_keep_alive=30))
        server.install_signal_handlers = lambda: None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
        port = sock.getsockname()[1]
        if args.record:
            records.update(args.record, os.getpid(), state="ready", port=port)
            needs.measure("llama" if hasattr(host, "llama") else "torch", args.base)
        print(f"serving on http://127.0.0.1:{port}/v1", flush=True)
        watch = asyncio.create_task(_watch(engine, server, args.idle * 60, args.record))
        await server.serve(sockets=[sock])
        watch.cancel()

    asyncio.run(run())
    if args.record:
        records.remove(args.record, os.getpid())
    log.info("ended")
    sys.stderr.flush()
    os._exit(0)  # threads may still be inside a forward


def rss_bytes() -> int:
    """Memory of this process that is in RAM."""
    import psutil

    return psutil.Process().memory_info().rss


async def _watch(engine: "Engine", server: "uvicorn.Server", idle: float, record: Path | None) -> None:  # noqa: F821
    while idle > 0:
        await asyncio.sleep(max(0.2, min(5.0, idle - engine.idle_seconds())))
        if engine.idle_seconds() >= idle:
            log.info("nothing to do for %.0f s: ending", idle)
            if record and (known := records.read(record)):
                records.note(known.get("label") or known["base"], rss_bytes(), "idle")
            server.should_exit = True
            return


if __name__ == "__main__":
    sys.exit(main())
