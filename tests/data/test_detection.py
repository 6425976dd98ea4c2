"""What people's files hold is recognised without help, with the reason shown: dialects, pairs, traces, tool calls, logs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.datasets.convert import Reject, normalise
from studio.datasets.roles import detect, extras_of, unfolded
from studio.datasets.thinking import apart, for_template

USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
CHAT = {"messages": [USER, BOT]}
THINK = BOT | {"reasoning_content": "Hm."}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
TREE = {"r": {"parent": None, "children": ["a"], "message": None},
        "a": {"parent": "r", "children": ["x", "b"],
              "message": {"author": {"role": "user"}, "content": {"parts": ["Why?"]}}},
        "x": {"parent": "a", "children": [],
              "message": {"author": {"role": "assistant"}, "content": {"parts": ["Old."]}}},
        "b": {"parent": "a", "children": [],
              "message": {"author": {"role": "assistant"}, "content": {"parts": ["Because."]}}}}

# (row, format, canonical shape, a word of the evidence)
CASES = {
    "pairs in objects": ({"conversation": [{"human": "Why?", "assistant": "Because."}]}, "sharegpt", CHAT,
                         "questions with"),
    "pairs in lists": ({"conversations": [["Why?", "Because."]]}, "sharegpt", CHAT, "questions with"),
    "items": ({"id": "x", "items": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
              "sharegpt",
              CHAT, "from and value"),
    "speaker and text": ({"dialog": [{"speaker": "customer", "text": "Why?"},
                                     {"speaker": "agent", "text": "Because."}]},
                         "sharegpt", CHAT, "dialog"),
    "chatgpt's export": ({"title": "T", "mapping": TREE}, "sharegpt", CHAT, "ChatGPT exports"),
    "reasoning field": ({"messages": [USER, BOT | {"reasoning_content": "Hm."}]}, "messages",
                        {"messages": [USER, THINK]},
                        "kept apart"),
    "thinking field": ({"messages": [USER, BOT | {"thinking": "Hm."}]}, "messages", {"messages": [USER, THINK]},
                       "kept apart"),
    "thinking part": ({"messages": [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."},
                                                                            {"type": "text", "text": "Because."}]}]},
                      "messages", {"messages": [USER, THINK]}, "role and content"),
    "think in text": ({"conversations": [{"from": "human", "value": "Why?"},
                                         {"from": "gpt", "value": "<think>\nHm.\n</think>\n\nBecause."}]}, "sharegpt",
                      {"messages": [USER, THINK]}, "kept apart"),
    "think in a completion": ({"prompt": "Why?", "completion": "<think>Hm.</think>Because."}, "prompt_completion",
                              {"prompt": [USER], "completion": [THINK]}, "kept apart"),
    "reasoning column": ({"Question": "Why?", "Complex_CoT": "Hm.", "Response": "Because."}, "prompt_completion",
                         {"prompt": [USER], "completion": [THINK]}, "'Complex_CoT'"),
    "reasoning in alpaca": ({"instruction": "Why?", "input": "", "output": "<think>Hm.</think> Because."}, "alpaca",
                            {"messages": [USER, THINK]}, "kept apart"),
    "reasoning in pairs": ({"prompt": "Why?", "chosen": "<think>Hm.</think>Because.", "rejected": "No."}, "preference",
                           {"prompt": [USER], "chosen": [THINK], "rejected": [BOT | {"content": "No."}]},
                           "kept apart"),
    "tool calls in text": ({"conversations": [
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'},
        {"from": "tool", "value": "<tool_response>\n7\n</tool_response>"}, {"from": "gpt", "value": "Because."}]},
                           "sharegpt",
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
                      {"role": "tool", "content": "7"}, BOT]},
        "Tool calls"),
    "calls as the answer": ({"query": "Why?", "answers": '[{"name": "f", "arguments": {"a": 1}}]',
                             "tools": '[{"name": "f", "parameters": {}}]'}, "prompt_completion",
                            {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}],
                             "tools": [TOOL]},
                            "Tool calls"),
    "reward pairs": ({"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "score_chosen": 8.5,
                      "score_rejected": 3},
                     "preference", {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "margin": 5.5},
                     "margin"),
    "margin": ({"chosen": "Why? Because.", "rejected": "Why? No.", "margin": 2}, "preference",
               {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "margin": 2.0}, "what both begin with"),
    "verdict from 0": ({"prompt": "Why?", "response_0": "No.", "response_1": "Because.", "better_response_id": 1},
                       "preference",
                       {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, "says which is better"),
    "verdict in words": ({"conversation_a": [USER, BOT], "conversation_b": [USER, BOT | {"content": "No."}],
                          "winner": "model_a"}, "preference",
                         {"prompt": [USER], "chosen": [BOT], "rejected": [BOT | {"content": "No."}]},
                         "says which is better"),
    "shp": ({"history": "Why?", "human_ref_A": "Because.", "human_ref_B": "No.", "labels": 1, "score_A": 5,
             "score_B": 2},
            "preference", {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, "'labels' says"),
    "two scores": ({"question": "Why?", "answer_0": "No.", "answer_1": "Because.", "score_0": -1, "score_1": 1.5},
                   "preference",
                   {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "margin": 2.5}, "higher score"),
    "scored list": ({"instruction": "Why?",
                     "completions": [{"response": "No.", "overall_score": 2}, {"response": "Hm.",
                     "overall_score": 5}, {"response": "Because.", "overall_score": 9}]}, "preference",
                    {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "margin": 7.0},
                    "the best and the worst"),
    "better then worse": ({"instruction": "Why?", "input": "", "output": ["Because.", "No."]}, "preference",
                          {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, "the better, then the worse"),
    "thumbs": ({"question": "Why?", "answer": "Because.", "thumbs_up": "thumbs-down"}, "rated",
               {"prompt": "Why?", "completion": "Because.", "label": False}, "marked good"),
    "service log": ({"question": "Why?", "user": {"role": "guide", "site": "park", "level": 2},
                     "model_answer": "Because.",
                     "contexts_used": [{"chunk": "It rains."}], "mark": "bad", "comment_why": "Too short.",
                     "lang": "en"},
                    "rated", {"prompt": "Why?", "completion": "Because.", "label": False, "contexts": ["It rains."],
                              "comment": "Too short.",
                              "tags": {"role": "guide", "site": "park", "level": 2, "lang": "en"}},
                    "A log of a service"),
}


@pytest.mark.parametrize("name", CASES)
def test_recognised_with_evidence(name):
    row, kind, shape, word = CASES[name]
    found = detect([row] * 3)
    assert found.format == kind and any(word in said for said in found.evidence), found
    assert normalise(row, found) == shape


def test_verdicts_that_say_nothing_are_ties():
    rows = [{"prompt": "Why?", "response_a": "Because.", "response_b": "No.", "winner": w}
            for w in ("model_a", "model_b", "tie", "tie (bothbad)")]
    found = detect(rows)
    made = [normalise(row, found) for row in rows]
    assert [m.reason if isinstance(m, Reject) else m["chosen"] for m in made] == ["Because.", "No.", "tie", "tie"]
    signed = [{"prompt": "Why?", "response1": "A.", "response2": "B.", "overall_preference": n} for n in (-3, 0, 2)]
    found = detect(signed)
    made = [normalise(row, found) for row in signed]
    assert [m.reason if isinstance(m, Reject) else m["chosen"] for m in made] == ["A.", "tie", "B."]


def test_two_texts_that_are_no_verdict_are_no_pair():
    assert detect([{"question": "Why?", "answer": "Because.", "answer_1": "a",
                    "answer_2": "b"}]).format == "prompt_completion"
    assert detect([{"question": "Why?", "answer": "Because.", "choices": ["a", "b"]}]).format == "prompt_completion"


def test_seed_tasks_make_a_row_of_each_instance(tmp_path, run_step, home):
    import json

    seeds = [{"id": "seed_0", "name": "greet", "instruction": "Say hello.", "is_classification": False,
              "instances": [{"input": "", "output": "Hello."}]},
             {"id": "seed_1", "name": "add", "instruction": "Add.", "is_classification": False,
              "instances": [{"input": "1 2", "output": "3"}, {"input": "2 2", "output": "4"}]}]
    found = detect(seeds)
    assert found.format == "alpaca" and found.unfold == "instances" and "each becomes a row" in found.evidence[-1]
    (home / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    made = run_step("import", sources=["seeds.jsonl"])
    assert [row["messages"][0]["content"] for row in made.rows()] == ["Say hello.", "Add.\n\n1 2", "Add.\n\n2 2"]
    assert dict(next(made.items()).tags) == {"id": "seed_0", "name": "greet", "is_classification": "False"}
    assert unfolded({"instances": []}, "instances") == [{"instances": []}]
    assert detect([{"instances": [], "text": "a"}]).format == "text"
    assert detect([seeds[0], seeds[0] | {"instances": []}]).unfold == "instances"


@pytest.mark.parametrize(("text", "parts"), [
    ("<think>a</think>b", ("a", "b")), ("\n<thinking> a </thinking>\nb", ("a", "b")), ("a\n</think>\n\nb", ("a", "b")),
    ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b<|end_of_solution|>", ("a", "b")),
    ("<think></think>b", ("", "b")),
    ("<think>a</think>", ("", "<think>a</think>")), ("<think>a", ("", "<think>a")), ("b", ("", "b")),
    ("say <think>a</think>", ("", "say <think>a</think>")), ("a</think>b</think>c", ("", "a</think>b</think>c")),
])
def test_reasoning_is_taken_apart_only_where_it_is_whole(text, parts):
    assert apart(text) == parts


def test_reasoning_goes_where_the_template_looks_for_it():
    assert for_template([USER, THINK], "{{ message.reasoning_content }}") == [USER, THINK]
    assert for_template([USER, THINK], "{{ message.thinking }}") == [USER, BOT | {"thinking": "Hm."}]
    assert for_template([USER, THINK], "{{ message.content }}") == \
        [USER, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nBecause."}]
    assert for_template([USER, BOT], None) == [USER, BOT]


def test_other_columns_become_tags():
    row = {"site": "park", "n": 3, "user": {"role": "guide", "site": "zoo"}, "words": ["a", "b"], "long": "x" * 300,
           "none": None,
           "deep": {"a": {"b": 1}}}
    assert extras_of(row, list(row)) == {"site": "park", "n": 3, "role": "guide", "user.site": "zoo", "words": "a, b"}


def test_tags_of_every_format_reach_the_version(run_step, jsonl):
    chat = {"messages": [USER, BOT], "site": "park", "level": 2, "note": "y" * 500}
    made = run_step("import", sources=[jsonl("a.jsonl", [chat])])
    assert dict(next(made.items()).tags) == {"site": "park", "level": "2"} and list(made.rows()) == [CHAT]
    made = run_step("import", sources=["a.jsonl"], keep_tags=False)
    assert next(made.items()).tags is None


def test_training_sees_the_reasoning_whatever_the_template():
    """A template without a field for it gets it in the text; nothing of a trace is lost on the way into a model."""
    transformers = pytest.importorskip("transformers")
    from studio.recipe import parse
    from studio.settings import STARTER
    from studio.trainers.data import Encoder

    tokenizer = transformers.AutoTokenizer.from_pretrained(STARTER)
    encoder = Encoder(tokenizer, parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite"}), chat=True)
    assert "<think>\nHm.\n</think>\n\nBecause." in tokenizer.decode(encoder({"messages": [USER, THINK]}).input_ids)


def test_parts_with_values_reasoning_and_calls():
    """The newer layout of LLaMA-Factory: every part of a message has a type and a value."""
    row = {"messages": [{"role": "user", "content": [{"type": "text", "value": "Why?"}]},
                        {"role": "assistant", "content": [{"type": "reasoning", "value": "Hm."},
                                                          {"type": "tool_call",
                                                           "value": '{"name": "f", "arguments": {"a": 1}}'}]},
                        {"role": "tool", "content": [{"type": "text", "value": "7"}]},
                        {"role": "assistant", "content": [{"type": "text", "value": "Because."}], "loss_weight": 1.0}]}
    found = detect([row])
    assert found.evidence[1:] == ["Tool calls are among them.",
                                  "Reasoning before the answers is kept apart from them."]
    assert normalise(row, found) == {"messages": [
        USER, {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "Hm."},
        {"role": "tool", "content": "7"}, BOT]}
    picture = {"messages": [{"role": "user", "content": [{"type": "image_url", "value": "x.jpg"}]}, BOT]}
    assert str(normalise(picture, detect([picture]))) == "a message is not text (message 1: a picture, sound or film)"
    pair = {"chosen_messages": [USER, BOT], "rejected_messages": [USER, BOT | {"content": "No."}]}
    assert normalise(pair, detect([pair]))["chosen"] == [BOT]


def test_questions_of_a_benchmark_are_no_conversation():
    from studio.errors import StudioError

    with pytest.raises(StudioError, match="No known format"):
        detect([{"question_id": 81, "category": "writing", "turns": ["Write a post.", "Write it again."]}])


@pytest.mark.parametrize("indent", [None, 2])
def test_one_conversation_a_file(home, run_step, indent):
    import json

    (home / "chats").mkdir()
    for n, row in enumerate((CHAT, {"id": 1, "mapping": TREE}, {"conversations": [{"from": "human", "value": "Why?"},
                                                                                  {"from": "gpt",
                                                                                   "value": "Because."}]})):
        (home / "chats" / f"{n}.json").write_text(json.dumps(row, indent=indent))
    made = run_step("import", sources=["chats"])
    assert list(made.rows()) == [CHAT] * 3
    assert [entry["format"] for entry in made.meta["history"][-1]["facts"]["sources"]] == ["messages", "sharegpt",
                                                                                           "sharegpt"]


def test_text_files_with_a_paragraph_a_line(tmp_path):
    from studio.datasets.readers import open_rows

    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"{n} " + "word " * 60 for n in range(5)))
    assert len(list(open_rows(path))) == 5
    path.write_text("\n".join("a line broken by hand" for _ in range(5)))
    assert len(list(open_rows(path))) == 1


def test_a_pointer_of_git_lfs_is_told_as_such(tmp_path):
    from studio.datasets.readers import open_rows
    from studio.errors import StudioError

    path = tmp_path / "train.jsonl.gz"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:8be3\nsize 875191\n")
    with pytest.raises(StudioError, match="pointer of Git LFS") as caught:
        list(open_rows(path))
    assert "git lfs pull" in caught.value.hint


junk = st.recursive(st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.text(max_size=12)
                    | st.sampled_from(["<think>a</think>b", '<tool_call>{"name": "f"}</tool_call>', "[1, 2]", "model_a", "tie", "👍"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["role", "content", "from", "value", "type", "text", "thinking", "parent", "children",
                                         "message", "author", "parts", "human", "assistant", "input", "output", "response",
                                         "overall_score", "name", "arguments"]), inner, max_size=4), max_leaves=16)
COLUMNS = sorted({column for row, *_ in CASES.values() for column in row} | {"instances", "images", "margin", "completions", "scores",
                                                                            "answer_b", "answer_a", "tags", "score_b"})


@settings(max_examples=400, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), junk, min_size=1, max_size=5), min_size=1, max_size=3))
def test_any_junk_is_a_row_or_a_reason_never_a_crash(rows):
    import json

    from studio.datasets.convert import REJECTS, for_sft, turns_of
    from studio.datasets.export import WRITERS
    from studio.datasets.version import item_of, shape_of
    from studio.errors import StudioError

    try:
        found = detect(rows)
    except StudioError:
        return
    for row in (one for row in rows for one in unfolded(row, found.unfold)):
        made = normalise(row, found)
        if isinstance(made, Reject):
            assert made.reason in REJECTS and str(made)
            continue
        assert turns_of(made) and shape_of(made) in ("messages", "prompt_completion", "text", "preference", "rated")
        item = item_of(made, tags=extras_of(row, list(row)))
        assert json.loads(item.text) and item.turns
        for_sft(made)
        for write in WRITERS.values():
            try:
                write(made)
            except StudioError as err:
                assert err.hint


ODD = [None, True, 0, -1, 1e400, float("nan"), "", " ", "x", [], {}, [[]], [None], {"a": None}, "[{", '{"a":1}', "<think></think>",
       "<tool_call>{}</tool_call>", "<tool_call>[1]</tool_call>", [{"role": "user"}], {"role": 5, "content": []}, ["a", "b"],
       [["a", "b"]], "\ud800", 10**30]


@pytest.mark.parametrize("seed", range(4))
def test_rows_with_odd_values_anywhere_go_through_to_every_file(seed):
    """Good rows with one to three values replaced or taken out, read, stored, written in every format and as Parquet."""
    import copy
    import json
    import random

    import pyarrow as pa

    from studio.datasets.convert import REJECTS
    from studio.datasets.export import WRITERS
    from studio.datasets.typed import Shape
    from studio.datasets.version import item_of
    from studio.errors import StudioError

    def places(value, path=()):
        yield path
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            yield from places(inner, (*path, key))

    draw, rows, usable = random.Random(seed), [case[0] for case in CASES.values()], 0
    for _ in range(1500):
        base = draw.choice(rows)
        row = copy.deepcopy(base)
        for _ in range(draw.randint(1, 3)):
            path = draw.choice([path for path in places(row) if path] or [()])
            if not path:
                break
            inside = row
            for key in path[:-1]:
                inside = inside[key]
            if draw.random() < 0.2 and isinstance(inside, dict):
                inside.pop(path[-1])
            else:
                inside[path[-1]] = copy.deepcopy(draw.choice(ODD))
        try:
            found = detect([base if draw.random() < 0.6 else row] * 2)
        except StudioError:
            continue
        made = normalise(row, found)
        if isinstance(made, Reject):
            assert made.reason in REJECTS
            continue
        usable += 1
        stored = json.loads(item_of(made, tags=extras_of(row, list(row))).text)
        for write in WRITERS.values():
            try:
                written = write(stored)
            except StudioError:
                continue
            shape = Shape()
            shape.see(written)
            pa.RecordBatch.from_pylist([shape.typed(written)], schema=shape.schema())
    assert usable > 150
