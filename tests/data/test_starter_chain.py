"""The real thing: the starter answers through its own engine, is checked, trained on what it made, and asked again."""

from __future__ import annotations

import random

from studio import registry, settings
from studio.chat import manager
from studio.jobs import store
from studio.jobs.context import Context
from studio.library import artifacts
from studio.recipe import parse
from studio.starter import corpus, skills

PROMPT, RULES = "Answer with one word.", ["at most: 1 word", "ends with: ."]


def run(kind: str, method: str, **values: object) -> tuple[dict, list[dict]]:
    """Runs a recipe in this process; (summary, what it put into the library)."""
    recipe = parse({"kind": kind, "method": method, **values})
    registry.method(kind, method).check(recipe)
    made = store.submit(recipe)
    ctx = Context(settings.run_dir(made["id"]))
    try:
        summary = registry.method(kind, method).run(recipe, ctx)
    finally:
        ctx.close()
    return summary, artifacts.register_run(made, {"artifacts": ctx.artifacts})


def facts(held: bool, count: int, seed: int) -> dict[str, skills.Item]:
    """Questions that the starter was taught to answer, in the wordings of one side."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        item = rng.choice((skills.people, skills.animals, skills.colours, skills.opposites))(rng, held)
        found.setdefault(item.question, item)
    return found


def test_verified_answers_of_the_starter(run_step, jsonl) -> None:
    """It knows the facts and cannot add two-digit numbers, and that is what the check finds."""
    questions = [q for q in corpus.held_out(11, 6, untaught=True) if q.skill in ("people", "animals", "opposites", "harder_sums")]
    rows = [{"messages": [*q.messages, {"role": "assistant", "content": q.answer}]} for q in questions]
    made = run_step("verified", jsonl("world.jsonl", rows), generator="starter", n=2, check="exact", max_new_tokens=40)
    solved = {row["messages"][-2]["content"] for row in made.rows()}
    by_skill = {skill: sum(q.messages[-1]["content"] in solved for q in questions if q.skill == skill) for skill in ("people", "animals", "opposites")}
    assert min(by_skill.values()) >= 5, by_skill
    assert not [q for q in questions if q.skill == "harder_sums" and q.messages[-1]["content"] in solved]
    found = made.meta["history"][-1]["facts"]
    assert found["answers"] == 48 and 0.5 <= found["accept_rate"] <= 0.8
    assert all(row["messages"][-1]["content"] == right[row["messages"][-2]["content"]]
               for row in made.rows() for right in [{q.messages[-1]["content"]: q.answer for q in questions}])
    assert manager.engines() == [], "its engine is ended with the run"


def test_sums_of_the_starter_are_checked_as_numbers(run_step, jsonl) -> None:
    rng = random.Random(5)
    items = {item.question: item for item in (skills.sums(rng, False) for _ in range(10))}
    rows = [{"prompt": q, "completion": f"Let us see.\n#### {i.answer.split()[-1].rstrip('.')}"} for q, i in items.items()]
    made = run_step("verified", jsonl("sums.jsonl", rows), generator="starter", n=2, check="number", max_new_tokens=40)
    assert made.count() >= 0.8 * len(rows)
    assert all(row["completion"] == items[row["prompt"]].answer for row in made.rows())


def test_a_distilled_prompt_is_followed_unasked(run_step, jsonl) -> None:
    """Answers in one word are made with a system prompt; the model tuned on them gives one word without it."""
    taught, held = facts(False, 60, 1), facts(True, 12, 2)
    ref = jsonl("questions.jsonl", [{"prompt": q, "completion": i.answer} for q, i in taught.items()])
    other = jsonl("held.jsonl", [{"prompt": q, "completion": i.short or i.answer} for q, i in held.items()])
    made = run_step("distill_prompt", ref, generator="starter", system_prompt=PROMPT, rules=RULES, temperature=0.3, tries=3, max_new_tokens=40)
    assert made.count() >= 50 and all(set(row) == {"prompt", "completion"} and len(row["completion"].split()) == 1 for row in made.rows())

    _, (model,) = run("sft", "lora", model="starter", dataset=made.ref, num_train_epochs=3, learning_rate=3e-3, per_device_train_batch_size=4)
    checked = run_step("prompt_check", other, generator=model["ref"], compare="starter", system_prompt=PROMPT, rules=RULES, max_new_tokens=40)
    found = checked.meta["history"][-1]["facts"]
    (short, dot) = found["rules"]
    assert short["unasked"]["kept"] >= 10 and short["before"]["kept"] == 0 and short["unasked"]["of"] == 12
    assert dot["unasked"]["kept"] >= 10 and found["all"]["unasked"]["kept"] >= 10

    on_policy = run_step("verified", other, generator=model["ref"], n=2, check="exact", max_new_tokens=40)
    assert on_policy.count() >= 6, "the tuned model makes rows for its own next training"
    assert {"ref": model["ref"], "role": "generator"} in artifacts.get(on_policy.ref.removeprefix("library:"))["parents"]
    assert manager.engines() == []


def test_the_starter_is_no_judge_and_the_step_says_so(run_step, jsonl) -> None:
    """It does not know the form; asked again it says a bare '1.' to some rows, the same to all, and the run warns of that."""
    from studio.jobs import events

    rows = [{"prompt": q, "completion": i.answer} for q, i in facts(False, 8, 3).items()]
    made = run_step("score", jsonl("a.jsonl", rows), generator="starter", max_new_tokens=24)
    found = made.meta["history"][-1]["facts"]
    assert made.count() == 8 and {u["code"] for u in found["unscored"]} <= {"not_in_form", "failed"}
    said, _ = events.read(settings.run_dir(made.run_id) / "events.jsonl", 0)
    assert [e["code"] for e in said if e["e"] == "warning"] == ["same_score" if found["scored"] else "nothing_scored"]
