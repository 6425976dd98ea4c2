"""Benchmarks on a GGUF file and on servers: the numbers of the model they were made of, and refusals where a server cannot tell."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from studio import settings
from studio.errors import StudioError
from tests.evals.test_harness import answers, values
from tests.llm_stand_in import Reply, StandIn
from tests.train.conftest import events, run


@pytest.fixture(scope="session")
def gguf(tmp_path_factory) -> Path:
    """The starter as a GGUF file of 32 bits."""
    from studio.gguf import convert

    folder = tmp_path_factory.mktemp("gguf") / "starter-gguf"
    folder.mkdir()
    convert.convert(settings.STARTER, folder / "starter.gguf", "f32")
    return folder


class Echo:
    """A server whose ``/completions`` gives log-probabilities of the prompt, a token a character. What it likes best is given by
    ``likes``: characters of such texts cost nothing."""

    def __init__(self, likes: str = "", echo: bool = True):
        outer = self
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, body: dict) -> None:
                text = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.answer({"data": [{"id": "model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked += 1
                if self.path.endswith("/chat/completions"):
                    return self.answer({"choices": [{"message": {"role": "assistant", "content": "What?"}, "finish_reason": "stop"}]})
                text = (body["prompt"] if echo else "") + "!"
                liked = re.search(likes, text) if likes else None
                values = [None if not place and echo else -0.01 if liked and liked.start() <= place < liked.end() else -2.0
                          for place in range(len(text))]
                tops = [{one: value or 0.0, "~": -1.0} for one, value in zip(text, values, strict=True)]
                self.answer({"choices": [{"text": text, "logprobs": {"tokens": list(text), "token_logprobs": values,
                                                                     "text_offset": list(range(len(text))), "top_logprobs": tops}}]})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1#model"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_gguf_file_has_the_scores_of_its_model(gguf, tmp_path):
    names = ["suite:facts", "suite:spelling", "suite:sums", "suite:rules", "suite:world"]
    summary, ctx = run(values(["starter", gguf], names, limit=10, num_fewshot=1), tmp_path / "run")
    mine, theirs = summary["table"]
    assert mine["label"] == "Starter" and len(mine) == len(theirs) > 10
    for key, value in mine.items():
        if "/" in key and value is not None and key != "model":
            assert theirs[key] == pytest.approx(value, rel=2e-3, abs=1e-6), key
    said = [[one["answer"] for one in answers(ctx) if one["model"] == number] for number in (0, 1)]
    assert said[0] == said[1]


def test_a_gguf_file_and_held_out_rows(gguf, chats, tmp_path):
    summary, _ = run(values([gguf], [], dataset=str(chats), rewards=[{"name": "exact"}], max_gen_toks=16), tmp_path / "run")
    [line] = summary["table"]
    assert line["heldout/loss"] > 0 and line["heldout/loss_stderr"] > 0 and 0 <= line["heldout/exact"] <= 1


def test_a_gguf_file_whose_context_is_too_short(gguf, tmp_path):
    _, ctx = run(values([gguf], ["suite:facts"], max_length=32, num_fewshot=2), tmp_path / "one")
    assert [e["code"] for e in events(ctx.run_dir, "warning")] == ["cut"]
    with pytest.raises(StudioError, match="do not fit"):
        run(values([gguf], ["suite:reading"], max_length=40), tmp_path / "two")


def test_a_server_is_asked_written_answers_only(home, tmp_path):
    right = {row["system"] + row["question"]: row["answer"] for row in map(json.loads, (settings.ASSETS / "evals/suite/rules.jsonl").open())}
    with StandIn(lambda asked: right["".join(one["content"] for one in asked.messages)]) as server:
        summary, ctx = run(values([server.address], ["suite:facts", "suite:rules"]), tmp_path / "one")
        [line] = summary["table"]
        assert line["suite:rules/exact_match"] == 1.0 and "suite:facts/acc" not in line
        [warning] = [e for e in events(ctx.run_dir, "warning") if e["code"] == "not-asked"]
        assert "does not tell how likely" in warning["message"] and "Facts" in warning["message"]
        first = answers(ctx)[0]
        assert first["prompt"].startswith("system: Answer with one word.\n\nuser: ")
        with pytest.raises(StudioError, match="does not tell how likely") as caught:
            run(values([server.address], ["suite:facts", "suite:world"]), tmp_path / "two")
        assert caught.value.field == "tasks" and "written answers" in caught.value.hint


def test_a_server_that_fails_for_a_while_loses_nothing(home, tmp_path):
    with StandIn(lambda asked: "Yes.") as server:
        server.faults += [Reply(status=500), Reply(raw=b"<html>busy</html>"), Reply(cut=True)]
        summary, ctx = run(values([server.address], ["suite:rules"]), tmp_path / "run")
    assert len(answers(ctx)) == 6 and summary["table"][0]["suite:rules/exact_match"] == 0.0


def test_a_server_that_is_gone_is_named(home, tmp_path):
    with pytest.raises(StudioError) as caught:
        run(values(["http://127.0.0.1:9/v1#model"], ["suite:rules"]), tmp_path / "run")
    assert caught.value.field == "models" and "127.0.0.1:9" in caught.value.message


def test_likelihoods_of_a_server_that_tells_them(home, tmp_path):
    with Echo(likes=r"Olga lives in Hilltop\.") as server:
        summary, ctx = run(values([server.address], ["suite:facts", "suite:world"], limit=1), tmp_path / "run")
    by = {one["task"]: one for one in answers(ctx)}
    options = dict(map(tuple, by["suite:facts"]["more"]["options"]))
    assert by["suite:facts"]["answer"] == "Olga lives in Hilltop." and summary["table"][0]["suite:facts/acc"] == 1.0
    assert options["Olga lives in Hilltop."] == pytest.approx(-0.01 * 22 - 2.0)  # the space before it is judged as well
    assert options["Olga lives in Snowdale."] == pytest.approx(-2.0 * 24)
    text = by["suite:world"]["prompt"] or json.loads((settings.ASSETS / "evals/suite/world.jsonl").open().readline())["text"]
    assert by["suite:world"]["more"]["loglikelihood"] == pytest.approx(-2.0 * (len(text) - 1))


def test_a_server_that_tells_of_its_own_answer_is_not_believed(home, tmp_path):
    with Echo(echo=False) as server, pytest.raises(StudioError, match="does not tell how likely"):
        run(values([server.address], ["suite:facts"]), tmp_path / "run")
    assert server.asked <= 8
