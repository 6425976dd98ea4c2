"""Installing an optional part: the real method, the real pip, a throw-away environment, wheels made here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from pathlib import Path

import pytest

from studio import extras
from studio.errors import StudioError
from studio.jobs.events import read
from studio.setup_jobs.extra import InstallExtra, InstallExtraRecipe, _reason

ROOT = Path(__file__).resolve().parents[2]
FILES = 12_000

DRIVER = """
import json, sys
from pathlib import Path
from studio import extras
from studio.errors import StudioError
from studio.jobs.context import Context
from studio.setup_jobs.extra import InstallExtra, InstallExtraRecipe
for name in ("toysmall", "toylong", "toylast", "toyclash", "toygone"):
    extras.EXTRAS[name] = extras.Extra(name.title(), "For the test.", (name + ">=1,<2",), 1)
recipe = InstallExtraRecipe(extra=sys.argv[1])
InstallExtra.check(recipe)
try:
    out = {"summary": InstallExtra.run(recipe, Context(Path(sys.argv[2])))}
except StudioError as err:
    out = {"error": err.to_dict()}
print(json.dumps(out | {"installed": extras.installed(sys.argv[1])}))
"""


def make_wheel(folder: Path, name: str, files: int = 0, needs: str = "", info_last: bool = False,
               version: str = "1.5") -> None:
    """A wheel. With dist-info first a killed pip leaves a package that looks installed to pip, with dist-info last
    (as most are) one that looks installed to an import."""
    info = f"{name}-{version}.dist-info"
    head = {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                                + (f"Requires-Dist: {needs}\n" if needs else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    body = {f"{name}_data/{number}.txt": "text" for number in range(files)} | {f"{name}.py": "VALUE = 1\n"}
    content = body | head if info_last else head | body
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)


class Box:
    """An environment that sees the real one's packages and installs into itself."""

    def __init__(self, folder: Path):
        self.folder = folder
        venv.create(folder / "venv", symlinks=True)
        self.site = next((folder / "venv").glob("lib/*/site-packages"))
        (self.site / "outer.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
        wheels = folder / "wheels"
        wheels.mkdir()
        make_wheel(wheels, "toysmall")
        make_wheel(wheels, "toylong", FILES, needs="toysmall")
        make_wheel(wheels, "toylast", FILES, info_last=True)
        make_wheel(wheels, "toyclash", needs="click<2")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": str(ROOT)}
        self.runs = 0

    def start(self, name: str, **env: str) -> tuple[subprocess.Popen, Path]:
        self.runs += 1
        run = self.folder / f"run{self.runs}"
        command = [str(self.folder / "venv/bin/python"), "-c", DRIVER, name, str(run)]
        environment = {k: v for k, v in (self.env | env).items() if v}
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, cwd=self.folder,
                                start_new_session=True), run

    def install(self, name: str, **env: str) -> tuple[dict, list[dict]]:
        process, run = self.start(name, **env)
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out
        return json.loads(out.splitlines()[-1]), read(run / "events.jsonl", 0)[0]

    def files(self, name: str = "toylong") -> int:
        return len(list(self.site.glob(f"{name}_data/*")))

    def wait_for_half(self, name: str) -> None:
        until = time.time() + 60
        while self.files(name) < 100:
            assert time.time() < until, "pip did not get that far"
            time.sleep(0.005)
        assert bool(list(self.site.glob("toy*-1.5.dist-info/METADATA"))) == (name == "toylong")


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def test_install_reports_and_leaves_the_pins_alone(box):
    out, events = box.install("toylong")
    assert out["installed"] and out["summary"]["installed"] == ["toylong-1.5", "toysmall-1.5"]
    assert box.files() == FILES
    assert {path.name for path in box.site.glob("*.dist-info")} == {"toylong-1.5.dist-info", "toysmall-1.5.dist-info"}
    progress = [(event["done"], event["total"]) for event in events if event["e"] == "progress"]
    assert progress[-1] == (2, 2) and progress == sorted(progress) and len(progress) > 1
    assert any("Installing collected packages" in event["text"] for event in events if event["e"] == "log")
    assert not list(box.folder.glob("run*/pip"))


@pytest.mark.parametrize("name", ["toylong", "toylast"])
def test_stop_ends_pip_and_leaves_nothing_half_installed(box, name):
    process, run = box.start(name)
    box.wait_for_half(name)
    asked = time.time()
    (run / "stop").touch()
    out, _ = process.communicate(timeout=30)
    assert time.time() - asked < 12
    assert json.loads(out.splitlines()[-1]) == {"summary": {}, "installed": False}
    assert not [path.name for path in box.site.iterdir() if path.name.startswith(name)]
    assert box.install(name)[0]["installed"] and box.files(name) == FILES


def test_a_killed_installation_is_done_again(box):
    process, _ = box.start("toylong")
    box.wait_for_half("toylong")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert box.files() < FILES
    out, events = box.install("toylong")
    assert out["installed"] and box.files() == FILES
    assert any("Removing what is left of toylong" in event["text"] for event in events if event["e"] == "log")


def test_what_would_move_a_pin_is_refused_and_nothing_changes(box):
    before = sorted(path.name for path in box.site.iterdir())
    out, _ = box.install("toyclash")
    assert not out["installed"] and out["error"]["field"] == "extra"
    assert "No version of Toyclash fits" in out["error"]["message"]
    assert sorted(path.name for path in box.site.iterdir()) == before


def test_no_network_is_said_as_such(box):
    out, _ = box.install("toygone", PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_INDEX_URL="http://127.0.0.1:9/simple",
                         PIP_RETRIES="1")
    assert "cannot be reached" in out["error"]["message"] and "network" in out["error"]["hint"]


def test_a_missing_package_is_named(box):
    out, _ = box.install("toygone")
    assert "toygone" in out["error"]["message"]


def test_a_full_disk_is_said_as_such():
    err = _reason(extras.EXTRAS["wandb"], ["ERROR: Could not install: [Errno 28] No space left on device"])
    assert "disk ran full" in err.message and err.hint


@pytest.mark.parametrize("name", ["", "wand", "../x"])
def test_an_unknown_part_is_refused_before_anything_starts(name):
    with pytest.raises(StudioError) as caught:
        InstallExtra.check(InstallExtraRecipe(extra=name))
    assert caught.value.field == "extra" and "wandb" in caught.value.hint


def test_require_says_the_size_and_the_field(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "toynone", extras.Extra("Toy None", "", ("toynone>=1",), 7))
    with pytest.raises(StudioError) as caught:
        extras.require("toynone", "report_to")
    assert caught.value.field == "report_to" and "7 MB" in caught.value.hint and "from the page" in caught.value.hint
    monkeypatch.setitem(extras.EXTRAS, "toyhave", extras.Extra("Toy", "", ("packaging>=1",), 1))
    extras.require("toyhave", "report_to")
    monkeypatch.setitem(extras.EXTRAS, "toyold", extras.Extra("Toy", "", ("packaging<1",), 1))
    assert not extras.installed("toyold")


def test_importing_the_method_is_light():
    code = ("import sys, studio.setup_jobs.extra; "
            "print([m for m in ('torch', 'gradio', 'transformers') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
