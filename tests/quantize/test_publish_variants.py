"""Several variants of one model in one repository of a stand-in of the Hub, with one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import hub, registry, settings
from studio.errors import StudioError
from studio.jobs.context import Context
from studio.library import artifacts
from studio.recipe import parse
from tests.hub_stand_in import TOKEN, Hub
from tests.models import tensor_file

PROOF = {"perplexity": {"source": 9.5, "variant": 9.75}, "kl": 0.0123, "top1": 0.971, "tokens_per_second": 812.4}


@pytest.fixture
def standin(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(hub, "_facts", {})
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def variant(home: Path, name: str, source: str = "starter", proof: dict | None = None, format: str = "gguf") -> str:
    """A variant as a run leaves it: a folder, its facts, where it comes from."""
    folder = home / "runs" / "r1" / "output" / f"{name} of {source}".replace(":", "-")
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"made in {home}")
    if format == "gguf":
        (folder / "model.gguf").write_bytes(b"GGUF" + name.encode() * 9)
    else:
        tensor_file(folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
        (folder / "rng_state.pth").write_text("x")
    meta = {"format": format, "quantization": name, "bits": 4.5, "proof": proof, "size": 40}
    return artifacts.add("model", f"Starter {name}", folder, run_id="r1", meta=meta, made_from=[(source, "source")])["ref"]


def publish(**values):
    recipe = parse({"kind": "publish", "method": "variants", "repo_id": "lab/small", **values})
    method = registry.method("publish", "variants")
    method.check(recipe)
    assert method.estimate(recipe).notes and "create_commit" in method.script(recipe)
    ctx = Context(settings.run_dir("rpush1"))
    try:
        return method.run(recipe, ctx)
    finally:
        ctx.close()


def test_one_repository_one_commit_one_table(standin, home):
    refs = [variant(home, "Q4_K_M", proof=PROOF), variant(home, "Q8_0", proof=PROOF | {"kl": 1e-5}),
            variant(home, "NF4", format="bitsandbytes")]
    made = publish(models=refs, license="mit", commit_message="All three")
    repo = standin.repos["model", "lab/small"]
    assert made["variants"] == 3 and repo.messages == ["All three"] and repo.private
    assert set(repo.files) == {"Starter-Q4_K_M.gguf", "Starter-Q8_0.gguf", "NF4/model.safetensors", "NF4/config.json", "README.md"}
    assert repo.files["Starter-Q8_0.gguf"] == b"GGUF" + b"Q8_0" * 9
    text = repo.files["README.md"].decode()
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == 3 and sum(line.startswith("|---") for line in text.splitlines()) == 1
    assert "| [Starter-Q4_K_M.gguf](Starter-Q4_K_M.gguf) | gguf | Q4_K_M | 4.50 | " in text
    assert "| 9.75 | 0.0123 | 97.1% | 812 |" in text and "| – | – | – | – |" in text
    assert "license: mit" in text and "- gguf" in text and "source itself: 9.5." in text
    assert "ollama run hf.co/lab/small:Q" in text and 'subfolder="NF4"' in text and str(home) not in text
    assert "base_model" not in text, "the starter is not on the Hub"


def test_the_source_on_the_hub_is_named(standin, home):
    publish(models=[variant(home, "Q4_0", "hub:lab/big@main")])
    text = standin.repos["model", "lab/small"].files["README.md"].decode()
    assert "base_model: lab/big\nbase_model_relation: quantized" in text and "(https://huggingface.co/lab/big)" in text
    assert "were not compared" in text


def test_refused_early(standin, home):
    whole = artifacts.add("model", "whole", home / "runs" / "r1", meta={}, made_from=[("starter", "base")])["ref"]
    gone = variant(home, "Q2_K")
    one = variant(home, "Q4_0")
    cases = {(): "No variant", (whole,): "no quantization", ("starter",): "no quantization",
             (one, variant(home, "Q5_0", "hub:lab/big")): "several models", (one, variant(home, "Q4_0", "starter ")): "several models"}
    for models, words in cases.items():
        with pytest.raises(StudioError, match=words) as err:
            publish(models=list(models))
        assert err.value.field == "models" and err.value.hint
    (home / "runs" / "r1" / "output" / "Q2_K of starter" / "model.gguf").unlink()
    (home / "runs" / "r1" / "output" / "Q2_K of starter" / "README.md").unlink()
    (home / "runs" / "r1" / "output" / "Q2_K of starter").rmdir()
    with pytest.raises(StudioError, match="are gone"):
        publish(models=[gone])
    again = artifacts.get(one[8:])
    folder = home / "again"
    folder.mkdir()
    (folder / "x.gguf").write_bytes(b"GGUF")
    two = artifacts.add("model", "again", folder, run_id="r2", meta=again["meta"], made_from=[("starter", "source")])["ref"]
    with pytest.raises(StudioError, match="Two variants are called Q4_0"):
        publish(models=[one, two])
    assert not standin.created
