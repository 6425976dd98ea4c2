"""The Hub through its real client library, against a stand-in of its API on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import hub, recipe, settings
from studio.errors import StudioError
from studio.jobs.context import Context
from studio.library import artifacts, refs
from studio.publishers.hub import PushToHub
from tests.hub_stand_in import READ_ONLY, TOKEN, Hub, Repo
from tests.models import make_adapter, make_model


@pytest.fixture
def standin(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with a few repositories, and nobody logged in."""
    files = {p.name: p.read_bytes() for p in make_model(tmp_path / "made").iterdir()}
    adapter = {p.name: p.read_bytes() for p in make_adapter(tmp_path / "adapter", "lab/tiny").iterdir()}
    repos = [
        Repo("lab/tiny", files=files, card={"license": "mit"}, downloads=50, parameters=6,
             config={"architectures": ["LlamaForCausalLM"], "model_type": "llama"}),
        Repo("lab/tiny-adapter", files=adapter, card={"base_model": "lab/tiny"}, downloads=20),
        Repo("lab/gated", files=files, gated="manual", card={"license": "other"}, downloads=70),
        Repo("lab/pickled", files={"config.json": b"{}", "pytorch_model.bin": b"\x80"}),
        Repo("lab/ggufs", files={"m.gguf": b"GGUF"}),
        Repo("lab/secret", files=files, private=True),
        Repo("lab/rows", kind="dataset", files={"train.jsonl": b'{"text":"a"}\n'}, card={"license": "cc-by-4.0"})]
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_facts", {})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))  # read by the library when it was imported
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Hub(*repos) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def refused(call, *args) -> StudioError:
    with pytest.raises(StudioError) as caught:
        call(*args)
    assert caught.value.message and caught.value.hint
    return caught.value


def test_search_tells_sizes_licences_and_gates(standin: Hub) -> None:
    found = hub.search("model", "lab")
    assert [m["id"] for m in found][:2] == ["lab/gated", "lab/tiny"]
    tiny = next(m for m in found if m["id"] == "lab/tiny")
    assert tiny["ref"] == "hub:lab/tiny" and tiny["license"] == "mit" and tiny["parameters"] == 6 and tiny["downloads"] == 50
    assert tiny["size"] == sum(map(len, standin.repos["model", "lab/tiny"].files.values())) and tiny["gated"] == ""
    gated = found[0]
    assert "accept" in gated["gated"] and "wait" in gated["gated"] and gated["parameters"] is None
    assert [d["ref"] for d in hub.search("dataset", "row")] == ["hub:lab/rows"]
    assert "lab/secret" not in {m["id"] for m in found}
    refused(hub.search, "space", "x")


def test_facts_of_a_model(standin: Hub) -> None:
    found = refs.resolve_model("hub:lab/tiny@main")
    assert found.path is None and found.hub_id == "lab/tiny" and found.revision == "main" and found.source == "lab/tiny"
    assert found.meta["parameters"] == 6 and found.meta["license"] == "mit" and not found.meta["cached"]
    adapter = refs.resolve_model("hub:lab/tiny-adapter")
    assert adapter.is_adapter and adapter.base == "hub:lab/tiny"


def test_facts_are_asked_for_once(standin: Hub) -> None:
    for _ in range(5):
        refs.resolve_model("hub:lab/tiny")
    assert sum(r == "GET /api/models/lab/tiny" for r in standin.requests) == 1


@pytest.mark.parametrize(("name", "word"), [("lab/none", "has no lab/none"), ("lab/secret", "private"), ("lab/gated", "gated"),
                                            ("lab/pickled", "pickle"), ("lab/ggufs", "GGUF"), ("lab/tiny@nope", "revision")])
def test_refused_with_the_reason(standin: Hub, name: str, word: str) -> None:
    err = refused(refs.resolve_model, f"hub:{name}")
    assert err.field == "model" and word in str(err)


def test_a_token_opens_private_and_gated(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(refs.resolve_model, "hub:lab/secret")
    assert hub.account() is None
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.account() == {"name": "ann", "orgs": ["lab"]}
    assert refs.resolve_model("hub:lab/secret").meta["parameters"] is None  # and not the refusal of a moment ago
    assert "Gated" in refs.resolve_model("hub:lab/gated").meta["gated"]


def test_a_bad_token_is_told_as_such(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "token" in refused(hub.account).message


@pytest.mark.parametrize(("status", "word"), [(429, "slow down"), (500, "error (500)"), (503, "error (503)")])
def test_when_the_hub_is_unwell(standin: Hub, status: int, word: str) -> None:
    standin.fail_with = status
    assert word in refused(hub.search, "model", "x").message


def test_unreachable(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    err = refused(hub.search, "model", "x")
    assert "cannot be reached" in err.message and "local files" in err.hint
    assert "cannot be reached" in refused(refs.resolve_model, "hub:lab/tiny").message


def test_switched_off(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "switched off" in refused(hub.search, "model", "x").message
    assert standin.requests == []


def test_download_with_progress_and_the_cached_copy_afterwards(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    folder = hub.download("lab/tiny", progress=lambda done, total: seen.append((done, total)))
    total = sum(map(len, standin.repos["model", "lab/tiny"].files.values()))
    assert (folder / "model.safetensors").read_bytes() == standin.repos["model", "lab/tiny"].files["model.safetensors"]
    assert seen[-1] == (total, total) and seen == sorted(seen) and {t for _, t in seen} == {total}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = refs.resolve_model("hub:lab/tiny")
    assert found.meta["cached"] and found.meta["parameters"] == 6 and found.meta["context"] == 128


def test_fetched(standin: Hub) -> None:
    model = refs.fetched(refs.resolve_model("hub:lab/tiny"))
    assert model.path.is_dir() and model.hub_id == "lab/tiny" and model.source == str(model.path)
    assert refs.fetched(model) is model


def test_download_leaves_pickles_out(standin: Hub) -> None:
    standin.repos["model", "lab/tiny"].files["pytorch_model.bin"] = b"\x80"
    folder = hub.download("lab/tiny")
    assert not (folder / "pytorch_model.bin").exists() and (folder / "config.json").exists()


def test_download_can_be_stopped(standin: Hub) -> None:
    with pytest.raises(hub.Stopped):
        hub.download("lab/tiny", stop=lambda: True)


def test_download_needs_disk(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    assert "of disk can be used" in refused(hub.download, "lab/tiny").message
    assert not any(r.startswith("GET") and "/resolve/" in r for r in standin.requests)


def push(**values) -> recipe.Recipe:
    return recipe.parse({"kind": "publish", "method": "hub", "model": "starter", "repo_id": "mine"} | values)


def test_publishing_needs_a_login(standin: Hub) -> None:
    err = refused(PushToHub.check, push())
    assert err.field == "repo_id" and "hf auth login" in err.hint and "HF_TOKEN" in err.hint


def test_publishing_is_refused_early(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused(PushToHub.check, push(repo_id="")).field == "repo_id"
    assert refused(PushToHub.check, push(model="hub:lab/tiny")).field == "model"
    for bad in ("a/b/c", "../x", "a b", "-x", "a--b"):
        with pytest.raises(recipe.RecipeError):
            push(repo_id=bad)
    monkeypatch.setenv("SPACE_ID", "ann/space")
    assert "owner" in refused(PushToHub.check, push()).message
    assert standin.created == []


def test_publish_a_model(standin: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = make_model(home / "models" / "m")
    for junk in ("optimizer.pt", "training_args.bin", "rng_state.pth", "trainer_state.json", "COMPLETE", ".hidden"):
        (folder / junk).write_text("x")
    row = artifacts.add("model", "My model", folder, meta={"eval_loss": 1.5}, made_from=[("hub:lab/tiny", "base")])
    values = push(model=row["ref"], license="mit")
    PushToHub.check(values)
    ctx = Context(settings.run_dir("rpush1"))
    summary = PushToHub.run(values, ctx)
    repo = standin.repos["model", "ann/mine"]
    assert set(repo.files) == {"config.json", "tokenizer.json", "model.safetensors", "README.md"}
    assert repo.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert repo.private and repo.messages == ["Add files"]
    text = repo.files["README.md"].decode()
    assert "license: mit" in text and "# My model" in text and "1.5" in text
    assert summary["repo_id"] == "ann/mine" and summary["url"] == f"{standin.url}/ann/mine" and summary["files"] == 4
    progress = [e for e in map(json.loads, (ctx.run_dir / "events.jsonl").read_text().splitlines()) if e["e"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == summary["bytes"]


def test_publish_again_and_in_public(standin: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = make_model(home / "models" / "m")
    for message in ("first", "second"):
        (folder / "tokenizer.json").write_text(json.dumps({"v": message}))
        PushToHub.run(push(model=str(folder), repo_id="lab/open", private=False, commit_message=message),
                      Context(settings.run_dir("rpush2")))
    repo = standin.repos["model", "lab/open"]
    assert not repo.private and repo.messages == ["first", "second"]
    assert json.loads(repo.files["tokenizer.json"]) == {"v": "second"}


def test_a_published_adapter_tells_no_path_of_this_machine(standin: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = make_adapter(home / "models" / "a", str(home / "models" / "base"))
    (folder / "README.md").write_text(f"---\nlibrary_name: peft\n---\n\nMade from {home}/models/base and {Path.home()}/x.\n")
    row = artifacts.add("adapter", "a", folder, made_from=[("hub:lab/tiny@main", "base")])
    PushToHub.run(push(model=row["ref"]), Context(settings.run_dir("rpush3")))
    files = standin.repos["model", "ann/mine"].files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "lab/tiny"
    text = files["README.md"].decode()
    assert str(home) not in text and str(Path.home()) not in text
    assert "base_model: lab/tiny" in text and "library_name: peft" in text


def test_a_local_base_is_warned_about(standin: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = artifacts.add("adapter", "a", make_adapter(home / "models" / "a", "x"), made_from=[("starter", "base")])
    assert any("not on the Hub" in note for note in PushToHub.estimate(push(model=row["ref"])).notes)


def test_a_read_only_token_is_explained(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    err = refused(PushToHub.run, push(), Context(settings.run_dir("rpush4")))
    assert "may not" in err.message and "write" in err.hint


def test_a_stopped_publish_commits_nothing(standin: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    ctx = Context(settings.run_dir("rpush5"))
    ctx.request_stop()
    PushToHub.run(push(), ctx)
    assert standin.repos["model", "ann/mine"].files == {}


def test_the_token_is_never_written(standin: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    PushToHub.run(push(), Context(settings.run_dir("rpush6")))
    assert all(TOKEN.encode() not in path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_the_client_library_stays_out_until_asked_for() -> None:
    code = "import sys, studio.hub, studio.api, studio.publishers.hub; print('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=settings.ROOT).stdout == "False\n"
