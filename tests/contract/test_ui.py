"""Rules of the page that a reader of one file cannot see."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = sorted((ROOT / "components").rglob("*.py"))
SCRIPTS = sorted((ROOT / "assets" / "js").glob("*.js"))
ALLOWED = {"api", "recipe", "registry", "errors"}
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "matplotlib")
NAMED = {"submit_run", "run_status", "list_runs", "validate_recipe", "list_methods"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Facts of the page, built in a process of its own: what is imported, how big it is, its ids and listeners."""
    code = """
import json, sys
import components.app as app
import psutil
demo = app.build()
config = demo.get_config_file()
print(json.dumps({
    "modules": sorted(name.split(".")[0] for name in sys.modules),
    "rss": psutil.Process().memory_info().rss,
    "ids": [c["props"].get("elem_id") for c in config["components"] if c["props"].get("elem_id")],
    "listeners": [[d.get("api_name"), d.get("api_visibility")] for d in config["dependencies"]],
    "size": len(json.dumps(config, default=str))}))
"""
    environment = os.environ | {"STUDIO_HOME": str(tmp_path_factory.mktemp("home")), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_page_is_light(built):
    assert not set(HEAVY) & set(built["modules"])
    assert built["rss"] < 250e6
    assert built["size"] < 600_000


def test_element_ids_are_unique(built):
    twice = {name for name in built["ids"] if built["ids"].count(name) > 1}
    assert not twice


def test_only_the_approved_endpoints_have_a_name(built):
    public = {name for name, visibility in built["listeners"] if visibility == "public"}
    assert public == NAMED


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_components_know_only_the_doors_of_the_core(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module, names = node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            module, names = node.names[0].name, []
        else:
            continue
        parts = module.split(".")
        assert parts[0] not in HEAVY
        if parts[0] == "studio":
            assert (parts[1] in ALLOWED) if len(parts) > 1 else set(names) <= ALLOWED, f"{path.name}: {module}"


def catalogue() -> set[str]:
    keys: set[str] = set()
    for path in (ROOT / "assets" / "locales" / "en").glob("*.json"):
        part = json.loads(path.read_text("utf-8"))
        assert not keys & part.keys(), f"{path.name} repeats keys"
        keys |= part.keys()
    return keys


@pytest.mark.parametrize("path", [*COMPONENTS, *SCRIPTS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_text_has_its_words_in_the_locale_files(path):
    known, text = catalogue(), path.read_text("utf-8")
    used = set(re.findall(r'\b(?:studio\.t|strings\.t|strings\.label|t|label)\(\s*"([a-z_]+\.[\w.]+)"', text))
    assert not used - known
    for prefix, suffix in re.findall(r"\b(?:studio\.t|t)\(`([a-z_.]+)\$\{[^`}]*\}([a-z_.]*)`", text):
        assert any(key.startswith(prefix) and key.endswith(suffix) for key in known), prefix


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_words_are_written_into_components(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if getattr(node.func.value, "id", "") == "gr":
            for word in node.keywords:
                if word.arg in ("label", "info", "title", "placeholder") and isinstance(word.value, ast.Constant):
                    assert not re.search(r"[A-Za-z]{3}", str(word.value.value)), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_no_words_are_written_into_scripts(path):
    """Text between tags of a template is always ``${…}``."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text("utf-8"), flags=re.S)
    assert not re.findall(r">\s*[A-Z][a-z]{2,}[\w ,.]*<", text)


def test_languages_use_known_keys_only():
    for folder in (ROOT / "assets" / "locales").iterdir():
        for path in folder.glob("*.json"):
            extra = {key for key in json.loads(path.read_text("utf-8")) if not key.startswith("field.")} - catalogue()
            assert not extra, f"{path}: {sorted(extra)[:5]}"


def test_styles_use_tokens_not_colours():
    """Colours are named once, in base.css; elsewhere only black and white shades of shadows may appear."""
    for path in (ROOT / "assets" / "css").glob("*.css"):
        if path.name != "base.css":
            assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?![-\w])(?=[^{]*[;}])", path.read_text("utf-8")), path.name


@pytest.mark.parametrize(("host", "auth", "fine"), [
    ("127.0.0.1", None, True), ("localhost", None, True), ("0.0.0.0", None, False), ("192.168.1.2", None, False),
    ("0.0.0.0", "ann:secret", True), ("0.0.0.0", "ann", False), ("0.0.0.0", ":secret", False),
    ("127.0.0.1", "ann:secret", True)])
def test_a_public_address_needs_a_login(host, auth, fine):
    from components.app import check_bind
    from studio.errors import StudioError

    if fine:
        assert check_bind(host, auth) == (tuple(auth.split(":")) if auth else None)
    else:
        with pytest.raises(StudioError) as err:
            check_bind(host, auth)
        assert err.value.hint


@pytest.mark.parametrize(("method", "headers", "fine"), [
    ("GET", {"host": "127.0.0.1:7860"}, True), ("GET", {"host": "localhost:7860"}, True),
    ("GET", {"host": "[::1]:7860"}, True), ("POST", {"host": "127.0.0.1:7860"}, True),
    ("GET", {"host": "evil.example"}, False), ("GET", {}, False),
    ("POST", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, True),
    ("POST", {"host": "127.0.0.1:7860", "origin": "https://evil.example"}, False),
    ("POST", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999"}, False)])
def test_other_sites_are_turned_away(method, headers, fine):
    from components.serving import LOOPBACK, refusal

    assert (refusal(method, headers, LOOPBACK) == "") is fine


@pytest.mark.parametrize("path", ["../core.js", "js/../../app.py", "js/x.py", "css/", "..%2f", "icons/../js/core.js",
                                  "vendor/x.js"])
def test_only_the_pages_own_files_are_served(path):
    from components.serving import file_of

    assert file_of(path) is None
    assert file_of("js/core.js").name == "core.js"
