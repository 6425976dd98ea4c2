"""The bootstrap, run for real on a toy project whose two packages are wheels made here: no index, no network."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = getattr(sys, "_base_executable", None) or sys.executable
FILES = 12_000  # of the toy package that takes long enough to be interrupted

CLI = """import json, sys
def main(argv):
    try:
        import toya, toyb
        toys = toya.VALUE + toyb.VALUE
    except ImportError:
        toys = None
    print(json.dumps({"argv": argv, "prefix": sys.prefix, "toys": toys}))
    return 3
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="these kill process groups, which Windows does not have")


def make_wheel(folder: Path, name: str, version: str, files: int = 0) -> None:
    """A wheel whose dist-info comes first, the order in which a killed pip leaves a package that looks installed."""
    info = f"{name}-{version}.dist-info"
    content = {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
               f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    content |= {f"{name}_data/{number}.txt": "text" for number in range(files)}
    content[f"{name}.py"] = "VALUE = 1\n"
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "toya", "1.0")
    make_wheel(folder, "toyb", "2.0")
    make_wheel(folder, "toyb", "3.0", FILES)
    make_wheel(folder, "toyc", "4.0")
    return folder


def project(folder: Path, pins: str = "toya==1.0\ntoyb==2.0\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "launch.py", folder)
    (folder / "requirements.txt").write_text("# exact\n" + pins)
    (folder / "requirements-test.txt").write_text("toyc==4.0\n")
    (folder / "studio").mkdir(exist_ok=True)
    (folder / "studio/__init__.py").write_text("")
    (folder / "studio/cli.py").write_text(CLI)
    return folder


@pytest.fixture
def env(wheels):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "SPACE_", "PYTHON"))}
    return env | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture(scope="module")
def ready(tmp_path_factory, wheels):
    """A toy project that is set up; tests copy it when they mean to harm it."""
    folder = project(tmp_path_factory.mktemp("ready") / "a b")
    env = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    env.pop("SPACE_ID", None)
    out = run(folder, ["ls"], env)
    assert out.returncode == 3, out.stdout + out.stderr
    return folder, out


@pytest.fixture
def copy(ready, tmp_path):
    return Path(shutil.copytree(ready[0], tmp_path / "copy", symlinks=True))


def run(folder: Path, argv: list[str], env: dict, python: str = PYTHON, **more) -> subprocess.CompletedProcess:
    done = subprocess.run([python, str(folder / "launch.py"), *argv], env=env, text=True, capture_output=True,
                          timeout=120, stdin=subprocess.DEVNULL, cwd=folder.parent, **more)
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def answer(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 3, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line of a refusal."""
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_first_start_says_what_it_does_and_hands_the_words_over(ready):
    folder, out = ready
    assert answer(out) == {"argv": ["ls"], "prefix": str(folder / ".venv"), "toys": 2}
    assert f"Setting up Atelier in {folder / '.venv'}" in out.stdout
    assert "installing 2 of 2 packages" in out.stdout and "ready after" in out.stdout
    assert not (folder / ".venv/setup-tmp").exists()


def test_second_start_is_silent_and_adds_under_half_a_second(ready, env):
    folder, _ = ready
    code = "import sys; from studio.cli import main; sys.exit(main(['ls']))"
    direct = [str(folder / ".venv/bin/python"), "-c", code]

    def seconds(command):
        start = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd="/")
        assert done.returncode == 3 and len(done.stdout.splitlines()) == 1, done
        return time.perf_counter() - start

    launched = [seconds([PYTHON, str(folder / "launch.py"), "ls"]) for _ in range(5)]
    bare = [seconds(direct) for _ in range(5)]
    added = statistics.median(launched) - statistics.median(bare)
    print(f"second start adds {added * 1000:.0f} ms")
    assert added < 0.5


def test_the_studio_command_works_from_anywhere_and_keeps_its_arguments(ready, env, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(ready[0] / ".venv/bin/studio")
    for command in (ready[0] / ".venv/bin/studio", link):
        done = subprocess.run([str(command), "show", "a  b"], env=env, capture_output=True, text=True, cwd="/")
        assert answer(done)["argv"] == ["show", "a  b"]


def test_an_interpreter_of_the_environment_does_not_nest(ready, env):
    done = run(ready[0], ["ls"], env, python=str(ready[0] / ".venv/bin/python"))
    assert answer(done)["prefix"] == str(ready[0] / ".venv")


def test_test_adds_the_test_packages(copy, env):
    (copy / "tests").mkdir()
    fake = copy / "pytest.py"
    fake.write_text("import sys, toyc; print('ran', sys.argv[1:]); sys.exit(5)")
    done = run(copy, ["test", "-k", "some"], env)
    assert done.returncode == 5 and "ran ['-k', 'some']" in done.stdout
    assert "Setting up" not in run(copy, ["ls"], env).stdout


def wait_for_half(folder: Path) -> None:
    """Until pip has written the metadata of the long package, and some, not all, of its files."""
    until = time.time() + 60
    while time.time() < until:
        if len(list(folder.glob(".venv/lib/*/site-packages/toyb_data/*"))) > 100:
            return
        time.sleep(0.005)
    raise AssertionError("pip did not get that far")


def long_files(folder: Path) -> int:
    return len(list(folder.glob(".venv/lib/*/site-packages/toyb_data/*.txt")))


def test_a_killed_set_up_heals_itself(tmp_path, env):
    folder = project(tmp_path / "p", "toya==1.0\ntoyb==3.0\n")
    started = subprocess.Popen([PYTHON, str(folder / "launch.py"), "ls"], env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_half(folder)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    # The trap: pip believes this package is installed.
    assert list(folder.glob(".venv/lib/*/site-packages/toyb-3.0.dist-info/METADATA"))
    assert long_files(folder) < FILES
    assert (folder / ".venv.lock").exists()
    done = run(folder, ["ls"], env)
    assert answer(done)["toys"] == 2 and long_files(folder) == FILES
    assert "not complete, installing again" in done.stdout


def test_when_only_the_launcher_was_killed_the_next_waits_for_its_pip(tmp_path, env):
    folder = project(tmp_path / "p", "toya==1.0\ntoyb==3.0\n")
    started = subprocess.Popen([PYTHON, str(folder / "launch.py"), "ls"], env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_half(folder)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    done = run(folder, ["ls"], env)
    assert answer(done)["toys"] == 2 and long_files(folder) == FILES
    assert "waiting for it" in done.stdout


def test_being_told_to_stop_ends_pip_too(tmp_path, env):
    folder = project(tmp_path / "p", "toya==1.0\ntoyb==3.0\n")
    started = subprocess.Popen([PYTHON, str(folder / "launch.py"), "ls"], env=env, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE, start_new_session=True)
    wait_for_half(folder)
    os.kill(started.pid, signal.SIGTERM)
    _, err = started.communicate(timeout=30)
    assert started.returncode == 130 and err.strip() == "Stopped."
    before = long_files(folder)
    time.sleep(0.3)
    assert long_files(folder) == before < FILES


def test_two_set_ups_at_once_do_the_work_once(tmp_path, env):
    folder = project(tmp_path / "p")
    both = [subprocess.Popen([PYTHON, str(folder / "launch.py"), "ls"], env=env, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [3, 3], outputs
    assert sum("ready after" in text for text in outputs) == 1
    assert sum("waiting for it" in text for text in outputs) == 1


def test_changed_pins_are_followed(copy, env):
    (copy / "requirements.txt").write_text("toya==1.0\ntoyb==2.0\ntoyc==4.0\n")
    assert "installing 1 of 1 packages" in run(copy, ["ls"], env).stdout
    assert list(copy.glob(".venv/lib/*/site-packages/toyc.py"))


def test_a_moved_folder_is_linked_anew(copy, env):
    (copy / "studio/cli.py").write_text(CLI.replace("return 3", "return 4"))
    assert run(copy, ["ls"], env).returncode == 4
    assert subprocess.run([copy / ".venv/bin/studio", "ls"], env=env, capture_output=True, cwd="/").returncode == 4


@pytest.mark.parametrize("harm", ["dangling", "empty", "file", "pip"])
def test_a_broken_environment_is_made_anew(copy, env, harm):
    venv, python = copy / ".venv", copy / ".venv/bin/python"
    if harm == "dangling":  # the Python it was made from was removed
        python.unlink()
        python.symlink_to(copy / "gone")
    elif harm == "pip":
        (venv / "atelier.json").unlink()
        for pip in venv.glob("lib/*/site-packages/pip/_vendor"):  # as when the disk was full the first time
            shutil.rmtree(pip)
    else:
        shutil.rmtree(venv)
        venv.mkdir() if harm == "empty" else venv.write_text("what?")
    assert answer(run(copy, ["ls"], env))["toys"] == 2


def test_a_lost_package_is_told_and_mended(copy, env):
    answer(run(copy, ["ls"], env))
    next(copy.glob(".venv/lib/*/site-packages/toya.py")).unlink()
    (copy / "studio/cli.py").write_text("import toya\n" + CLI)
    assert "lost a package (toya)" in refused(run(copy, ["ls"], env))
    assert answer(run(copy, ["ls"], env))["toys"] == 2


def test_an_interpreter_that_has_everything_is_used_as_it_is(ready, tmp_path, env):
    folder = project(tmp_path / "p")
    site = next(ready[0].glob(".venv/lib/*/site-packages"))
    assert answer(run(folder, ["ls"], env | {"PYTHONPATH": str(site)}))["toys"] == 2
    assert not (folder / ".venv").exists()


def test_packages_of_elsewhere_do_not_count_once_there_is_an_environment(ready, tmp_path, env):
    folder = project(tmp_path / "p", "toya==1.0\ntoyb==2.0\ntoyc==4.0\n")
    site = next(ready[0].glob(".venv/lib/*/site-packages"))
    answer(run(folder, ["ls"], env | {"PYTHONPATH": str(site)}))
    assert list(folder.glob(".venv/lib/*/site-packages/toya.py"))


def test_a_space_runs_in_its_own_interpreter(tmp_path, env):
    folder = project(tmp_path / "p")
    assert answer(run(folder, ["ls"], env | {"SPACE_ID": "me/atelier"}))["toys"] is None
    assert not (folder / ".venv").exists()


def test_no_network_is_one_line_and_no_partial_success(copy, env):
    (copy / "requirements.txt").write_text("toya==1.0\ntoyb==2.0\ntoyc==4.0\n")
    offline = {k: v for k, v in env.items() if k not in ("PIP_NO_INDEX", "PIP_FIND_LINKS")}
    offline |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    assert "No network" in refused(run(copy, ["ls"], offline))
    assert answer(run(copy, ["ls"], env))["toys"] == 2


def test_a_pin_that_does_not_exist_names_it_and_the_log(copy, env):
    (copy / "requirements.txt").write_text("toyz==9.9\n")
    line = refused(run(copy, ["ls"], env))
    assert "toyz==9.9" in line and str(copy / ".venv/setup.log") in line
    assert "toyz" in (copy / ".venv/setup.log").read_text()


def patched(tmp_path: Path, env: dict, code: str) -> dict:
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch/sitecustomize.py").write_text(code)
    return env | {"PYTHONPATH": str(tmp_path / "patch")}


def test_no_disk_is_one_line_before_anything_is_written(tmp_path, env):
    folder = project(tmp_path / "p")
    small = patched(tmp_path, env, "import shutil, collections\nU = collections.namedtuple('U', 'total used free')\n"
                                   "shutil.disk_usage = lambda path: U(4e9, 3e9, 1.2e9)\n")
    line = refused(run(folder, ["ls"], small))
    assert "Not enough disk" in line and "1.2 GB free" in line
    assert not (folder / ".venv").exists()


def test_a_read_only_folder_is_one_line(env):
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        folder = project(Path(top) / "p")
        os.chmod(top, 0o755)
        more, python = {}, PYTHON
        if os.geteuid() == 0:  # root writes everywhere
            more, python = {"user": 65534, "group": 65534, "extra_groups": []}, "/usr/bin/python3.11"
            if not os.path.exists(python):
                pytest.skip("as root this needs a Python 3.11 that other users may run")
        else:
            os.chmod(folder, 0o555)
        line = refused(run(folder, ["ls"], env, python=python, **more))
        os.chmod(folder, 0o755)
        assert "cannot be written" in line and str(folder) in line


OLD = "import sys\nsys.version_info = type('V', (tuple,), {})((3, 12, 1, 'final', 0))\n"


def test_a_wrong_python_is_one_line(tmp_path, env):
    folder = project(tmp_path / "p")
    line = refused(run(folder, ["ls"], patched(tmp_path, env, OLD) | {"PATH": str(tmp_path)}))
    assert "needs Python 3.11; this is Python 3.12.1" in line and "python3.11 launch.py" in line
    assert not (folder / ".venv").exists()


def test_a_wrong_python_goes_on_with_the_right_one(ready, tmp_path, env):
    """A shim that does not work comes first on PATH, as version managers leave them. The patch ends at the shim."""
    folder = Path(shutil.copytree(ready[0], tmp_path / "p", symlinks=True))
    (folder / ".venv/atelier.json").unlink()
    shims = {"broken": "#!/bin/sh\nexit 127\n", "good": f'#!/bin/sh\nunset PYTHONPATH\nexec {PYTHON} "$@"\n'}
    for name, text in shims.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "python3.11").write_text(text)
        (tmp_path / name / "python3.11").chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "broken"), str(tmp_path / "good"), env["PATH"]])
    done = run(folder, ["ls"], patched(tmp_path, env, OLD) | {"PATH": path})
    assert f"Going on with {tmp_path / 'good/python3.11'}" in done.stdout
    assert answer(done)["toys"] == 2


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.12", "3.13"])
def test_a_really_different_python_says_so(tmp_path, env, version):
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    folder = project(tmp_path / "p")
    line = refused(run(folder, ["ls"], env | {"PATH": str(tmp_path)}, python=str(found[0])))
    assert "needs Python 3.11" in line and version in line


def test_reasons_of_pip():
    explain = runpy.run_path(str(ROOT / "launch.py"))["explain"]
    assert "disk ran full" in str(explain(["ERROR: Could not install: OSError: [Errno 28] No space left"]))
    assert "No network" in str(explain(["WARNING: Retrying after connection broken by NewConnectionError('x')"]))
    assert "no such pin" in str(explain(["Collecting x", "ERROR: no such pin", "note: y"]))


def test_help_needs_no_set_up(tmp_path, env):
    folder = project(tmp_path / "p")
    done = run(folder, ["--help"], env)
    assert done.returncode == 0 and "--no-browser" in done.stdout and not (folder / ".venv").exists()
