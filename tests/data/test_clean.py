"""Steps that clean: filter, exact and near deduplication, repair, redaction."""

from __future__ import annotations

import random
from typing import Any

import pytest

from studio.datasets import faults, ngrams, personal
from studio.datasets.similar import Similar, bands_for
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.recipe import RecipeError, parse


def dropped(version: Version) -> list[dict[str, Any]]:
    if not version.file("dropped").exists():
        return []
    return [row for batch in version.batches("dropped") for row in batch.to_pylist()]


def entry(version: Version) -> dict[str, Any]:
    return version.meta["history"][-1]


def words(count: int, chance: random.Random) -> str:
    return " ".join(chance.choice(VOCABULARY) for _ in range(count))


_chance = random.Random(7)
VOCABULARY = ["".join(_chance.choice("bcdfglmnprstv") + _chance.choice("aeiou") for _ in range(_chance.randint(2, 4)))
              for _ in range(3000)]


@pytest.mark.parametrize("method", ["filter", "dedup", "near_dedup", "repair", "redact", "split", "sample", "reshape", "mix"])
def test_a_stopped_step_leaves_nothing_behind(run_step, jsonl, method):
    from studio import registry
    from studio.datasets.version import META
    from studio.jobs import store
    from studio.jobs.context import Context
    from studio.settings import run_dir

    ref = run_step("import", sources=[jsonl("a.jsonl", [{"text": f"Line {i} of many."} for i in range(6000)])]).ref
    recipe = parse({"kind": "data", "method": method, "dataset": ref})
    ctx = Context(run_dir(store.submit(recipe)["id"]))
    ctx.request_stop()
    try:
        assert registry.method("data", method).run(recipe, ctx) is None
    finally:
        ctx.close()
    assert not list(ctx.run_dir.rglob(META)) and not list(ctx.run_dir.rglob("*.parquet")) and not (ctx.run_dir / "near").exists()
    assert not ctx.artifacts


# --- filter ---------------------------------------------------------------------------------------------------------

PLAIN = [{"text": text} for text in (
    "A short one.", "This is a longer English sentence about the weather in the north.",
    "Ceci est une phrase en français sur le temps qu'il fait dans le nord.", "=== ### *** ||| --- @@@ $$$ %%% ^^^ &&&",
    "the cat sat on the mat and the cat sat on the mat and the cat sat on the mat", "Order 12345 was sent on Monday.")]


@pytest.mark.parametrize(("values", "kept", "reasons"), [
    ({"min_chars": 20}, [1, 2, 3, 4, 5], {"short"}), ({"max_chars": 40}, [0, 3, 5], {"long"}),
    ({"languages": ["en"]}, [0, 1, 3, 4, 5], {"language"}), ({"max_symbols": 0.5}, [0, 1, 2, 4, 5], {"symbols"}),
    ({"max_repetition": 0.4}, [0, 1, 2, 3, 5], {"repetition"}), ({"drop_pattern": r"\border \d+"}, [0, 1, 2, 3, 4], {"pattern"}),
    ({"keep_pattern": r"^\w.*\.$"}, [0, 1, 2, 5], {"pattern"}), ({"min_tokens": 12}, None, {"short"}),
    ({"max_tokens": 12}, None, {"long"}), ({"keep_pattern": r"(?<=longer )English", "ignore_case": False}, [1], {"pattern"})])
def test_filter(run_step, jsonl, values, kept, reasons):
    made = run_step("filter", jsonl("a.jsonl", PLAIN), **values)
    if kept is not None:
        assert [row["text"] for row in made.rows()] == [PLAIN[i]["text"] for i in kept]
    assert {one["code"] for one in entry(made)["reasons"]} == reasons
    assert entry(made)["rows_in"] == len(PLAIN) == entry(made)["rows_out"] + entry(made)["dropped"]
    assert {row["reason"] for row in dropped(made)} == reasons


def test_filter_by_columns(run_step, jsonl):
    rows = [{"prompt": f"Question {i}?", "completion": "Yes.", "label": i % 2 == 0, "site": f"s{i % 3}", "level": i % 2}
            for i in range(12)]
    ref = run_step("import", sources=[jsonl("a.jsonl", rows), jsonl("b.jsonl", PLAIN)]).ref
    assert {row.get("label") for row in run_step("filter", ref, labels="good").rows()} == {True, None}
    made = run_step("filter", ref, tags={"site": "s0|s1", "level": 1})
    assert [row["tags"] for row in made.rows()] == [{"site": f"s{i % 3}", "level": i % 2} for i in range(12)
                                                   if i % 3 < 2 and i % 2]
    assert run_step("filter", ref, sources=["b.jsonl"]).count() == 6
    assert run_step("filter", ref, drop_sources=["b.jsonl"]).count() == 12
    assert run_step("filter", ref, drop_tags={"site": "s0"}).count() == 14
    assert run_step("filter", ref, min_turns=2).count() == 12 and run_step("filter", ref, max_turns=1).count() == 6
    with pytest.raises(StudioError, match="No row is left: 18 score too low"):
        run_step("filter", ref, by_score=True, min_score=0.5)


def test_filter_looks_into_the_chosen_messages(run_step, jsonl):
    rows = [{"prompt": "red?", "completion": "Blue."}, {"prompt": "blue?", "completion": "Red."}]
    ref = jsonl("a.jsonl", rows)
    assert list(run_step("filter", ref, drop_pattern="red", pattern_in="user").rows()) == rows[1:]
    assert list(run_step("filter", ref, drop_pattern="red", pattern_in="assistant").rows()) == rows[:1]


def test_a_pattern_cannot_run_for_ever(run_step, jsonl, monkeypatch):
    """A text on which the pattern backtracks without end is left out after a moment; many of them end the step."""
    from studio.datasets import patterns

    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    bad = {"text": "a" * 60 + "b"}
    made = run_step("filter", jsonl("a.jsonl", [*PLAIN, bad]), drop_pattern="^(a|aa)+$")
    assert entry(made)["reasons"][0]["code"] == "slow" and made.count() == len(PLAIN)
    with pytest.raises(StudioError, match="many rows") as caught:
        run_step("filter", jsonl("b.jsonl", [{"text": "a" * 60 + f"b{i}"} for i in range(30)]), drop_pattern="^(a|aa)+$")
    assert caught.value.field == "drop_pattern"


@pytest.mark.parametrize(("values", "field"), [({"keep_pattern": "(a"}, "keep_pattern"), ({"min_chars": 9, "max_chars": 3}, None)])
def test_bad_filters_are_refused(values, field):
    with pytest.raises(RecipeError) as caught:
        parse({"kind": "data", "method": "filter", "dataset": "shipped:polite", **values})
    assert field is None or field in caught.value.fields


def test_a_filter_that_does_nothing_says_so(run_step, jsonl):
    with pytest.raises(StudioError, match="lets every row through"):
        run_step("filter", jsonl("a.jsonl", PLAIN), drop_empty=False)


def test_filter_looks_at_every_split(run_step, jsonl):
    rows = [{"text": f"Line {i} is here." + (" " + "long " * 30 if i % 2 else "")} for i in range(40)]
    ref = run_step("split", jsonl("a.jsonl", rows), validation_rows=10, group="row").ref
    made = run_step("filter", ref, max_chars=50)
    assert made.count() + made.count("validation") == 20 and made.count("validation") < 10


# --- exact duplicates -----------------------------------------------------------------------------------------------

def test_dedup_word_for_word_and_normalised(run_step, jsonl):
    rows = [{"prompt": "What is it?", "completion": "A cat."}, {"prompt": "what is  it", "completion": "a cat!"},
            {"prompt": "What is it?", "completion": "A cat."}, {"prompt": "What is it?", "completion": "A very large dog."}]
    ref = jsonl("a.jsonl", rows)
    made = run_step("dedup", ref)
    assert list(made.rows()) == [rows[0], rows[1], rows[3]] and dropped(made)[0]["detail"] == "of row 1"
    assert list(run_step("dedup", ref, ignore="case").rows()) == [rows[0], rows[3]]
    assert list(run_step("dedup", ref, by="question").rows()) == rows[:2]
    assert list(run_step("dedup", ref, by="question", keep="longest").rows()) == [rows[1], rows[3]]
    assert list(run_step("dedup", ref, by="answer", ignore="case").rows()) == [rows[0], rows[3]]


def test_dedup_keeps_the_better_mark(run_step, jsonl):
    rows = [{"prompt": "What is it?", "completion": "A cat.", "label": good, "site": site}
            for good, site in ((False, "a"), (True, "b"), (True, "c"))]
    rows += [{"prompt": "And this?", "completion": "A dog.", "label": True}, {"prompt": "And this?", "completion": "A dog.", "label": True}]
    ref = jsonl("a.jsonl", rows)
    assert run_step("dedup", ref).count() == 3  # what is only said about a row, such as a tag, is no difference
    made = run_step("dedup", ref, by="conversation", keep="best")
    assert [row["label"] for row in made.rows()] == [True, True] and next(made.rows())["tags"] == {"site": "b"}
    made = run_step("dedup", ref, by="conversation", keep="agreed")
    assert [row["prompt"] for row in made.rows()] == ["And this?"]
    assert {one["code"]: one["count"] for one in entry(made)["reasons"]} == {"contradiction": 3, "duplicate": 1}


# --- near duplicates ------------------------------------------------------------------------------------------------

def test_bands_find_nearly_all_at_the_threshold():
    for threshold in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        bands, rows = bands_for(threshold)
        assert bands * rows <= 128 and 1 - (1 - threshold ** rows) ** bands >= 0.98


def pieces(text: str) -> set[str]:
    """Five-letter pieces, worked out the plain way."""
    text = "".join(c if c.isalnum() else " " for c in text.lower())
    text = " ".join(text.split())
    return {text[i:i + 5] for i in range(len(text) - 4)} or {text}


def likeness(a: str, b: str) -> float:
    return len(pieces(a) & pieces(b)) / len(pieces(a) | pieces(b))


def test_recall_and_precision_of_near_dedup_on_planted_duplicates(run_step, jsonl):
    """Of 600 planted near duplicates among 3,000 rows at least 97 of 100 are found, and no row is dropped by chance."""
    chance = random.Random(3)
    rows = [words(chance.randint(8, 30), chance) for _ in range(2400)]
    planted = []
    for text in chance.sample(rows, 600):
        parts = text.split()
        for _ in range(chance.randint(1, 2)):
            parts[chance.randrange(len(parts))] = chance.choice(VOCABULARY)
        planted.append((text, " ".join(parts)))
    made = run_step("near_dedup", jsonl("a.jsonl", [{"text": text} for text in rows + [new for _, new in planted]]), threshold=0.7,
                    keep="first")
    gone = {row["row"][9:-2] for row in dropped(made)}
    assert all("like row" in row["detail"] for row in dropped(made))
    like = [(old, new) for old, new in planted if likeness(old, new) >= 0.7]
    found = sum(new in gone for _, new in like)
    assert len(like) > 300 and found / len(like) >= 0.97, (found, len(like))
    assert gone <= {new for _, new in planted} | set(rows)
    unlike = {new for old, new in planted if likeness(old, new) < 0.69}
    assert not gone & unlike and not gone & (set(rows) - {new for _, new in planted}), "left out by chance"


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_similarity_is_the_true_one(tmp_path, unit):
    chance = random.Random(5)
    base = words(40, chance)
    texts = [base, base.replace(base.split()[3], "other"), words(40, chance), base.upper() + "!!", "", ""]
    with Similar(tmp_path / "x", 0.5, 5 if unit == "characters" else 2, unit) as index:
        index.add(texts[:3])
        index.add(texts[3:])
        parent, how = index.duplicates()
    assert parent.tolist() == [-1, 0, -1, 0, -1, -1] and how[3] == 1
    if unit == "characters":
        assert how[1] == pytest.approx(likeness(texts[0], texts[1]), abs=1e-6)
    assert not (tmp_path / "x").exists()


def test_near_dedup_keeps_the_best_and_no_chain_is_swallowed(tmp_path):
    """A is like B and B like C, but A is not like C: only B goes when A and C rank above it, and C stays in any case."""
    import numpy as np

    text = [f"w{i}abc" for i in range(40)]
    a, b, c = " ".join(text[:30]), " ".join(text[3:33]), " ".join(text[6:37])
    assert likeness(a, b) > 0.75 > 0.7 > likeness(a, c)
    with Similar(tmp_path / "x", 0.75) as index:
        index.add([a, b, c])
        assert index.duplicates()[0].tolist() == [-1, 0, -1]
        assert index.duplicates(np.array([1, 0, 2]))[0].tolist() == [1, -1, 1]
        assert index.clusters().tolist() == [0, 0, 0]


def test_a_very_long_text_is_compared_by_a_sample(tmp_path):
    chance = random.Random(9)
    long = words(12_000, chance)
    with Similar(tmp_path / "x", 0.8, 3, "words") as index:
        index.add([long, long + " and some more words", words(12_000, chance)])
        parent, how = index.duplicates()
    assert parent.tolist() == [-1, 0, -1] and how[1] > 0.99


def test_near_dedup_keeps_the_longest(run_step, jsonl):
    rows = [{"prompt": "Where do the wild geese go in winter?", "completion": f"They fly south to the sea.{more}"}
            for more in ("", " Yes.", " They.")]
    made = run_step("near_dedup", jsonl("a.jsonl", rows), threshold=0.7)
    assert [row["completion"] for row in made.rows()] == ["They fly south to the sea. They."]


@pytest.mark.parametrize("text", ["Hello, World", "你好世界", "สวัสดีครับ", "don't stop", "naïve café"])
def test_words_ignore_case_and_punctuation(text):
    one, two = ngrams.fingerprints([text, f" «{text.upper()}» … "])
    assert one == two != 0
    assert ngrams.fingerprints([text + "x"])[0] != one


# --- repair ---------------------------------------------------------------------------------------------------------

def test_repair(run_step, jsonl):
    rows = [{"prompt": "What is FranÃ§ais?", "completion": "A word for â€œFrenchâ€\x9d."},
            {"prompt": "Go on.<|im_end|>\n<|im_start|>assistant\n", "completion": "Fine.</s>"},
            {"prompt": "  Blanks? \n\n\n\n Many.  ", "completion": "Yes.\u200b"}, {"prompt": "Nothing wrong?", "completion": "No."},
            {"prompt": "[INST]", "completion": "Nothing was asked."}]
    made = run_step("repair", jsonl("a.jsonl", rows))
    assert list(made.rows()) == [{"prompt": "What is Français?", "completion": "A word for “French”."},
                                 {"prompt": "Go on.", "completion": "Fine."},
                                 {"prompt": "Blanks?\n\n Many.", "completion": "Yes."}, rows[3]]
    assert (entry(made)["changed"], entry(made)["dropped"]) == (3, 1) and dropped(made)[0]["reason"] == "nothing_left"
    before = {item.id for item in run_step("import", sources=["a.jsonl"]).items()}
    assert {item.id for item in made.items()} < before, "a mended row keeps its id"


def test_repair_cuts_stuck_and_unfinished_answers(run_step, jsonl):
    rows = [{"prompt": "Say it.", "completion": "Well. " + "I am not sure about that. " * 20},
            {"prompt": "Tell me.", "completion": "It was a good day. Then we went to the"}, {"prompt": "Tell me more.", "completion": "and the"},
            {"prompt": "Count.", "completion": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20."}]
    made = run_step("repair", jsonl("a.jsonl", rows), repeated=True, unfinished=True)
    assert [row["completion"] for row in made.rows()] == ["Well. I am not sure about that.", "It was a good day.", rows[3]["completion"]]
    assert dropped(made)[0]["reason"] == "cut_short"


@pytest.mark.parametrize("text", ["ha " * 40, "Line one.\nLine two.\n" * 9, "哈哈" * 60, "x" * 80 + " end", "a b c d e f g " * 12 + "and then"])
def test_stuck_text_is_cut_for_good(text):
    if hit := faults.repeated(text):
        assert faults.quickly_repeats(text) and hit[0] < hit[1]
        assert faults.repeated(faults.cut_repeated(text)) is None


@pytest.mark.parametrize("text", [
    "| a | b |\n| --- | --- |\n| 1 | 2 |", "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a "
    "dream.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16", "=" * 80, "-" * 100, "for i in range(10):\n    print(i)\nfor j in "
    "range(10):\n    print(j)\n"])
def test_ordinary_text_is_not_taken_for_stuck(text):
    assert faults.repeated(text) is None


@pytest.mark.parametrize(("answer", "whole"), [
    ("Forever yours,\nRomeo", True), ("for f in *; do\n  wc -l $f\ndone", True), ("Yes", True), ("是的", True), ("Well done 🎉", True),
    ("My three:\n1. Bread with salt and oil\n2. Chips with vinegar and a lot of salt", True), ("See\nhttps://example.org/a", True), ("The opposite of", False), ("It is hard to say what the longest word in the world would be if one", False),
    ("Then we went to the", False), ("我想说的是这个问题的答案其实非常复杂因为它需要考虑很多不同的", False)])
def test_what_ends_well(answer, whole):
    assert faults.ends_well(answer) is whole
    assert faults.ends_well(faults.whole_sentences(answer) or ".")


@pytest.mark.parametrize("text", ["a", "a@", "1 ", "4111 ", "<|", "ignore all ", "DE89 ", "+1 415 ", "Ã©", "\n\n \n", "password: ", "ab:", "你好", "x. ",
                                  "[INST]", "-----BEGIN PRIVATE KEY-----", "a.b@c."])
def test_very_long_texts_take_no_more_than_their_length(text):
    """Half a million characters, made to be hard, are looked at from every side in seconds."""
    import time

    text *= 500_000 // len(text)
    began = time.process_time()
    row = {"prompt": text, "completion": text[:1000]}
    faults.SPECIAL.search(text)
    faults.strip_special(text)
    faults.is_injection(row)
    faults.quickly_repeats(text) and faults.repeated(text)
    faults.mend_encoding(text)
    faults.spaced(text)
    faults.whole_sentences(text)
    faults.symbol_share(text)
    personal.redacted(text)
    assert time.process_time() - began < 15


# --- personal data --------------------------------------------------------------------------------------------------

FOUND = {
    "email": ["jane.doe+x@mail.co.uk", "a_b@sub.domain.org"], "phone": ["+44 20 7946 0958", "(415) 555-2671", "+49 30 901820"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"], "iban": ["DE89 3704 0044 0532 0130 00", "GB33BUKB20201555555555"],
    "id": ["536-90-4399", "390.533.447-05", "12345678Z"], "ip": ["81.2.69.142", "2001:4860:4860::8888"],
    "secret": ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "hf_" + "aB3dE" * 7, "sk-ant-abc123DEF456ghi789jkl", "AIza" + "Ab1_-" * 7],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_personal_data_is_found(kind, text):
    whole = f"You can use {text}, he said."
    (one,) = personal.find(whole)
    assert one.kind == kind and whole[one.start:one.end] == text
    clean = personal.redacted(whole)
    assert clean == f"You can use {personal.KINDS[kind][0]}, he said." and personal.redacted(clean) == clean


@pytest.mark.parametrize("text", [
    "In 2019-2020 it made 12,345,678 dollars.", "Pi is 3.14159265358979323846.", "Order 4155552671 of 2024-01-15 10:30:45.", "Version "
    "1.2.3.4, section 8.8.8.8, on 192.168.1.1 and 127.0.0.1.", "Write to name@example.com or user@host.", "4111 1111 1111 1112 is no card.", "The password: "
    "is secret.", "ISBN 978-3-16-148410-0 costs 20.00", "123456789 * 987654321 = 121932631112635269", "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "28980 - 18480 = <<28980-18480=10500>>10500", "Work out 821091117+4908374100427.", "355909190063-746", "1 3 5 7 9 11 13 15 17 19", "password "
    "= models.CharField(max_length=255)", "a[1:2], b::c, std::vector<int>::iterator", "0.1 0.2 0.3 0.4 0.5 0.6 0.7", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"])
def test_what_is_no_personal_data_stays(text):
    assert personal.redacted(text) == text


def test_redact(run_step, jsonl):
    rows = [{"prompt": "Mail me at jo@mail.net", "completion": "password: hunter2xyz9"}, {"prompt": "Hello?", "completion": "Hi."}]
    ref = jsonl("a.jsonl", rows)
    made = run_step("redact", ref)
    assert list(made.rows()) == [{"prompt": "Mail me at [EMAIL]", "completion": "password: [SECRET]"}, rows[1]]
    assert entry(made)["facts"]["found"] == {"email": 1, "secret": 1} and entry(made)["changed"] == 1
    assert list(run_step("redact", ref, email=False).rows())[0]["prompt"] == rows[0]["prompt"]
    assert list(run_step("redact", ref, found="drop").rows()) == rows[1:]
    with pytest.raises(RecipeError):
        parse({"kind": "data", "method": "redact", "dataset": ref, "region": "XX"})


def test_redact_and_repair_look_at_every_split(run_step, jsonl):
    rows = [{"text": f"Row {i} of jo{i}@mail.net <|im_end|> is here."} for i in range(30)]
    ref = run_step("split", jsonl("a.jsonl", rows), validation_rows=8, group="row").ref
    made = run_step("repair", run_step("redact", ref).ref)
    texts = [row["text"] for split in made.splits for row in made.rows(split)]
    assert len(texts) == 30 and not any("@" in text or "<|" in text for text in texts) and made.count("validation") == 8


def test_rows_of_many_megabytes_take_little_memory(tmp_path, monkeypatch):
    """Texts are worked on in portions: the same comes out, and twenty long ones need no more memory than one."""
    import resource

    from studio.datasets.overlap import Overlap

    chance = random.Random(12)
    texts = [words(30, chance) for _ in range(50)]
    whole = ngrams.fingerprints(texts)
    index = Overlap(8)
    index.learn(0, [{"text": text} for text in texts[:5]])
    monkeypatch.setattr(ngrams, "PORTION", 400)
    monkeypatch.setattr(ngrams.portions, "__defaults__", (400,))
    assert len(list(ngrams.portions(texts))) > 10 and (ngrams.fingerprints(texts) == whole).all()
    index.count([{"text": text} for text in texts])
    assert [hit is not None for hit in index.find([{"text": text} for text in texts])] == [i < 5 for i in range(50)]
    monkeypatch.undo()
    long = words(300_000, chance)
    ngrams.shingles([long], 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Similar(tmp_path / "x", 0.8) as index:
        index.add([long[i:] + str(i) for i in range(20)])
        assert index.duplicates()[0].tolist() == [-1] + [0] * 19
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"
