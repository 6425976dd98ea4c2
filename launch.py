"""Atelier's one command: makes .venv beside this file, installs the pinned packages, then starts what was asked for.

    python launch.py                       open the studio in a browser
    python launch.py ui --port 7860 --no-browser [--host ADDRESS --auth USER:PASSWORD]
    python launch.py demo                  fine-tune, compare and chart without a browser
    python launch.py test [pytest words]   run the test suite
    python launch.py setup                 only set up
    python launch.py WORD ...              any other word is the command line: run, ls, show, stop, doctor ...

Standard library only, and readable by older Pythons, so that they can say which one is needed.
STUDIO_HOME moves the workspace (~/.atelier).
"""

from __future__ import print_function

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

HERE = os.path.dirname(os.path.realpath(__file__))
VENV = os.path.join(HERE, ".venv")
LOCK = os.path.join(HERE, ".venv.lock")
STAMP = os.path.join(VENV, "atelier.json")
LOG = os.path.join(VENV, "setup.log")
TEMP = os.path.join(VENV, "setup-tmp")
WINDOWS = os.name == "nt"
PYTHON = (3, 11)
# Measured: 2.0 GB with the CPU build of PyTorch, 2.2 GB at the peak; the rest is room for downloads and the workspace.
NEEDED_GB = 3.0
CUDA_GB = 8.0


class SetupError(Exception):
    """One line for the person: what is wrong and what to do."""


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def venv_python():
    return os.path.join(VENV, "Scripts", "python.exe") if WINDOWS else os.path.join(VENV, "bin", "python")


def wanted(with_tests):
    """The requirement files of this start, the ones that exist."""
    names = ["requirements.txt"] + (["requirements-test.txt"] if with_tests else [])
    return [os.path.join(HERE, name) for name in names]


def fingerprint(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def read_stamp():
    try:
        with open(STAMP, encoding="utf-8") as file:
            stamp = json.load(file)
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def is_ready(files):
    """True if .venv was completed for exactly these files, here, and its Python is still there."""
    stamp = read_stamp()
    return (stamp.get("here") == HERE and stamp.get("python") == "%d.%d" % PYTHON and os.path.exists(venv_python())
            and all(stamp.get(os.path.basename(path)) == fingerprint(path) for path in files))


def write_stamp(files):
    stamp = read_stamp()
    stamp.update({os.path.basename(path): fingerprint(path) for path in files})
    stamp.update({"here": HERE, "python": "%d.%d" % PYTHON})
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        json.dump(stamp, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(STAMP + ".new", STAMP)


# ---------------------------------------------------------------------------------------------- which Python

def in_venv():
    return os.path.realpath(sys.prefix) == os.path.realpath(VENV)


def become(argv):
    """Replace this process by ``argv``. Windows has no real exec, so there the child is waited for."""
    if WINDOWS:
        sys.exit(subprocess.call(argv))
    sys.stdout.flush()
    os.execv(argv[0], argv)


def other_python():
    """A working Python of the right version on PATH, or None. Version managers leave shims that do not work."""
    name = "python%d.%d" % PYTHON + (".exe" if WINDOWS else "")
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, name)
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            continue
        try:
            code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
            out = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
        except (OSError, subprocess.SubprocessError):
            continue
        if out.stdout.decode().strip() == "%d.%d" % PYTHON:
            return path
    return None


def right_python():
    """Go on only with the Python the pins are made for; change to it when it is at hand."""
    if sys.version_info[:2] == PYTHON:
        return
    need, have = "%d.%d" % PYTHON, "%d.%d.%d" % sys.version_info[:3]
    path = other_python()
    if path is None:
        raise SetupError("Atelier needs Python %s; this is Python %s (%s). Install Python %s and run: "
                         "python%s launch.py" % (need, have, sys.executable, need, need))
    say("Atelier needs Python %s; this is %s. Going on with %s." % (need, have, path))
    become([path, os.path.abspath(__file__)] + sys.argv[1:])


def satisfied(files):
    """True if the running interpreter already has every pin (a container, a hand-made environment)."""
    if sys.version_info[:2] != PYTHON:
        return False
    from importlib import metadata
    for path in files:
        with open(path, encoding="utf-8") as file:
            for line in file:
                pin, _, marker = line.partition("#")[0].partition(";")
                if not pin.strip() or (marker and not sys.platform.startswith("linux")):
                    continue
                name, _, version = pin.strip().partition("==")
                try:
                    if metadata.version(name).split("+")[0] != version:
                        return False
                except metadata.PackageNotFoundError:
                    return False
    return True


# ---------------------------------------------------------------------------------------------- set-up

@contextmanager
def locked():
    """One set-up at a time. The kernel drops the lock when its holders end, so a killed set-up leaves no stale one.

    The pip that is started inherits it: if only this process is killed, the next run waits for that pip to end.
    """
    try:
        file = open(LOCK, "a+", encoding="utf-8")
    except OSError as err:
        raise cannot_write(err)
    told = 0.0
    while True:
        try:
            if WINDOWS:
                import msvcrt
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.set_inheritable(file.fileno(), True)
            break
        except (BlockingIOError, PermissionError):
            if time.time() - told > 30:
                say("Another set-up of this folder is at work; waiting for it (Ctrl-C to leave).")
                told = time.time()
            time.sleep(0.3)
        except OSError:  # a file system without locks: go on unlocked rather than not at all
            break
    try:
        yield None if WINDOWS else file.fileno()
    finally:
        file.close()


def cannot_write(err):
    return SetupError("The folder %s cannot be written (%s). Move Atelier to a folder you own and start it again."
                      % (HERE, err.strerror or err))


def disk_full():
    return SetupError("The disk ran full during set-up. Free about %.0f GB and start again: it goes on from there."
                      % NEEDED_GB)


def check_disk():
    free = shutil.disk_usage(HERE).free / 1e9
    if free < NEEDED_GB:
        raise SetupError("Not enough disk: set-up needs about %.0f GB and %s has %.1f GB free. Free some and start "
                         "again." % (NEEDED_GB, HERE, free))
    if free < CUDA_GB and sys.platform.startswith("linux"):
        say("  %.1f GB free: enough for the CPU build of PyTorch; the CUDA build wants about %.0f GB."
            % (free, CUDA_GB))


def works(python):
    """True if the environment's Python starts, is the right one, and its pip is whole."""
    code = "import sys; sys.exit(sys.version_info[:2] != %r)" % (PYTHON,)
    try:
        if subprocess.call([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            return False
        root = site_packages()
        return any(re.match(r"pip-[\d.]+\.dist-info$", name) and whole(root, os.path.join(root, name))
                   for name in os.listdir(root))
    except OSError:
        return False


def make_venv(fd):
    """A fresh .venv, unless the one that is there works."""
    if works(venv_python()):
        return
    if os.path.lexists(VENV):
        say("  the .venv that is here is broken; making a new one")
        shutil.rmtree(VENV) if os.path.isdir(VENV) and not os.path.islink(VENV) else os.unlink(VENV)
    check_disk()
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([base, "-m", "venv", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **passing(fd))
    if made.returncode or not works(venv_python()):
        text = made.stdout.decode(errors="replace")
        if "No space left" in text or shutil.disk_usage(HERE).free < 1e8:
            raise disk_full()
        if "ensurepip is not available" in text or subprocess.call([base, "-c", "import ensurepip, venv"],
                                                                   stderr=subprocess.DEVNULL):
            raise SetupError("This Python (%s) has no venv module. On Debian or Ubuntu run: apt install "
                             "python%d.%d-venv" % ((base,) + PYTHON))
        if os.access(HERE, os.W_OK):
            raise SetupError("Could not make .venv with %s: %s" % (base, (text.strip().splitlines() or [""])[-1]))
        raise cannot_write(OSError(13, "permission denied"))


def passing(fd):
    return {} if fd is None else {"pass_fds": (fd,)}


def site_packages():
    return os.path.join(VENV, "Lib", "site-packages") if WINDOWS else os.path.join(
        VENV, "lib", "python%d.%d" % PYTHON, "site-packages")


def sweep():
    """Undo what an interrupted pip left, so that the next one sees those packages as not installed.

    pip takes a package for installed once its METADATA is there, even when it was killed before the other files were.
    A package counts as whole here when every file its RECORD lists exists with the listed size.
    """
    root = site_packages()
    torn = []
    for name in os.listdir(root) if os.path.isdir(root) else []:
        path = os.path.join(root, name)
        if name.startswith("~"):
            shutil.rmtree(path, ignore_errors=True)
        elif name.endswith(".dist-info") and not whole(root, path):
            shutil.rmtree(path)
            torn.append(name.split("-")[0])
    if torn:
        say("  not complete, installing again: %s" % ", ".join(sorted(torn)))


def whole(root, info):
    if not os.path.exists(os.path.join(info, "INSTALLER")):
        return False
    import csv
    try:
        with open(os.path.join(info, "RECORD"), encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if row and not row[0].endswith(".pyc"):
                    size = os.path.getsize(os.path.join(root, row[0]))
                    if len(row) > 2 and row[2] and size != int(row[2]):
                        return False
    except (OSError, ValueError):
        return False
    return True


def folder_bytes(path):
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                pass
    return total


class Progress:
    """What pip has really done so far: packages found, bytes fetched, packages unpacked.

    On a terminal one line is rewritten; elsewhere a line is printed when a tenth more is done, or every 15 s.
    """

    def __init__(self, total):
        self.total, self.found, self.phase, self.note = total, set(), "", ""
        self.start = self.last = time.time()
        self.shown = ("", -1)
        self.tty = sys.stdout.isatty()
        self.to_install = 0
        self.fetched = self.held = 0

    def megabytes(self):
        """What was downloaded so far: the growth of pip's temporary folder, which it also clears."""
        held = folder_bytes(TEMP)
        self.fetched += max(0, held - self.held)
        self.held = held
        return self.fetched / 1e6

    def installed(self):
        """Packages that pip has completed since the start: it writes INSTALLER after a package's own files."""
        done = 0
        for name in os.listdir(site_packages()):
            if name.endswith(".dist-info"):
                try:
                    done += os.path.getmtime(os.path.join(site_packages(), name, "INSTALLER")) >= self.start - 1
                except OSError:
                    pass
        return done

    def read(self, line):
        word, _, rest = line.strip().partition(" ")
        if word in ("Collecting", "Processing") or line.startswith("Requirement already satisfied"):
            self.found.add(re.split(r"[\s=<>!~;(]", rest.replace("already satisfied: ", ""))[0])
            self.note = ""
        elif word == "Installing" and rest.startswith("collected packages:"):
            self.to_install, self.phase = rest.count(",") + 1, "installing"
        elif "Retrying (" in line:
            self.note = " - the package index does not answer, trying again"

    def line(self):
        clock = "%d:%02d" % divmod(int(time.time() - self.start), 60)
        if self.phase == "installing":
            done = min(self.to_install, self.installed())
            return "installing", done, self.to_install, "3/3 installing %d of %d packages - %s" % (
                done, self.to_install, clock)
        total = max(self.total, len(self.found))
        return "collecting", len(self.found), total, "2/3 collecting %d of %d packages, %.0f MB downloaded - %s%s" % (
            len(self.found), total, self.megabytes(), clock, self.note)

    def show(self, last=False):
        phase, done, total, text = self.line()
        if self.tty:
            sys.stdout.write("\r\033[K  " + text + ("\n" if last else ""))
            sys.stdout.flush()
            return
        step = done * 10 // max(1, total)
        if last or (phase, step) != self.shown or time.time() - self.last > 15:
            self.shown, self.last = (phase, step), time.time()
            say("  " + text)


def install(files, fd):
    """pip, its output in the log, its progress on the screen."""
    with_pins = sum(1 for path in files for line in open(path, encoding="utf-8") if "==" in line)
    shutil.rmtree(TEMP, ignore_errors=True)
    os.makedirs(TEMP)
    command = [venv_python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--progress-bar", "off"]
    for path in files:
        command += ["-r", path]
    # pip's temporary files go inside .venv: /tmp is often a small memory disk, and their size is the progress shown.
    # The other settings keep packages of elsewhere from counting as installed, or from being installed elsewhere.
    env = dict(os.environ, TMPDIR=TEMP, TEMP=TEMP, TMP=TEMP, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8",
               PYTHONNOUSERSITE="1", PIP_USER="0")
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"):
        env.pop(name, None)
    progress, lines = Progress(with_pins), []
    import threading
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                           env=env, **passing(fd))

    def drain():
        with open(LOG, "w", encoding="utf-8") as log:
            for raw in pip.stdout:
                line = raw.decode("utf-8", "replace").rstrip()
                log.write(line + "\n")
                log.flush()
                lines.append(line)
                progress.read(line)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(0.25 if progress.tty else 0.5)
            progress.show()
        progress.show(last=progress.tty)
        code = pip.wait()
    except BaseException:
        pip.terminate()
        pip.wait()
        raise
    shutil.rmtree(TEMP, ignore_errors=True)
    if code:
        raise explain(lines)


def explain(lines):
    """The one line that says why pip failed."""
    text = "\n".join(lines)
    if "No space left on device" in text or "Errno 28" in text:
        return disk_full()
    if re.search(r"NewConnectionError|Connection refused|Name or service not known|name resolution|ConnectTimeout|"
                 r"Read timed out|ProxyError|Network is unreachable|getaddrinfo failed|ConnectionResetError", text):
        return SetupError("No network: the package index cannot be reached. Check the connection (or PIP_INDEX_URL, "
                          "PIP_PROXY) and start again: what was installed stays.")
    errors = [line[7:] for line in lines if line.startswith("ERROR: ")]
    return SetupError("pip could not install the packages: %s. The whole log: %s"
                      % ((errors or lines or ["no output"])[-1].rstrip("."), LOG))


def link():
    """Put this folder on the environment's path and the command ``studio`` beside its Python. Needs no build step."""
    with open(os.path.join(site_packages(), "atelier.pth"), "w", encoding="utf-8") as file:
        file.write(HERE + "\n")
    body = "import sys\nfrom studio.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    if WINDOWS:
        with open(os.path.join(VENV, "Scripts", "studio.cmd"), "w", encoding="utf-8") as file:
            file.write('@"%%~dp0python.exe" -c "%s" %%*\n' % body.strip().replace("\n", "; "))
        return
    path = os.path.join(VENV, "bin", "studio")
    with open(path, "w", encoding="utf-8") as file:
        # A shell line instead of "#!python": that one fails for folders with spaces or long names.
        file.write("#!/bin/sh\n'''exec' \"$(dirname \"$(readlink -f \"$0\")\")/python\" \"$0\" \"$@\"\n' '''\n" + body)
    os.chmod(path, 0o755)


@contextmanager
def ended_by_sigterm():
    """SIGTERM as Ctrl-C for a while, so that pip is ended too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def set_up(files):
    """Make .venv complete for ``files``. Does nothing that is already done; the stamp is written last."""
    with ended_by_sigterm(), locked() as fd:
        if is_ready(files):
            return
        start = time.time()
        if in_venv() and satisfied(files):  # made by hand, or only the stamp was lost
            link()
            write_stamp(files)
            return
        fresh = not os.path.lexists(VENV)
        say("Setting up Atelier in %s" % VENV)
        try:
            say("  1/3 Python %d.%d.%d environment" % sys.version_info[:3])
            make_venv(fd)
            if not fresh:
                sweep()
            if os.path.exists(STAMP) and read_stamp().get("here") != HERE:
                os.unlink(STAMP)
            install(files, fd)
            link()
            write_stamp(files)
        except OSError as err:
            if err.errno == 28:
                raise disk_full()
            raise cannot_write(err)
        say("  ready after %.0f s" % (time.time() - start))


# ---------------------------------------------------------------------------------------------- start

def start(word, rest):
    """Run the command in this interpreter, which has everything."""
    if HERE not in sys.path:
        sys.path.insert(0, HERE)
    if word == "setup":
        return 0
    if word == "test":
        os.chdir(HERE)
        become([sys.executable, "-m", "pytest"] + rest)
    if word == "ui":
        from components.app import main
        return main(rest)
    if word == "demo":
        from studio.demo import main
        return main(rest)
    from studio.cli import main
    return main([word] + rest)


def main(argv):
    word, rest = ("ui", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    if argv and argv[0] in ("-h", "--help", "help"):
        say(__doc__.strip())
        return 0
    files = wanted(word == "test")
    here = [path for path in files if os.path.exists(path)]
    if here != files:
        raise SetupError("%s is missing beside launch.py: this copy of Atelier is incomplete." % "requirements.txt")
    if os.environ.get("SPACE_ID"):  # a Space has installed requirements.txt already
        return start(word, rest)
    if is_ready(files):
        if in_venv():
            return start(word, rest)
        become([venv_python(), os.path.abspath(__file__)] + argv)
    if not in_venv() and not os.path.lexists(VENV) and satisfied(files):
        return start(word, rest)
    right_python()
    set_up(files)
    if in_venv():
        return start(word, rest)
    become([venv_python(), os.path.abspath(__file__)] + argv)


if __name__ == "__main__":
    if sys.version_info < (3, 6):
        sys.exit("Atelier needs Python 3.11; this is Python %d.%d. Install Python 3.11 and run: python3.11 launch.py"
                 % sys.version_info[:2])
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as lost:
        top = (lost.name or "").partition(".")[0]
        if not in_venv() or os.path.exists(os.path.join(HERE, top)) or not os.path.exists(STAMP):
            raise
        os.unlink(STAMP)
        print("The environment has lost a package (%s). Start again: it mends itself." % top, file=sys.stderr)
        sys.exit(1)
