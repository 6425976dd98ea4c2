"""The work of :mod:`studio.evals.judge`: answers, judgements, and what they say of the models and of the judge. Worker side."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from studio.chat import address
from studio.datasets import judge, llm, verify
from studio.datasets.checking import CALM
from studio.evals import agreement, judge_sources, judging, results
from studio.evals.asking import Asking, Bar
from studio.evals.judge_sources import Item, Source

SAME = 4  # equal marks, and no other, from which a judge is doubted
CLEAR = 0.3  # rank correlation of length and mark from which it is worth a word
SHOWN = 40  # battles that the result shows where judge and people differ
TITLES = {"single": "Marks by {}", "reference": "Marks by {} beside the right answer", "pairwise": "Wins by {}"}
MARKS = results.NUMBER | {"low": judge.LOW, "high": judge.HIGH}


@dataclass
class Judged:
    """What the judge said of some questions.

    Attributes:
        marks: (question, model) -> its record: ``{mark, reason}``, ``{undecided}`` or ``{failed}``.
        pairs: (question, model, model) -> ``{ab, ba}``, each such a record with ``verdict`` told as ``a`` or ``b`` for the first or
            the second model; ``{same: True}`` where both said the same.
    """

    marks: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    pairs: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)
    _by: dict[str, dict[tuple[int, int], dict[str, Any]]] | None = None

    def of(self, id: str) -> dict[tuple[int, int], dict[str, Any]]:
        """The pairs of one question."""
        if self._by is None:
            self._by = {}
            for (one, a, b), record in self.pairs.items():
                self._by.setdefault(one, {})[a, b] = record
        return self._by.get(id, {})

    def records(self) -> list[dict[str, Any]]:
        """Every single judgement."""
        both = [one[order] for one in self.pairs.values() for order in ("ab", "ba") if order in one]
        return [*self.marks.values(), *both, *(one for one in self.pairs.values() if "failed" in one)]


def run(recipe: Any, ctx: Any) -> dict[str, Any]:
    """Everything from the answers to the summary.

    Raises:
        studio.datasets.step.Stopped: as asked.
        StudioError: a model, a server or data that are not there.
    """
    owner = _owner(ctx)
    source = judge_sources.read(recipe, ctx, owner)
    people = judge_sources.battles_of(judge_sources.voted(owner), recipe, recipe.votes) if recipe.answers_from != "votes" else Source([], [])
    with llm.Journal(ctx.run_dir / "journal.jsonl") as journal:
        answers = len(source.items) * len(source.models) if source.asked else 0
        each = len(source.models) if recipe.mode != "pairwise" else max(1, len(source.models) * (len(source.models) - 1) // 2)
        bar = Bar(ctx, answers + len(source.items) * each + len(people.items))
        if source.asked:
            judge_sources.answer(source, recipe, ctx, journal, bar)
        jobs = _jobs(source, recipe, "own") | _jobs(people, recipe, "people")
        bar.total = bar.done + len(jobs)
        work = Asking(recipe, ctx, journal, lambda: _opened(recipe, ctx), bar)
        found = {"own": Judged(), "people": Judged()}
        for key, record in work.each(jobs.items(), lambda data, ask: _judged(recipe, data, ask)):
            item, *models = jobs[key]
            kept = found[key.partition("/")[0]]
            (kept.marks if len(models) == 1 else kept.pairs)[(item.id, *models)] = record
    return _told(recipe, ctx, source, people, found)


def _owner(ctx: Any) -> str | None:
    from studio.errors import StudioError
    from studio.jobs import store

    try:
        return store.get(ctx.run_id)["owner"]
    except StudioError:  # a recipe run without the queue
        return None


def _opened(recipe: Any, ctx: Any) -> llm.Client:
    return llm.open(recipe, ctx, recipe.judge, recipe.judge_model, "judge", **(CALM | {"max_new_tokens": recipe.judge_tokens}))


def _jobs(source: Source, recipe: Any, whose: str) -> dict[str, tuple]:
    """key -> what is judged: a question with one of its models, or with two."""
    if recipe.mode == "pairwise":
        return {f"{whose}/{item.id}/{a}/{b}": (item, a, b) for item in source.items for a, b in item.pairs(recipe.against)}
    return {f"{whose}/{item.id}/{number}": (item, number) for item in source.items for number in item.answers}


def _judged(recipe: Any, data: Any, ask: Any) -> dict[str, Any]:
    heard = Heard(ask)
    item: Item = data[0]
    said = [verify.final(item.answers[number]).strip() for number in data[1:]]
    if len(said) == 1:
        target = item.target if recipe.mode == "reference" else ""
        try:
            mark = judge.mark(heard.named("mark"), item.question, said[0] or judging.NOTHING, recipe.rubric, target)
        except verify.Undecided as err:
            return {"undecided": str(err)} | heard.facts()
        return {"mark": mark.score, "reason": mark.reason} | heard.facts()
    if said[0] == said[1]:
        return {"same": True} | heard.facts()
    target = item.target if recipe.show_reference else ""
    made: dict[str, Any] = {}
    orders = ("ab", "ba") if recipe.both_orders else (random.Random(f"{recipe.seed}/{item.id}/{data[1:]}").choice(("ab", "ba")),)
    for order in orders:
        shown = said if order == "ab" else said[::-1]
        try:
            choice = judging.compare(heard.named(order), item.question, *shown, recipe.rubric, target)
            choice = choice if order == "ab" else choice.turned()
            made[order] = {"verdict": choice.verdict, "reason": choice.reason}
        except verify.Undecided as err:
            made[order] = {"undecided": str(err)}
    return made | heard.facts()


class Heard:
    """The judge's words to one job, counted."""

    def __init__(self, ask: Any):
        self.ask, self.asked, self.read, self.written = ask, 0, 0, 0

    def named(self, name: str) -> judge.Ask:
        count = iter(range(100))

        def one(messages: list[dict[str, str]]) -> str:
            said = self.ask.all(f"{name}/{next(count)}", messages)[0]
            self.asked += 1
            self.read, self.written = self.read + (said.prompt_tokens or 0), self.written + (said.completion_tokens or 0)
            return said.text

        return one

    def facts(self) -> dict[str, Any]:
        return {"asked": self.asked, "read": self.read, "written": self.written}


# ---- what it says of the models


def score_of(record: dict[str, Any], rule: str) -> float | None:
    """What the first of a pair got, or ``None`` where there is no verdict."""
    if "same" in record:
        return 0.5
    said = [record[order].get("verdict") for order in ("ab", "ba") if order in record]
    if not said or None in said:
        return None
    return judging.SCORE[said[0]] if len(said) == 1 else judging.combined(said[0], said[1], rule)


def _told(recipe: Any, ctx: Any, source: Source, people: Source, found: dict[str, Judged]) -> dict[str, Any]:
    kept = results.Results(ctx, recipe)
    for ref, label in source.models:
        kept.model(ref, label)
    main = "win_rate" if recipe.mode == "pairwise" else "judge_score"
    metrics = {main: results.SHARE if main == "win_rate" else MARKS}
    if recipe.answers_from == "votes":
        metrics["people_win_rate"] = results.SHARE
    judge_label = _label(recipe)
    task = task_of(recipe)
    kept.task(task, TITLES[recipe.mode].format(judge_label), main, metrics, judge=judge_label)
    own = found["own"]
    for number in range(len(source.models)):
        kept.add(number, task, [_sample(recipe, source, item, number, own, main) for item in source.items if _present(item, number)])
    records = [*own.records(), *found["people"].records()]
    facts = {"judge": judge_label, "mode": recipe.mode, "questions": len(source.items)} | _counts(own, recipe) | _usage(recipe, found)
    facts |= _of_marks(source, own) if recipe.mode != "pairwise" else _of_pairs(recipe, source, own, found["people"], people)
    voted, said = (source, own) if recipe.answers_from == "votes" else (people, found["people"])
    facts["people"] = _with_people(recipe, voted, said) if voted.items else None
    facts["itself"] = _self(recipe, source, own)
    _warn(ctx, facts, records)
    parents = [*source.parents, *([(recipe.judge, "judge")] if not address.is_address(recipe.judge) else [])]
    return kept.finish(parents, **facts)


def task_of(recipe: Any) -> str:
    """The task's name. It is the same for runs whose scores compare: the same judge and rubric, the same questions, and of pairs the
    same opponents and rule."""
    asked = {"run": [recipe.run, recipe.task], "votes": []}.get(recipe.answers_from, ["arena"] if recipe.arena_prompts else [recipe.dataset, recipe.columns])
    parts = [recipe.answers_from, asked, _identity(recipe.judge, recipe.judge_model), recipe.rubric]
    if recipe.mode == "pairwise":
        parts += [recipe.models, recipe.answer_columns, recipe.both_orders, recipe.tie_rule, recipe.against, recipe.show_reference]
    return f"judge_{recipe.mode}-{results.mark(parts)}"


def _present(item: Item, number: int) -> bool:
    return number in item.answers or number in item.facts


def _sample(recipe: Any, source: Source, item: Item, number: int, own: Judged, main: str) -> results.Sample:
    made = results.Sample(item.id, item.question, item.answers.get(number, ""), item.target, tags=item.tags,
                          more={name: value for name, value in item.facts.get(number, {}).items() if value not in (None, False)})
    if recipe.mode != "pairwise":
        record = own.marks.get((item.id, number), {})
        made.more |= {name: record[name] for name in ("reason", "undecided", "failed") if record.get(name)}
        if "mark" in record:
            made.scores[main] = record["mark"]
    else:
        against = []
        for (a, b), record in own.of(item.id).items():
            if number not in (a, b):
                continue
            score = score_of(record, recipe.tie_rule)
            mine = score if score is None or number == a else 1 - score
            other = b if number == a else a
            against.append({"model": source.models[other][1], "score": mine, "orders": [record[o] for o in ("ab", "ba") if o in record]})
        scores = [one["score"] for one in against if one["score"] is not None]
        if scores:
            made.scores[main] = fmean(scores)
        made.more["against"] = against
    if item.vote is not None and recipe.answers_from == "votes":
        made.scores["people_win_rate"] = item.vote if list(item.answers)[0] == number else 1 - item.vote
    return made


# ---- what it says of the judge


def _counts(own: Judged, recipe: Any) -> dict[str, Any]:
    records = own.records()
    undecided = [record["undecided"].rpartition("at last: ")[2] for record in records if "undecided" in record]
    verdicts = sum("mark" in record or "verdict" in record for record in records)
    scored = [score_of(record, recipe.tie_rule) for record in own.pairs.values()]
    return {"judged": verdicts, "undecided": len(undecided), "said": undecided[-1][-200:] if undecided else "",
            "failed": sum("failed" in record for record in records),
            "inconsistent": sum(_contradicts(record) for record in own.pairs.values()),
            "left_out": scored.count(None), "same_answer": sum("same" in record for record in own.pairs.values())}


def _contradicts(record: dict[str, Any]) -> bool:
    said = [record[order].get("verdict") for order in ("ab", "ba") if order in record]
    return len(said) == 2 and None not in said and said[0] != said[1]


def _usage(recipe: Any, found: dict[str, Judged]) -> dict[str, Any]:
    every = [record for one in found.values() for record in [*one.marks.values(), *one.pairs.values()]]
    read, written = (sum(record.get(name, 0) for record in every) for name in ("read", "written"))
    return {"requests": sum(record.get("asked", 0) for record in every), "tokens_read": read, "tokens_written": written,
            "cost": round((read * recipe.price_in + written * recipe.price_out) / 1e6, 6)}


def _words(text: str) -> int:
    return len(verify.final(text).split())


def _of_marks(source: Source, own: Judged) -> dict[str, Any]:
    """Histogram of each model, and whether longer answers get higher marks."""
    places = {item.id: item for item in source.items}
    found = [(number, record["mark"], _words(places[id].answers[number])) for (id, number), record in own.marks.items() if "mark" in record]
    histogram = [[sum(model == number and round(mark) == step for model, mark, _ in found) for step in range(judge.LOW, judge.HIGH + 1)]
                 for number in range(len(source.models))]
    rank = agreement.rank_correlation([words for _, _, words in found], [mark for _, mark, _ in found])
    return {"histogram": histogram, "one_mark": len(found) >= SAME and len({mark for _, mark, _ in found}) == 1,
            "length": {"kind": "marks", "biased": bool(rank["low"] is not None and rank["low"] > 0 and rank["value"] >= CLEAR)} | rank}


def _of_pairs(recipe: Any, source: Source, own: Judged, more: Judged, people: Source) -> dict[str, Any]:
    """The matrix of wins; place and length over all pairs that were judged."""
    from studio.arena import ratings

    outcomes = [(source.models[a][1], source.models[b][1], score) for (_, a, b), record in own.pairs.items()
                if (score := score_of(record, recipe.tie_rule)) is not None]
    every = [(part, key, record) for part, judged in ((source, own), (people, more)) for key, record in judged.pairs.items()]
    orders = [(record["ab"]["verdict"], record["ba"]["verdict"]) for _, _, record in every
              if all("verdict" in record.get(order, {}) for order in ("ab", "ba"))]
    if recipe.both_orders:
        place = agreement.position(orders)
    else:
        said = [(order, record[order]["verdict"]) for _, _, record in every for order in ("ab", "ba") if "verdict" in record.get(order, {})]
        place = agreement.shown_first(["tie" if verdict == "tie" else "first" if verdict == order[0] else "second" for order, verdict in said])
    return {"matrix": ratings.matrix(outcomes), "position": place, "length": {"kind": "pairs"} | agreement.longer(_lengths(recipe, every))}


def _lengths(recipe: Any, every: list[tuple[Source, Any, dict[str, Any]]]) -> list[tuple[int, int, float]]:
    made, places = [], {(id(part), item.id): item for part in {id(part): part for part, _, _ in every}.values() for item in part.items}
    for part, (where, a, b), record in every:
        item = places[id(part), where]
        if "same" not in record and (score := score_of(record, recipe.tie_rule)) is not None:
            made.append((_words(item.answers[a]), _words(item.answers[b]), score))
    return made


def _with_people(recipe: Any, voted: Source, said: Judged) -> dict[str, Any]:
    """Agreement with the votes, and what both think of longer answers."""
    pairs, lengths, votes, differ = [], [], [], []
    for item in voted.items:
        a, b = item.pairs("all")[0]
        if recipe.mode == "pairwise":
            record = said.pairs.get((item.id, a, b), {})
            score = score_of(record, recipe.tie_rule) if record else None
            reasons = [record[order].get("reason", "") for order in ("ab", "ba") if order in record]
        else:
            marks = [said.marks.get((item.id, number), {}) for number in (a, b)]
            score = None if any("mark" not in one for one in marks) else 0.5 + 0.5 * _sign(marks[0]["mark"] - marks[1]["mark"])
            reasons = [one.get("reason", "") for one in marks]
        if score is None:
            continue
        pairs.append((_word(score), _word(item.vote or 0.0)))
        words = (_words(item.answers[a]), _words(item.answers[b]))
        lengths.append((*words, score))
        votes.append((*words, item.vote or 0.0))
        if pairs[-1][0] != pairs[-1][1]:
            differ.append({"prompt": item.question[:2000], "a": item.answers[a][:2000], "b": item.answers[b][:2000],
                           "models": [voted.models[a][1], voted.models[b][1]], "judge": pairs[-1][0], "people": pairs[-1][1],
                           "reasons": [reason for reason in reasons if reason]})
    made = agreement.agreement([one for one, _ in pairs], [other for _, other in pairs], seed=recipe.seed)
    return made | {"battles": len(voted.items), "without": len(voted.items) - len(pairs), "longer": agreement.longer(lengths),
                   "longer_people": agreement.longer(votes), "differ": differ[:SHOWN]}


def _word(score: float) -> str:
    return "a" if score > 0.5 else "b" if score < 0.5 else "tie"


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _self(recipe: Any, source: Source, own: Judged) -> dict[str, Any] | None:
    """How the judge treats its own answers, where it is one of the models; ``None`` where it is not.

    A judge that rates itself higher may be right. Where people voted on its answers, theirs stands beside.
    """
    me = next((number for number, (ref, _) in enumerate(source.models) if _identity(ref) == _identity(recipe.judge, recipe.judge_model)), None)
    if me is None or len(source.models) < 2:
        return None
    made: dict[str, Any] = {"model": source.models[me][1]}
    if recipe.mode == "pairwise":
        mine = [score if a == me else 1 - score for (_, a, b), record in own.pairs.items()
                if me in (a, b) and (score := score_of(record, recipe.tie_rule)) is not None and "same" not in record]
        made |= {"kind": "pairs", "n": len(mine), "own": fmean(mine) if mine else None, "others": 1 - fmean(mine) if mine else None}
        made |= {"biased": None}
        if recipe.answers_from == "votes":
            people = [item.vote if list(item.answers)[0] == me else 1 - item.vote for item in source.items
                      if me in item.answers and item.vote is not None]
            test = agreement.share(sum(vote > 0.5 for vote in people), sum(vote != 0.5 for vote in people))
            made |= {"people": fmean(people) if people else None,
                     "biased": bool(mine and test["high"] is not None and fmean(mine) > test["high"])}
        return made
    mine = [record["mark"] for (_, number), record in own.marks.items() if number == me and "mark" in record]
    rest = [record["mark"] for (_, number), record in own.marks.items() if number != me and "mark" in record]
    return made | {"kind": "marks", "n": len(mine), "own": fmean(mine) if mine else None, "others": fmean(rest) if rest else None, "biased": None}


def _identity(ref: str, model: str = "") -> str:
    if not address.is_address(ref):
        return ref.strip()
    url, named = address.checked(ref)
    return f"{url}#{model or named}"


def _label(recipe: Any) -> str:
    from studio.chat import session

    return session.label_of(_identity(recipe.judge, recipe.judge_model).removesuffix("#"))


def _warn(ctx: Any, facts: dict[str, Any], records: list[dict[str, Any]]) -> None:
    said = facts["said"] or next((record["undecided"] for record in records if "undecided" in record), "")
    if records and not any("mark" in record or "verdict" in record for record in records):
        why = next((record["failed"] for record in records if "failed" in record), "it never answered in form")
        ctx.warning("nothing_judged", f"Not one of {len(records):,} judgements could be used: {'it never answered in form' if said else why}.",
                    f"Choose a stronger judge. {said[-200:]}".strip())
    elif facts["undecided"]:
        ctx.warning("undecided", f"{facts['undecided']:,} of {facts['judged'] + facts['undecided']:,} judgements could not be used, because the "
                    "judge did not answer in form.", "They count for nobody. A stronger judge keeps to the form.")
    if facts.get("one_mark"):
        ctx.warning("same_score", f"The judge gave all {facts['judged']:,} answers the same mark.",
                    "It may not judge at all: read some of its reasons, write a sharper rubric, or choose a stronger judge.")
    place, length = facts.get("position"), facts["length"]
    if place and place["biased"]:
        where = "first" if place["first"] > place["second"] else "second"
        ctx.warning("position_bias", f"The judge prefers whichever answer stands {where}: in {place[where]:,} of {place['pairs']:,} pairs.",
                    "Keep both orders, with a tie where they disagree, or choose another judge.")
    if length["biased"]:
        what = (f"the longer answer won {length['hits']:,} of {length['n']:,} clear pairs" if length["kind"] == "pairs"
                else f"marks rise with length (rank correlation {length['value']:.2f})")
        ctx.warning("length_bias", f"The judge may favour long answers: {what}.", "Longer answers can also be better ones: read some pairs.")
