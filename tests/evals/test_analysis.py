"""Error analysis on planted failures: each group is found, those that stand out are the planted ones, and a group becomes a dataset."""

from __future__ import annotations

import json

import pytest
from scipy import stats

from studio import api
from studio.errors import StudioError
from studio.evals import analysis, kinds, topics
from studio.evals.results import Sample
from studio.recipe import parse
from studio.registry import method
from tests.evals.made import evaluated, finished

COOKING = ["Which oven temperature bakes bread", "How long should soup simmer on the stove", "Which flour makes bread soft",
           "How much salt goes into the soup", "When is the bread dough ready for the oven", "How do I cook onion soup slowly"]
SPACE = ["Which planet orbits nearest the sun", "How many moons orbit the planet Mars", "How far is the moon from the planet Earth",
         "Which planet has rings around it", "How long does a planet orbit the sun", "Why does the moon orbit our planet"]


def planted(base_right: bool = True) -> dict[str, list[Sample]]:
    """72 questions on two topics; the tuned model fails all of space, and otherwise one in nine of what is marked hard."""
    made: dict[str, list[Sample]] = {"starter": [], "library:tuned": []}
    for i in range(72):
        text = (COOKING if i < 36 else SPACE)[i % 6]
        prompt = f"Answer in one word.\n\nQ: {text}, case {i:02}{'?' * (60 - len(text))}\nA:"
        tags = {"level": "hard" if i % 2 else "easy"}
        made["starter"].append(Sample(str(i), prompt, f"word{i}", f"word{i}", {"exact_match": 1.0 if i != 5 else 0.0}, tags))
        right = i < 36 and i % 9 != 4
        made["library:tuned"].append(Sample(str(i), prompt, f"word{i}" if right else "I'm sorry, I cannot help with that." if i % 2 else "",
                                            f"word{i}", {"exact_match": float(right)}, tags))
    return made


def analysed(run: str, **more) -> tuple[str, dict]:
    values = {"kind": "eval", "method": "analyse", "runs": [run]} | more
    made, _ = finished(values, lambda recipe, ctx: (method("eval", "analyse").check(recipe), method("eval", "analyse").run(recipe, ctx))[1])
    return made, api.errors(made)


def test_planted_failures_are_grouped_right():
    run, told = analysed(evaluated({"starter": "Starter", "library:tuned": "Tuned"}, {"facts": planted()}), topics=2)
    assert told["questions"] == 72 and told["failed"] == 36 + 4 + 1 and told["by_all"] == 0
    assert [side["label"] for side in told["sides"]] == ["Starter", "Tuned"] and told["rules"]["facts"]["words"] == "exact_match below 0.5"
    by = {(group["by"], group["name"]): group for group in told["groups"]}
    out = [group for group in told["groups"] if group["stands_out"]]
    assert [group["by"] for group in out] == ["topic"], [g["name"] for g in out]
    [space] = out
    assert set(space["name"].split(", ")) & {"planet", "orbit", "moon"} and told["groups"][0] is space
    assert space["questions"] == 36 and space["failed"] == 36 and space["others"] == pytest.approx(5 / 36)
    assert space["sides"] == [{"answers": 36, "failures": 0}, {"answers": 36, "failures": 36}]
    assert space["p"] == pytest.approx(stats.fisher_exact([[36, 0], [5, 31]], "greater").pvalue, rel=1e-6)
    assert not by["tag", "level: hard"]["stands_out"]
    assert by["kind", "refusal"]["sides"][1]["failures"] == 18 + 2 and by["kind", "empty"]["sides"][1]["failures"] == 18 + 2
    assert ("kind", "form") not in by, "one question is fewer than the smallest group"

    answers = api.errors_answers(run, space["id"], limit=10)
    assert answers["total"] == 36 and len(answers["rows"]) == 10
    first = answers["rows"][0]
    assert first["question"].startswith("Q: Which planet") and "Answer in one word" in first["prompt"]
    assert [answer["failed"] for answer in first["answers"]] == [False, True] and first["failed"] == [1]
    assert api.errors_answers(run, text="MARS")["total"] == 6 and api.errors_answers(run, text="no such words")["total"] == 0


def test_a_group_becomes_a_dataset_that_mends_it():
    run, told = analysed(evaluated({"starter": "Starter", "library:tuned": "Tuned"}, {"facts": planted()}), topics=2)
    space = told["groups"][0]
    made = api.errors_dataset(run, space["id"])
    assert made["rows"] == 36 and made["left_out"] == 0 and "planet" in made["name"]
    opened = api.data_open(made["ref"])
    assert opened["total"] == 36 and opened["format"] == "messages"
    from studio.datasets.version import Version
    from studio.library import artifacts

    items = list(Version(artifacts.get(made["id"])["path"]).items())
    turns = items[0].row["messages"]
    assert turns[0]["content"].startswith("Q: Which planet") and turns[1] == {"role": "assistant", "content": "word36"}
    assert dict(items[0].tags) == {"task": "facts", "level": "easy"}
    pairs = api.errors_dataset(run, space["id"], "preference", "Pairs to mend")
    row = next(Version(artifacts.get(pairs["id"])["path"]).rows())
    assert row["chosen"][0]["content"] == "word37" and row["rejected"][0]["content"].startswith("I'm sorry")
    assert pairs["rows"] == 18 and pairs["left_out"] == 18, "an empty answer is nothing to prefer another to"
    recipe = {"kind": "sft", "method": "lora", "dataset": made["ref"]}
    assert api.validate(recipe)["ok"], api.validate(recipe)["errors"]
    assert artifacts.get(made["id"])["parents"] == [{"ref": f"run:{run}", "role": "analysed"}]


def test_answers_that_are_not_known_are_told():
    samples = {"starter": [Sample(str(i), f"Write a poem number {i}", "no", "", {"exact_match": 0.0}) for i in range(5)]}
    run, told = analysed(evaluated({"starter": "Starter"}, {"poems": samples}))
    assert told["failed"] == 5 and told["groups"][0]["by"] == "kind" and told["topics"] is None
    with pytest.raises(StudioError, match="No right answer"):
        api.errors_dataset(run)
    with pytest.raises(StudioError, match="no such group"):
        api.errors_dataset(run, "g99")
    with pytest.raises(StudioError, match="no error analysis"):
        api.errors(evaluated({"starter": "Starter"}, {"poems": samples}))


def test_two_runs_stand_side_by_side_under_their_own_names():
    one = evaluated({"starter": "Starter"}, {"facts": {"starter": planted()["starter"]}}, name="before")
    two = evaluated({"starter": "Starter"}, {"facts": {"starter": planted()["library:tuned"]}}, name="after")
    made, _ = finished({"kind": "eval", "method": "analyse", "runs": [one, two], "topics": 1},
                       lambda recipe, ctx: method("eval", "analyse").run(recipe, ctx))
    told = api.errors(made)
    assert [side["label"] for side in told["sides"]] == ["Starter · before", "Starter · after"]
    assert {group["by"] for group in told["groups"]} <= {"tag", "length", "kind"}


def test_scores_without_a_scale_count_their_worst_part():
    samples = {"starter": [Sample(str(i), f"q{i}", "a", "t", {"bleu": float(i)}) for i in range(40)]}
    _, told = analysed(evaluated({"starter": "Starter"}, {"translate": samples}), worst=0.2)
    assert told["failed"] == 8 and "worst 20%" in told["rules"]["translate"]["words"]


@pytest.mark.parametrize(("answer", "target", "more", "kind"), [
    ("", "4", {}, "empty"), ("As an AI, I cannot say.", "4", {}, "refusal"), ("К сожалению, не могу.", "4", {}, "refusal"),
    ("the dog the dog the dog the dog the dog", "a cat", {}, "repeats"), ("ha" * 40, "a cat", {}, "repeats"),
    ("It is so that", "no", {"finish_reason": "length"}, "cut"), ("Трава зелёная, а небо голубое и чистое.", "The grass is green and the sky is blue.", {}, "language"),
    ("The answer is 4.", "4", {}, "form"), ("Paris", "paris.", {}, "form"), ("17", "18", {}, "number"), ("several", "18", {}, "no_number"),
    ("There are 12 eggs and 3 hens, so 1,200", "1200", {}, "form"), ("A dog has four feet", "A dog has four legs", {}, "partly"),
    ("blue", "The grass over there is green in spring", {}, "short"), ("maybe", "green", {}, "other"),
    ("blue", "green", {"loglikelihood": -4.0}, "unlikely"), ("It is red", "green | red", {}, "form"),
    ("blue", "green", {"options": [["green", -2.1], ["blue", -2.0]]}, "close_choice"),
    ("blue", "green", {"options": [{"text": "green", "loglikelihood": -9.0}, {"text": "blue", "loglikelihood": -2.0}]}, "choice")])
def test_kinds_of_errors(answer, target, more, kind):
    assert kinds.kind_of(answer, target, more) == kind
    assert kind in kinds.KINDS


def test_topics_come_from_meaning_where_an_embedding_model_is_there(tmp_path):
    """A model whose vectors know two things: kitchens and skies. No word is shared between the questions of one topic."""
    import numpy as np
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    kitchen, sky = ["bread", "soup", "oven", "onion", "flour", "salt", "dough", "stove"], ["moon", "comet", "orbit", "planet", "star", "rocket", "mars", "sun"]
    words = {word: i for i, word in enumerate(["[UNK]", *kitchen, *sky])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rng = np.random.default_rng(0)
    table = np.array([[0, 0]] + [[1, 0]] * 8 + [[0, 1]] * 8) + rng.normal(0, 0.05, (17, 2))
    save_file({"embeddings": table.astype(np.float32)}, tmp_path / "model.safetensors")
    texts = kitchen * 2 + sky * 2
    found = topics.found(texts, model=tmp_path)
    assert found["by"] == "embedding" and len(found["names"]) == 2
    assert len({label for label in found["labels"][:16]}) == 1 and found["labels"][0] != found["labels"][16]
    assert parse({"kind": "eval", "method": "analyse", "embedding": str(tmp_path)}).embedding
    with pytest.raises(StudioError, match="no embedding model") as caught:
        analysis.folder_of(str(tmp_path.parent))
    assert caught.value.field == "embedding"


def test_chinese_questions_have_topics_too():
    texts = [f"如何烤麵包{i}" for i in range(12)] + [f"月亮離地球多遠{i}" for i in range(12)]
    found = topics.found(texts, 2)
    assert found["labels"][:12] == [found["labels"][0]] * 12 and found["labels"][0] != found["labels"][12]


def test_a_chat_written_as_text_is_read_back():
    assert analysis.turns("system: Be kind.\nuser: Hello: you?\n") == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello: you?"}]
    assert analysis.turns("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n") == [{"role": "user", "content": "Hi"}]
    shared = analysis.common(["<s>[user]\nWhat is a cat?\n[end]", "<s>[user]\nWhat is a dog?\n[end]"])
    assert [analysis.wording({"prompt": "<s>[user]\nWhat is a dog?\n[end]", "more": {}}, shared)["question"]] == ["What is a dog?"]
    assert analysis.turns("Q: What is it?\nA:") == []


@pytest.mark.parametrize(("runs", "word"), [([], "No evaluation"), (["rnothing00"], "no run"), (["RUN", "RUN"], "listed twice")])
def test_refused_before_the_start(runs, word):
    run = evaluated({"starter": "Starter"}, {"facts": {"starter": planted()["starter"]}})
    recipe = parse({"kind": "eval", "method": "analyse", "runs": [run if one == "RUN" else one for one in runs]})
    with pytest.raises(StudioError, match=word) as caught:
        method("eval", "analyse").check(recipe)
    assert caught.value.field == "runs"


def test_a_large_analysis_is_quick():
    import time

    samples = [Sample(str(i), f"{COOKING[i % 6]} {i}" if i % 3 else f"{SPACE[i % 6]} {i}", "x", "y", {"exact_match": float(i % 7 > 2)},
                      {"part": str(i % 40)}) for i in range(6000)]
    run = evaluated({"starter": "Starter"}, {"facts": {"starter": samples}})
    began = time.process_time()
    _, told = analysed(run, topics=8)
    assert told["questions"] == 6000 and time.process_time() - began < 20
    json.dumps(told)
