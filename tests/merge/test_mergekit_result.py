"""What a merged model is besides its weights: settings, chat template, card; and parents that lie on the Hub."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from studio import api, hub, settings
from studio.jobs import store
from studio.jobs.supervisor import Supervisor
from studio.recipe import read_values
from tests.hub_stand_in import Hub, Repo
from tests.train.conftest import events, run


def merged(config: dict, folder: Path, **more) -> Path:
    run({"kind": "merge", "method": "mergekit", "config": config, **more}, folder)
    return folder / "output"


def linear(*models, **more) -> dict:
    return {"merge_method": "linear", "models": [{"model": str(one), "parameters": {"weight": 1}} for one in models], **more}


def test_the_deeper_stack_of_the_preset_answers_as_its_parent(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = merged(read_values(settings.PRESETS / "merge" / "deeper-stack.yaml")["config"], tmp_path)
    deep, flat = (AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32) for one in (folder, settings.STARTER))
    words = AutoTokenizer.from_pretrained(folder)("What colour is the sky?", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(deep(**words).logits, flat(**words).logits)
    assert deep.config.num_hidden_layers == 6


def test_precision_is_what_the_file_holds(tiny, tune, tmp_path):
    """Loading goes by ``config.json``: with another precision there it would round what was merged."""
    import torch
    from transformers import AutoModelForCausalLM

    for word in ("bfloat16", "float32"):
        folder = merged(linear(tiny, tune(41), dtype="float32", out_dtype=word), tmp_path / word)
        assert json.loads((folder / "config.json").read_text())["dtype"] == word
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == getattr(torch, word)


def test_two_tables_of_words_stay_two(tiny, untied, tmp_path):
    """The base ties its tables, the other does not: mergekit writes both, and its settings would hide the second."""
    from transformers import AutoModelForCausalLM

    from tests.merge.conftest import tensors

    folder = merged(linear(tiny, untied), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert not model.config.tie_word_embeddings
    assert model.lm_head.weight.equal(tensors(folder)["lm_head.weight"])
    assert any("two tables" in event["text"] for event in events(tmp_path, "log"))


def test_chat_templates(tiny, tune, lora, tmp_path):
    from transformers import AutoTokenizer

    def template(folder: Path) -> str:
        return AutoTokenizer.from_pretrained(folder).chat_template

    other = tune(42)
    (other / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    own = template(tiny)
    assert template(merged(linear(tiny, other), tmp_path / "first")) == own
    assert any("different ways" in event["message"] for event in events(tmp_path / "first", "warning"))
    assert template(merged(linear(other, tiny, tune(43), chat_template="auto"), tmp_path / "auto")).strip() == own.strip()
    assert "<|im_start|>" in template(merged(linear(tiny, chat_template="chatml"), tmp_path / "named"))
    bare = tune(44)
    (bare / "chat_template.jinja").unlink()
    adapter = lora(45, base=bare)
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }} from the adapter")
    assert "from the adapter" in template(merged(linear(f"{bare}+{adapter}"), tmp_path / "adapter"))


def test_the_card_names_parents_licences_and_configuration(tiny, tune, tmp_path):
    other = tune(46)
    (other / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Other\n")
    folder = merged(linear("starter", "starter+" + str(_adapter(tmp_path))), tmp_path / "one")
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text[4:text.index("\n---", 4)])
    assert head["license"] == "apache-2.0" and {"merge", "mergekit"} <= set(head["tags"])
    folder = merged(linear(tiny, other), tmp_path / "two")
    text = (folder / "README.md").read_text()
    assert "may not be used to earn money" in text and "licence of" in text and "is not known" in text
    assert "license:" not in text[:text.index("\n---", 4)]
    for file in ("README.md", "mergekit_config.yml"):
        assert str(other.parent) not in (folder / file).read_text(), "folders of this machine stay private"
    assert yaml.safe_load((folder / "mergekit_config.yml").read_text())["models"][1]["model"] == other.name


def _adapter(tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = get_peft_model(AutoModelForCausalLM.from_pretrained(settings.STARTER), LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    made.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_parent_on_the_hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {p.name: p.read_bytes() for p in settings.STARTER.iterdir() if p.is_file() and p.name != "README.md"}
    files["README.md"] = b"---\nlicense: llama3.1\n---\n# Hers\n"
    monkeypatch.setattr(hub, "_facts", {})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("ATELIER_THREADS", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    config = {"merge_method": "slerp", "base_model": "starter", "parameters": {"t": 0.5},
              "models": [{"model": "starter"}, {"model": "hub:lab/hers"}]}
    with Hub(Repo("lab/hers", files=files, card={"license": "llama3.1"}, parameters=1)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        found = api.merge_check(config)
        assert any("downloaded when the merge starts" in one["message"] for one in found["problems"])
        assert found["models"][1]["license"] == "llama3.1" and found["estimate"]["ram"] is None
        run_id = api.submit({"kind": "merge", "method": "mergekit", "config": config})["id"]
        supervisor, deadline = Supervisor(warm=False), time.monotonic() + 120
        while not store.is_final(api.run(run_id)["state"]):
            assert time.monotonic() < deadline
            supervisor.tick()
            time.sleep(0.1)
    row = api.run(run_id, details=True)
    assert row["state"] == "succeeded", row["log"]
    assert any("Downloading lab/hers: 100 %" in note for note in api.poll(run_id)["notes"])
    (made,) = row["artifacts"]
    edges = {(edge["parent"], edge["role"]) for edge in api.lineage(made["id"])["edges"]}
    assert edges == {("starter", "base"), ("hub:lab/hers", "parent")}
    text = (Path(settings.run_dir(run_id)) / "output" / "README.md").read_text()
    assert "- lab/hers" in text and "base_model_relation: merge" in text and "Built with Llama" in text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert api.merge_check(config)["layers"] == 4, "what was downloaded is checked without the Hub"
