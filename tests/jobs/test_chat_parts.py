"""Thoughts, tool calls and probabilities on their way from the model to the asker, streamed and at once."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import httpx
import pytest

from studio.chat import client, manager, session
from studio.chat.client import Endpoint, Stop
from studio.chat.parts import Splitter, for_template, thinking
from studio.chat.writing import Result
from studio.errors import StudioError

TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}}}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def split(text: str, tools: list[str] = (), inside: bool = False, size: int = 1) -> tuple[str, str, list]:
    """(text, reasoning, calls) of an answer that arrives in pieces of ``size``."""
    splitter = Splitter(tools, inside)
    made = [part for at in range(0, len(text), size) for part in splitter.feed(text[at:at + size])] + splitter.finish()
    return ("".join(what for kind, what in made if kind == "text"), "".join(what for kind, what in made if kind == "reasoning"),
            [(one["function"]["name"], json.loads(one["function"]["arguments"])) for kind, one in made if kind == "call"])


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("text, tools, inside, expected", [
    ("Four.", [], False, ("Four.", "", [])),
    ("<think>\nTwo and two.\n</think>\n\nFour.", [], False, ("Four.", "Two and two.\n", [])),
    ("Two and two.</think>Four.", [], True, ("Four.", "Two and two.", [])),
    ("<think>never ends", [], False, ("", "never ends", [])),
    ("Tags such as <think> are text later on.", [], False, ("Tags such as <think> are text later on.", "", [])),
    (CALL, ["add"], False, ("", "", [("add", {"a": 1, "b": 2})])),
    (CALL, [], False, (CALL, "", [])),
    (f"<think>hm</think>I add.{CALL}{CALL}", ["add"], False, ("I add.", "hm", [("add", {"a": 1, "b": 2})] * 2)),
    ('{"name": "add", "parameters": {"a": 3}}', ["add"], False, ("", "", [("add", {"a": 3})])),
    ('[{"name": "add", "arguments": {}}]', ["add"], False, ("", "", [("add", {})])),
    ('{"name": "rob", "arguments": {}}', ["add"], False, ('{"name": "rob", "arguments": {}}', "", [])),
    ('{"a": 1} is JSON.', ["add"], False, ('{"a": 1} is JSON.', "", [])),
    ("<tool_call>{broken</tool_call> Sorry.", ["add"], False, ("<tool_call>{broken</tool_call> Sorry.", "", [])),
    ("<tool_call>{cut", ["add"], False, ("<tool_call>{cut", "", [])),
    ("a < b <to be sure>", ["add"], False, ("a < b <to be sure>", "", []))])
def test_an_answer_is_cut_into_its_parts(text, tools, inside, expected, size):
    assert split(text, tools, inside, size) == expected


def test_a_prompt_that_opens_a_thought_is_known():
    assert thinking("<|im_start|>assistant\n<think>\n") and not thinking("<think></think>\n")
    assert not thinking("What does <think> mean?<|im_end|>\nassistant\n")


def test_calls_reach_the_template_as_objects():
    call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert for_template(message)["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert call["function"]["arguments"] == '{"a": 1}', "the asker's own message is left alone"


class Scripted:
    """A host that answers what it was told to, a character at a time."""

    device, dtype, context, threads, templated = "cpu", "none", 512, 1, True

    def __init__(self):
        self.says, self.seen, self.inside = "", {}, False

    def adapters(self):
        return []

    def encode(self, messages, name=None, tools=None):
        self.seen = {"messages": messages, "tools": tools}
        return [1, 2, 3], ""

    def thinks(self, ids):
        return self.inside

    def piece(self, token, name=None):
        return chr(token)

    def generate(self, ids, sampling, emit, cancelled, name=None, note=""):
        for letter in self.says:
            emit(letter)
        found = [{"id": 65, "logprob": -0.5, "top": [(65, -0.5), (66, -1.5)]}] if sampling.logprobs is not None else None
        return Result(3, 5, "stop", logprobs=found)


@pytest.fixture(scope="module")
def scripted():
    """(host, endpoint) of the real server in front of a scripted host."""
    import uvicorn

    from studio.chat.server import Engine, build

    host, ready = Scripted(), threading.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(Engine(host, "scripted", "k")), log_level="error", lifespan="off"))
    server.install_signal_handlers = lambda: None

    def run() -> None:
        ready.set()
        asyncio.run(server.serve(sockets=[sock]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    while not server.started:
        time.sleep(0.01)
    yield host, Endpoint(f"http://127.0.0.1:{sock.getsockname()[1]}/v1", "scripted", "k")
    server.should_exit = True
    thread.join(5)


def ask(endpoint: Endpoint, **settings) -> client.Answer:
    return list(client.stream(endpoint, [{"role": "user", "content": "1 + 2?"}], settings, Stop()))[-1]


def whole(endpoint: Endpoint, **body) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "1 + 2?"}], **body}
    return httpx.post(f"{endpoint.base_url}/chat/completions", json=body, headers={"Authorization": "Bearer k"})


def test_thoughts_and_calls_arrive_apart_from_the_text(scripted):
    host, endpoint = scripted
    host.says = f"<think>add them</think>I add.{CALL}"
    answer = ask(endpoint, tools=[TOOL])
    assert (answer.text, answer.reasoning, answer.finish) == ("I add.", "add them", "tool_calls")
    assert answer.tool_calls[0]["function"] == {"name": "add", "arguments": '{"a": 1, "b": 2}'} and answer.tool_calls[0]["id"]
    assert host.seen["tools"] == [TOOL]
    choice = whole(endpoint, tools=[TOOL]).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "I add."
    assert choice["message"]["reasoning_content"] == "add them"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "add"
    assert ask(endpoint, tools=[TOOL], tool_choice="none").tool_calls == [] and not host.seen["tools"]


def test_the_whole_exchange_with_a_tool_reaches_the_model(scripted):
    host, endpoint = scripted
    host.says = "3"
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    messages = [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "3"}]
    assert list(client.stream(endpoint, messages, {"tools": [TOOL]}, Stop()))[-1].text == "3"
    assert host.seen["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"a": 1, "b": 2}
    assert host.seen["messages"][2] == {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}


def test_probabilities_come_in_openais_form(scripted):
    host, endpoint = scripted
    host.says = "A"
    told = whole(endpoint, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert told == [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": [
        {"token": "A", "logprob": -0.5, "bytes": [65]}, {"token": "B", "logprob": -1.5, "bytes": [66]}]}]
    assert whole(endpoint).json()["choices"][0]["logprobs"] is None
    streamed = whole(endpoint, logprobs=True, stream=True).text
    assert '"logprobs": {"content": [{"token": "A"' in streamed
    assert whole(endpoint, logprobs=True, top_logprobs=99).status_code == 400


@pytest.mark.parametrize("tools", [[{}], [{"type": "function", "function": {}}], "add", [{"type": "function", "function": 3}]])
def test_a_tool_without_a_name_is_refused(scripted, tools):
    reply = whole(scripted[1], tools=tools)
    assert reply.status_code == 400 and "tool" in reply.json()["error"]["message"]


def test_tools_reach_the_starters_template_and_a_model_without_them_refuses(workspace):
    question = [{"role": "user", "content": "What is 3 plus 4?"}]
    greedy = {"temperature": 0, "max_tokens": 8}
    plain, told = (list(session.stream("starter", question, greedy | more))[-1] for more in ({}, {"tools": [TOOL]}))
    assert told["prompt_tokens"] > plain["prompt_tokens"] + 20 and told["tool_calls"] == [] and told["text"]
    endpoint = manager.engine_for("starter")
    body = {"messages": question, "temperature": 0, "max_tokens": 3, "logprobs": True, "top_logprobs": 2}
    reply = httpx.post(f"{endpoint.base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {endpoint.key}"}).json()
    content = reply["choices"][0]["logprobs"]["content"]
    assert len(content) == reply["usage"]["completion_tokens"] and content[0]["logprob"] == content[0]["top_logprobs"][0]["logprob"]


def test_a_template_without_tools_refuses_them(workspace, tmp_path):
    import shutil

    from studio import settings

    folder = shutil.copytree(settings.STARTER, tmp_path / "no-tools")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(StudioError) as err:
        list(session.stream(str(folder), [{"role": "user", "content": "x"}], {"tools": [TOOL]}))
    assert "no tools" in err.value.message and err.value.field == "tools"
    manager.unload(str(folder))
