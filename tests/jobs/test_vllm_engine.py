"""vLLM's engine against a stand-in for ``vllm serve``: vLLM itself was never run here, it needs a graphics card."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from studio import settings
from studio.chat import client, manager, vllm_engine
from studio.chat.client import Stop
from studio.errors import StudioError
from studio.library.refs import resolve_model

_STANDIN = """#!{python}
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
arguments = sys.argv[1:]
open(os.environ["STANDIN_SAW"], "w").write(json.dumps(arguments))
if "broken" in arguments[1]:
    sys.exit("Engine core initialization failed")
port, name, key = int(arguments[arguments.index("--port") + 1]), arguments[arguments.index("--served-model-name") + 1], os.environ["VLLM_API_KEY"]
began, names = time.time(), [name]
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def say(self, body, status=200, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status); self.send_header("Content-Type", kind); self.send_header("Content-Length", str(len(data)))
        self.end_headers(); self.wfile.write(data)
    def do_GET(self):
        if self.path == "/health": return self.say(b"", 200 if time.time() - began > 0.5 else 503)
        if self.path == "/metrics": return self.say(b'# HELP x\\nvllm:num_requests_running{{engine="0"}} 0.0\\nvllm:num_requests_waiting{{engine="0"}} 0.0\\n', kind="text/plain")
        self.say({{"data": [{{"id": one}} for one in names]}})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer " + key: return self.say({{"error": {{"message": "no"}}}}, 401)
        if self.path == "/v1/load_lora_adapter":
            if not os.path.isdir(body["lora_path"]): return self.say({{"error": {{"message": "no such adapter"}}}}, 404)
            names.append(body["lora_name"]); return self.say(b"Success", kind="text/plain")
        text = "data: " + json.dumps({{"choices": [{{"delta": {{"content": "I am " + body["model"]}}, "finish_reason": "stop"}}]}}) + "\\n\\ndata: [DONE]\\n\\n"
        self.say(text.encode(), kind="text/event-stream")
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def vllm(home, tmp_path, monkeypatch) -> Path:
    """A stand-in for vLLM on the path; the file in which it says how it was called."""
    tool = tmp_path / "bin" / "vllm"
    tool.parent.mkdir()
    tool.write_text(_STANDIN.format(python=sys.executable))
    tool.chmod(0o755)
    saw = tmp_path / "saw.json"
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_SAW", str(saw))
    monkeypatch.setenv("ATELIER_ENGINE", "vllm")
    yield saw
    manager.shutdown_all()


def say(endpoint) -> str:
    return list(client.stream(endpoint, [{"role": "user", "content": "Who are you?"}], {}, Stop()))[-1].text


def test_it_is_an_engine_as_any_other(vllm):
    endpoint = manager.engine_for("starter")
    assert say(endpoint) == "I am starter" and manager.engine_for("starter") == endpoint
    one, = manager.engines()
    assert one["state"] == "ready" and one["active"] == 0 and one["idle_seconds"] >= 0
    arguments = vllm.read_text()
    assert str(settings.STARTER) in arguments and "127.0.0.1" in arguments and endpoint.key not in arguments
    children = psutil.Process(one["pid"]).children()
    assert len(children) == 1 and endpoint.key not in " ".join(children[0].cmdline())
    assert manager.unload("starter") and not manager.engines()
    psutil.wait_procs(children, timeout=5)
    assert not children[0].is_running()


def test_an_adapter_is_loaded_into_it(vllm, tmp_path):
    import json

    adapter = tmp_path / "tuned"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(settings.STARTER), "r": 4,
                                                             "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert say(manager.engine_for(str(adapter))) == f"I am {adapter}"


def test_an_idle_one_ends_and_a_killed_one_takes_its_server_along(vllm, monkeypatch):
    monkeypatch.setenv("ATELIER_IDLE_MINUTES", "0.01")
    manager.engine_for("starter")
    deadline = time.monotonic() + 20
    while manager.engines() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not manager.engines()
    monkeypatch.setenv("ATELIER_IDLE_MINUTES", "5")
    manager.engine_for("starter")
    pid = manager.engines()[0]["pid"]
    children = psutil.Process(pid).children()
    os.kill(pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert gone and not alive


def test_one_that_cannot_load_says_so(vllm, tmp_path):
    import shutil

    broken = shutil.copytree(settings.STARTER, tmp_path / "broken")
    with pytest.raises(StudioError, match="vLLM ended while it loaded"):
        manager.engine_for(str(broken))


def test_it_is_taken_only_where_it_was_asked_for(vllm, monkeypatch):
    assert vllm_engine.wanted(resolve_model("starter"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert not vllm_engine.wanted(resolve_model("starter"))
    monkeypatch.undo()
    assert not vllm_engine.wanted(resolve_model("starter"))
