"""Runs code that a model wrote, and the tests for it, where it can do no harm.

    outcome = run("def add(a, b): return a + b", "assert add(2, 3) == 5")
    outcome.ok, outcome.reason, outcome.output

One short-lived interpreter a run (``python -I -S``), in a session and an empty folder of its own, with an empty
environment. :mod:`studio.sandbox_child` describes the doors that it shuts with the kernel's help before the first line
of the code. Where the kernel cannot do that (no Linux, or one without Landlock or seccomp) nothing is run at all.

What it does not do: code and tests share one interpreter, as in HumanEval and MBPP, so code that is written to cheat
its tests (an ``__eq__`` that is always true) can; that a file outside exists, and its size, can be seen, its content
cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError

CHILD = Path(__file__).with_name("sandbox_child.py")
KEPT_OUTPUT = 20_000  # bytes of what is printed that are kept
MOST_OUTPUT = 8 << 20  # bytes printed before the code is ended
FILE_SIZE = 16 << 20  # bytes of one file
DISK = 64 << 20  # bytes of all its files
START_SECONDS = 60.0  # for the interpreter to be ready, on a machine that is busy
_WATCH = 0.05  # seconds between two looks at the disk

REASONS = {
    "passed": "passed", "failed": "a test fails", "error": "the code fails", "syntax": "the code cannot be read",
    "timeout": "it takes too long", "memory": "it needs too much memory", "output": "it prints too much",
    "disk": "it writes too much", "crash": "the interpreter crashes",
    "exit": "it ends before its tests do",
}
"""Code of an outcome -> how it is spoken of."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ok: The code ran to its end and every test passed.
        reason: Why not, one line.
        output: The beginning of what was printed.
        code: Key of :data:`REASONS`.
        passed, total: Texts of tests.
        seconds: Wall time, the start of the interpreter included.
    """

    ok: bool
    reason: str
    output: str
    code: str = "passed"
    passed: int = 0
    total: int = 0
    seconds: float = 0.0


def missing() -> str:
    """What this machine lacks to run code safely; empty if nothing."""
    if sys.platform != "linux":
        return "code that a model wrote is run on Linux only, where the kernel can confine it"
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"no list of system calls is known for {platform.machine()} processors"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) < 1:
        return "this machine's kernel cannot confine a process to a folder (Landlock, Linux 5.13 or newer)"
    return ""


def require() -> None:
    """Refuse where code cannot be run safely.

    Raises:
        StudioError: saying what is missing.
    """
    if lack := missing():
        raise StudioError(f"The tests cannot be run here: {lack}.", "Choose another check, e.g. a judge.", "check")


def run(code: str, tests: str | list[str] = "", seconds: float = 5, memory: int = 512 << 20, stdin: str = "",
        packages: bool = False) -> Outcome:
    """Run ``code``, then ``tests`` in the same namespace.

    Args:
        code: Python source. Without tests it runs as a program (``__name__ == "__main__"``).
        tests: One or several texts: plain asserts, functions ``test_*`` without arguments, or unittest cases.
        seconds: Processor time; of wall time it gets twice as much.
        memory: Bytes of address space.
        stdin: What the code can read from its standard input.
        packages: Let it import what is installed beside the studio, not only the standard library.

    Raises:
        StudioError: the machine cannot confine it; nothing was run.
    """
    require()
    texts = [text for text in ([tests] if isinstance(tests, str) else tests) if text.strip()]
    folder, token = tempfile.mkdtemp(prefix="atelier-sandbox-"), secrets.token_hex(16)
    results, inner = os.pipe()
    flags = ["-I", "-B", "-X", "utf8"] + ([] if packages else ["-S"])
    task = {"code": code, "tests": texts, "seconds": seconds, "memory": memory, "file_size": FILE_SIZE, "stdin": stdin,
            "packages": packages, "token": token, "results": inner}
    try:
        try:
            process = subprocess.Popen([sys.executable, *flags, str(CHILD)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env={},
                                       start_new_session=True, pass_fds=(inner,))
        finally:
            os.close(inner)
        with process:
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(task).encode())
                    process.stdin.close()
                return _watch(process, results, token.encode(), folder, seconds, len(texts))
            finally:
                _end(process)
    finally:
        os.close(results)
        _remove(folder)


def _watch(process: subprocess.Popen, results: int, token: bytes, folder: str, seconds: float, total: int) -> Outcome:
    """Read what the child says and prints until it ends or goes too far."""
    began = time.monotonic()
    said, printed, count, code = b"", b"", 0, ""
    until = began + START_SECONDS
    stdout = process.stdout.fileno()
    with selectors.DefaultSelector() as waiting:
        waiting.register(results, selectors.EVENT_READ)
        waiting.register(stdout, selectors.EVENT_READ)
        while waiting.get_map() and not code:
            for key, _ in waiting.select(_WATCH):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    waiting.unregister(key.fd)
                elif key.fd == results:
                    if not said.count(token) and data.count(token):
                        until = time.monotonic() + 2 * seconds  # it is ready: its time begins
                    said = (said + data)[-200_000:]
                else:
                    printed, count = (printed + data)[:KEPT_OUTPUT], count + len(data)
            now = time.monotonic()
            code = "timeout" if now > until else "output" if count > MOST_OUTPUT else \
                "disk" if _size(folder) > DISK else ""
    _end(process)
    made = _result(said, token, code, process.returncode)
    reason = made.get("reason") or REASONS[made["code"]]
    return Outcome(made["code"] == "passed", reason, printed.decode("utf-8", "replace"), made["code"],
                   made.get("passed", 0), total, round(time.monotonic() - began, 3))


def _result(said: bytes, token: bytes, ended: str, status: int) -> dict:
    """What became of it: the child's own word where it had the last one, else how it ended."""
    parts = said.split(token)[1:]
    if not ended and parts:
        with contextlib.suppress(ValueError):
            made = json.loads(parts[-1])
            if made.get("code") == "refused":
                raise StudioError(f"The code cannot be confined here: {made['reason']}.",
                                  "Choose another check, e.g. a judge.", "check")
            if made.get("code") in REASONS:
                return made
    if not ended:
        # SIGKILL comes from nobody but the kernel, a second after the SIGXCPU that code may choose not to hear.
        ended = "timeout" if status in (-signal.SIGXCPU, -signal.SIGKILL) else "crash" if status < 0 else "exit"
    if ended == "exit" and not parts:
        raise StudioError("The interpreter for tests did not start.", "Is the studio's Python complete?", "check")
    return {"code": ended}


def _size(folder: str) -> int:
    """Bytes of the files below; what cannot be looked at is bounded by the time the code has."""
    total, rest = 0, [folder]
    while rest and total <= DISK:
        with contextlib.suppress(OSError), os.scandir(rest.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    rest.append(entry.path)
                else:
                    total += max(4096, entry.stat(follow_symlinks=False).st_size)
    return total


def _end(process: subprocess.Popen) -> None:
    """Kill its group; it has no children, and can neither leave the group nor start one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _remove(folder: str) -> None:
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):  # folders without rights, or a thousand deep
        subprocess.run(["chmod", "-R", "u+rwX", folder], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", folder], capture_output=True, check=False)
