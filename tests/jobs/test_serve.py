"""Serve this model: its own process, name, port and key; the snippets really run; nothing leaks and nothing else unloads it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from studio import api, settings
from studio.chat import manager, needs, records, serving
from studio.errors import StudioError


@pytest.fixture(scope="module")
def served(workspace):
    """The starter, served as ``my-starter``."""
    made = serving.start("starter", "my-starter")
    yield made | serving.ready(made["id"])
    for one in serving.listed():
        serving.stop(one["id"])


def get(served: dict, path: str = "/models", key: str | None = None) -> httpx.Response:
    return httpx.get(served["address"] + path, headers={"Authorization": f"Bearer {key or served['key']}"})


def test_it_answers_under_its_name_and_only_with_its_key(served):
    assert [one["id"] for one in get(served).json()["data"]] == ["my-starter"]
    assert get(served, key="wrong").status_code == 401 and httpx.get(served["address"] + "/models").status_code == 401
    assert get(served, key=manager.engine_for("starter").key).status_code == 401, "its key is its own"
    body = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 20, "temperature": 0}
    post = {"headers": {"Authorization": f"Bearer {served['key']}"}, "timeout": 60}
    for model in ("my-starter", ""):
        assert httpx.post(served["address"] + "/chat/completions", json=body | {"model": model}, **post).status_code == 200
    assert httpx.post(served["address"] + "/chat/completions", json=body | {"model": "starter"}, **post).status_code == 404
    assert httpx.post(served["address"] + "/adapters", json={"name": "x", "path": "/tmp"}, **post).status_code == 404


def test_the_curl_and_python_snippets_run_as_they_are(served, tmp_path):
    found = serving.snippets(served["id"])
    environment = os.environ | {serving.KEY_VARIABLE: served["key"]}
    assert all(served["key"] not in text and served["address"] in text and "my-starter" in text for text in found.values())
    (tmp_path / "ask.py").write_text(found["python"])
    said = subprocess.run([sys.executable, "ask.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and len(said.stdout.strip()) > 3, said.stderr
    compile(found["openai"], "openai", "exec")
    if shutil.which("curl"):
        said = subprocess.run(["bash", "-c", found["curl"]], env=environment, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0 and '"chat.completion"' in said.stdout, said.stderr
    wrong = subprocess.run([sys.executable, "ask.py"], cwd=tmp_path, env=environment | {serving.KEY_VARIABLE: "no"}, capture_output=True,
                           text=True, timeout=60)
    assert "401" in wrong.stderr


def test_the_openai_snippet_runs_where_the_client_is(served, tmp_path):
    pytest.importorskip("openai", reason="the client is no dependency of the studio")
    said = subprocess.run([sys.executable, "-c", serving.snippets(served["id"])["openai"]], capture_output=True, text=True, timeout=60,
                          env=os.environ | {serving.KEY_VARIABLE: served["key"]})
    assert said.returncode == 0 and said.stdout.strip(), said.stderr


def test_the_key_is_in_one_private_file_and_nowhere_else(served):
    path = serving.folder() / f"{served['id']}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(serving.folder().stat().st_mode) == 0o700
    assert stat.S_IMODE(path.with_suffix(".log").stat().st_mode) == 0o600
    key = served["key"].encode()
    holding = [file for file in settings.home().rglob("*") if file.is_file() and key in file.read_bytes()]
    assert holding == [path]
    assert key not in b"\0".join(arg.encode() for arg in psutil.Process(served["pid"]).cmdline())
    assert not any(served["key"] in str(one) for one in serving.listed()) and serving.key(served["id"]) == served["key"]


def test_it_listens_on_this_machine_alone(served):
    addresses = {c.laddr.ip for c in psutil.Process(served["pid"]).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def test_it_is_listed_and_making_room_leaves_it(served):
    manager.engine_for("starter")
    assert manager.free_memory() and not manager.engines(), "the chat's own engine gives way"
    one, = serving.listed()
    assert one["state"] == "ready" and one["rss_bytes"] > 50e6 and one["port"] and one["name"] == "my-starter"
    assert records.ended()[0]["why"] == "room" and records.ended()[0]["bytes"] > 50e6
    assert manager.shutdown_all() == 0 and get(served).status_code == 200


def test_it_survives_who_started_it(workspace):
    code = "from studio.chat import serving; print(serving.start('starter', 'orphan')['id'])"
    number = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=settings.ROOT, timeout=60).stdout.strip()
    found = serving.ready(number)
    assert get(found | {"key": serving.key(number)}).status_code == 200
    serving.stop(number)
    assert not psutil.pid_exists(found["pid"]) or psutil.Process(found["pid"]).status() == psutil.STATUS_ZOMBIE
    assert not list(serving.folder().glob(f"{number}*")), "with its log and key"
    with pytest.raises(StudioError):
        serving.stop(number)


def test_an_adapter_is_served_under_one_name(workspace, tmp_path):
    code = ("import sys, torch\nfrom peft import LoraConfig, get_peft_model\nfrom transformers import AutoModelForCausalLM\n"
            "torch.manual_seed(1)\nmodel = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
            "get_peft_model(model, LoraConfig(r=4, target_modules='all-linear', init_lora_weights=False, task_type='CAUSAL_LM'))"
            ".save_pretrained(sys.argv[2])\n")
    subprocess.run([sys.executable, "-c", code, str(settings.STARTER), str(tmp_path / "tuned")], check=True, timeout=120)
    made = serving.start(str(tmp_path / "tuned"), "tuned:1")
    found = serving.ready(made["id"])
    body = {"model": "tuned:1", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 30, "temperature": 0}
    tuned = httpx.post(found["address"] + "/chat/completions", json=body, timeout=60,
                       headers={"Authorization": f"Bearer {made['key']}"}).json()["choices"][0]["message"]["content"]
    endpoint = manager.engine_for("starter")
    plain = httpx.post(endpoint.base_url + "/chat/completions", json=body | {"model": "starter"}, timeout=60,
                       headers={"Authorization": f"Bearer {endpoint.key}"}).json()["choices"][0]["message"]["content"]
    assert tuned != plain
    serving.stop(made["id"])


def test_what_cannot_be_is_refused(workspace, served, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for more, field in (({"port": taken.getsockname()[1]}, "port"), ({"port": 80}, "port"), ({"name": "a b/c"}, "name"),
                            ({"name": "my-starter"}, "name"), ({"host": "0.0.0.0"}, "host"), ({"host": "example.org"}, "host")):
            with pytest.raises(StudioError) as err:
                api.serve_start("starter", **more)
            assert err.value.field == field, more
    for ref in ("http://127.0.0.1:1/v1", "/nowhere"):
        with pytest.raises(StudioError):
            api.serve_start(ref)
    monkeypatch.setenv("SPACE_ID", "x/y")
    with pytest.raises(StudioError, match="Space"):
        serving.start("starter", "other")


def test_one_that_dies_says_so(workspace):
    made = serving.start("starter", "mortal")
    found = serving.ready(made["id"])
    os.kill(found["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and next(one for one in serving.listed() if one["id"] == made["id"])["state"] == "ready":
        time.sleep(0.1)
    one = next(one for one in serving.listed() if one["id"] == made["id"])
    assert one["state"] == "ended" and "SIGKILL" in one["error"]
    serving.stop(made["id"])


def test_another_person_neither_sees_nor_stops_it(served):
    assert serving.listed("somebody") == []
    for ask in (serving.key, serving.snippets, serving.stop):
        with pytest.raises(StudioError):
            ask(served["id"], "somebody")


def test_memory_is_told_before_loading(workspace):
    """Weights and cache by hand; the overhead is what an engine measured; the sum is near what the process then holds."""
    manager.shutdown_all()
    manager.engine_for("starter")
    rss = manager.engines()[0]["rss_bytes"]
    found = api.engine_needs("starter")
    assert found["kind"] == "torch" and found["context"] == 512 and found["measured"] and found["loaded"]
    assert found["weights"] == pytest.approx(2_900_000 * 4, rel=0.2)
    assert found["cache"] == 2 * 4 * 2 * 64 * 4 * 512  # keys and values, layers, heads, size, bytes, tokens
    assert found["total"] == found["weights"] + found["cache"] + found["overhead"] and found["fits"]
    assert found["total"] == pytest.approx(rss, rel=0.2)
    manager.shutdown_all()
    assert not needs.needs("starter")["loaded"]
    assert api.engine_needs("http://127.0.0.1:9/v1#m")["kind"] == "remote"
