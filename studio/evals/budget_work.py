"""The work of :mod:`studio.evals.budget`: drawn answers, which of them are right, rewards, curves. Worker side."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from studio.datasets import answers, checking, llm, numeric, verify
from studio.evals import results, scaling
from studio.evals.asking import Asking, Bar, Question, questions

NAMES = {"pass_at_k": "pass@{}", "self_consistency": "maj@{}", "best_of_n": "best_of@{}"}
SHOWN, LONGEST = 64, 600  # answers of a question that are kept with it, and characters of each
FEW = 0.1  # share of questions whose answers differ, below which more of them are said to be worth nothing


@dataclass
class Drawn:
    """One answer: its text, what it took, whether it is right (``None``: nobody knows), its reward and its vote."""

    text: str
    written: int | None = None
    cut: bool = False
    right: bool | None = None
    reward: float | None = None
    vote: Hashable | None = None


@dataclass
class Pool:
    """All answers of a model to a question; ``lost`` of them never came."""

    question: Question
    drawn: list[Drawn] = field(default_factory=list)
    greedy: Drawn | None = None
    lost: int = 0

    @property
    def known(self) -> list[Drawn]:
        """Those that are known to be right or wrong."""
        return [one for one in self.drawn if one.right is not None]


def run(recipe: Any, ctx: Any) -> dict[str, Any]:
    """Everything from the answers to the summary.

    Raises:
        studio.datasets.step.Stopped: as asked.
        StudioError: a model, a server, a reward or data that are not there.
    """
    from studio import rewards
    from studio.chat import session

    asked = questions(recipe.dataset, recipe.columns, recipe.samples, recipe.seed, ctx)
    check = checking.Checking(recipe)
    asked = _checkable(asked, check, ctx)
    kept, curve, totals = results.Results(ctx, recipe), [], []
    task = _name(recipe, kept)
    bar = Bar(ctx, len(recipe.models) * len(asked) * (recipe.drawn + recipe.greedy + recipe.drawn * check.judges))
    functions: list[Any] = []
    try:
        with llm.Journal(ctx.run_dir / "journal.jsonl") as journal:
            for ref in recipe.models:
                number = kept.model(ref, session.label_of(ref))
                pools = _draw(recipe, ctx, journal, bar, number, ref, asked)
                _check(recipe, ctx, journal, bar, number, pools, check)
                if "best_of_n" in recipe.ways:
                    if not functions and any(f"reward/{number}/{pool.question.id}" not in journal for pool in pools):
                        functions = rewards.build(recipe.picks, ctx, SimpleNamespace(model=recipe.models[0], trust_remote_code=False))
                    _reward(recipe, ctx, journal, number, pools, functions)
                samples = [_sample(recipe, pool) for pool in pools]
                totals.append(_used(recipe, pools))
                kept.add(number, task, samples, **totals[-1])
                curve += _curve(recipe, number, pools, samples, totals[-1])
                _warn(recipe, ctx, kept.models[number]["label"], pools)
    finally:
        rewards.close(functions)
    facts = {"curve": curve, "drawn": recipe.drawn, "questions": len(asked), "check": recipe.check, "used": totals}
    return kept.finish([(recipe.dataset, "data")], **facts)


def _name(recipe: Any, kept: results.Results) -> str:
    """Name the task; the same for runs whose scores compare."""
    from studio.aligners.data import refs_label

    metrics = {"pass@1": results.SHARE} | ({"greedy": results.SHARE} if recipe.greedy else {})
    metrics |= {NAMES[way].format(k): results.SHARE for way in recipe.ways for k in recipe.budgets}
    same = ["dataset", "columns", "check", "column", "references", "tolerance", "pattern", "ignore_case", "json_schema", "judge", "rubric", "threshold",
            "temperature", "top_p", "max_new_tokens", "vote_by", "vote_pattern", "picks"]
    name = f"budget-{results.mark([getattr(recipe, one) for one in same])}"
    kept.task(name, f"More answers: {refs_label(recipe.dataset)}", "pass@1", metrics)
    return name


def _checkable(asked: list[Question], check: checking.Checking, ctx: Any) -> list[Question]:
    """Questions that the references know, where there are references.

    Raises:
        StudioError: none of them.
    """
    from studio.errors import StudioError

    if check.references is None:
        return asked
    known = [one for one in asked if check.row_of(one.asked, one.messages) is not None]
    if not known:
        raise StudioError("The references know none of these questions.", "Choose those that belong to the dataset.", "references")
    if len(known) < len(asked):
        ctx.log(f"{len(asked) - len(known)} of {len(asked)} questions are not among the references and are left out.")
    return known


def _draw(recipe: Any, ctx: Any, journal: llm.Journal, bar: Bar, number: int, ref: str, asked: list[Question]) -> list[Pool]:
    """The answers of one model."""
    pools = {one.id: Pool(one) for one in asked}
    jobs: dict[str, tuple[Question, int]] = {}
    for one in asked:
        jobs |= {f"answer/{number}/{one.id}/{draw}": (one, draw) for draw in range(-1 if recipe.greedy else 0, recipe.drawn)}
    found: dict[str, dict[str, Any]] = {}
    work = Asking(recipe, ctx, journal, lambda: llm.open(recipe, ctx, ref, "", "models"), bar)
    for key, made in work.each(jobs.items(), _said):
        found[key] = made
    for key, (one, draw) in jobs.items():
        made = found[key]
        if "text" not in made:
            pools[one.id].lost += draw >= 0
            continue
        drawn = Drawn(made["text"], made["written"], made["cut"])
        if draw < 0:
            pools[one.id].greedy = drawn
        else:
            pools[one.id].drawn.append(drawn)
    if lost := sum(pool.lost for pool in pools.values()):
        why = next(made["failed"] for made in found.values() if "failed" in made)
        ctx.warning("unanswered", f"{lost:,} answers never came: {why}.", "Their questions count in the smaller budgets only.")
    return list(pools.values())


def _said(job: tuple[Question, int], ask: Any) -> dict[str, Any]:
    one, draw = job
    made = ask.all("answer", one.messages, **({"temperature": 0.0} if draw < 0 else {}))[0]
    return {"text": made.text, "cut": made.cut, "written": made.completion_tokens, "read": made.prompt_tokens}


# ---- right or wrong


def _check(recipe: Any, ctx: Any, journal: llm.Journal, bar: Bar, number: int, pools: list[Pool], check: checking.Checking) -> None:
    """Say of every answer whether it is right; equal answers to a question are checked once."""
    jobs = {}
    for pool in pools:
        row = check.row_of(pool.question.asked, pool.question.messages)
        every = [*pool.drawn, *([pool.greedy] if pool.greedy else [])]
        texts = list(dict.fromkeys(one.text for one in every))
        jobs |= {f"right/{number}/{pool.question.id}/{place}": (row, text, pool) for place, text in enumerate(texts)}
    if check.judges:
        bar.total = bar.done + len(jobs)
        judge = Asking(recipe, ctx, journal, lambda: checking.judge_of(recipe, ctx), bar)
        found = dict(judge.each(jobs.items(), lambda job, ask: _verdict(check, job, lambda turns, n=iter(range(99)): ask.all(str(next(n)), turns)[0].text)))
    else:
        found = {}
        for key, job in jobs.items():
            if ctx.stop_requested:
                raise llm.Stopped
            if (known := journal.done(f"{key}=")) is None:
                known = _verdict(check, job)
                journal.put(f"{key}=", known)
            found[key] = known
    for key, (_, text, pool) in jobs.items():
        for one in [*pool.drawn, *([pool.greedy] if pool.greedy else [])]:
            if one.text == text and "right" in found[key]:
                one.right = found[key]["right"]
    unknown = sum("right" not in one for one in found.values())
    if unknown:
        ctx.warning("undecided", f"{unknown:,} of {len(found):,} different answers could not be judged right or wrong.",
                    "They are left out. A stronger judge keeps to the form.")
    for pool in pools:
        for one in pool.drawn:
            one.vote = vote_of(one.text, recipe.vote_by, recipe.vote_pattern)


def _verdict(check: checking.Checking, job: tuple, ask: Any = None) -> dict[str, Any]:
    row, text, _ = job
    return {"right": bool(check(text, row, ask).ok)}


def vote_of(text: str, by: str, pattern: str = "") -> str | None:
    """What an answer casts its vote for; ``None`` for nothing."""
    text = verify.final(text)
    if by == "number":
        value = numeric.final_number(text)
        return None if value is None else str(value.normalize())
    if by == "words":
        return verify.normalised(numeric.boxed(text) or text) or None
    try:
        found = list(verify.compiled(pattern).finditer(text, timeout=verify.PATTERN_SECONDS))
    except TimeoutError:
        return None
    return (" ".join((found[-1][1] if found[-1].re.groups else found[-1][0] or "").split()) or None) if found else None


# ---- rewards


def _reward(recipe: Any, ctx: Any, journal: llm.Journal, number: int, pools: list[Pool], functions: list[Any]) -> None:
    """The weighted sum of the rewards of every answer; what an answer has no reward for is left out of its sum."""
    from studio import rewards

    weights = rewards.weights(recipe.picks)
    for pool in pools:
        key = f"reward/{number}/{pool.question.id}"
        if (known := journal.done(key)) is None:
            if ctx.stop_requested:
                raise llm.Stopped
            known = {"sums": _sums(pool, functions, weights)}
            if not pool.lost:
                journal.put(key, known)
        for one, value in zip(pool.drawn, known["sums"], strict=True):
            one.reward = value


def _sums(pool: Pool, functions: list[Any], weights: list[float]) -> list[float | None]:
    size, columns = len(pool.drawn), {key: value for key, value in pool.question.asked.items() if key != "prompt"}
    if not size:
        return []
    said = [[{"role": "assistant", "content": one.text}] for one in pool.drawn]
    given = [function([pool.question.messages] * size, said, **{key: [value] * size for key, value in columns.items()})
             for function in functions]
    return [sum(known) if (known := [weight * one[i] for weight, one in zip(weights, given, strict=True) if one[i] is not None]) else None
            for i in range(size)]


# ---- what it is worth


def values(recipe: Any, pool: Pool) -> dict[str, float]:
    """Metric -> what is to be expected of this question; budgets that it has too few answers for are left out."""
    known = pool.known
    right, made = [bool(one.right) for one in known], {}
    if known:
        made["pass@1"] = scaling.pass_at_k(right, 1)
    for way in recipe.ways:
        for k in (k for k in recipe.budgets if k <= len(known)):
            if way == "pass_at_k":
                value = scaling.pass_at_k(right, k)
            elif way == "self_consistency":
                value = scaling.majority(right, [one.vote for one in known], k, recipe.seed)
            else:
                value = scaling.best_of(right, [-float("inf") if one.reward is None else one.reward for one in known], k)
            made[NAMES[way].format(k)] = value
    if pool.greedy is not None and pool.greedy.right is not None:
        made["greedy"] = float(pool.greedy.right)
    return made


def _sample(recipe: Any, pool: Pool) -> results.Sample:
    one = pool.question
    first = pool.greedy or next(iter(pool.drawn), Drawn(""))
    said = [{"text": drawn.text[:LONGEST], "right": drawn.right, "reward": drawn.reward, "vote": drawn.vote, "tokens": drawn.written}
            for drawn in pool.drawn[:SHOWN]]
    return results.Sample(one.id, one.text, first.text, answers.answer(one.row) or one.target, values(recipe, pool), one.tags,
                          {"answers": said, "lost": pool.lost})


def _used(recipe: Any, pools: list[Pool]) -> dict[str, Any]:
    """Tokens of a model: those of a drawn answer and of a greedy one, on average over the questions; ``None`` where it told none."""
    def average(groups: list[list[Drawn]]) -> float | None:
        means = [sum(one.written or 0 for one in group) / len(group) for group in groups if group]
        told = any(one.written is not None for group in groups for one in group)
        return sum(means) / len(means) if means and told else None

    every = [one for pool in pools for one in pool.drawn]
    return {"tokens_an_answer": average([pool.drawn for pool in pools]),
            "tokens_greedy": average([[pool.greedy] for pool in pools if pool.greedy]),
            "tokens_written": sum(one.written or 0 for one in every), "cut": sum(one.cut for one in every), "answers": len(every)}


def _curve(recipe: Any, number: int, pools: list[Pool], samples: list[results.Sample], used: dict[str, Any]) -> list[dict[str, Any]]:
    """``{model, method, n, value, stderr, questions, tokens}`` of every point."""
    made = []
    points = [("greedy", 1, "greedy", used["tokens_greedy"])] if recipe.greedy else []
    each = used["tokens_an_answer"]
    points += [(way, k, NAMES[way].format(k), None if each is None else each * k) for way in recipe.ways for k in recipe.budgets]
    for way, k, metric, tokens in points:
        found = [sample.scores[metric] for sample in samples if metric in sample.scores]
        if found:
            value, error, count = results.mean(found)
            made.append({"model": number, "method": way, "n": k, "value": value, "stderr": error, "questions": count,
                         "tokens": None if tokens is None else round(tokens, 2)})
    return made


def _warn(recipe: Any, ctx: Any, label: str, pools: list[Pool]) -> None:
    every = [pool for pool in pools if len(pool.drawn) > 1]
    if every and sum(len({one.text for one in pool.drawn}) > 1 for pool in every) < FEW * len(every):
        ctx.warning("no_variety", f"{label} gives nearly always the same answer again, so more of them are worth nothing.",
                    "Raise the temperature, or ask harder questions.")
    if "best_of_n" in recipe.ways and every:
        if not any(one.reward is not None for pool in every for one in pool.drawn):
            ctx.warning("no_reward", f"The rewards have nothing to say of any answer of {label}.", "Best of n then picks by chance.")
        elif not any(len({one.reward for one in pool.drawn}) > 1 for pool in every):
            ctx.warning("same_reward", f"The rewards give all answers of {label} to a question the same.", "Best of n then picks by chance.")
    cut = sum(one.cut for pool in pools for one in pool.drawn)
    if cut > len([one for pool in pools for one in pool.drawn]) / 5:
        ctx.warning("cut", f"{cut:,} answers of {label} were cut at {recipe.max_new_tokens:,} tokens.", "Raise 'Longest answer'.")
    silent = sum(one.vote is None for pool in pools for one in pool.drawn)
    if "self_consistency" in recipe.ways and silent > len([one for pool in pools for one in pool.drawn]) / 2:
        ctx.warning("no_votes", f"{silent:,} answers of {label} cast no vote.", "Look at what votes are made of.")
