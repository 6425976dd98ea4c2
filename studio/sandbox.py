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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import StudioError

CHILD = Path(__file__).with_name("sandbox_child.py")
KEPT_OUTPUT = 20_000  # bytes of what is printed that are kept
MOST_OUTPUT = 8 << 20  # bytes printed before the code is ended
FILE_SIZE = 16 << 20  # bytes of one file
DISK = 64 << 20  # bytes of all its files
START_SECONDS = 60.0  # for the interpreter to be ready, on a machine that is busy
LOAD_SECONDS = 20.0  # for a function's code to be read, with what it imports
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
    texts = [text for text in ([tests] if isinstance(tests, str) else tests) if text.strip()]
    task = {"code": code, "tests": texts, "seconds": seconds, "memory": memory, "stdin": stdin, "packages": packages}
    with started(task) as (process, results, token, folder):
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return _watch(process, results, token, folder, seconds, len(texts))


@contextlib.contextmanager
def started(task: dict[str, Any]) -> Iterator[tuple[subprocess.Popen, int, bytes, str]]:
    """The interpreter for a task, its folder, and the pipe on which it answers, each answer behind a token that the
    code does not know. All are gone at the end of the ``with``.

    Raises:
        StudioError: the machine cannot confine it.
    """
    require()
    folder, token = tempfile.mkdtemp(prefix="atelier-sandbox-"), secrets.token_hex(16)
    results, inner = os.pipe()
    flags = ["-I", "-B", "-X", "utf8"] + ([] if task["packages"] else ["-S"])
    task = task | {"token": token, "results": inner, "file_size": FILE_SIZE}
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
                    process.stdin.write(json.dumps(task).encode() + b"\n")
                    process.stdin.flush()
                yield process, results, token.encode(), folder
            finally:
                end(process)
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
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
                "disk" if size(folder) > DISK else ""
    end(process)
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


def size(folder: str) -> int:
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


def end(process: subprocess.Popen) -> None:
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


class Function:
    """A function in the sandbox that stays there between its calls.

        with Function("def reward(prompt, completion, **row): return len(completion)", "reward") as f:
            f({"prompt": "Say hi", "completion": "hi"}).value     # 2

    Its interpreter rests (SIGSTOP) while nobody calls it, and is ended and started anew when a call goes too far. For
    one thread only: the kernel ends it with the thread that started it.

    Args:
        code: Python source that defines the function; run once at the start.
        name: Its name.
        seconds: Wall time of one call. Running ``code`` may take :data:`LOAD_SECONDS`.
        memory, packages: As for :func:`run`.

    Raises:
        StudioError: the machine cannot confine it, or the code does not get as far as the function.
    """

    def __init__(self, code: str, name: str, seconds: float = 2, memory: int = 512 << 20, packages: bool = False):
        self.seconds = seconds
        self.task = {"code": code, "function": name, "seconds": None, "memory": memory, "stdin": "",
                     "packages": packages}
        self._open = contextlib.ExitStack()
        self._begin()

    def __call__(self, values: dict[str, Any]) -> Called:
        """Call it with keyword arguments; what JSON does not know becomes text."""
        if self._process is None:
            try:
                self._begin()
            except StudioError as err:
                return Called("error", f"{err.message} {err.hint}".strip())
        os.kill(self._process.pid, signal.SIGCONT)
        made = self._ask(json.dumps(values, default=str).encode() + b"\n", self.seconds)
        return self._rest(made)

    def close(self) -> None:
        self._process = None
        self._open.close()

    def __enter__(self) -> Function:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _begin(self) -> None:
        self._process, self._results, self._token, self._folder = self._open.enter_context(started(self.task))
        os.set_blocking(self._process.stdin.fileno(), False)
        made = self._ask(b"", START_SECONDS)  # the interpreter is there, and has shut itself in
        if made.code == "begun":
            made = self._ask(b"", max(self.seconds, LOAD_SECONDS))
        if made.code != "ready":
            self.close()
            if made.code == "refused":
                raise StudioError(f"The code cannot be confined here: {made.reason}.", "Choose another reward.")
            raise StudioError(f"The code does not run: {made.reason}", "Correct it.")
        self._rest(made)

    def _rest(self, made: Called) -> Called:
        """Let it sleep, or end one that went too far."""
        if made.code in ("ready", "passed", "error"):
            os.kill(self._process.pid, signal.SIGSTOP)
        else:
            self.close()
        return made

    def _ask(self, line: bytes, seconds: float) -> Called:
        """Write a line, then wait for one answer."""
        until, said, printed, count = time.monotonic() + seconds, b"", b"", 0
        to, out = self._process.stdin.fileno(), self._process.stdout.fileno()
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._results, selectors.EVENT_READ)
            waiting.register(out, selectors.EVENT_READ)
            if line:
                waiting.register(to, selectors.EVENT_WRITE)
            while True:
                for key, _ in waiting.select(_WATCH):
                    if key.fd == to:
                        line = line[_written(to, line):]
                        if not line:
                            waiting.unregister(to)
                        continue
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        return Called(*_ended(self._process), printed.decode("utf-8", "replace"))
                    if key.fd == out:
                        printed, count = (printed + data)[:KEPT_OUTPUT], count + len(data)
                    else:
                        said += data
                if self._token in said and said.endswith(b"\n"):
                    return _called(said.split(self._token)[-1], printed.decode("utf-8", "replace"))
                code = "timeout" if time.monotonic() > until else "output" if max(count, len(said)) > MOST_OUTPUT else \
                    "disk" if size(self._folder) > DISK else ""
                if code:
                    return Called(code, REASONS[code], None, printed.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Called:
    """How a call of a :class:`Function` ended.

    Attributes:
        code: ``passed``, or another key of :data:`REASONS`.
        reason: Why it did not pass; else empty.
        value: What the function gave, if it passed: a list of one, or of two where it gave a pair.
        output: The beginning of what it printed.
    """

    code: str
    reason: str = ""
    value: Any = None
    output: str = ""


def _called(said: bytes, printed: str) -> Called:
    try:
        made = json.loads(said)
    except ValueError:
        return Called("crash", REASONS["crash"], None, printed)
    return Called(made.get("code", "begun"), made.get("reason", ""), made.get("value"), printed)


def _written(to: int, line: bytes) -> int:
    """Bytes that were taken; all of them where nobody reads any more, which the other pipes tell."""
    try:
        return os.write(to, line[:1 << 16])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(line)


def _ended(process: subprocess.Popen) -> tuple[str, str, None]:
    """(code, reason, no value) of an interpreter that closed its pipes."""
    end(process)
    code = "exit" if process.returncode >= 0 or process.returncode == -signal.SIGKILL else "crash"
    return code, REASONS[code] if code == "crash" else "it ends its own interpreter", None
