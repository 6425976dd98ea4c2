"""The chat engine of GGUF files as a real process: the same words as transformers', the same door, and hostile files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from studio import settings
from studio.chat import manager, session
from studio.chat.client import Stop
from studio.errors import StudioError
from studio.gguf import convert, read

QUESTIONS = ["What is the opposite of hot?", "Where does Anna live?", "Tell me a story.", "Count from 2 to 6.",
             "What is 3 plus 4?"]
GREEDY = {"temperature": 0, "max_tokens": 60}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    """A folder with the starter in 16 bits."""
    folder = tmp_path_factory.mktemp("gguf") / "starter-f16"
    folder.mkdir()
    convert.convert(settings.STARTER, folder / "starter-f16.gguf", "f16")
    return folder


@pytest.fixture(scope="module")
def babbler(gguf, tmp_path_factory) -> Path:
    """The same, with another token as the end of its turn: it talks on."""
    folder = Path(shutil.copytree(gguf, tmp_path_factory.mktemp("more") / "babbler"))
    file = next(folder.glob("*.gguf"))
    data = bytearray(file.read_bytes())
    for key in (b"tokenizer.ggml.eos_token_id", b"tokenizer.ggml.eot_token_id"):
        if (at := data.find(key)) >= 0:
            data[at + len(key) + 4:at + len(key) + 8] = (900).to_bytes(4, "little")
    data = data.replace(b"<|im_end|>", b"<|no_end|>")  # llama.cpp knows this one by its name, too
    file.write_bytes(data)
    return folder


def ask(ref: Path | str, text: str, **values) -> dict:
    return list(session.stream(str(ref), [{"role": "user", "content": text}], GREEDY | values))[-1]


def engine_of(ref: Path | str) -> dict:
    return next(e for e in manager.engines() if e["base"] == str(ref))


def test_greedy_answers_are_those_of_transformers(workspace, gguf):
    for question in QUESTIONS:
        theirs, ours = ask("starter", question), ask(gguf, question)
        assert ours["text"] == theirs["text"] and ours["finish"] == theirs["finish"]
        assert (ours["prompt_tokens"], ours["tokens"]) == (theirs["prompt_tokens"], theirs["tokens"])
    system = [{"role": "system", "content": "You are polite."}, {"role": "user", "content": "Who are you?"},
              {"role": "assistant", "content": "I am a small model."}, {"role": "user", "content": QUESTIONS[1]}]
    texts = [list(session.stream(ref, system, GREEDY))[-1] for ref in ("starter", str(gguf))]
    assert texts[0]["text"] == texts[1]["text"] and texts[0]["prompt_tokens"] == texts[1]["prompt_tokens"]


def test_tools_reach_the_files_template_as_they_reach_transformers(workspace, gguf):
    tool = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}}
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "3"}]
    asked = [list(session.stream(ref, messages, GREEDY | {"tools": [tool]}))[-1] for ref in ("starter", str(gguf))]
    assert asked[0]["prompt_tokens"] == asked[1]["prompt_tokens"] > 60 and asked[0]["text"] == asked[1]["text"]


def test_probabilities_are_those_of_transformers(workspace, gguf):
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "temperature": 0, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    told = []
    for ref in ("starter", str(gguf)):
        endpoint = manager.engine_for(ref)
        reply = httpx.post(f"{endpoint.base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {endpoint.key}"}, timeout=60)
        told.append(reply.json()["choices"][0]["logprobs"]["content"])
    assert len(told[0]) == len(told[1]) > 3
    for ours, theirs in zip(*told, strict=True):
        assert ours["token"] == theirs["token"] and ours["logprob"] == pytest.approx(theirs["logprob"], abs=0.05)
        assert len(theirs["top_logprobs"]) == 3 and theirs["top_logprobs"][0]["logprob"] == pytest.approx(ours["top_logprobs"][0]["logprob"], abs=0.05)


def test_answers_stream_and_the_engine_is_watched_like_any_other(workspace, gguf):
    events = list(session.stream(str(gguf), [{"role": "user", "content": "Tell me a story."}], GREEDY | {"max_tokens": 300}))
    last = events[-1]
    assert last["state"] == "done" and 0 < last["ttft"] < last["seconds"] and last["tokens_per_second"] > 1
    engine = engine_of(gguf)
    assert engine["state"] == "ready" and 20e6 < engine["rss_bytes"] < 400e6 and engine["adapters"] == []
    endpoint = manager.engine_for(str(gguf))
    root = endpoint.base_url.removesuffix("/v1")
    health = httpx.get(root + "/health", headers={"Authorization": f"Bearer {endpoint.key}"}).json()
    assert health["dtype"] == "F16" and health["context"] == 512 and health["chat_template"] is True
    assert httpx.get(root + "/health").status_code == 401
    inner = {c.laddr.port for c in psutil.Process(engine["pid"]).net_connections("inet") if c.status == "LISTEN"}
    assert len(inner) == 2, "ours and llama.cpp's own"
    for port in inner:
        address = f"http://127.0.0.1:{port}/v1/chat/completions"
        assert httpx.post(address, json={"messages": [{"role": "user", "content": "x"}]}).status_code == 401
    assert all(c.laddr.ip == "127.0.0.1" for c in psutil.Process(engine["pid"]).net_connections("inet"))


def test_a_file_is_as_good_as_its_folder(workspace, gguf):
    file = next(gguf.glob("*.gguf"))
    assert ask(file, QUESTIONS[0])["text"] == ask(gguf, QUESTIONS[0])["text"]
    assert manager.unload(str(file))


def test_sampling_is_honoured(workspace, gguf):
    hot = {"temperature": 1.2, "seed": 7, "max_tokens": 40, "top_p": 1.0}
    first = ask(gguf, QUESTIONS[2], **hot)["text"]
    assert ask(gguf, QUESTIONS[2], **hot)["text"] == first
    assert len({ask(gguf, QUESTIONS[2], **(hot | {"seed": s}))["text"] for s in range(4)}) > 1
    greedy = ask(gguf, QUESTIONS[2], max_tokens=40)["text"]
    for narrow in ({"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}):  # each leaves one token to choose from
        assert ask(gguf, QUESTIONS[2], **(hot | narrow))["text"] == greedy
    assert ask(gguf, QUESTIONS[2], repetition_penalty=1.8)["text"] == ask("starter", QUESTIONS[2], repetition_penalty=1.8)["text"]
    cut = ask(gguf, QUESTIONS[0], stop=["hot"])
    assert cut["text"] == "The opposite of " and cut["finish"] == "stop"
    assert ask(gguf, QUESTIONS[2], max_tokens=5)["tokens"] == 5


def test_several_answers_at_once_are_those_written_alone(workspace, gguf):
    alone = {q: ask(gguf, q)["text"] for q in QUESTIONS}
    together: dict[str, str] = {}
    threads = [threading.Thread(target=lambda q=q: together.__setitem__(q, ask(gguf, q)["text"])) for q in QUESTIONS]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert together == alone


def test_too_long_a_conversation_is_refused_with_the_numbers(workspace, gguf):
    with pytest.raises(StudioError) as err:
        ask(gguf, "red apple " * 600)
    assert "512" in err.value.message and "tokens long" in err.value.message


def test_stop_ends_the_work_behind_the_answer(workspace, babbler):
    stop, seen = Stop(), []
    for event in session.stream(str(babbler), [{"role": "user", "content": "Tell me a story."}], {"max_tokens": 480}, stop):
        seen.append(event)
        if event["state"] == "answering" and event["text"]:
            stop()
    assert seen[-1]["finish"] == "stopped"
    deadline = time.monotonic() + 10
    while engine_of(babbler)["active"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine_of(babbler)["active"] == 0


def test_a_crash_of_llama_cpp_takes_nothing_along(workspace, babbler, gguf):
    """llama.cpp ends its process by SIGABRT when something in it goes wrong."""
    manager.engine_for(str(babbler))
    pid = engine_of(babbler)["pid"]
    with pytest.raises(StudioError) as err:
        for event in session.stream(str(babbler), [{"role": "user", "content": "Tell me a story."}], {"max_tokens": 480}):
            if event["state"] == "answering" and event["text"] and pid:
                os.kill(pid, signal.SIGABRT)
                pid = None
    assert "stopped in the middle" in err.value.message and "SIGABRT" in err.value.message
    assert ask(gguf, QUESTIONS[0])["text"] == "The opposite of hot is cold."
    assert ask(babbler, QUESTIONS[0])["text"].startswith("The opposite of hot is cold.")
    assert manager.unload(str(babbler))


def test_an_engine_that_nobody_uses_ends_itself(workspace, gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_IDLE_MINUTES", "0.01")
    ref = Path(shutil.copytree(gguf, tmp_path / "idle"))
    ask(ref, QUESTIONS[0])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(e["base"] == str(ref) for e in manager.engines()):
        time.sleep(0.1)
    assert not any(e["base"] == str(ref) for e in manager.engines())


def test_damaged_and_hostile_files_never_reach_the_runtime(workspace, gguf, tmp_path):
    good = next(gguf.glob("*.gguf")).read_bytes()
    cases = {"cut": good[:len(good) // 2], "head": good[:300], "empty": b"", "noise": os.urandom(5000),
             "counts": good[:8] + b"\xff" * 16 + good[24:], "other": json.dumps({"a": 1}).encode()}
    for name, data in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.gguf").write_bytes(data)
        for ref in (folder, folder / "model.gguf"):
            with pytest.raises(StudioError) as err:
                manager.engine_for(str(ref))
            assert err.value.field == "model" and err.value.hint, name
    assert {e["base"] for e in manager.engines()} <= {"starter", str(gguf)}


def test_what_llama_cpp_does_not_know_is_told_in_its_words(workspace, gguf, tmp_path):
    """The head of the file is in order, so only llama.cpp can tell."""
    file = tmp_path / "model.gguf"
    data = next(gguf.glob("*.gguf")).read_bytes()
    file.write_bytes(data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight"))
    with pytest.raises(StudioError) as err:
        manager.engine_for(str(file))
    assert "llama.cpp cannot load" in err.value.message and "attn_q" in err.value.message
    assert not any(e["base"] == str(file) for e in manager.engines())


def test_a_file_that_brings_llama_cpp_down_is_told_and_nothing_else_falls(workspace, gguf, tmp_path):
    """No layers: the head is well formed, and llama.cpp asserts."""
    good = next(gguf.glob("*.gguf"))
    data = bytearray(good.read_bytes())
    _, end = read.read(good).places["llama.block_count"]
    data[end - 4:end] = bytes(4)
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(StudioError) as err:
        manager.engine_for(str(tmp_path))
    assert "ended while it loaded" in err.value.message and "SIGABRT" in err.value.message
    assert not any(e["base"] == str(tmp_path) for e in manager.engines())
    assert ask(gguf, QUESTIONS[0])["text"] == "The opposite of hot is cold."


def test_the_last_words_of_llama_cpp_are_found_in_the_log(tmp_path):
    """As when the studio was started again since, and the engine is nobody's child."""
    log = tmp_path / "engine.log"
    log.write_text("loaded\nllama-model.cpp:1356: GGML_ASSERT(hparams.n_layer_all > 0) failed\n")
    assert "n_layer_all" in manager.last_line(log)
    log.write_text("loaded\nserving on http://127.0.0.1:1/v1\n")
    assert manager.last_line(log) == ""
