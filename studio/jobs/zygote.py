"""The warm process: it has the training libraries imported and forks a guardian with its worker in milliseconds.

Importing them takes five to ten seconds, and a person who pressed Start is waiting. One such process serves a
workspace; it belongs to the studio that started it and ends with it, the guardians that it forked do not. It never runs
a torch operation, so its children may choose their own threads. Whatever goes wrong here, jobs start cold and do the same.

    python -m studio.jobs.zygote        (by Keeper, never by hand)
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import logging
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from studio import settings
from studio.hardware import free_memory
from studio.jobs import process
from studio.jobs.files import lock, read_json, write_json

NEEDED_MEMORY = 3 << 30  # bytes that must be free before libraries are imported on the mere hope of a job
PRELOAD_LIMIT = 40.0  # seconds; a job that arrives while the libraries load waits for them at most this long
_TRIES = 3
_FINGERPRINT = ("HF_", "TRANSFORMERS_", "CUDA_", "TORCH", "PYTORCH_", "LD_", "BNB_", "TOKENIZERS_")
_NOT_PRINTED = ("HF_TOKEN", "CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM")  # read when used, not when imported
_PRELOAD = ("torch", "tokenizers", "datasets", "transformers:AutoModelForCausalLM,AutoTokenizer,AutoConfig,Trainer",
            "peft:LoraConfig,PeftModel", "trl:SFTConfig,SFTTrainer", "safetensors.torch", "sqlalchemy",
            "studio.jobs.guardian", "studio.jobs.supervisor", "studio.jobs.worker", "studio.library.artifacts")

_log = logging.getLogger(__name__)


def _record() -> Path:
    return settings.home() / "zygote.json"


def fingerprint(env: dict[str, str]) -> str:
    """Of the variables that libraries read when they are imported; a job with others must not be forked."""
    chosen = sorted((k, v) for k, v in env.items() if k.startswith(_FINGERPRINT) and k not in _NOT_PRINTED)
    return hashlib.sha256(json.dumps([sys.executable, chosen]).encode()).hexdigest()[:16]


def running() -> dict[str, Any] | None:
    """The record of the workspace's living warm process, or ``None``; its ``ready`` says whether all is imported."""
    found = read_json(_record())
    return found if found and process.alive(found.get("pid"), found.get("started")) else None


def ready() -> bool:
    """True if a job would start warm now."""
    return bool((found := running()) and found.get("ready"))


def request(message: dict[str, Any], env: dict[str, str], timeout: float) -> dict[str, Any] | None:
    """Send one request and return the answer: ``None`` if there is no fitting warm process to take it, an empty dict
    if it was taken and the child ended without an answer.

    Raises:
        TimeoutError: if there is no answer in ``timeout`` seconds (more while the libraries are still loading).
    """
    found = running()
    if not found or found.get("env") != fingerprint(env):
        return None
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout + (0 if found.get("ready") else PRELOAD_LIMIT))
        try:
            client.connect(found["socket"])
            client.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return None
        try:
            return json.loads(_line(client))
        except TimeoutError:
            raise
        except (OSError, ValueError):
            return {}


def start_guardian(env: dict[str, str]) -> int | None:
    """Have a guardian forked for the run of ``env``; returns its pid, or ``None`` if that must be done cold.

    If the answer is lost although the guardian was forked, the second, cold one finds the run's lock taken and leaves.
    """
    try:
        return (request({"op": "run", "env": env}, env, timeout=5) or {}).get("pid")
    except TimeoutError:
        return None


def start_process(target: str, args: list[str], env: dict[str, str], log: Path) -> int | None:
    """Fork a process of its own session that runs ``module:function`` with ``args`` and exits with what it returns.

    Returns:
        Its pid, or ``None`` if it must be started cold.
    """
    if not ready():
        return None
    try:
        answer = request({"op": "start", "target": target, "args": args, "env": env, "log": str(log)}, env, timeout=5)
    except TimeoutError:
        return None
    return answer.get("pid") if answer else None


def _line(stream: socket.socket) -> bytes:
    parts = []
    while part := stream.recv(1 << 16):
        parts.append(part)
        if part.endswith(b"\n"):
            break
    return b"".join(parts)


class Keeper:
    """Starts the workspace's warm process when there is none, and ends the one that it started."""

    def __init__(self) -> None:
        self._child: subprocess.Popen | None = None
        self._tries = 0

    def keep(self) -> None:
        """Cheap; call it often. Does nothing on a machine short of memory, or after three failures."""
        if self._child is not None and self._child.poll() is None:
            return
        if self._tries >= _TRIES or running() or free_memory() < NEEDED_MEMORY:
            return
        self._tries += 1
        home = settings.home()
        env = os.environ | {"STUDIO_HOME": str(home), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                            "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
                            "PYTHONPATH": os.pathsep.join([str(settings.ROOT), os.environ.get("PYTHONPATH", "")]),
                            "ATELIER_FINGERPRINT": fingerprint(dict(os.environ))}
        # Asks the driver's management library for GPUs: a CUDA context in the parent would be useless in a fork.
        env.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        with open(home / "zygote.log", "ab") as log:
            self._child = subprocess.Popen([sys.executable, "-m", "studio.jobs.zygote"], stdin=subprocess.PIPE,
                                           stdout=log, stderr=subprocess.STDOUT, env=env, cwd=home,
                                           start_new_session=True)

    def end(self) -> None:
        """End the process that this keeper started, and wait for it."""
        if self._child is None:
            return
        self._child.stdin.close()
        self._child.terminate()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None


class Zygote:
    """The process itself: one thread, no torch operation, children forked on request."""

    def __init__(self, lock: int):
        self._owner = os.getppid()
        self._children: set[int] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="atelier-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
        self._listen = socket.socket(socket.AF_UNIX)
        self._listen.bind(str(self._folder / "s"))  # a short path: the limit is about 100 bytes
        os.chmod(self._folder / "s", 0o600)
        self._listen.listen(64)
        self._listen.setblocking(False)
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._own = [lock, self._listen.fileno(), self._wake, wake]
        self._ending = False
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _on_term(self, number: int, frame: object) -> None:
        self._ending = True

    def introduce(self, ready: bool) -> None:
        write_json(_record(), {"pid": os.getpid(), "started": process.started(), "socket": str(self._folder / "s"),
                               "ready": ready, "env": os.environ.get("ATELIER_FINGERPRINT", "")})
        os.chmod(_record(), 0o600)

    def serve(self) -> None:
        """Answer requests until the owner is gone or asks to end."""
        while not self._ending and os.getppid() == self._owner:
            readable, _, _ = select.select([self._listen, self._wake, 0], [], [], 1.0)
            if 0 in readable and not os.read(0, 1):
                return  # the owner's end of the pipe closed: it is gone
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 512)
            self._reap()
            if self._listen in readable:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    self._answer(self._listen.accept()[0])

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                self._children.discard(pid)

    def _answer(self, client: socket.socket) -> None:
        with client:
            client.settimeout(2)
            message = json.loads(_line(client))
            if message["op"] == "probe":
                self._fork(lambda: self._probe(client, message))
            elif message["op"] == "run":
                pid = self._fork(lambda: self._guard(client, message["env"]))
                client.sendall(json.dumps({"pid": pid}).encode() + b"\n")
            elif message["op"] == "start":
                pid = self._fork(lambda: self._start(client, message))
                client.sendall(json.dumps({"pid": pid}).encode() + b"\n")

    def _fork(self, work: Any) -> int:
        pid = os.fork()
        if pid:
            self._children.add(pid)
            return pid
        try:
            signal.set_wakeup_fd(-1)
            self._listen.detach()
            for fd in self._own:
                with contextlib.suppress(OSError):
                    os.close(fd)
            work()
        except BaseException:
            logging.exception("child of the warm process")
        finally:
            os._exit(70)

    def _probe(self, client: socket.socket, message: dict[str, Any]) -> NoReturn:
        from studio.jobs import probe

        _silence(0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _adopt(message["env"])
        signal.alarm(max(1, int(message["timeout"]) + 1))  # nobody waits for the answer any more
        client.settimeout(None)
        client.sendall(json.dumps(probe.answer(message["target"], message["kwargs"])).encode() + b"\n")
        os._exit(0)

    def _start(self, client: socket.socket, message: dict[str, Any]) -> NoReturn:
        client.close()
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _silence(0)
        log = os.open(message["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for fd in (1, 2):
            os.dup2(log, fd)
        os.close(log)
        _adopt(message["env"])
        os.chdir(settings.home())
        module, _, name = message["target"].partition(":")
        if (torch := sys.modules.get("torch")) and torch.cuda._is_in_bad_fork():
            os.execve(sys.executable, [sys.executable, "-m", module, *message["args"]], message["env"])
        for handler in logging.root.handlers[:]:
            logging.root.removeHandler(handler)
        random.seed()
        os._exit(getattr(importlib.import_module(module), name)(message["args"]))

    def _guard(self, client: socket.socket, env: dict[str, str]) -> NoReturn:
        from studio.jobs import guardian

        client.close()
        os.setsid()
        _silence(0, 1, 2)
        _adopt(env)
        os.chdir(env["ATELIER_RUN_DIR"])
        for handler in logging.root.handlers[:]:
            logging.root.removeHandler(handler)
        guardian.log_to_file()
        os._exit(guardian.guard(Path(env["ATELIER_RUN_DIR"]).name, _fork_worker))

    def close(self) -> None:
        """Leave nothing behind but the guardians."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if (read_json(_record()) or {}).get("pid") == os.getpid():
            _record().unlink(missing_ok=True)


def _silence(*fds: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)


def _adopt(env: dict[str, str]) -> None:
    """Take over the environment of whoever asked, and see what was installed since the libraries were imported."""
    os.environ.clear()
    os.environ.update(env)
    for path in reversed(env.get("PYTHONPATH", "").split(os.pathsep)):
        if path and path not in sys.path:
            sys.path.insert(0, path)
    importlib.invalidate_caches()


def _fork_worker(own: list[int]) -> int:
    """Fork the worker from a forked guardian; ``own`` are the guardian's descriptors that it must not keep."""
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in own:
            os.close(fd)
        log = os.open("worker.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for fd in (1, 2):
            os.dup2(log, fd)
        os.close(log)
        sys.stdout.reconfigure(line_buffering=True)
        for handler in logging.root.handlers[:]:
            logging.root.removeHandler(handler)
        if (torch := sys.modules.get("torch")) and torch.cuda._is_in_bad_fork():
            os.execv(sys.executable, [sys.executable, "-m", "studio.jobs.worker"])  # CUDA does not survive a fork
        sys.argv[:] = ["studio.jobs.worker"]
        random.seed()
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed()
        from studio.jobs import worker

        code = worker.main()
        worker.leave(code)
    finally:
        os._exit(code)


def preload() -> None:
    """Import what jobs use. ``ATELIER_PRELOAD`` (comma separated modules) replaces the list."""
    chosen = os.environ.get("ATELIER_PRELOAD")
    for target in chosen.split(",") if chosen is not None else _PRELOAD:
        name, _, attributes = target.partition(":")
        try:
            module = importlib.import_module(name) if name else None
            for attribute in filter(None, attributes.split(",")):
                getattr(module, attribute)  # the lazy modules of transformers and trl import on access
        except Exception:
            logging.exception("cannot preload %s", target)  # the job that needs it will say so properly


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    with open(settings.home() / "zygote.lock", "w") as held:
        if not lock(held.fileno()):
            return 0  # the workspace has one
        if old := read_json(_record()):
            shutil.rmtree(Path(old.get("socket", "/nonexistent/s")).parent, ignore_errors=True)
        zygote = Zygote(held.fileno())
        try:
            zygote.introduce(ready=False)
            began = time.monotonic()
            preload()
            gc.collect()
            gc.freeze()  # the collector's marks would copy every shared page into every child
            zygote.introduce(ready=True)
            logging.warning("ready after %.1f s", time.monotonic() - began)
            zygote.serve()
        finally:
            zygote.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
