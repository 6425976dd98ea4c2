"""The rounds of rejection sampling, in one process.

Everything a round makes lies in ``rounds/N`` of the run's folder, so that a stopped run goes on in its round: at the
next batch of prompts while it draws, at the last checkpoint while it learns. Every batch draws
with a seed of its own, so that it draws the same whenever it is drawn.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from studio import rewards
from studio.aligners import data
from studio.aligners.rollouts import LONGEST, SHOWN
from studio.errors import StudioError
from studio.jobs.context import COMPLETE, checkpoints
from studio.jobs.files import read_json, write_json
from studio.library import bases, refs
from studio.rewards.base import question_of, text_of

BATCH = 64  # answers drawn at once
DRAWN, LEARNED = 0.5, 0.9  # shares of a round that are over when its answers are drawn, and when they are learned from


class Round:
    """A part of the run as its trainer sees it: folders of its own, and the run's reports at the run's own steps."""

    def __init__(self, ctx: Any, number: int, of: int, offset: int):
        self._ctx, self.number, self.of, self.offset = ctx, number, of, offset
        self.run_dir = ctx.run_dir / "rounds" / str(number)
        self.checkpoints, self.output = self.run_dir / "checkpoints", self.run_dir / "model"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        done = checkpoints(self.checkpoints)
        self.resume_from: Path | None = done[-1] if done else None
        self.trial = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def metric(self, step: int, values: dict[str, Any] | None = None, **more: Any) -> None:
        self._ctx.metric(self.offset + step, values, **more)

    def sample(self, step: int, *args: Any, **more: Any) -> None:
        self._ctx.sample(self.offset + step, *args, **more)

    def progress(self, done: float, total: float, eta: float | None = None) -> None:
        self.through(DRAWN + (LEARNED - DRAWN) * done / max(1, total))

    def through(self, share: float) -> None:
        """A share of this round is over."""
        done = self.number - 1 + share
        spent, first = time.monotonic() - self._ctx.began, self._ctx.first
        left = spent / (done - first) * (self.of - done) if done > first + 0.02 else None
        self._ctx.progress(round(done, 2), self.of, left)

    def mark(self, step: int) -> None:
        """Where a resumed run would go on, in the run's own steps: the charts are cut there."""
        folder = self._ctx.checkpoints / f"checkpoint-{self.offset + step}"
        folder.mkdir(exist_ok=True)
        (folder / COMPLETE).touch()


def run(recipe: Any, ctx: Any) -> dict[str, Any]:
    """All rounds; the best one's model becomes the result."""
    from studio.trainers import load
    from studio.trainers.data import set_template, tell

    load.quiet()
    start = load.fetch(refs.resolve_model(recipe.model), ctx)
    if start is None:
        return {}
    tokenizer = load.tokenizer(start, recipe.trust_remote_code)
    tokenizer.padding_side = "left"
    found = data.read(recipe, "prompts")
    tell(found.source, ctx.warning, ctx.log)
    for warning in set_template(tokenizer, recipe.chat_template):
        ctx.warning(*warning)
    train, held = (_fitting(recipe, ctx, tokenizer, rows) for rows in (found.train, found.held))
    if not held:
        raise StudioError("There are no prompts to validate on.", "Keep a larger share for validation.", "eval_share")
    _same_data(found.digest(), ctx)
    if recipe.train == "lora":
        bases.keep(ctx.run_dir, recipe.model, ctx.resume_from is not None)
    functions = rewards.build(recipe.rewards, ctx, recipe)
    try:
        return _rounds(recipe, ctx, start, tokenizer, train, held, functions)
    finally:
        rewards.close(functions)


def _fitting(recipe: Any, ctx: Any, tokenizer: Any, rows: list) -> list:
    from studio.aligners.rejection_sampling import RejectionSampling

    return RejectionSampling.fitting(recipe, ctx, tokenizer, list(data.as_chat(rows, tokenizer.chat_template)))


def _same_data(digest: str, ctx: Any) -> None:
    from studio.trainers import kept

    kept.same_data(digest, 0, ctx)


def _rounds(recipe: Any, ctx: Any, start: Any, tokenizer: Any, train: list, held: list, functions: list) -> dict[str,
                                                                                                                 Any]:
    home = ctx.run_dir / "rounds"
    history = _history(home)
    ctx.began, ctx.first = time.monotonic(), len(history) - 1 if history else 0
    if not history:
        model = _opened(recipe, start)
        history.append(_judged(recipe, Round(ctx, 0, recipe.rounds, 0), model, tokenizer, held, functions, None))
    before = (read_json(home / "0" / "answers.json") or {})["rewards"]
    ref, offset = start, history[-1]["step"]
    if len(history) > 1:
        ref = refs.resolve_model(str(home / str(history[-1]["round"]) / "model"))
    for number in range(len(history), recipe.rounds + 1):
        if ctx.stop_requested:
            break
        part = Round(ctx, number, recipe.rounds, offset)
        pairs = _pairs(recipe, part, ref, tokenizer, train, functions)
        if pairs is None:
            break
        if not pairs:
            ctx.warning("no_pairs", f"Round {number} found no prompt whose answers differ in reward.",
                        "Raise the temperature, draw more answers, or choose a reward that tells them apart.")
            break
        if not _learned(recipe, part, ref, tokenizer, pairs):
            break
        ref = refs.resolve_model(str(part.output))
        offset += (read_json(part.run_dir / "learned.json") or {})["steps"]
        done = _judged(recipe, part, _opened(recipe, ref), tokenizer, held, functions, before,
                       {"pairs": len(pairs), "step": offset})
        if done is None:
            break
        history.append(done)
        part.mark(offset - part.offset)
    return _finish(recipe, ctx, start, history)


def _history(home: Path) -> list[dict[str, Any]]:
    """What the rounds that are over have given, the start first."""
    found, number = [], 0
    while done := read_json(home / str(number) / "result.json"):
        found.append(done)
        number += 1
    return found


def _opened(recipe: Any, ref: Any) -> Any:
    from studio.aligners.rejection_sampling import RejectionSampling
    from studio.trainers import load, plan, settings

    gpu = settings.has_gpu()
    dtype = plan.load_dtype(recipe, gpu, recipe.train == "lora")
    return load.model(ref, dtype, recipe.trust_remote_code, gpu,
                      quantization=RejectionSampling.quantization(recipe)).eval()


def _write(recipe: Any, ctx: Any, model: Any, tokenizer: Any, prompts: list, copies: int,
           seed: int) -> list[str] | None:
    """``copies`` answers to each prompt, one after the other; greedy ones for 0. ``None``: stopped meanwhile."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Asked(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((ids.shape[0],), ctx.stop_requested, dtype=torch.bool, device=ids.device)

    texts = [p if isinstance(p, str) else tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False)
             for p in prompts]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=isinstance(prompts[0], str),
                       return_token_type_ids=False).to(model.device)
    how = {"do_sample": True, "temperature": recipe.temperature, "top_p": recipe.top_p, "top_k": 0,
           "num_return_sequences": copies} if copies else {"do_sample": False}
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    torch.manual_seed(seed)
    with torch.no_grad():
        out = model.generate(**inputs, **how, max_new_tokens=recipe.max_completion_length, use_cache=True,
                             pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(ends) or None,
                             stopping_criteria=StoppingCriteriaList([Asked()]))
    if ctx.stop_requested:
        return None
    return tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)


def _score(recipe: Any, rows: list[dict], texts: list[str], functions: list) -> tuple[list[float], list[dict]]:
    """(weighted sum, {name: value} with the reasons) of an answer to each row."""
    chat = isinstance(rows[0]["prompt"], list)
    answers = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
    columns = {key: [row[key] for row in rows] for key in rows[0] if key != "prompt"}
    total, parts = [0.0] * len(rows), [{"rewards": {}, "notes": {}} for _ in rows]
    for function, weight in zip(functions, rewards.weights(recipe.rewards), strict=True):
        given = function([row["prompt"] for row in rows], answers, **columns)
        for i, value in enumerate(given):
            total[i] += weight * (value or 0.0)
            parts[i]["rewards"][function.__name__] = value
            if i < len(function.reasons):
                parts[i]["notes"][function.__name__] = function.reasons[i]
    return total, parts


def _chosen(recipe: Any, number: int, rows: int) -> list[int]:
    """The prompts of a round: others each time, until all had their turn."""
    count = min(recipe.prompts_a_round or rows, rows)
    order: list[int] = []
    lap = (number - 1) * count // rows
    while len(order) < (number - 1) * count % rows + count:
        shuffled = list(range(rows))
        random.Random(f"{recipe.seed}/{lap}").shuffle(shuffled)
        order, lap = order + shuffled, lap + 1
    return order[(number - 1) * count % rows:][:count]


def _pairs(recipe: Any, part: Round, ref: Any, tokenizer: Any, rows: list, functions: list) -> list[dict] | None:
    """The pairs of a round; ``None`` if it was stopped. Batches that were drawn before a stop are kept."""
    path = part.run_dir / "pairs.jsonl"
    journal = part.run_dir / "drawn.jsonl"
    if path.exists():
        return [json.loads(line) for line in path.open(encoding="utf-8")]
    mine = _chosen(recipe, part.number, len(rows))
    size, copies = max(1, BATCH // recipe.num_generations), recipe.num_generations
    batches = [mine[at:at + size] for at in range(0, len(mine), size)]
    drawn = _whole_lines(journal)
    model = _opened(recipe, ref) if len(drawn) < len(batches) else None
    with journal.open("a", encoding="utf-8") as out:
        for at in range(len(drawn), len(batches)):
            batch = [rows[i] for i in batches[at]]
            texts = _write(recipe, part, model, tokenizer, [row["prompt"] for row in batch], copies,
                           _seed(recipe, part.number, at))
            if texts is None:
                return None
            each = [row for row in batch for _ in range(copies)]
            totals, details = _score(recipe, each, texts, functions)
            means = np.repeat(np.reshape(totals, (-1, copies)).mean(1), copies)
            if at % max(1, len(batches) // 8) == 0:
                _tell(part, each, texts, details, np.array(totals) - means)
            drawn.append({"texts": texts, "rewards": totals})
            out.write(json.dumps(drawn[-1], ensure_ascii=False) + "\n")
            out.flush()
            part.through(DRAWN * (at + 1) / len(batches))
    found = [pair for batch, one in zip(batches, drawn, strict=True) for pair in _best_and_worst(recipe, rows, batch,
                                                                                                 one)]
    everything = [value for one in drawn for value in one["rewards"]]
    part.metric(0, {"drawn_reward": float(np.mean(everything)), "pairs": len(found), "prompts": len(mine)})
    part.log(f"Round {part.number}: {len(everything)} answers to {len(mine)} prompts, of which {len(found)} give a "
             f"pair.")
    part_path = path.with_suffix(".part")
    part_path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in found), "utf-8")
    part_path.rename(path)
    return found


def _seed(recipe: Any, number: int, at: int) -> int:
    return random.Random(f"{recipe.seed}/{number}/{at}").getrandbits(32)


def _whole_lines(path: Path) -> list[dict]:
    """Batches of a journal; a line that a kill tore is cut off."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[:raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _best_and_worst(recipe: Any, rows: list, batch: list[int], drawn: dict) -> list[dict]:
    copies, made = recipe.num_generations, []
    for place, i in enumerate(batch):
        given = drawn["rewards"][place * copies:(place + 1) * copies]
        texts = drawn["texts"][place * copies:(place + 1) * copies]
        best, worst = int(np.argmax(given)), int(np.argmin(given))
        if given[best] - given[worst] < max(recipe.least_difference, 1e-9) or texts[best] == texts[worst]:
            continue
        chosen, rejected = texts[best], texts[worst]
        if isinstance(rows[i]["prompt"], list):
            chosen, rejected = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
        made.append({"prompt": rows[i]["prompt"], "chosen": chosen, "rejected": rejected})
    return made


def _tell(part: Round, rows: list, texts: list, details: list, advantages: Any) -> None:
    order = np.argsort(-advantages)
    for place in sorted({round(i) for i in np.linspace(0, len(order) - 1, min(SHOWN, len(order)))}):
        i = int(order[place])
        part._ctx.rollout(part.offset, question_of(rows[i]["prompt"])[:LONGEST], text_of(texts[i])[:LONGEST],
                          details[i]["rewards"], round(float(advantages[i]), 4), details[i]["notes"])


def _learned(recipe: Any, part: Round, ref: Any, tokenizer: Any, pairs: list) -> bool:
    """DPO on the pairs of a round, into ``part.output``; False if it was stopped before its end."""
    from studio.aligners import run
    from studio.aligners.dpo import Dpo, DpoRecipe
    from studio.trainers import finish, kept, plan

    if (part.run_dir / "learned.json").exists():
        return True
    own = {name: value for name, value in recipe.model_dump().items() if name in DpoRecipe.model_fields}
    inner = DpoRecipe(**own | {"model": str(ref.ref), "max_length": 1 << 17, "eval_dataset": "", "eval_share": 0.0,
                               "load_best_model_at_end": False, "sample_prompts": [], "extra": {}})
    steps = plan.total_steps(inner, len(pairs))
    kept.clean(part.checkpoints)
    method = type("Dpo", (Dpo,), {"wrap": classmethod(lambda cls, trainer: _marking(trainer))})
    trainer = run.build(method, inner, part, ref, tokenizer, pairs, [], steps)
    kept.go(trainer, inner, part, [])
    if trainer.state.global_step < trainer.state.max_steps:
        return False
    model = trainer.accelerator.unwrap_model(trainer.model)
    finish.save(model, tokenizer, part.output, None if recipe.train == "lora" else finish.native_dtype(ref))
    write_json(part.run_dir / "learned.json", {"steps": trainer.state.global_step})
    shutil.rmtree(part.checkpoints, ignore_errors=True)
    return True


def _marking(trainer: type) -> type:
    class Marking(trainer):
        """Says with each checkpoint where in the whole run it is."""

        def _save_checkpoint(self, *args: Any) -> None:
            super()._save_checkpoint(*args)
            self.ctx.mark(self.state.global_step)

    return Marking


def _judged(recipe: Any, part: Round, model: Any, tokenizer: Any, rows: list, functions: list,
            before: list[float] | None,
            more: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Greedy answers to the held-out prompts: their rewards, and how often they beat the start's; a tie is half."""
    texts: list[str] = []
    for at in range(0, len(rows), BATCH):
        made = _write(recipe, part, model, tokenizer, [row["prompt"] for row in rows[at:at + BATCH]], 0, recipe.seed)
        if made is None and before is not None:
            return None
        if made is None:
            raise StudioError("Stopped before the first round.", "Resume it, or start again.")
        texts += made
    totals, _ = _score(recipe, rows, texts, functions)
    write_json(part.run_dir / "answers.json", {"rewards": totals, "texts": texts})
    wins = [0.5] * len(totals) if before is None else [(a > b) + 0.5 * (a == b) for a, b in zip(totals, before,
                                                                                                strict=True)]
    done = {"round": part.number, "step": 0, "eval_reward": float(np.mean(totals)),
            "win_rate": float(np.mean(wins))} | (
        more or {})
    part._ctx.metric(done["step"], {key: done[key] for key in ("eval_reward", "win_rate", "round")})
    for prompt in rows[:2]:
        part._ctx.sample(done["step"], question_of(prompt["prompt"])[:LONGEST], texts[rows.index(prompt)])
    write_json(part.run_dir / "result.json", done)
    if part.number:
        part.through(1.0)
    return done


def _finish(recipe: Any, ctx: Any, start: Any, history: list[dict]) -> dict[str, Any]:
    """The best round's model as the result; nothing where no round is over."""
    from studio.trainers import finish

    over = history[1:]
    if not over:
        return {"rounds": 0}
    best = max(over, key=lambda one: (one["win_rate"],
                                      one["eval_reward"])) if recipe.load_best_model_at_end else over[-1]
    shutil.rmtree(ctx.output, ignore_errors=True)
    shutil.copytree(ctx.run_dir / "rounds" / str(best["round"]) / "model", ctx.output)
    name = recipe.name or finish.default_name(recipe, start)
    table = "\n".join(f"| {one['round']} | {one.get('pairs', '')} | {one['win_rate']:.0%} | {one['eval_reward']:.3f} |"
                      for one in history)
    front = "---\ntags:\n- atelier\n- align\n---"
    (ctx.output / "README.md").write_text(
        f"{front}\n\n# {name}\n\nRejection sampling from {start.label} (`{recipe.model}`) on `{recipe.dataset}`; the "
        f"weights are those of round {best['round']}.\n\n| round | pairs | win rate against the start | reward "
        f"|\n|---|---|---|---|\n{table}\n\n## Recipe\n\n```yaml\n{recipe.to_yaml().rstrip()}\n```\n", "utf-8")
    adapter = (ctx.output / "adapter_config.json").exists()
    meta = {"method": "align/rejection_sampling", "win_rate": best["win_rate"], "eval_reward": best["eval_reward"]}
    ctx.artifact("adapter" if adapter else "model", ctx.output, name,
                 meta | (bases.meta(ctx.run_dir) if adapter else {}),
                 [(recipe.model, "base"), (recipe.dataset, "data")])
    return {"rounds": len(over), "of_rounds": recipe.rounds, "kept_round": best["round"], "steps": over[-1]["step"],
            "win_rate": best["win_rate"], "eval_reward_before": history[0]["eval_reward"],
            "eval_reward": best["eval_reward"], "pairs": sum(one["pairs"] for one in over)}
