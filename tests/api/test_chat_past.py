"""Chats once they are there: thoughts folded apart, earlier answers kept, branches, files, training rows, pictures."""

from __future__ import annotations

import json
import time

import pytest

from studio import api
from studio.chat import live
from studio.errors import StudioError
from tests.llm_stand_in import StandIn

PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="


@pytest.fixture
def server(home):
    said = iter(range(1000))
    with StandIn(lambda asked: f"<think>I ponder {next(said)}</think>\n\nIt is {asked.last if isinstance(asked.last, str) else 'a picture'}!") as made:
        yield made


def setup_of(*servers, system=""):
    return {"shared": {"system": system, "settings": {}}, "columns": [{"key": f"k{i}", "ref": one.address} for i, one in enumerate(servers)]}


def settled(found):
    for _ in range(200):
        found = api.chat_open(found["id"])
        if not found["running"]:
            return found
        time.sleep(0.05)
    raise AssertionError("an answer goes on and on")


def test_thoughts_are_kept_but_not_sent_back(server):
    found = settled(api.chat_ask(None, setup_of(server), "one"))
    answer = found["data"]["columns"][0]["messages"][1]["content"]
    assert answer.startswith("<think>I ponder 0</think>")
    settled(api.chat_ask(found["id"], setup_of(server), "two"))
    sent = server.requests[-1].messages
    assert [turn["content"].strip() for turn in sent] == ["one", "It is one!", "two"]
    assert live.whole("hm", "") == "<think>hm" and live.whole("hm", "yes").startswith(live.whole("hm", "")), "it only grows"


def test_another_answer_keeps_the_first_and_either_can_be_chosen(server):
    found = settled(api.chat_ask(None, setup_of(server), "one"))
    for _ in range(2):
        found = settled(api.chat_retry(found["id"], "k0", setup_of(server)))
    answer = found["data"]["columns"][0]["messages"][1]
    assert ["ponder 2" in answer["content"], ["ponder 0" in one["content"] for one in answer["others"]]] == [True, [True, False]]
    for which in (0, 1, 2, 0):
        found = api.chat_choose(found["id"], "k0", 1, which)
        answer = found["data"]["columns"][0]["messages"][1]
        assert f"ponder {which}" in answer["content"] and len(answer["others"]) == 2
    settled(api.chat_ask(found["id"], setup_of(server), "two"))
    assert server.requests[-1].messages[1]["content"].strip() == "It is one!"
    with pytest.raises(StudioError, match="not there any more"):
        api.chat_choose(found["id"], "k0", 1, 3)


def test_a_branch_leaves_the_old_chat_alone(server):
    found = settled(api.chat_ask(None, setup_of(server, server), "one"))
    found = settled(api.chat_ask(found["id"], setup_of(server, server), "two"))
    new = api.chat_branch(found["id"], "k0", 1)
    assert new["id"] != found["id"] and [len(one["messages"]) for one in new["data"]["columns"]] == [2, 2]
    assert new["data"]["branch"] == {"id": found["id"], "title": found["title"], "index": 1}
    settled(api.chat_ask(new["id"], setup_of(server, server), "three"))
    assert [len(one["messages"]) for one in api.chat_open(found["id"])["data"]["columns"]] == [4, 4]
    with pytest.raises(StudioError, match="not there any more"):
        api.chat_branch(found["id"], "k0", 9)


def test_a_chat_becomes_files_and_rows(server, home):
    found = settled(api.chat_ask(None, setup_of(server, system="Be kind."), "a <b>&"))
    text = api.chat_export(found["id"], "markdown")
    assert text["name"].endswith(".md") and "**You:**\n\na <b>&" in text["text"] and "> Be kind." in text["text"]
    known = json.loads(api.chat_export(found["id"], "json")["text"])
    assert [message["role"] for message in known["columns"][0]["messages"]] == ["user", "assistant"]
    row = json.loads(api.chat_export(found["id"], "jsonl")["text"])
    assert [turn["content"] for turn in row["messages"]] == ["Be kind.", "a <b>&", "It is a <b>&!"]
    made = api.chat_rows(found["id"], thoughts=True)
    assert made["rows"] == 1 and "<think>" in (home / made["ref"]).read_text()
    assert api.inspect(made["ref"])["rows"] == 1
    assert api.chat_rows(found["id"])["name"] != made["name"], "nothing is overwritten"
    with pytest.raises(StudioError, match="as 'docx'"):
        api.chat_export(found["id"], "docx")


def test_pictures_go_with_a_message_and_nothing_else_does(server):
    found = settled(api.chat_ask(None, setup_of(server), "What is this?", images=[PICTURE]))
    sent = server.requests[-1].messages[-1]["content"]
    assert [part["type"] for part in sent] == ["image_url", "text"] and sent[0]["image_url"]["url"] == PICTURE
    assert found["data"]["columns"][0]["messages"][0]["images"] == [PICTURE]
    with pytest.raises(StudioError, match="answered in words"):
        api.chat_rows(found["id"])
    for bad in (["https://example.com/a.png"], ["data:image/svg+xml;base64,AAAAAAAAAAAA"], ["data:text/html;base64,AAAAAAAAAAAA"], [PICTURE + '" onload="x']):
        with pytest.raises(StudioError, match="no picture"):
            api.chat_ask(None, setup_of(server), "x", images=bad)
    with pytest.raises(StudioError, match="At most 4"):
        api.chat_ask(None, setup_of(server), "x", images=[PICTURE] * 5)
