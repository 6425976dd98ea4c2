"""Steps that shape: decontaminate against sets, mix, split, sample, reshape."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from studio.datasets.overlap import Overlap
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.library import artifacts
from studio.recipe import RecipeError, parse

_chance = random.Random(11)
VOCABULARY = ["".join(_chance.choice("bcdfglmnprstv") + _chance.choice("aeiou") for _ in range(_chance.randint(1, 4)))
              for _ in range(2000)]


def words(count: int, chance: random.Random) -> str:
    return " ".join(chance.choice(VOCABULARY) for _ in range(count))


def entry(version: Version) -> dict[str, Any]:
    return version.meta["history"][-1]


# --- decontaminate --------------------------------------------------------------------------------------------------

def test_recall_and_false_alarms_of_decontamination(run_step, jsonl):
    """Every planted question is found, hidden in other text, cut or rewritten at its edges; of a thousand others none is."""
    chance = random.Random(1)
    exam = [{"prompt": words(chance.randint(10, 40), chance) + "?", "completion": words(20, chance)} for _ in range(200)]
    clean = [{"prompt": words(chance.randint(10, 40), chance) + "?", "completion": words(20, chance)} for _ in range(1000)]
    planted = []
    for number, row in enumerate(exam):
        parts = row["prompt"].split()
        text = (row["prompt"].upper(), "Please read. " + row["prompt"] + " Answer in one word.",
                " ".join(["So", *parts[1:-1], "then"]), " ".join(parts).replace(" ", "  ") + "!!")[number % 4]
        planted.append({"prompt": text, "completion": words(20, chance)})
    rows = clean + planted
    chance.shuffle(rows)
    made = run_step("decontaminate", jsonl("a.jsonl", rows), against=[jsonl("exam.jsonl", exam)])
    kept = [row["prompt"] for row in made.rows()]
    assert not set(kept) & {row["prompt"] for row in planted} and len(kept) == 1000
    assert entry(made)["facts"]["contaminated"] == 200 and entry(made)["facts"]["against"] == {"exam.jsonl": 200}


def test_phrases_of_the_trade_do_not_count(run_step, jsonl):
    """What many training rows say is no sign of the evaluation set, however long it is."""
    phrase = "You are a helpful assistant who answers in a friendly way and always asks whether there is anything else to do."
    rows = [{"prompt": f"{phrase} Tell me about {VOCABULARY[i]} {VOCABULARY[i + 9]}.", "completion": "Gladly, here it is."} for i in range(60)]
    exam = [{"prompt": f"{phrase} Now what of the {words(12, _chance)}?", "completion": "?"}]
    facts = entry(run_step("decontaminate", jsonl("a.jsonl", rows), against=[jsonl("exam.jsonl", exam)]))["facts"]
    assert facts["contaminated"] == 0


def test_decontaminate_reports_or_drops(run_step, jsonl):
    rows = [{"prompt": f"What is the use of {VOCABULARY[i]} in the {VOCABULARY[-i]} trade?", "completion": "None."} for i in range(1, 30)]
    exam = jsonl("exam.jsonl", [rows[3], rows[7]])
    made = run_step("decontaminate", jsonl("a.jsonl", rows), against=[exam], found="report")
    assert made.count() == 29 and entry(made)["facts"]["contaminated"] == 2
    assert [place["pos"] for place in entry(made)["facts"]["examples"]] == [3, 7]
    assert run_step("decontaminate", "a.jsonl", against=[exam]).count() == 27
    with pytest.raises(StudioError, match="no validation or test rows"):
        run_step("decontaminate", "a.jsonl")
    with pytest.raises(StudioError) as caught:
        run_step("decontaminate", "a.jsonl", against=["missing.jsonl"])
    assert caught.value.field == "against"


def test_short_answers_that_everybody_gives_do_not_count():
    index = Overlap(8)
    index.learn(0, [{"prompt": "Can you tell me what this odd word means here?", "completion": "I am sorry, but I can not help you with that."}])
    rows = [{"prompt": "Where is it?", "completion": "I am sorry, but I can not help you with that."}]
    index.count(rows)
    assert index.find(rows) == [None]


# --- split ----------------------------------------------------------------------------------------------------------

def chat(*texts: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)], **more}


def sides(made: Version) -> dict[str, list[dict[str, Any]]]:
    return {split: list(made.rows(split)) for split in made.splits}


def test_split_keeps_conversations_together(run_step, jsonl):
    rows = [chat(f"Opening {i // 4}?", "Yes.", f"And then {i}?", f"Answer {i}.") for i in range(200)]
    made = run_step("split", jsonl("a.jsonl", rows), validation=0.1, test=0.1)
    parts = sides(made)
    assert {name: len(part) for name, part in parts.items()} == {"train": 160, "validation": 20, "test": 20}
    openings = [{row["messages"][0]["content"] for row in part} for part in parts.values()]
    assert sum(map(len, openings)) == 50 == len(set.union(*openings))
    assert Counter(str(row) for part in parts.values() for row in part) == Counter(map(str, rows))
    assert (entry(made)["rows_in"], entry(made)["rows_out"]) == (200, 200)
    again = run_step("split", "a.jsonl", validation=0.1, test=0.1)
    other = run_step("split", "a.jsonl", validation=0.1, test=0.1, seed=1)
    assert again.hash == made.hash != other.hash


def test_split_by_near_duplicates_and_by_tag(run_step, jsonl):
    chance = random.Random(2)
    rows = []
    for i in range(40):
        base = words(25, chance)
        rows += [{"prompt": base + f" {VOCABULARY[j]}", "completion": "Good.", "label": True, "user": f"u{i % 8}"} for j in range(3)]
    ref = jsonl("a.jsonl", rows)
    made = run_step("split", ref, validation=0.2, group="near")
    stems = [{" ".join(row["prompt"].split()[:25]) for row in part} for part in sides(made).values()]
    assert not stems[0] & stems[1] and entry(made)["facts"]["groups"] == 40
    made = run_step("split", ref, validation=0.25, group="tag", tag="user")
    users = [{row["tags"]["user"] for row in part} for part in sides(made).values()]
    assert not users[0] & users[1] and made.count("validation") == 30


def test_a_split_is_split_anew(run_step, jsonl):
    """No row is lost or doubled when what was split is split in another way."""
    rows = [{"text": f"Line {i} is this one."} for i in range(100)]
    one = run_step("split", jsonl("a.jsonl", rows), validation=0.2, test=0.1, group="row")
    two = run_step("split", one.ref, validation=0.0, test=0.3, group="row")
    assert two.splits == ["train", "test"] and (two.count(), two.count("test")) == (70, 30)
    assert sorted(row["text"] for part in sides(two).values() for row in part) == sorted(row["text"] for row in rows)


@pytest.mark.parametrize(("values", "word"), [
    ({"validation": 0.0}, "No row is held back"), ({"group": "tag"}, "no tag is named"), ({"validation_rows": 50}, "there are only"),
    ({"group": "source"}, "one group")])
def test_splits_that_cannot_be_made(run_step, jsonl, values, word):
    with pytest.raises(StudioError, match=word):
        run_step("split", jsonl("a.jsonl", [{"text": f"Line {i}."} for i in range(20)]), **values)


def test_split_finds_room_when_every_group_is_large(run_step, jsonl):
    rows = [chat(f"Opening {i % 3}?", f"Answer {i}.") for i in range(30)]
    made = run_step("split", jsonl("a.jsonl", rows), validation=0.05)
    assert made.count("validation") == 10 and made.count() == 20


# --- sample and mix -------------------------------------------------------------------------------------------------

def test_sample(run_step, jsonl):
    rows = [{"prompt": f"Question {i}?", "completion": "Yes.", "label": True, "site": "big" if i % 10 else "small"} for i in range(100)]
    ref = jsonl("a.jsonl", rows)
    made = run_step("sample", ref, rows=20)
    taken = [int(row["prompt"].split()[1][:-1]) for row in made.rows()]
    assert len(taken) == 20 and taken == sorted(taken) and taken != list(range(20)) and entry(made)["dropped"] == 80
    assert run_step("sample", ref, rows=20).hash == made.hash != run_step("sample", ref, rows=20, seed=1).hash
    assert [row["prompt"] for row in run_step("sample", ref, rows=3, how="first").rows()] == [f"Question {i}?" for i in range(3)]
    assert run_step("sample", ref, rows=0, share=0.25).count() == 25 and run_step("sample", ref, rows=1000).count() == 100
    assert entry(run_step("sample", ref, rows=20, evenly="site"))["facts"]["values"] == {"small": 10, "big": 10}
    assert entry(run_step("sample", ref, rows=40, evenly="site"))["facts"]["values"] == {"small": 10, "big": 30}
    with pytest.raises(StudioError, match="No row has a score"):
        run_step("sample", ref, rows=5, how="best")
    with pytest.raises(RecipeError):
        parse({"kind": "data", "method": "sample", "dataset": ref, "rows": 0})


def test_mix_by_times(run_step, jsonl):
    one, two = ([{"text": f"{name} {i}."} for i in range(n)] for name, n in (("one", 40), ("two", 20)))
    ref, other = jsonl("one.jsonl", one), jsonl("two.jsonl", two)
    made = run_step("mix", ref, others=[other], weights={"two.jsonl": 2.5, "dataset": 0.5})
    counts = Counter(row["text"] for row in made.rows())
    assert sum(n for text, n in counts.items() if text.startswith("one")) == 20
    assert sorted(n for text, n in counts.items() if text.startswith("two")) == [2] * 10 + [3] * 10
    assert (entry(made)["rows_in"], entry(made)["rows_out"], entry(made)["dropped"]) == (40, 70, 20)
    assert made.meta["sources"] == {"one.jsonl": 20, "two.jsonl": 50}
    for start in range(0, 70, 14):  # any stretch has the proportions of the whole
        part = [row["text"] for row in made.rows()][start:start + 14]
        assert sum(text.startswith("one") for text in part) == 4
    assert run_step("mix", ref, others=[other], weights={"two.jsonl": 2.5, "dataset": 0.5}).hash == made.hash
    first = {item.id for item in run_step("import", sources=[ref]).items()}
    assert {item.id for item in made.items() if item.source == "one.jsonl"} < first


def test_mix_by_shares(run_step, jsonl):
    ref, other = jsonl("one.jsonl", [{"text": f"one {i}."} for i in range(30)]), jsonl("two.jsonl", [{"text": f"two {i}."} for i in range(90)])
    version = run_step("import", sources=[other])
    made = run_step("mix", ref, others=[version.ref], how="shares", weights={version.ref: 1, "dataset": 3})
    assert [one["taken"] for one in entry(made)["facts"]["sets"]] == [30, 10] and entry(made)["dropped"] == 0
    made = run_step("mix", ref, others=[other], how="shares", rows=200)
    assert [one["taken"] for one in entry(made)["facts"]["sets"]] == [100, 100]
    with pytest.raises(StudioError, match="not mixed in"):
        run_step("mix", ref, others=[other], weights={"three.jsonl": 1})
    with pytest.raises(StudioError, match="nothing is left"):
        run_step("mix", ref, weights={"dataset": 0})


# --- reshape --------------------------------------------------------------------------------------------------------

def test_reshape_pairs_and_ratings(run_step, jsonl):
    pairs = [{"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}."} for i in range(5)]
    rated = run_step("reshape", jsonl("a.jsonl", pairs), to="rated")
    assert list(rated.rows())[:2] == [{"prompt": "Question 0?", "completion": "Good 0.", "label": True},
                                      {"prompt": "Question 0?", "completion": "Bad 0.", "label": False}]
    assert rated.meta["format"] == "rated" and (entry(rated)["rows_in"], entry(rated)["rows_out"]) == (5, 10)
    back = run_step("reshape", rated.ref, to="pairs")
    assert list(back.rows()) == pairs and back.meta["format"] == "preference"
    better = run_step("reshape", rated.ref, to="imitate")
    assert list(better.rows()) == [{"prompt": p["prompt"], "completion": p["chosen"]} for p in pairs]
    assert {one["code"] for one in entry(better)["reasons"]} == {"reshaped", "rated_bad"}


def test_pairs_of_ratings_where_one_question_has_both(run_step, jsonl):
    rows = [{"prompt": "A?", "completion": f"a{i}.", "label": i < 3} for i in range(5)]
    rows += [{"prompt": "B?", "completion": "b.", "label": True}, {"prompt": "C?", "completion": "c.", "label": False}]
    made = run_step("reshape", jsonl("a.jsonl", rows), to="pairs", most_pairs=3)
    assert list(made.rows()) == [{"prompt": "A?", "chosen": f"a{i}.", "rejected": f"a{j}."} for i, j in ((0, 3), (1, 4), (2, 3))]
    facts = entry(made)
    assert (facts["rows_in"], facts["rows_out"], facts["dropped"]) == (7, 3, 2)
    with pytest.raises(StudioError, match="both a good and a bad"):
        run_step("reshape", jsonl("b.jsonl", rows[5:]), to="pairs")


def test_reshape_chats(run_step, jsonl):
    system = {"role": "system", "content": "Be brief."}
    rows = [{"messages": [system, *chat("One?", "1.", "Two?", "2.")["messages"]]}, chat("Hello?", "Hi.")]
    ref = jsonl("a.jsonl", rows)
    single = list(run_step("reshape", ref, to="single_turns").rows())
    assert [len(row["messages"]) for row in single] == [3, 5, 2]
    alone = list(run_step("reshape", ref, to="single_turns", history=False).rows())
    assert alone[1] == {"messages": [system, *chat("Two?", "2.")["messages"]]} and len(alone) == 3
    bare = run_step("reshape", ref, to="drop_system")
    assert list(bare.rows())[0] == chat("One?", "1.", "Two?", "2.") and entry(bare)["changed"] == 1
    told = [row["messages"][0] for row in run_step("reshape", ref, to="set_system", system="Be kind.").rows()]
    assert told == [system, {"role": "system", "content": "Be kind."}]
    told = [row["messages"][0]["content"] for row in run_step("reshape", ref, to="set_system", system="Be kind.", replace_system=True).rows()]
    assert told == ["Be kind."] * 2
    apart = run_step("reshape", ref, to="prompt_completion")
    assert list(apart.rows())[1] == {"prompt": "Hello?", "completion": "Hi."}
    assert list(apart.rows())[0]["completion"] == [{"role": "assistant", "content": "2."}]
    assert [row["messages"] for row in run_step("reshape", apart.ref, to="messages").rows()] == [row["messages"] for row in rows]
    with pytest.raises(RecipeError):
        parse({"kind": "data", "method": "reshape", "dataset": ref, "to": "set_system"})


def test_reshape_goes_through_every_split_and_trains(run_step, jsonl, home):
    from studio.datasets import formats

    rows = [{"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}."} for i in range(40)]
    ref = run_step("split", jsonl("a.jsonl", rows), validation=0.2).ref
    made = run_step("reshape", ref, to="rated")
    assert (made.count(), made.count("validation")) == (64, 16) and made.meta["format"] == "rated"
    assert len(list(formats.load_rows(made.ref))) == 32


# --- a pipeline of them ---------------------------------------------------------------------------------------------

def test_a_pipeline_of_cleaning_steps(run_step, jsonl):
    chance = random.Random(4)
    rows = [{"prompt": words(12, chance) + "?", "completion": words(20, chance) + "."} for _ in range(120)]
    dirty = rows + rows[:10] + [{"prompt": rows[0]["prompt"], "completion": rows[0]["completion"] + "<|im_end|>"}]
    steps = [{"method": "import", "sources": [jsonl("a.jsonl", dirty)]}, {"method": "repair"}, {"method": "dedup"},
             {"method": "near_dedup"}, {"method": "split", "validation": 0.1}, {"method": "decontaminate"}]
    made = run_step("pipeline", steps=steps)
    assert made.count() + made.count("validation") == 120 and made.count("validation") == 12
    assert [one["step"]["method"] for one in made.meta["history"]] == [one["method"] for one in steps]
    steps[4]["seed"] = 1
    again = run_step("pipeline", steps=steps)
    assert again.hash != made.hash and again.count() == made.count()
    kept = [one["name"] for one in artifacts.listed(("dataset",)) if one["meta"].get("stage") == "step"]
    assert len(kept) == 5 + 2, kept  # files are read anew, the next three steps are taken from the library
