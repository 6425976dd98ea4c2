"""Rewards: what they score and why, what they refuse, and that code of one's own can do no harm."""

from __future__ import annotations

import json
import math
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from studio import rewards, sandbox, settings
from studio.errors import StudioError
from studio.recipe import fields
from tests.llm_stand_in import Asked, Reply, StandIn

needs_sandbox = pytest.mark.skipif(bool(sandbox.missing()), reason=f"no sandbox here: {sandbox.missing()}")
HOSTILE = ["", " ", "\x00", "a" * 100_000, "((((" * 5000, "<think>" * 3000, "\ud800", "[" * 20_000, "9" * 5000, "{" * 5000,
           "🙂" * 50, "{\"a\": NaN}", "1e999", "\u202e\u200b"]


class Ctx:
    """Hears the warnings of a run."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str]] = []

    def warning(self, code: str, message: str, hint: str = "") -> None:
        self.warnings.append((code, message))

    def log(self, text: str) -> None:
        """Not of interest."""


def scores(options: dict, answers: list, prompts: list | None = None, ctx: Ctx | None = None, recipe: object = None,
           **columns: list) -> tuple[list, list[str]]:
    """(scores, reasons) of one reward as TRL would call it."""
    (function,) = made = rewards.build([options], ctx, recipe)
    try:
        return function(prompts or ["What is it?"] * len(answers), answers, completion_ids=[[1]] * len(answers),
                        trainer_state=object(), log_metric=print, **columns), function.reasons
    finally:
        rewards.close(made)


RIGHT_AND_WRONG = [
    ({"name": "exact"}, " It is 97 ", "it is 97", {"answer": "It is 97"}),
    ({"name": "normalised"}, "the IT is: 97!", "It is 98", {"answer": "It is 97"}),
    ({"name": "contains"}, "I think it is 97, yes", "It is 9", {"answer": "it is 97"}),
    ({"name": "number"}, "84 and 13 make 97.", "84 and 13 make 98.", {"answer": "#### 97"}),
    ({"name": "number", "column": "right"}, "97", "96", {"answer": "1", "right": "97"}),
    ({"name": "number", "column": "right"}, "97", "96", {"answer": "1", "tags": {"right": "97"}}),
    ({"name": "exact"}, "<think>hm, 97</think><answer>97</answer>", "<answer>98</answer>", {"answer": "97"}),
    ({"name": "regex", "form": "think_answer"}, "<think>so\nso</think>\n<answer>97</answer>\n",
     "<think>so</think> 97", {}),
    ({"name": "regex", "form": "think_answer"}, "<think>a</think><answer>b</answer>",
     "<think>a</think><think>a</think><answer>b</answer>", {}),
    ({"name": "regex", "form": "boxed"}, "So \\boxed{97}.", "So 97.", {}),
    ({"name": "regex", "form": "final"}, "84 + 13\n#### 97", "#### 97\nor so", {}),
    ({"name": "regex", "form": "sentence"}, "It is 97.", "It is 97", {}),
    ({"name": "regex", "pattern": r"\AOf course", "ignore_case": True}, "of course!", "Well, of course", {}),
    ({"name": "regex", "column": "pattern"}, "abc", "xyz", {"pattern": "b"}),
    ({"name": "json_schema", "json_schema": '{"type": "object", "required": ["a"]}'}, '```json\n{"a": 1}\n```', "a: 1", {}),
    ({"name": "length", "least": 2, "most": 4, "slope": 0}, "one two three", "one", {}),
    ({"name": "length", "unit": "characters", "most": 5, "slope": 5}, "abcde", "abcdefghijk", {}),
    ({"name": "language"}, "This is what they have said about the weather.", "Das ist, was sie über das Wetter gesagt haben.", {}),
    ({"name": "repetition", "n": 1, "allowed": 0}, "one two three", "", {}),
]


@pytest.mark.parametrize(("options", "right", "wrong", "row"), RIGHT_AND_WRONG)
def test_right_answers_score_and_wrong_ones_do_not(options, right, wrong, row):
    found, reasons = scores(options, [right, wrong, ""], **{key: [value] * 3 for key, value in row.items()})
    assert found == [1.0, 0.0, 0.0] and reasons[1] and reasons[2], reasons


@pytest.mark.parametrize("options", [one for one, *_ in RIGHT_AND_WRONG], ids=lambda o: json.dumps(o)[:40])
def test_whatever_a_model_writes_gives_a_number_or_nothing(options):
    row = {"answer": ["12"] * len(HOSTILE), "pattern": ["(a+)+$"] * len(HOSTILE), "right": ["3"] * len(HOSTILE)}
    found, reasons = scores(options, HOSTILE, **row)
    assert all(value is None or 0 <= value <= 1 for value in found) and len(reasons) == len(HOSTILE)


def test_partial_scores():
    assert scores({"name": "length", "most": 10, "slope": 10}, ["w " * 15, "w " * 12])[0] == [0.5, pytest.approx(0.8)]
    assert scores({"name": "json_schema", "json_schema": '{"type": "object"}'}, ["[1]"])[0] == [0.5]
    (value,), (reason,) = scores({"name": "repetition", "n": 2, "allowed": 0}, ["a b a b a b"])
    assert value == pytest.approx(2 / 5) and "60%" in reason
    mixed = "This is what they have said about it to all of us. Das ist aber etwas ganz anderes, meinen sie hier."
    (value,), (reason,) = scores({"name": "language", "language": "en"}, [mixed * 2])
    assert 0.2 < value < 0.8 and "de" in reason
    assert scores({"name": "language"}, ["12 + 3"])[0] == [0.5], "nobody can tell"


def test_the_language_of_the_question_can_be_wanted():
    asked = ["Wie ist das Wetter heute in der Stadt?", [{"role": "user", "content": "What is it that you have said to them?"}]]
    said = ["Es ist heute leider sehr schlechtes Wetter.", "Es ist heute leider sehr schlechtes Wetter."]
    assert scores({"name": "language", "language": ""}, said, asked)[0] == [1.0, 0.0]


def test_lengths_in_tokens_are_those_of_the_model(home):
    from studio.library import refs
    from studio.trainers import load

    count = len(load.tokenizer(refs.resolve_model("starter"))("It is 97.", add_special_tokens=False)["input_ids"])
    for most, wanted in ((count, 1.0), (count - 1, 0.0)):
        assert scores({"name": "length", "unit": "tokens", "most": most, "slope": 0}, ["It is 97."],
                      recipe=SimpleNamespace(model="starter"))[0] == [wanted]


def test_messages_are_read_as_texts_are():
    chat = [{"role": "assistant", "content": "It is 97."}]
    tools = [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "97"},
             {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "97."}]}]
    assert scores({"name": "exact"}, [chat, tools, []], [chat] * 3, answer=["It is 97."] * 3)[0] == [1.0, 1.0, 0.0]


def test_a_row_that_expects_nothing_has_no_score_and_the_run_hears_it_once():
    ctx = Ctx()
    (function,) = rewards.build([{"name": "exact"}], ctx, None)
    for _ in range(2):
        assert function(["q"] * 3, ["a", "b", "a"], answer=["a", None, ""]) == [1.0, None, None]
    assert function.missing == 4 and function.reasons[1] == "the row does not say what is expected"
    ((code, message),) = ctx.warnings
    assert code == "reward_missing" and "2 of 3" in message
    assert scores({"name": "json_schema", "column": "schema"}, ["{}"], schema=[""])[0] == [None]
    assert scores({"name": "exact", "column": "solution"}, ["{}"], answer=["{}"])[1] == ["the row has no 'solution'"]


def test_names_are_unique_and_weights_in_order():
    chosen = [{"name": "length"}, {"name": "exact", "weight": 2}, {"name": "length", "weight": -0.5, "most": 3}]
    made = rewards.build(chosen, None, None)
    assert [f.__name__ for f in made] == ["length_1", "exact", "length_2"] and rewards.weights(chosen) == [1.0, 2.0, -0.5]


@pytest.mark.parametrize(("chosen", "number", "option", "word"), [
    ([], None, "", "No reward"), ("exact", None, "", "list"), (["exact"], None, "", "list"),
    ([{"name": "exact"}, {"name": "exakt"}], 1, "name", "no reward 'exakt'"), ([{}], 0, "name", "no reward"),
    ([{"name": ["exact"]}], 0, "name", "no reward"), ([{"name": "exact", "colour": 1}], 0, "colour", "no such field"),
    ([{"name": "exact", "weight": "much"}], 0, "weight", "number"), ([{"name": "exact", "weight": math.nan}], 0, "weight", "ordinary"),
    ([{"name": "exact", "weight": 0}], 0, "weight", "Every weight"), ([{"name": "length", "most": -1}], 0, "most", "at least 0"),
    ([{"name": "length", "least": 9, "most": 3}], 0, "least", "more than"), ([{"name": "regex"}], 0, "pattern", "no pattern"),
    ([{"name": "regex", "pattern": "("}], 0, "pattern", "no regular"), ([{"name": "regex", "form": "x"}], 0, "form", "one of"),
    ([{"name": "json_schema", "json_schema": "{"}], 0, "json_schema", "no JSON Schema"),
    ([{"name": "language", "language": "English"}], 0, "language", "no code"), ([{"name": "judge"}], 0, "judge", "No judge"),
    ([{"name": "judge", "judge": "library:none"}], 0, "judge", "none"),
    ([{"name": "reward_model"}], 0, "reward_model", "No reward model"),
    ([{"name": "reward_model", "reward_model": "starter"}], 0, "reward_model", "writes text"),
    ([{"name": "python"}], 0, "code", "no code"), ([{"name": "python", "code": "def reward("}], 0, "code", "no Python in line 1"),
    ([{"name": "python", "code": "x = 1"}], 0, "code", "no function"), ([{"name": "exact"}] * 21, None, "", "more than")])
def test_what_cannot_work_is_refused_before_anything_starts(home, chosen, number, option, word):
    with pytest.raises(rewards.RewardError, match=word) as err:
        rewards.check(chosen)
    assert (err.value.field, err.value.number, err.value.option) == ("rewards", number, option)


def test_every_reward_explains_itself():
    for one in rewards.catalogue():
        assert len(one["title"]) > 3 and one["help"].endswith(".") and (not one["paper"] or one["paper"].startswith("https://"))
        assert json.dumps(one)
        for spec in fields(rewards.REWARDS.get(one["name"]).Options):
            assert spec.title and len(spec.help) > 20 and spec.help.endswith((".", "?")), spec
            assert spec.type not in ("int", "float") or (spec.bounds.keys() & {"ge", "gt"} and spec.bounds.keys() & {"le", "lt"}), spec
            assert spec.type != "str" or "max_length" in spec.bounds, spec


@needs_sandbox
def test_tests_in_the_sandbox_give_their_share():
    code = "```python\ndef half(n):\n    return n // 2\n```"
    tests = ["assert half(4) == 2", "assert half(5) == 2.5"]
    found, reasons = scores({"name": "unit_tests"}, [code, "no code here", code], tests=[tests, json.dumps(tests), None])
    assert found == [0.5, 0.0, None] and "half(5)" in reasons[0]


# ---- code of one's own

OWN = {"name": "python", "run_own_code": True, "seconds": 2.0}


def own(body: str, answers: list[str], ctx: Ctx | None = None, **columns: list) -> tuple[list, list[str]]:
    code = "def reward(prompt, completion, **row):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    return scores(OWN | {"code": code}, answers, ctx=ctx, **columns)


@needs_sandbox
def test_own_code_sees_the_row_and_gives_a_number_nothing_or_a_reason():
    body = "if completion == 'skip': return None\nreturn len(completion) / row['level'], f'{prompt} {row[\"tags\"][\"site\"]}'"
    found, reasons = own(body, ["ab", "skip"], level=[4, 4], tags=[{"site": "zoo"}] * 2)
    assert found == [0.5, None] and reasons == ["What is it? zoo", "your function has nothing to say of it"]
    assert own("return True", ["a"])[0] == [1.0]
    asked = [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"}]]
    code = "def reward(prompt, completion, messages, **row):\n    return len(messages), prompt"
    assert scores(OWN | {"code": code}, [[{"role": "assistant", "content": "a"}]], asked) == ([2.0], ["Hi?"])


@needs_sandbox
@pytest.mark.parametrize(("line", "word"), [
    ("while True: pass", "too long"), ("import time; time.sleep(60)", "too long"),
    ("x = bytearray(4 << 30)", "MemoryError"), ("raise ValueError('no such thing')", "ValueError: no such thing"),
    ("return float('nan')", "no number"), ("return 1e400", "no number"), ("return 'much'", "no number"),
    ("return [1]", "TypeError"), ("return {}", "TypeError"), ("import os; os._exit(0)", "ends its own"),
    ("import sys; sys.exit(0)", "SystemExit"), ("import ctypes; ctypes.string_at(0)", "crash"),
    ("while True: print('z' * 100000)", "prints too much"), ("return open('/etc/passwd').read()", "PermissionError"),
    ("import socket; socket.socket()", "PermissionError"), ("import subprocess; subprocess.run(['/bin/true'])", "Permission"),
    ("import os; os.fork()", "Permission"), ("import os; return bool({'STUDIO_HOME', 'PATH', 'HOME'} & set(os.environ))", ""),
    ("open('/tmp/atelier-reward', 'w')", "PermissionError")])
def test_own_code_that_fails_has_no_score_and_goes_on(line, word):
    ctx = Ctx()
    body = f"if completion == 'bad':\n    {line}\nreturn 0.5"
    found, reasons = own(body, ["fine", "bad", "fine"], ctx)
    assert found[::2] == [0.5, 0.5]
    if word:
        assert found[1] is None and word in reasons[1] and ctx.warnings[0][0] == "reward_missing"
    else:
        assert found[1] == 0.0, "nothing of the studio's environment is there"


@needs_sandbox
def test_own_code_rests_between_calls_and_is_gone_with_its_reward():
    import psutil

    code = "import threading\ndef spin():\n    while True: pass\ndef reward(prompt, completion, **row):\n" \
           "    threading.Thread(target=spin, daemon=True).start()\n    return 1"
    with sandbox.Function(code, "reward", seconds=20) as function:
        assert function({"prompt": "", "completion": "", "big": "x" * 3_000_000}).value == [1]
        process = psutil.Process(function._process.pid)
        until = time.monotonic() + 60
        while process.status() != psutil.STATUS_STOPPED and time.monotonic() < until:
            time.sleep(0.05)
        assert process.status() == psutil.STATUS_STOPPED, "its thread does not go on counting"
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@needs_sandbox
def test_own_code_that_never_works_ends_the_run_with_the_reason(monkeypatch):
    from studio.rewards import python

    monkeypatch.setattr(python, "TRIES", 2)
    with pytest.raises(StudioError, match="2 answers in a row") as err:
        own("import os\nos._exit(1)", ["a"] * 5)
    assert err.value.field == "rewards"
    for code, word in (("import nothing_of_that_name\ndef reward(**row): return 1", "ModuleNotFoundError"),
                       ("while True: pass\ndef reward(**row): return 1", "too long")):
        with pytest.raises(rewards.RewardError, match=word) as refused:
            rewards.build([OWN | {"code": code}], None, None)
        monkeypatch.setattr(sandbox, "LOAD_SECONDS", 1.0)
        assert refused.value.number == 0


def test_own_code_runs_on_a_private_machine_only_and_when_asked_to(monkeypatch):
    code = {"name": "python", "code": "def reward(prompt, completion, **row):\n    return 1"}
    with pytest.raises(rewards.RewardError, match="with your rights") as err:
        rewards.check([code])
    assert err.value.option == "run_own_code"
    for name, value in (("SPACE_ID", "someone/space"), ("ATELIER_SHARED", "1")):
        monkeypatch.setenv(name, value)
        with pytest.raises(rewards.RewardError, match="private machine only"):
            rewards.build([code | {"run_own_code": True}], None, None)
        monkeypatch.delenv(name)
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "riscv64")
    with pytest.raises(rewards.RewardError, match="cannot be run here"):
        rewards.check([code | {"run_own_code": True}])


def test_a_studio_bound_to_the_network_says_so_to_its_runs(monkeypatch):
    from components import app

    monkeypatch.delenv("ATELIER_SHARED", raising=False)
    monkeypatch.setattr(app.api, "supervise", lambda: (_ for _ in ()).throw(StudioError("enough")))
    assert app.main(["--host", "127.0.0.1"]) == 2 and not settings.shared()
    monkeypatch.setenv("ATELIER_SHARED", "0")  # so that it is put back
    assert app.main(["--host", "0.0.0.0", "--auth", "a:b"]) == 2 and settings.shared()


# ---- models that score


def test_a_judge_marks_and_its_silence_is_counted(home):
    def judge(asked: Asked) -> str | Reply:
        text = asked.messages[1]["content"]
        assert "Be kind." in text and '"""\nright\n"""' in text and asked.body["temperature"] == 0
        return "I like them all." if "dunno" in text else Reply(status=400, raw=b'{"error": {"message": "no"}}') \
            if "broken" in text else f"Because.\nMark: {10 if 'good' in text else 1}"

    ctx = Ctx()
    with StandIn(judge) as server:
        options = {"name": "judge", "judge": server.address, "rubric": "Be kind.", "column": "answer"}
        (function,) = made = rewards.build([options], ctx, None)
        assert function(["q"] * 4, ["good", "bad", "dunno", "broken"], answer=["right"] * 4) == [1.0, 0.0, None, None]
        assert function.reasons[0] == "Because." and "not answer in form" in function.reasons[2] and function.missing == 2
        assert ctx.warnings[0][0] == "reward_missing" and len(server.requests) == 2 + 3 + 1
        rewards.close(made)
    with pytest.raises(rewards.RewardError) as err:
        rewards.build([options], ctx, None)
    assert err.value.field == "rewards" and err.value.number == 0


def test_a_reward_model_gives_its_own_numbers(home, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    from studio.datasets import rewards as loaded
    from studio.rewards import ask

    set_seed(3)
    AutoModelForSequenceClassification.from_pretrained(settings.STARTER, num_labels=1).save_pretrained(tmp_path / "m")
    words = AutoTokenizer.from_pretrained(settings.STARTER)
    words.save_pretrained(tmp_path / "m")
    options = {"name": "reward_model", "reward_model": str(tmp_path / "m"), "batch_size": 2}
    answers, asked = ["It is 97.", "No.", "It is 97."], [[{"role": "user", "content": "What is 84 + 13?"}]] * 3
    found, reasons = scores(options, answers, asked)
    model, tokenizer, _ = loaded.load(str(tmp_path / "m"))
    for answer, value in zip(answers, found, strict=True):
        text = tokenizer.apply_chat_template([*asked[0], {"role": "assistant", "content": answer}], tokenize=False)
        with torch.inference_mode():
            alone = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()
        assert value == pytest.approx(alone, abs=1e-4)
    assert found[0] == pytest.approx(found[2], abs=1e-5) and "the model says" in reasons[0]
    typed = ask.scored(str(tmp_path / "m"), "What is 84 + 13?", answers[:2])["scores"]  # as the page asks it
    assert typed == [pytest.approx(value, abs=1e-4) for value in found[:2]]
    squashed, _ = scores(options | {"squash": True}, answers, asked)
    assert squashed == [pytest.approx(1 / (1 + math.exp(-value))) for value in found]
    assert rewards.references([options, {"name": "judge", "judge": "library:x"}, {"name": 3}]) == [str(tmp_path / "m"), "library:x"]


# ---- the bench, the form and the command line


@pytest.fixture
def practice(home, monkeypatch):
    """The values of a recipe whose method only has rewards; other processes know it too."""
    from studio import registry

    monkeypatch.setenv("ATELIER_PLUGINS", "tests.rewards_recipe:register")
    monkeypatch.setenv("PYTHONPATH", str(settings.ROOT))
    registry.load_plugins()
    yield {"kind": "align", "method": "practice", "dataset": "shipped:harder-sums"}
    registry.FAMILIES["align"].remove("practice")


def test_a_few_samples_are_scored_in_a_process_of_their_own(practice):
    from studio import api

    chosen = [{"name": "number", "weight": 2}, {"name": "length", "most": 3, "weight": 0.5}]
    found = api.rewards_try(practice | {"rewards": chosen})
    assert [one["weight"] for one in found["rewards"]] == [2, 0.5] and len(found["rows"]) == 4 and not found["notes"]
    good, bad = found["rows"][0]["samples"]
    assert (good["kind"], good["text"], bad["text"]) == ("reference", "84 + 13 is 97.", "84 + 13 is 98.")
    assert good["total"] - bad["total"] == 2 and bad["scores"][0] == {"score": 0.0, "reason": "expected 97, got 98"}
    assert good["scores"][1]["reason"] == "4 words, at most 3 wanted" and good["total"] == pytest.approx(2 + 0.5 * 0.95)
    with pytest.raises(StudioError, match="No reward"):
        api.rewards_try(practice)
    with pytest.raises(StudioError, match="without rewards"):
        api.rewards_try({"kind": "sft", "method": "lora", "dataset": "shipped:polite"})


def test_the_bench_scores_a_typed_answer_and_doubts_rewards_that_tell_nothing(practice):
    from studio.rewards import bench

    typed = bench.tried(practice | {"rewards": [{"name": "number"}]}, text="Is it 96?", row=1)
    (row,) = typed["rows"]
    assert row["prompt"] == "What is 86 + 10?" and [s["total"] for s in row["samples"]] == [1.0]
    blind = bench.tried(practice | {"rewards": [{"name": "length"}, {"name": "exact", "column": "none"}]})
    assert any("do not tell right from wrong" in note for note in blind["notes"])
    assert any("nothing to say of any" in note for note in blind["notes"])
    assert bench.damaged("one two three") == "three two one" and bench.damaged("7 of 19.") == "7 of 20."


def test_further_columns_of_a_file_reach_the_rewards(practice, home):
    from studio.rewards import bench

    rows = [{"prompt": f"q{i}", "completion": "a", "tests": ["x"], "schema": {"type": "array", "minItems": i}} for i in range(3)]
    (home / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = practice | {"dataset": "a.jsonl", "rewards": [{"name": "json_schema", "column": "schema"}]}
    for number, wanted in ((1, 1.0), (2, 0.5)):
        (row,) = bench.tried(values, text="[1]", row=number)["rows"]
        assert row["samples"][0]["total"] == wanted, "each row keeps the keys of its own schema"


_plain = st.recursive(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none()),
                      lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2), max_leaves=4)


@examples(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=8), _plain, max_size=4), max_size=4))
def test_rewards_go_through_the_form_unchanged(chosen):
    from components import form
    from tests.rewards_recipe import PracticeRecipe

    spec = next(spec for spec in fields(PracticeRecipe) if spec.name == "rewards")
    assert form.from_control(spec, form.to_control(spec, chosen)) == chosen
    assert form.to_control(spec, None) == form.to_control(spec, ["junk", 3]) == [] and form.from_control(spec, None) == []


def test_rewards_go_through_yaml_and_the_command_line(practice):
    from studio.commands import common
    from studio.recipe import parse, read_yaml
    from tests.rewards_recipe import PracticeRecipe

    code = "def reward(prompt, completion, **row):\n    return 'é' in completion  # 1e-4\n"
    chosen = [{"name": "python", "code": code, "run_own_code": True}, {"name": "regex", "pattern": r"^\s*#+: '\"$", "weight": -0.5}]
    recipe = parse(practice | {"rewards": chosen})
    assert parse(read_yaml(recipe.to_yaml())) == recipe and recipe.rewards == chosen
    spec = next(spec for spec in fields(PracticeRecipe) if spec.name == "rewards")
    assert common.typed(json.dumps(chosen), spec) == chosen
    assert common.typed("- name: exact\n- {name: length, most: 3}", spec) == [{"name": "exact"}, {"name": "length", "most": 3}]
    assert common.typed("{name: exact}", spec) == [{"name": "exact"}] and common.typed("", spec) == []


def test_on_a_space_another_persons_models_do_not_judge(home, monkeypatch):
    from studio import api

    monkeypatch.setenv("SPACE_ID", "someone/space")
    (home / "other").mkdir()
    found = api.rewards_check([{"name": "reward_model", "reward_model": "library:abc"}], "ann")
    assert found and found[0]["message"]
    with pytest.raises(StudioError, match="signed in"):
        api.rewards_try({"kind": "align", "method": "grpo", "dataset": "shipped:polite", "rewards": [{"name": "exact"}]}, None)


def test_functions_of_two_threads_do_not_meet():
    """Side by side as in two runs of one process; nothing is shared between built rewards."""
    made: dict[int, list] = {}

    def work(i: int) -> None:
        made[i] = scores({"name": "length", "least": i, "most": i, "slope": 0, "unit": "characters"}, ["x" * 1, "x" * 2])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {1: [1.0, 0.0], 2: [0.0, 1.0]}
