"""pyproject.toml (ranges), requirements*.txt (the exact set) and what is installed agree."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
packaging = pytest.importorskip("packaging")
from packaging.markers import default_environment  # noqa: E402
from packaging.requirements import Requirement  # noqa: E402
from packaging.specifiers import SpecifierSet  # noqa: E402
from packaging.utils import canonicalize_name  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.!]*)( ; sys_platform == \"[a-z0-9]+\")?")
# What the CUDA build of torch adds by itself, pinned by torch. A CPU box has none of it, so it is not listed.
CUDA = re.compile(r"(?!nvidia-ml-py$)((nvidia|cuda|triton)(-.*)?)")


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    found = {}
    for line in lines(name):
        match = PIN.fullmatch(line)
        assert match, f"{name}: not an exact pin: {line!r}"
        found[canonicalize_name(match[1])] = match[2]
    return found


RUNTIME, TEST = pins("requirements.txt"), pins("requirements-test.txt")


def closure(roots: list[str]) -> dict[str, list[Requirement]]:
    """Every distribution the roots need on this machine, by the installed metadata: name -> what is asked of it."""
    wanted: dict[str, list[Requirement]] = {}
    todo, seen = [Requirement(root) for root in roots], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        wanted.setdefault(name, []).append(requirement)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            environment = default_environment() | {"extra": extra}
            todo += [need for need in map(Requirement, needs)
                     if need.marker is None or need.marker.evaluate(environment)]
    return wanted


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_files_are_sorted_exact_and_free_of_doubles(name):
    names = [canonicalize_name(line.partition("==")[0]) for line in lines(name)]
    assert names == sorted(set(names))
    assert (ROOT / name).read_text("utf-8").startswith("# ")
    assert not [line for line in lines(name) if "+" in line or line.startswith("-") or "://" in line]


def test_no_package_is_pinned_twice():
    assert not set(RUNTIME) & set(TEST)


@pytest.mark.parametrize("wanted", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
def test_every_range_is_bounded_and_holds_its_pin(wanted):
    requirement = Requirement(wanted)
    name = canonicalize_name(requirement.name)
    known = RUNTIME if wanted in PROJECT["dependencies"] else TEST
    assert name in known, f"{name} is a dependency but has no pin"
    assert requirement.specifier.contains(known[name], prereleases=True)
    assert {spec.operator for spec in requirement.specifier} & {"<", "<=", "==", "~="}, "no upper bound"


def test_the_pins_are_exactly_what_the_ranges_need():
    """Nothing missing, nothing left over (what another system needs is marked so and not asked for here)."""
    runtime = closure(PROJECT["dependencies"])
    marked = {canonicalize_name(line.partition("==")[0]) for line in lines("requirements.txt") if ";" in line}
    needed = {name for name in runtime if not CUDA.fullmatch(name)}
    assert needed - set(RUNTIME) == set(), "needed but not pinned"
    assert set(RUNTIME) - needed - marked == set(), "pinned but needed by nothing"
    test = set(closure(PROJECT["optional-dependencies"]["test"])) - set(RUNTIME)
    assert test == set(TEST)


def test_no_pin_breaks_what_another_package_asks_for():
    known = RUNTIME | TEST
    for name, requirements in closure(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]).items():
        for requirement in requirements:
            if name in known:
                assert requirement.specifier.contains(known[name], prereleases=True), f"{requirement} is {known[name]}"


@pytest.mark.parametrize("name", sorted(RUNTIME | TEST))
def test_the_tested_set_is_the_pinned_set(name):
    if any(line.startswith(f"{name}==") and ";" in line for line in lines("requirements.txt")):
        pytest.importorskip(name, reason="another system's package")
    version = metadata.version(name).partition("+")[0]
    assert version == (RUNTIME | TEST)[name], "the environment differs: run python launch.py test"


def test_the_python_version_is_said_once_and_the_same():
    launch = (ROOT / "launch.py").read_text("utf-8")
    major, minor = re.search(r"^PYTHON = \((\d+), (\d+)\)$", launch, re.M).groups()
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert allowed.contains(f"{major}.{minor}.7")
    assert not allowed.contains(f"{major}.{int(minor) + 1}.0") and not allowed.contains(f"{major}.{int(minor) - 1}.9")


def front_matter() -> dict:
    import yaml

    text = (ROOT / "README.md").read_text("utf-8")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_a_space_gets_the_same_gradio_python_and_file():
    card = front_matter()
    assert card["sdk"] == "gradio" and card["sdk_version"] == RUNTIME["gradio"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{card['python_version']}.0")
    assert card["app_file"] == "launch.py" and (ROOT / card["app_file"]).is_file()
    assert card["hf_oauth"] is True
    assert card["license"] == PROJECT["license"].lower()


def test_the_extras_of_the_page_are_the_extras_of_the_project():
    from studio.extras import EXTRAS

    optional = {name: needs for name, needs in PROJECT["optional-dependencies"].items() if name != "test"}
    assert {name: list(extra.requirements) for name, extra in EXTRAS.items()} == optional
