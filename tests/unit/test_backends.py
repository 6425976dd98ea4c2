"""What travels to another place, and what its door lets in."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request

import pytest

from studio import recipe, settings
from studio.errors import StudioError
from studio.jobs import backends
from studio.jobs.backends import desk, other_side, parcel, posts, wires
from studio.library import artifacts
from tests.models import make_adapter, make_model


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here has a workspace of its own."""


def plan(**values):
    return recipe.parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite", **values})


def test_what_a_recipe_names_travels_under_its_own_name(home, tmp_path):
    base = artifacts.add("model", "Base", make_model(home / "models" / "base"), run_id="rbase")
    first = artifacts.add("adapter", "First", make_adapter(home / "runs" / "rfirst" / "output", "elsewhere"),
                          run_id="rfirst", made_from=[(base["ref"], "base")])
    data = tmp_path / "my chats.jsonl"
    data.write_text('{"messages": []}\n')
    made = parcel.Parcel(plan(model=first["ref"], dataset=str(data)))
    assert {"home/models/base/model.safetensors", "home/runs/rfirst/output/adapter_config.json",
            "home/outside/0/my chats.jsonl"} <= set(made.files)
    assert {row["id"]: row["path"] for row in made.rows} == {base["id"]: "models/base", first["id"]: "runs/rfirst/output"}
    assert made.recipe.model == first["ref"] and made.recipe.dataset == "outside/0/my chats.jsonl"
    assert made.names == {"outside/0/my chats.jsonl": str(data)}
    assert made.size == sum(path.stat().st_size for path in made.files.values())
    assert parcel.Parcel(plan()).files == {}  # the starter and what is shipped are part of the studio


def test_the_other_side_understands_the_same_references(home, tmp_path, monkeypatch):
    base = artifacts.add("model", "Base", make_model(home / "models" / "base"), run_id="rbase")
    made_from = [(base["ref"], "base")]
    first = artifacts.add("adapter", "First", make_adapter(home / "runs" / "rfirst" / "output", str(settings.STARTER)),
                          run_id="rfirst", made_from=made_from)
    made = parcel.Parcel(plan(model=first["ref"]), "rthis")
    there = desk.Desk(tmp_path / "there")
    for name, path in made.files.items():
        there.put(name, path)
    manifest = made.manifest()
    assert all(desk.digest(there.path(name)) == facts for name, facts in manifest["files"].items())
    monkeypatch.setenv("STUDIO_HOME", str(there.folder / "home"))
    other_side._know(manifest["rows"])
    from studio.library.refs import resolve_model

    model = resolve_model(first["ref"])
    assert model.path == there.folder / "home" / "runs" / "rfirst" / "output" and model.base == base["ref"]
    assert resolve_model(model.base).path == there.folder / "home" / "models" / "base"
    desk.relocate(there.folder, [(str(settings.STARTER), "/their/starter")])
    assert json.loads((model.path / "adapter_config.json").read_text())["base_model_name_or_path"] == "/their/starter"


def test_what_is_too_large_or_no_training_is_refused_early(home, tmp_path, monkeypatch):
    data = tmp_path / "rows.jsonl"
    data.write_text("x" * 2000)
    monkeypatch.setenv("ATELIER_PARCEL_LIMIT", "1000")
    with pytest.raises(StudioError) as err:
        parcel.Parcel(plan(dataset=str(data))).check()
    assert err.value.field == "backend"
    with pytest.raises(StudioError) as err:
        backends.check({"name": "moon"}, plan())
    assert err.value.field == "backend"
    setup = recipe.parse({"kind": "setup", "method": "extra", "extra": "ray"})
    with pytest.raises(StudioError):
        backends.check({"name": "ray"}, setup)
    assert backends.check(None, setup) == {"name": "local"} and backends.label({"name": "local"}) == ""


def test_code_for_the_other_side_is_all_a_worker_needs(tmp_path):
    names = set(parcel.code())
    assert {"studio/jobs/worker.py", "studio/jobs/backends/other_side.py", "assets/starter/model.safetensors",
            "assets/datasets/datasets.yaml", "requirements.txt"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "components/"))]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "home/../../secret", "a\x00b"])
def test_a_desk_has_no_way_out(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    with pytest.raises((StudioError, ValueError)):
        desk.Desk(tmp_path / "desk").path(name)


def test_the_door_of_a_job_wants_its_token_and_gives_files_in_pieces(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wires, "PIECE", 1000)
    monkeypatch.setattr(desk, "PIECE", 1000)
    here = desk.Desk(tmp_path / "desk")
    here.folder.mkdir()
    door = posts.Served({"token": "right"}, here)
    try:
        kind, text, _ = "port", capsys.readouterr().out, None
        assert json.loads(text.removeprefix(posts.SAYS))[kind] == door.server.server_port
        url = f"http://127.0.0.1:{door.server.server_port}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + "/status")
        assert refused.value.code == 403
        with pytest.raises(backends.Unreachable):
            wires.HttpWire(url, "wrong").status()
        wire = wires.HttpWire(url, "right")
        assert wire.status() is None
        source = tmp_path / "source"
        source.write_bytes(bytes(range(256)) * 20)
        wire.put("home/big file", source)
        target = tmp_path / "back"
        wire.fetch("home/big file", target)
        assert target.read_bytes() == source.read_bytes() == here.grown("home/big file", 0) + b"".join(
            here.grown("home/big file", at) for at in range(1000, 5120, 1000))
        with pytest.raises(FileNotFoundError):
            wire.fetch("nothing", tmp_path / "no")
        for name in ("../source", "/etc/passwd"):
            with pytest.raises(backends.Unreachable):
                wire.fetch(name, tmp_path / "no")
        wire.say("stop")
        assert here.said() == "stop"
        wire.close()
    finally:
        door.close()


def test_a_file_that_arrives_cut_short_is_not_there(tmp_path):
    here = desk.Desk(tmp_path)
    with pytest.raises(OSError):
        here.take("file", io.BytesIO(b"half"), 8)
    assert not (tmp_path / "file").exists()


def test_long_lines_survive_a_log_that_cuts_them(capsys):
    event = json.dumps({"e": "sample", "text": "ä" * 9000}, ensure_ascii=False)
    posts._print("event", event)
    posts._print("", "a word of the worker")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < posts.MOST + 40
    from studio.jobs.backends.hf_jobs import HubWire

    wire = object.__new__(HubWire)
    wire._grown, rest = {"events.jsonl": b"", "worker.log": b""}, {}
    for line in lines:
        wire._hear(line, rest, True)
    assert wire._grown == {"events.jsonl": event.encode() + b"\n", "worker.log": b"a word of the worker\n"}


def test_another_python_or_library_is_refused_plainly():
    other_side._compare({"python": "3.11", "packages": parcel.needed()})
    with pytest.raises(StudioError) as err:
        other_side._compare({"packages": parcel.needed() | {"torch": "1.0", "nosuchthing": "2.0"}})
    assert "instead of 1.0" in err.value.message and "no nosuchthing" in err.value.message
