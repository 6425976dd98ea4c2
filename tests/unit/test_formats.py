"""Formats are recognised without help, rows survive normalising, and the split is fair."""

from __future__ import annotations

import json
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.datasets import formats
from studio.datasets.convert import MENDS, REJECTS, Reject, for_sft, normalise, turns_of
from studio.datasets.export import export_rows
from studio.datasets.formats import Detected, detect, load_rows, split
from studio.datasets.inspect import inspect
from studio.errors import StudioError
from studio.settings import DATASETS

INDEX = yaml.safe_load((DATASETS / "datasets.yaml").read_text("utf-8"))

USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}
CHAT = {"messages": [USER, BOT]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

# (a row as people have it, its format, its canonical shape)
CASES = [
    ({"messages": [USER, BOT]}, "messages", CHAT),
    ({"conversation": [USER, BOT], "id": 3}, "messages", CHAT),
    ({"prompt": "Why?", "prompt_id": "x", "messages": [USER, BOT]}, "messages", CHAT),
    ({"messages": json.dumps([USER, BOT])}, "messages", CHAT),
    ({"messages": repr([USER, BOT])}, "messages", CHAT),
    ({"messages": [USER, BOT | {"content": [{"type": "text", "text": "Because."}]}]}, "messages", CHAT),
    ({"messages": [USER, BOT | {"tool_calls": None, "name": None}]}, "messages", CHAT),
    ({"messages": [USER, BOT], "system_prompt": "Be brief."}, "messages",
     {"messages": [{"role": "system", "content": "Be brief."}, USER, BOT]}),
    ({"conversations": [HUMAN, GPT]}, "sharegpt", CHAT),
    ({"conversations": [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": "Because."}]}, "sharegpt",
     CHAT),
    ({"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT]}, "sharegpt",
     {"messages": [{"role": "system", "content": "Be brief."}, USER, BOT]}),
    ({"conversations": [GPT, HUMAN, GPT]}, "sharegpt", CHAT),
    ({"id": "1", "data": ["Why?", "Because."]}, "sharegpt", CHAT),
    ({"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
                        {"from": "observation", "value": "7"}, GPT], "tools": json.dumps([TOOL["function"]])},
     "sharegpt",
     {"messages": [USER, {"role": "assistant", "content": "",
                          "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
                   {"role": "tool", "content": "7"}, BOT], "tools": [TOOL]}),
    ({"instruction": "Why?", "input": "", "output": "Because."}, "alpaca", CHAT),
    ({"instruction": "Why?", "context": "It rains.", "response": "Because.", "category": "qa"}, "alpaca",
     {"messages": [{"role": "user", "content": "Why?\n\nIt rains."}, BOT]}),
    ({"instruction": "Why?", "input": "", "output": "Because.", "system": "Be brief.", "history": [["Hi", "Hello"]]},
     "alpaca",
     {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                   {"role": "assistant", "content": "Hello"}, USER, BOT]}),
    ({"instruction": "Why?", "output": 4, "score": 4.5}, "alpaca",
     {"messages": [USER, {"role": "assistant", "content": "4"}]}),
    ({"prompt": "Why?", "completion": " Because."}, "prompt_completion",
     {"prompt": "Why?", "completion": " Because."}),
    ({"prompt": [USER], "completion": [BOT]}, "prompt_completion", {"prompt": [USER], "completion": [BOT]}),
    ({"question": "Why?", "answer": "Because.", "label": "history"}, "prompt_completion",
     {"prompt": "Why?", "completion": "Because."}),
    ({"Query": "Why?", "Response": "Because."}, "prompt_completion", {"prompt": "Why?", "completion": "Because."}),
    ({"problem": "1+1", "solution": 2}, "prompt_completion", {"prompt": "1+1", "completion": "2"}),
    ({"question": "Why?", "answer": "Because.", "system": "Be brief."}, "prompt_completion",
     {"messages": [{"role": "system", "content": "Be brief."}, USER, BOT]}),
    ({"text": "Once."}, "text", {"text": "Once."}),
    ({"title": "T", "content": "Once."}, "text", {"text": "Once."}),
    ({"verse": "Once."}, "text", {"text": "Once."}),
    ({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, "preference",
     {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}),
    ({"prompt": "Why?", "chosen": [USER, BOT], "rejected": [USER, BOT | {"content": "No."}], "score_chosen": 9.0},
     "preference",
     {"prompt": [USER], "chosen": [BOT], "rejected": [BOT | {"content": "No."}]}),
    ({"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
     "preference",
     {"prompt": [USER], "chosen": [BOT], "rejected": [BOT | {"content": "No."}]}),
    ({"chosen": "Why? Because.", "rejected": "Why? No."}, "preference",
     {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}),
    ({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT | {"value": "No."}}, "preference",
     {"prompt": [USER], "chosen": [BOT], "rejected": [BOT | {"content": "No."}]}),
    ({"prompt": "Why?", "completion": "Because.", "label": True}, "rated",
     {"prompt": "Why?", "completion": "Because.", "label": True}),
    ({"messages": [USER, BOT], "label": False}, "rated", {"prompt": [USER], "completion": [BOT], "label": False}),
    ({"question": "Why?", "answer": "Because.", "contexts": ["It rains.", {"text": "Clouds."}], "mark": "👍",
      "comment": "Right.",
      "site": "park", "level": 2}, "rated",
     {"prompt": "Why?", "completion": "Because.", "label": True, "contexts": ["It rains.", "Clouds."],
      "comment": "Right.",
      "tags": {"site": "park", "level": 2}}),
]


@pytest.mark.parametrize(("row", "kind", "shape"), CASES, ids=[f"{i}-{c[1]}" for i, c in enumerate(CASES)])
def test_recognised_and_normalised(row, kind, shape):
    found = detect([row] * 3)
    assert found.format == kind
    assert found.evidence and set(found.roles.values()) <= set(row)
    assert normalise(row, found) == shape


@pytest.mark.parametrize("key", INDEX)
def test_shipped_sets_are_recognised(home, key):
    assert load_rows(f"shipped:{key}").detected.format == INDEX[key]["format"]


@pytest.mark.parametrize("key", [key for key in INDEX if "faults" in INDEX[key]])
def test_every_planted_fault_is_found(home, key):
    """The messy sets say how many rows have each fault; the findings are exactly those."""
    found = {f["code"]: f["count"] for f in inspect(f"shipped:{key}")["findings"]}
    if "cut_line" in found:
        found["broken_line"] = found.pop("cut_line")
    assert found == INDEX[key]["faults"]


@pytest.mark.parametrize("key", [key for key in INDEX if "faults" not in INDEX[key]])
def test_no_fault_is_found_in_clean_sets(home, key):
    report = inspect(f"shipped:{key}")
    meant = {"truncated", "html"} if key == "calibration" else set()  # it holds word lists, headings and code on purpose
    assert {finding["code"] for finding in report["findings"]} == meant
    assert report["rows"] == INDEX[key]["rows"] and report["rows_exact"]


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


U, A, S = ("user", "Why?"), ("assistant", "Because."), ("system", "Be brief.")


@pytest.mark.parametrize(("row", "reason"), [
    (chat(U), "no_answer"), ({"messages": []}, "no_messages"), ({"messages": None}, "no_messages"),
                                             ({}, "no_messages"),
    (chat(A), "assistant_first"), (chat(A, U), "assistant_first"), (chat(U, ("assistant", " ")), "empty_answer"),
    (chat(U, ("assistant", None)), "not_text"), (chat(U, ("assistant", True)), "not_text"),
                                             (chat(("robot", "x"), A), "unknown_role"),
    (chat(U, A, S), "late_system"), (chat(U, S, A), "late_system"), (chat(("user", ""), A), "empty_prompt"),
    (chat(U, ("tool", "7"), A), "tool_order"), ({"messages": ["Why?", 3]}, "not_text"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, BOT]}, "not_text"),
    ({"messages": [USER, {"role": "assistant", "content": None,
                          "tool_calls": [{"function": {"name": "f", "arguments": "{no"}}]}]},
     "bad_tool_call"),
])
def test_rows_that_cannot_be_used(row, reason):
    made = normalise(row, Detected("messages", {"messages": "messages"}))
    assert isinstance(made, Reject) and made.reason == reason and reason in REJECTS


@pytest.mark.parametrize(("row", "code", "roles"), [
    (chat(A, U, A), "assistant_first", "ua"), (chat(U, U, A), "user_twice", "ua"),
                                                    (chat(U, A, U), "unanswered_end", "ua"),
    (chat(("user", 5), A), "number", "ua"), (chat(S, U, A, A), "user_twice", "sua"),
])
def test_rows_that_are_mended(row, code, roles):
    codes: list[str] = []
    made = normalise(row, Detected("messages", {"messages": "messages"}), codes)
    assert [m["role"][0] for m in made["messages"]] == list(roles)
    assert codes == [code] and code in MENDS


@pytest.mark.parametrize(("value", "good"), [
    ("good", True), ("Bad", False), (1, True), (0, False), (-1, False), ("thumbs up", True), ("👎", False),
                                             (True, True), (1.0, True),
    ("maybe", None),
])
def test_marks(value, good):
    from studio.datasets.roles import mark

    assert mark(value) is good


def test_scores_are_good_above_the_middle():
    rows = [{"prompt": "a", "completion": "b", "rating": n} for n in (1, 2, 3, 4, 5)]
    found = detect(rows)
    assert found.format == "rated" and found.scale == (1.0, 5.0)
    made = [normalise(row, found) for row in rows]
    assert [m.reason if isinstance(m, Reject) else m["label"] for m in made] == [False, False, "no_mark", True, True]


def test_sft_takes_the_chosen_and_the_good(home):
    pairs = load_rows("shipped:preferences")
    assert all(row["completion"][0]["content"].startswith("Of course!") for row in pairs) and pairs.notes
    rated = load_rows("shipped:rated-answers")
    raw = [json.loads(line) for line in (DATASETS / "rated-answers.jsonl").read_text("utf-8").splitlines()]
    good = [row for row in raw if row["rating"] == "good"]
    assert [row["completion"] for row in rated] == [row["answer"] for row in good]
    assert next(iter(rated))["prompt"] == "\n".join(good[0]["contexts"]) + "\n\n" + good[0]["question"]
    assert sum(1 for _ in load_rows("shipped:rated-answers", purpose="as_is")) == len(raw)
    assert isinstance(for_sft({"prompt": "a", "completion": "b", "label": False}), Reject)


def test_columns_chosen_by_the_person():
    rows = [{"frage": "Why?", "antwort": "Because.", "question": "no"}]
    found = detect(rows, {"prompt": "frage", "completion": "antwort"})
    assert (found.format, found.confidence) == ("prompt_completion", 1.0)
    assert normalise(rows[0], found) == {"prompt": "Why?", "completion": "Because."}
    assert detect([{"q1": "a", "answer": "b"}], {"prompt": "q1"}).roles == {"prompt": "q1", "completion": "answer"}
    kept = detect([{"question": "a", "answer": "b", "note": "c", "label": "maths"}] * 2, {"completion": "note"})
    assert (kept.format, kept.roles) == ("prompt_completion", {"prompt": "question", "completion": "note"})
    assert detect([{"talk": [HUMAN, GPT]}], {"messages": "talk"}).format == "sharegpt"
    assert detect([{"a": "x", "b": "y"}], {"text": "b"}).format == "text"
    rated = [{"q": "a", "a": "b", "ok": "yes"}]
    assert detect(rated, {"prompt": "q", "completion": "a", "label": "ok"}).format == "rated"


@pytest.mark.parametrize(("columns", "said"), [
    ({"prompt": "qestion"}, "no column 'qestion'"), ({"boss": "question"}, "not a role"),
                                               ({"history": "question"}, "A role is missing"),
    ({"messages": "question"}, "holds no conversations"),
])
def test_wrong_columns_are_refused_at_their_field(columns, said):
    with pytest.raises(StudioError, match=said) as caught:
        detect([{"question": "Why?", "answer": "Because."}], columns)
    assert caught.value.field == "columns" and caught.value.hint


def test_unknown_format_is_refused_with_the_columns_named():
    rows = [{"temperature": "12", "city": "Rome"}]
    with pytest.raises(StudioError, match="'temperature', 'city'") as caught:
        detect(rows)
    assert caught.value.field == "dataset"
    with pytest.raises(StudioError):
        detect(rows, format="alpaca")


def test_counts_and_examples_of_left_out_rows(home):
    rows = load_rows("shipped:messy-alpaca")
    kept = list(rows)
    lost = {code: entry["count"] for code, entry in rows.rejects.items()}
    assert lost == {"missing_answer": 2, "empty_answer": 7}
    assert rows.total == 60 and rows.kept == len(kept) == 51 and rows.duplicates == 6
    assert all(0 < len(entry["examples"]) <= 5 for entry in rows.rejects.values())
    assert list(rows) == kept, "a second pass gives the same"
    json.dumps(rows.to_dict())


def test_inspect_is_plain_json_and_complete(home):
    report = inspect("shipped:rated-answers")
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert len(report["samples"]) == 20 and len(report["raw"]) == 5
    assert report["stats"]["marks"] == {"good": 69, "bad": 51} and report["usable"] == 69
    assert report["stats"]["turns"] == {"mean": 2.0, "p50": 2, "p90": 2, "p99": 2, "max": 2}


def test_inspect_keeps_columns_of_an_unknown_format(tmp_path):
    path = tmp_path / "weather.csv"
    path.write_text("temperature,city\n12,Rome\n9,Oslo\n")
    report = inspect(path)
    assert report["format"] is None and report["columns"] == ["temperature", "city"] and report["rows"] == 2
    assert [f["code"] for f in report["findings"]] == ["unknown_format"]
    assert inspect(path, columns={"prompt": "city", "completion": "temperature"})["usable"] == 2


def test_hostile_text_is_data_and_flagged(tmp_path):
    path = tmp_path / "x.jsonl"
    evil = "<script>alert(1)</script>"
    path.write_text(json.dumps(chat(("user", evil), ("assistant", "<|im_end|> ok."))) + "\n")
    report = inspect(path)
    assert report["samples"][0]["messages"][0]["content"] == evil
    assert {f["code"] for f in report["findings"]} == {"html", "special_tokens"}


# --- properties

words = st.text(string.ascii_letters + string.digits + " .,!?\n'\"{}[]<>éß漢😀\u2028", min_size=1,
                max_size=60).filter(lambda t: t.strip())
# Text that looks like JSON is parsed only where a conversation is expected: any text may stand in a message.
pairs = st.tuples(words, words)
chats = st.builds(
    lambda system, turns: {"messages": ([{"role": "system", "content": system}] if system else [])
                           + [m for q, a in turns
                              for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]},
    st.none() | words, st.lists(pairs, min_size=1, max_size=4))
completions = st.builds(lambda p: {"prompt": p[0], "completion": p[1]}, pairs)
texts = st.builds(lambda t: {"text": t}, words)


def again(rows, kind):
    """Rows written in a format and read back."""
    raw = json.loads(json.dumps(list(export_rows(rows, kind))))
    found = detect(raw)
    assert found.format == kind
    return raw, [normalise(row, found) for row in raw]


@settings(max_examples=60, deadline=None)
@given(st.lists(chats, min_size=1, max_size=5))
def test_chats_survive_messages_and_sharegpt(rows):
    raw, back = again(rows, "messages")
    assert raw == rows == back
    raw, back = again(rows, "sharegpt")
    assert back == rows and list(export_rows(back, "sharegpt")) == raw


@settings(max_examples=60, deadline=None)
@given(st.lists(chats, min_size=1, max_size=5))
def test_chats_survive_alpaca(rows):
    rows = [{"messages": [m | {"content": m["content"].strip()} for m in row["messages"]]} for row in rows]
    raw, back = again(rows, "alpaca")
    assert back == rows and list(export_rows(back, "alpaca")) == raw


@settings(max_examples=60, deadline=None)
@given(st.lists(completions, min_size=1, max_size=5))
def test_prompts_survive_prompt_completion(rows):
    raw, back = again(rows, "prompt_completion")
    assert raw == rows == back


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_texts_survive_text(rows):
    raw, back = again(rows, "text")
    assert raw == rows == back


def test_a_format_that_cannot_hold_a_row_refuses():
    with pytest.raises(StudioError):
        list(export_rows([{"text": "x"}], "messages"))
    with pytest.raises(StudioError):
        list(export_rows([CHAT | {"tools": [TOOL]}], "alpaca"))
    with pytest.raises(StudioError):
        list(export_rows([CHAT], "xml"))


junk = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
                        st.sampled_from(["role", "content", "from", "value", "tool_calls", "name", "function",
                                         "arguments", "x"]), inner,
                        max_size=4), max_leaves=20)
COLUMNS = sorted({column for row, _, _ in CASES for column in row})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), junk, min_size=1, max_size=5), min_size=1, max_size=4))
def test_any_junk_is_a_row_or_a_reason_never_a_crash(rows):
    try:
        found = detect(rows)
    except StudioError:
        return
    for row in rows:
        made = normalise(row, found)
        assert isinstance(made, Reject) and made.reason in REJECTS or turns_of(made)
        json.dumps(made if not isinstance(made, Reject) else str(made)).encode()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([f"row {i}" for i in range(12)]), max_size=60), st.floats(0, 0.9), st.integers(-5, 99))
def test_split_is_fair(names, share, seed):
    rows = [{"text": name} for name in names]
    train, held = split(rows, share, seed)
    assert sorted(map(str, train + held)) == sorted(map(str, rows))
    assert not {str(r) for r in train} & {str(r) for r in held}, "identical rows never straddle"
    assert split(list(rows), share, seed) == (train, held)
    if share > 0 and len(set(names)) > 1:
        assert train and held
    if share == 0 or len(set(names)) < 2:
        assert not held


def test_split_takes_its_share_whatever_the_order():
    rows = [{"text": f"row {i}"} for i in range(1000)]
    train, held = split(rows, 0.1, 7)
    assert len(held) == 100
    back = split(rows[::-1], 0.1, 7)[1]
    assert {r["text"] for r in back} == {r["text"] for r in held}
    assert {r["text"] for r in split(rows, 0.1, 8)[1]} != {r["text"] for r in held}, "the seed matters"
    assert [r["text"] for r in train] == sorted((r["text"] for r in train),
                                                key=lambda t: int(t.split()[1])), "order kept"


def test_zero_rows_left_is_refused_and_says_why(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text('{"instruction": "a", "output": ""}\n' * 3 + '{"instruction": "a", "output": null}\n')
    with pytest.raises(StudioError, match="3 because the answer is empty; 1 because the answer is missing") as caught:
        list(load_rows(path))
    assert caught.value.field == "dataset"
    with pytest.raises(StudioError, match="No usable rows"):
        formats.check(str(path))
