"""Chat engines as real processes: several answers at once on one model, adapters, stops, crashes, idling."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from studio import settings
from studio.chat import client, history, manager, records, session
from studio.chat.client import Stop
from studio.errors import StudioError

QUESTIONS = ["What is the opposite of hot?", "Where does Anna live?", "Tell me a story.", "Count from 2 to 6."]
GREEDY = {"temperature": 0, "max_tokens": 60}

_MAKE = """
import sys, torch
from pathlib import Path
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
starter, out = sys.argv[1:]
for seed in (1, 2):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(starter)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False,
                                             task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.mul_(0.6)
    model.save_pretrained(f"{out}/adapter{seed}")
full = AutoModelForCausalLM.from_pretrained(starter)
tokenizer = AutoTokenizer.from_pretrained(starter)
tokenizer.chat_template = None
full.save_pretrained(f"{out}/plain")
tokenizer.save_pretrained(f"{out}/plain")
Path(f"{out}/plain/chat_template.jinja").unlink(missing_ok=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with two random adapters of the starter and a copy of it without a chat template."""
    out = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-c", _MAKE, str(settings.STARTER), str(out)], check=True, timeout=180)
    babbler = shutil.copytree(settings.STARTER, out / "babbler")  # without an end of its turn: it talks on
    for name, key, value in (("tokenizer_config.json", "eos_token", "<|pad|>"), ("config.json", "eos_token_id", 0),
                             ("generation_config.json", "eos_token_id", 0)):
        (babbler / name).write_text(json.dumps(json.loads((babbler / name).read_text()) | {key: value}))
    return out


def ask(ref: str, text: str, **values) -> dict:
    return list(session.stream(ref, [{"role": "user", "content": text}], GREEDY | values))[-1]


def post(endpoint, body: dict) -> httpx.Response:
    return httpx.post(f"{endpoint.base_url}/chat/completions", json=body, timeout=60,
                      headers={"Authorization": f"Bearer {endpoint.key}"})


def engine_of(ref: str) -> dict:
    return next(e for e in manager.engines() if e["base"] == ref)


def test_answers_stream_and_say_how_fast(workspace):
    events = list(session.stream("starter", [{"role": "user", "content": "Tell me a story."}], GREEDY))
    states = [e["state"] for e in events]
    assert states[0] == "loading" and states[-1] == "done" and "answering" in states
    texts = [e["text"] for e in events if e["state"] == "answering" and e["text"]]
    assert len(set(texts)) > 1 and all(b.startswith(a) for a, b in zip(texts, texts[1:]))
    last = events[-1]
    assert last["finish"] in ("stop", "length") and last["tokens"] > 5 and last["prompt_tokens"] > 5
    assert 0 < last["ttft"] < last["seconds"] and last["tokens_per_second"] > 1


def test_base_and_adapters_share_one_model_and_do_not_mix(workspace, made):
    """Greedy answers written at the same time are, letter for letter, those written alone."""
    refs = ["starter", str(made / "adapter1"), str(made / "adapter2")]
    alone = {(ref, q): ask(ref, q)["text"] for ref in refs for q in QUESTIONS}
    assert len({alone[ref, QUESTIONS[2]] for ref in refs}) == 3, "the adapters change nothing, so this proves nothing"
    together: dict = {}

    def run(ref: str, question: str) -> None:
        together[ref, question] = ask(ref, question)["text"]

    threads = [threading.Thread(target=run, args=key) for key in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert together == alone
    assert len(manager.engines()) == 1 and set(engine_of("starter")["adapters"]) == set(refs[1:])


def test_answers_run_side_by_side_not_one_after_the_other(workspace):
    """Each of three long answers has begun before any of them has ended."""
    spans, endpoint = [], manager.engine_for("starter")

    def run(seed: int) -> None:
        first = None
        body = {"temperature": 5.0, "seed": seed, "max_tokens": 400}  # so hot that it babbles on
        for answer in client.stream(endpoint, [{"role": "user", "content": "Tell me a story."}], body, Stop()):
            first = first or (answer.text and time.monotonic())
        spans.append((first, time.monotonic(), answer.tokens))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert max(first for first, _, _ in spans) < min(end for _, end, _ in spans)


def test_seeded_sampling_is_repeatable_also_in_company(workspace, made):
    hot = {"temperature": 1.2, "seed": 7, "max_tokens": 40}
    alone = ask("starter", QUESTIONS[2], **hot)["text"]
    assert ask("starter", QUESTIONS[2], **hot)["text"] == alone
    assert ask("starter", QUESTIONS[2], **(hot | {"seed": 8}))["text"] != alone
    texts: list[str] = []

    def run() -> None:
        texts.append(ask("starter", QUESTIONS[2], **hot)["text"])

    threads = [threading.Thread(target=run) for _ in range(3)]
    threads.append(threading.Thread(target=ask, args=(str(made / "adapter1"), QUESTIONS[0]),
                                    kwargs={"temperature": 1}))
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert texts == [alone] * 3


def test_stop_ends_the_answer_and_the_work_behind_it(workspace, made):
    ref, stop, seen = str(made / "babbler"), Stop(), []
    manager.engine_for(ref)
    began = time.monotonic()
    for event in session.stream(ref, [{"role": "user", "content": "Tell me a story."}], {"max_tokens": 450}, stop):
        seen.append(event)
        if event["state"] == "answering" and len(event["text"]) > 10:
            stop()
    assert seen[-1]["finish"] == "stopped" and seen[-1]["text"]
    assert time.monotonic() - began < 20
    for _ in range(40):
        if engine_of(ref)["active"] == 0:
            break
        time.sleep(0.05)
    assert engine_of(ref)["active"] == 0


def test_stop_strings_never_show(workspace):
    whole = ask("starter", QUESTIONS[0])["text"]
    word = whole.split()[-1]
    cut = ask("starter", QUESTIONS[0], stop=[word])
    assert cut["text"] == whole[:whole.index(word)] and cut["finish"] == "stop"


def test_the_whole_answer_at_once_is_the_streamed_one(workspace):
    endpoint = manager.engine_for("starter")
    body = {"model": "starter", "messages": [{"role": "user", "content": QUESTIONS[3]}], "temperature": 0,
            "max_tokens": 60}
    reply = post(endpoint, body).json()
    assert reply["choices"][0]["message"]["content"] == ask("starter", QUESTIONS[3])["text"]
    assert reply["usage"]["completion_tokens"] > 0 and reply["timings"]["tokens_per_second"] > 0
    content = [{"type": "text", "text": QUESTIONS[3]}]
    parts = post(endpoint, body | {"messages": [{"role": "user", "content": content}]})
    assert parts.json()["choices"][0]["message"]["content"] == reply["choices"][0]["message"]["content"]


def test_too_long_a_conversation_is_refused_with_the_numbers(workspace):
    with pytest.raises(StudioError) as err:
        ask("starter", "red apple " * 600)
    assert "512" in err.value.message and "tokens long" in err.value.message


@pytest.mark.parametrize("body, status, word", [
    ({"messages": []}, 400, "messages"), ({}, 400, "messages"),
    ({"messages": [{"role": "king", "content": "x"}]}, 400, "role"),
    ({"messages": [{"role": "user", "content": "x"}], "n": 2}, 400, "n"),
    ({"messages": [{"role": "user", "content": "x"}], "temperature": -1}, 400, "temperature"),
    ({"messages": [{"role": "user", "content": "x"}], "top_p": 0}, 400, "top_p"),
    ({"messages": [{"role": "user", "content": "x"}], "model": "gpt-9"}, 404, "gpt-9"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "text only"),
])
def test_bad_requests_are_told_what_is_wrong(workspace, body, status, word):
    reply = post(manager.engine_for("starter"), body)
    assert reply.status_code == status and word in reply.json()["error"]["message"]


def test_broken_json_and_nan_are_refused(workspace):
    endpoint = manager.engine_for("starter")
    for content in (b"{", b"[1]", b"\xff\xfe", b"[" * 100_000,
                    b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}'):
        reply = httpx.post(f"{endpoint.base_url}/chat/completions", content=content,
                           headers={"Authorization": f"Bearer {endpoint.key}"})
        assert reply.status_code == 400, content[:20]


def test_nothing_is_served_without_the_key(workspace):
    endpoint = manager.engine_for("starter")
    root = endpoint.base_url.removesuffix("/v1")
    for path in ("/health", "/v1/models"):
        assert httpx.get(root + path).status_code == 401
        assert httpx.get(root + path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.post(root + "/v1/chat/completions", json={}).status_code == 401
    assert client.models(endpoint)[0] == "starter"
    record = next(iter(records.folder().glob("*.json")))
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    command = Path(f"/proc/{engine_of('starter')['pid']}/cmdline")
    assert not command.exists() or endpoint.key not in command.read_text()


def test_another_process_finds_the_engine_that_runs(workspace):
    ours = manager.engine_for("starter")
    code = "from studio.chat import manager; e = manager.engine_for('starter'); print(e.base_url, e.key)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=settings.ROOT,
                            timeout=60)
    assert theirs.stdout.split() == [ours.base_url, ours.key]


def test_an_engine_starts_once_for_many_who_ask_at_once(workspace):
    manager.shutdown_all()
    found = []
    threads = [threading.Thread(target=lambda: found.append(manager.engine_for("starter"))) for _ in range(4)]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert len(found) == 4 and len({e.base_url for e in found}) == 1 and len(manager.engines()) == 1
    assert engine_of("starter")["rss_bytes"] > 50e6


def test_a_killed_engine_is_told_of_and_starts_again(workspace, made):
    ref = str(made / "babbler")
    manager.engine_for(ref)
    pid = engine_of(ref)["pid"]
    with pytest.raises(StudioError) as err:
        for event in session.stream(ref, [{"role": "user", "content": "Tell me a story."}], {"max_tokens": 450}):
            if event["state"] == "answering" and event["text"] and pid:
                os.kill(pid, signal.SIGKILL)
                pid = None  # what had been sent before still arrives
    assert "stopped in the middle" in err.value.message and "SIGKILL" in err.value.message
    events = list(session.stream(ref, [{"role": "user", "content": QUESTIONS[0]}], GREEDY))
    assert any(e.get("crashed") for e in events) and events[-1]["state"] == "done" and events[-1]["text"]


def test_a_model_without_a_chat_template_answers_plainly_with_a_note(workspace, made):
    last = ask(str(made / "plain"), "Hello.")
    assert "no chat template" in last["note"] and "\nUser:" not in last["text"]
    assert manager.unload(str(made / "plain"))


def test_an_engine_that_nobody_uses_ends_itself(workspace, made, monkeypatch):
    monkeypatch.setenv("ATELIER_IDLE_MINUTES", "0.01")
    ref = str(made / "plain")
    ask(ref, "Hello.")
    pid = engine_of(ref)["pid"]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(e["pid"] == pid for e in manager.engines()):
        time.sleep(0.1)
    assert all(e["pid"] != pid for e in manager.engines())
    assert not any(r["pid"] == pid for _, r in records.everything()), "it takes its record with it"


def test_a_warm_process_forks_engines_that_outlive_it(workspace, monkeypatch):
    from studio.jobs import zygote

    manager.unload("starter")
    monkeypatch.setenv("ATELIER_PRELOAD", "json")
    keeper = zygote.Keeper()
    keeper.keep()
    try:
        deadline = time.monotonic() + 60
        while not zygote.ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        endpoint = manager.engine_for("starter")
        parent = psutil.Process(engine_of("starter")["pid"]).ppid()
        assert parent == zygote.running()["pid"], "forked, not started cold"
    finally:
        keeper.end()
    assert manager.engine_for("starter") == endpoint and ask("starter", QUESTIONS[0])["text"]
    assert manager.unload("starter") and not any(e["base"] == "starter" for e in manager.engines())


def test_new_weights_in_the_same_folder_mean_a_new_engine(workspace, made, tmp_path):
    ref = str(shutil.copytree(made / "plain", tmp_path / "model"))
    first = manager.engine_for(ref)
    os.utime(tmp_path / "model" / "model.safetensors", (time.time() + 60, time.time() + 60))
    assert manager.engine_for(ref).base_url != first.base_url
    assert sum(e["base"] == ref for e in manager.engines()) == 1
    manager.unload(ref)


def test_models_that_cannot_be_loaded_say_why(workspace, made, tmp_path):
    with pytest.raises(StudioError) as err:
        manager.engine_for(str(tmp_path / "nothing"))
    assert err.value.field == "model"
    broken = shutil.copytree(made / "plain", tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    config |= {"model_type": "no-such-type", "architectures": ["NoSuch"]}
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudioError) as err:
        manager.engine_for(str(broken))
    assert "cannot be loaded" in err.value.message
    assert not any(e["base"] == str(broken) for e in manager.engines())
    alien = shutil.copytree(made / "adapter1", tmp_path / "alien")
    values = json.loads((alien / "adapter_config.json").read_text())
    (alien / "adapter_config.json").write_text(json.dumps(values | {"target_modules": ["no_such_layer"]}))
    before = ask("starter", QUESTIONS[0])["text"]
    with pytest.raises(StudioError) as err:
        ask(str(alien), "Hello")
    assert "does not fit" in err.value.message
    assert ask("starter", QUESTIONS[0])["text"] == before


def test_an_address_is_as_good_as_a_model(workspace, monkeypatch):
    """The engine itself stands in for a server elsewhere."""
    endpoint = manager.engine_for("starter")
    expected = ask("starter", QUESTIONS[0])["text"]
    with pytest.raises(StudioError) as err:
        ask(endpoint.base_url, QUESTIONS[0])
    assert "ATELIER_KEY_127_0_0_1" in err.value.hint
    monkeypatch.setenv("ATELIER_KEY_127_0_0_1", endpoint.key)
    for ref in (endpoint.base_url, endpoint.base_url + "#starter", endpoint.base_url.removesuffix("/v1")):
        assert ask(ref, QUESTIONS[0])["text"] == expected
    with pytest.raises(StudioError):
        ask("http://user:secret@127.0.0.1:1/v1#m", "x")
    with pytest.raises(StudioError) as err:
        ask("http://127.0.0.1:1/v1", "x")
    assert "no chat server" in err.value.message


def test_columns_of_a_chat_are_stored_side_by_side(workspace):
    from studio.library import chats

    made = chats.save({"columns": [{"messages": [{"role": "user", "content": "Grüße, Welt"}]} for _ in range(4)]})

    def write(column: int) -> None:
        for n in range(15):
            said = {"role": "assistant", "content": f"{n}"}
            history.change(made["id"], lambda data: data["columns"][column]["messages"].append(said))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert [len(c["messages"]) for c in chats.load(made["id"])["data"]["columns"]] == [16] * 4
    assert [c["id"] for c in history.search("grüße")] == [made["id"]]
    assert history.search("assistant") == [] and history.search("100%") == []
    history.rename(made["id"], "Another name")
    assert history.search("another")[0]["title"] == "Another name"
    with pytest.raises(StudioError):
        history.change("c0000000000", lambda d: None)


@pytest.mark.parametrize("values, field", [({"temperature": 9}, "temperature"), ({"top_p": "x"}, "top_p"),
                                           ({"max_tokens": 0}, "max_tokens"), ({"seed": float("nan")}, "seed"),
                                           ({"magic": 1}, "magic")])
def test_settings_out_of_bounds_are_refused_at_their_field(values, field):
    with pytest.raises(StudioError) as err:
        session.check_settings(values)
    assert err.value.field == field


def test_importing_the_page_side_brings_no_torch():
    code = ("import sys, studio.chat.live\n"
            "assert not {'torch', 'gradio', 'transformers', 'peft', 'fastapi'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=settings.ROOT, timeout=60)
