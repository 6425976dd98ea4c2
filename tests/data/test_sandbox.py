"""Code of a model is run, timed, and can do nothing to the machine, whatever it tries."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from studio import sandbox
from studio.errors import StudioError
from studio.sandbox import run

pytestmark = pytest.mark.skipif(bool(sandbox.missing()), reason=f"no sandbox here: {sandbox.missing()}")


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("atelier-sandbox-*"))


def test_good_code_passes_and_leaves_nothing() -> None:
    before = folders()
    made = run("def add(a, b):\n    print('hi')\n    return a + b", ["assert add(2, 3) == 5", "assert add(0, 0) == 0"])
    assert (made.ok, made.code, made.passed, made.total, made.output) == (True, "passed", 2, 2, "hi\nhi\n")
    assert folders() <= before


@pytest.mark.parametrize(("tests", "word"), [
    ("assert add(2, 3) == 5, 'two and three'", "two and three"),
    ("def test_one():\n    assert add(2, 3) == 5", "line 2: assert add"),
    ("import unittest\nclass T(unittest.TestCase):\n    def test_x(self):\n        self.assertEqual(add(2, 3), 5)", "-1 != 5"),
    ("assert plus(1)", "NameError"), ("assert (", "SyntaxError"), ("raise KeyboardInterrupt", "KeyboardInterrupt")])
def test_wrong_code_fails_and_says_where(tests: str, word: str) -> None:
    made = run("def add(a, b):\n    return a - b", tests)
    assert not made.ok and made.code == "failed" and word in made.reason


def test_every_style_of_tests_can_pass() -> None:
    tests = ["assert add(1, 1) == 2", "def test_one():\n    assert add(1, 2) == 3",
             "import unittest\nclass T(unittest.TestCase):\n    def test_x(self):\n        self.assertEqual(add(2, 3), 5)"]
    assert run("def add(a, b):\n    return a + b", tests).passed == 3


def test_code_that_took_the_name_of_a_test_does_not_hide_it() -> None:
    made = run("def test_one():\n    pass\ndef add(a, b):\n    return 0", "def test_one():\n    assert add(1, 2) == 3")
    assert made.code == "failed"
    helper = run("def test_duplicate(items):\n    return len(items) != len(set(items))", ["assert test_duplicate([1, 1])"])
    assert helper.ok, "a function of the answer is no test, whatever its name"


def test_parts_of_the_tests_are_counted() -> None:
    made = run("def half(n):\n    return n // 2", ["assert half(4) == 2", "assert half(5) == 2.5", "assert half(0) == 0"])
    assert (made.ok, made.passed, made.total) == (False, 2, 3)


@pytest.mark.parametrize(("code", "outcome"), [
    ("while True: pass", "timeout"),
    ("import time\ntime.sleep(60)", "timeout"),
    ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "timeout"),
    ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", "timeout"),
    ("x = bytearray(4 << 30)", "memory"),
    ("x = []\nwhile True: x.append('y' * 1000000)", "memory"),
    ("while True: print('z' * 100000)", "output"),
    ("import os\nos._exit(0)", "exit"), ("import sys\nsys.exit(0)", "exit"), ("raise SystemExit", "exit"),
    ("import ctypes\nctypes.string_at(0)", "crash"),
    ("def f(): f()\nf()", "error"),
    ("def (", "syntax"), ("\0", "syntax"), ("1 / 0", "error")])
def test_runaway_code_is_ended_with_its_reason(code: str, outcome: str) -> None:
    began = time.monotonic()
    made = run(code, "assert True", seconds=1)
    assert made.code == outcome, made
    assert not made.ok and time.monotonic() - began < 30 and len(made.output) <= sandbox.KEPT_OUTPUT


ESCAPES = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "program": "import subprocess\nsubprocess.run(['/bin/true'])",
    "shell": "import os\nassert os.system('true') == 0",
    "process by multiprocessing": "import multiprocessing as m\nm.get_context('fork').Process(target=print).start()",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "raw clone": "import ctypes\nassert ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0",
    "clone3": "import ctypes\nb = ctypes.create_string_buffer(88)\nassert ctypes.CDLL(None).syscall(435, b, 88) >= 0",
    "x32 fork": "import ctypes\nassert ctypes.CDLL(None).syscall(0x40000000 + 57) >= 0",
    "internet": "import socket\nsocket.socket()",
    "local socket": "import socket\nsocket.socket(socket.AF_UNIX)",
    "packets": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "io_uring": "import ctypes\nb = ctypes.create_string_buffer(120)\nassert ctypes.CDLL(None).syscall(425, 1, b) >= 0",
    "signal to the parent": "import os\nos.kill(os.getppid(), 15)",
    "signal to all": "import os\nos.kill(-1, 9)",
    "own session": "import os\nos.setsid()",
    "own group": "import os\nos.setpgid(0, 0)",
    "debugger": "import os, ctypes\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "limits of the parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    "own limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "own mode": "import os\nos.chmod('.', 0)",
    "namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
    "chroot": "import os\nos.chroot('.')",
    "memory of the parent": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
    "environment of the parent": "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
    "own former environment": "open('/proc/self/environ').read()",
    "passwords": "open('/etc/passwd').read()",
    "home": "import os\nos.listdir('/root' if os.getuid() == 0 else '/home')",
    "file in /tmp": "open('/tmp/atelier-escape', 'w')",
    "folder above": "open('../atelier-escape', 'w')",
    "link to outside": "import os\nos.symlink('/etc/passwd', 'x')\nopen('x').read()",
    "hard link to outside": "import os\nos.link('/etc/passwd', 'x')\nopen('x').read()",
    "shared memory": "open('/dev/shm/atelier-escape', 'w')",
    "memory file": "import os\nos.memfd_create('x')",
    "device": "open('/dev/mem')",
    "big file": "f = open('x', 'wb')\nfor _ in range(100): f.write(bytes(1 << 20))\nf.flush()",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_no_way_out(name: str) -> None:
    """Each try ends in an error of its own; the sandbox says so, and nobody outside notices."""
    made = run(ESCAPES[name], seconds=3)
    assert made.code == "error", made
    assert not Path("/tmp/atelier-escape").exists() and not Path("/dev/shm/atelier-escape").exists()


def test_the_way_out_is_shut_by_the_sandbox_not_by_chance(tmp_path: Path) -> None:
    """The same tries succeed in a plain interpreter where they harm nobody, so the test above can fail."""
    for name in ("program", "internet", "passwords", "own group", "memory file", "own mode", "environment of the parent"):
        done = subprocess.run([sys.executable, "-c", ESCAPES[name]], cwd=tmp_path, capture_output=True, timeout=60)
        assert done.returncode == 0, (name, done.stderr)
        tmp_path.chmod(0o700)


def test_no_secret_reaches_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
    secret = tmp_path / "secret"
    secret.write_text("hf_secret_of_the_test")
    made = run("import os, sys, gc\nprint(dict(os.environ), sys.argv, sys.path, os.getcwd())\n"
               "print(os.listdir('.'), sys.stdin.read())")
    assert made.ok and "secret" not in made.output and str(Path.cwd()) not in made.output
    assert not run(f"open({str(secret)!r}).read()").ok


def test_no_file_descriptor_of_the_studio_is_inherited(tmp_path: Path) -> None:
    with open(tmp_path / "open", "w") as file, socket.socket() as sock:
        os.set_inheritable(file.fileno(), True)
        os.set_inheritable(sock.fileno(), True)
        made = run("import os\nfound = []\nfor n in range(3, 60):\n    try: os.fstat(n); found.append(n)\n    except OSError: pass\n"
                   "print(len(found))")
    assert made.output.strip() == "1"  # the pipe on which the result is told


def test_small_files_cannot_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "DISK", 4 << 20)
    before = folders()
    made = run("for i in range(10**9):\n    open(f'f{i}', 'wb').write(bytes(1 << 20))", seconds=5)
    assert made.code == "disk" and folders() <= before


def test_deep_and_locked_folders_are_removed() -> None:
    before = folders()
    assert run("import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')", seconds=10).ok
    assert run("import os\nos.mkdir('locked')\nopen('locked/x', 'w').close()\nos.mkdir('none', 0)").ok
    assert folders() <= before


def test_threads_and_event_loops_work() -> None:
    made = run("import asyncio, threading\nasync def f():\n    await asyncio.sleep(0.01)\n    return 3\nprint(asyncio.run(f()))\n"
               "t = threading.Thread(target=print, args=(4,))\nt.start()\nt.join()")
    assert made.ok and made.output == "3\n4\n"


def test_a_program_reads_and_writes_its_own_files_and_input() -> None:
    made = run("a, b = int(input()), int(input())\nopen('x', 'w').write('é')\nprint(a + b, open('x').read())",
               stdin="3\n4\n")
    assert made.ok and made.output == "7 é\n"
    assert run("print(sum(map(int, open(0))))", stdin="3\n4\n").output == "7\n"


def test_the_null_device_can_be_written() -> None:
    assert run("import os\nprint('x', file=open(os.devnull, 'w'))\nopen('/dev/null', 'r+').close()").ok


@pytest.mark.parametrize(("header", "table"), [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "_X86_64"),
                                               ("/usr/include/asm-generic/unistd.h", "_AARCH64")])
def test_the_numbers_of_the_forbidden_calls_are_those_of_the_kernel(header: str, table: str) -> None:
    import re

    from studio import sandbox_child

    if not Path(header).exists():
        pytest.skip(f"{header} is not installed")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    ours = getattr(sandbox_child, table) | sandbox_child._SHARED
    known = {name: number for name, number in ours.items() if name in numbers}
    assert len(known) >= len(ours) - 5, "only calls newer than the headers are missing there"
    assert {name: int(numbers[name]) for name in known} == known


def test_installed_packages_only_when_asked_for() -> None:
    assert "ModuleNotFoundError" in run("import numpy").reason
    assert run("import numpy", packages=True, memory=4 << 30, seconds=20).ok


def test_a_forged_word_is_not_believed() -> None:
    """Writing to the pipe of the result does not make a failing run pass."""
    forged = "import os\nfor n in range(3, 60):\n    try: os.write(n, b'{\"code\": \"passed\", \"passed\": 1}')\n" \
             "    except OSError: pass\nos._exit(0)"
    assert run(forged, "assert False").code == "exit"


def test_runs_beside_each_other_in_threads() -> None:
    made: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i: made.update({i: run(f"print({i})").output})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {i: f"{i}\n" for i in range(6)}


def test_the_code_dies_with_the_studio(tmp_path: Path) -> None:
    """A worker that is killed leaves no interpreter behind."""
    outer = subprocess.Popen([sys.executable, "-c", "import sys\nsys.path.insert(0, sys.argv[1])\nfrom studio.sandbox import run\n"
                              "run('import time\\ntime.sleep(600)', seconds=300)", str(Path.cwd())],
                             env={**os.environ, "TMPDIR": str(tmp_path)})
    import psutil

    try:
        until = time.monotonic() + 60
        while not (children := psutil.Process(outer.pid).children()) and time.monotonic() < until:
            time.sleep(0.1)
        assert children
        while b"sandbox_child" not in b"".join(os.fsencode(p) for p in children[0].cmdline()):
            time.sleep(0.05)
        time.sleep(1)
        outer.send_signal(signal.SIGKILL)
        outer.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
    finally:
        outer.kill()


def test_where_nothing_can_be_confined_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "riscv64")
    with pytest.raises(StudioError, match="cannot be run here"):
        run("print(1)")
