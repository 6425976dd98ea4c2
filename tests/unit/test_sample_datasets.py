"""Every shipped dataset is what the index says: format, rows, faults, and reproducible from its generator."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from studio.starter import calibration, corpus, faults, samples, skills

FOLDER = Path(__file__).parents[2] / "assets" / "datasets"
INDEX = yaml.safe_load((FOLDER / "datasets.yaml").read_text(encoding="utf-8"))
CHAT_KEYS = {"alpaca": {"instruction", "input", "output"}, "prompt_completion": {"prompt", "completion"},
             "preference": {"prompt", "chosen", "rejected"}, "sharegpt": {"id", "conversations"},
             "rated": {"question", "answer", "contexts", "rating", "comment", "role", "site", "level"}}


def read(key: str) -> list:
    path = FOLDER / INDEX[key]["file"]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return [part for part in text.split("\n\n") if part.strip()]
    if path.suffix == ".json":
        return json.loads(text)
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            rows.append(None)
    return rows


def test_index_and_folder_agree():
    files = {p.name for p in FOLDER.iterdir()} - {"datasets.yaml"}
    assert files == {entry["file"] for entry in INDEX.values()}
    for key, entry in INDEX.items():
        assert {"file", "format", "rows", "title", "description", "teaches"} <= set(entry), key


def test_files_are_what_the_generator_writes():
    for name, content in samples.files().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == content, f"{name}: run python -m studio.starter.samples"


@pytest.mark.parametrize("key", INDEX)
def test_rows_and_columns(key):
    rows = read(key)
    assert len(rows) == INDEX[key]["rows"]
    assert 30 <= len(rows) <= 300
    if "faults" in INDEX[key]:
        return
    kind = INDEX[key]["format"]
    assert len({json.dumps(r, sort_keys=True) for r in rows}) == len(rows), "no duplicates in a clean set"
    for row in rows:
        if kind in CHAT_KEYS:
            assert set(row) == CHAT_KEYS[kind]
        elif kind == "messages":
            roles = [m["role"] for m in row["messages"]]
            assert roles[0] == "user" and roles[-1] == "assistant"
            assert all(m["content"] or m.get("tool_calls") for m in row["messages"])


def test_polite_sets_share_no_question():
    train = {r["messages"][0]["content"] for r in read("polite")}
    held = {r["messages"][0]["content"] for r in read("polite-heldout")}
    assert len(held) == 40 and not train & held
    for row in read("polite") + read("polite-heldout"):
        answer = row["messages"][1]["content"]
        assert answer.startswith("Of course! ") and answer.endswith(" Is there anything else?")


def test_calibration_texts_are_of_many_kinds():
    rows = [row["messages"] for row in read("calibration")]
    for kind in (calibration.ENGLISH, calibration.CODE, calibration.LANGUAGES):
        asked = {question for question, _ in kind}
        assert 5 <= sum(chat[0]["content"] in asked for chat in rows[:64]), "however few are used, some of each"
        assert sum(chat[0]["content"] in asked for chat in rows) == len(kind)
    for chat in rows:
        question, answer = chat[0]["content"], chat[1]["content"]
        if " + " in answer and " = " in answer and "What is" in question:
            left, right = answer.split(" = ")
            assert sum(int(part) for part in left.split(" + ")) == int(right)


def test_harder_sums_are_right_and_harder():
    held = {q.messages[-1]["content"] for q in corpus.held_out(1, 200, untaught=True) if q.skill == "harder_sums"}
    for row in read("harder-sums"):
        left, right = row["output"].removesuffix(".").split(" is ")
        a, b = (int(x) for x in left.split(" + "))
        assert a + b == int(right) and 20 < a + b < 100
        assert f"What is {a} + {b}?" not in held


def test_lumi_is_word_for_word():
    for row in read("lumi-names"):
        human, gpt = row["conversations"]
        phrase = human["value"].removeprefix("What is ").removesuffix(" in Lumi?")
        said = " ".join(samples.w.LUMI[x] for x in phrase.split())
        assert gpt == {"from": "gpt", "value": f"In Lumi, {phrase} is {said}."}


def test_rated_answers_have_reasons():
    rows = read("rated-answers")
    assert {r["rating"] for r in rows} == {"good", "bad"}
    for row in rows:
        name = row["question"].removesuffix("?").split()
        fact = next(c for c in row["contexts"] if c.split()[0] in name)
        right = fact in row["answer"]
        assert row["rating"] == "bad" or right
        assert row["comment"] or row["rating"] == "good"


def test_tool_calls_name_a_tool_that_is_offered():
    for row in read("tool-calls"):
        call = row["messages"][1]["tool_calls"][0]["function"]
        offered = {t["function"]["name"]: t["function"]["parameters"]["properties"] for t in row["tools"]}
        assert set(call["arguments"]) == set(offered[call["name"]])
        assert row["messages"][2]["content"] in row["messages"][3]["content"]


def test_faults_of_the_alpaca_export():
    rows = read("messy-alpaca")
    known = {item.question: item.answer for item in _all_items()}
    seen: Counter = Counter()
    exact: set = set()
    for row in rows:
        text, truth = row.get("output"), known[row["instruction"]]
        key = json.dumps(row, sort_keys=True)
        if key in exact:
            seen["duplicate"] += 1
        elif text is None:
            seen["missing_answer"] += 1
        elif not text.strip():
            seen["empty_answer"] += 1
        elif "â€" in text:
            seen["mojibake"] += 1
        elif text != truth and truth.startswith(text):
            seen["truncated"] += 1
        elif text != truth:
            seen["conflicting"] += 1
        exact.add(key)
    assert seen == INDEX["messy-alpaca"]["faults"]


def test_faults_of_the_chat_export():
    seen: Counter = Counter()
    exact: set = set()
    for row in read("messy-messages"):
        if row is None:
            seen["broken_line"] += 1
            continue
        key = json.dumps(row, sort_keys=True)
        chat = row["messages"]
        roles = [m["role"] for m in chat]
        if key in exact:
            seen["duplicate"] += 1
        elif not chat:
            seen["no_messages"] += 1
        elif not set(roles) <= {"system", "user", "assistant"}:
            seen["unknown_role"] += 1
        elif "system" in roles[1:]:
            seen["late_system"] += 1
        elif roles[0] == "assistant":
            seen["assistant_first"] += 1
        elif "assistant" not in roles:
            seen["no_answer"] += 1
        elif roles[:2] == ["user", "user"]:
            seen["user_twice"] += 1
        elif chat[-1]["content"] is None:
            seen["not_text"] += 1
        elif not chat[-1]["content"]:
            seen["empty_answer"] += 1
        elif "â€" in chat[-1]["content"]:
            seen["mojibake"] += 1
        exact.add(key)
    assert seen == INDEX["messy-messages"]["faults"]


def test_mojibake_is_reversible():
    assert faults.mojibake("‘It’s’").encode("cp1252").decode("utf-8") == "‘It’s’"


def _all_items() -> list[skills.Item]:
    import random

    rng = random.Random(0)
    makers = (skills.people, skills.animals, skills.colours, skills.opposites, skills.places)
    return [make(rng, held) for make in makers for held in (False, True) for _ in range(4000)]
