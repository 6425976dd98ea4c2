"""The run of PPO, inside the environment with TRL 1.12. Imports torch, so only that worker imports this module.

TRL's PPO has a loop of its own, without checkpoints that it could go on from: a stopped run gives the policy as it
is by then, and a resumed one begins again. Both are said.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from studio.aligners import data
from studio.aligners.rollouts import SHOWN, _short
from studio.errors import StudioError
from studio.library import bases, refs
from studio.trainers import finish, load, plan, settings
from studio.trainers.callbacks import answer
from studio.trainers.data import set_template, tell


class _Asked(Exception):
    """The person's stop."""


class _Told(TrainerCallback):
    """Progress, samples and the stop."""

    def __init__(self, trainer: Any, ctx: Any, prompts: list[str], every: int, tokenizer: Any):
        self.trainer, self.ctx, self.prompts, self.every, self.tokenizer = trainer, ctx, prompts, every, tokenizer
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        each = (time.perf_counter() - self.began) / step
        self.ctx.progress(step, state.max_steps, each * (state.max_steps - step))
        control.should_save = False
        if self.prompts and (step % self.every == 0 or step == state.max_steps):
            policy = self.trainer.accelerator.unwrap_model(self.trainer.model).policy
            for prompt, text in zip(self.prompts, answer(policy, self.tokenizer, self.prompts), strict=True):
                self.ctx.sample(step, prompt, text)
        if self.ctx.stop_requested and step < state.max_steps:
            raise _Asked


def run(method: Any, recipe: Any, ctx: Any) -> dict[str, Any]:
    """Trains the policy, writes it and its card; returns the summary."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    began = time.time()
    load.quiet()
    ref = load.fetch(refs.resolve_model(recipe.model), ctx)
    if ref is None:
        return {}
    if (ctx.run_dir / "data.json").exists():
        ctx.warning("begins_again", "PPO keeps no state to go on from: this run begins again.")
    tokenizer = load.tokenizer(ref, recipe.trust_remote_code)
    tokenizer.padding_side = "left"
    found = data.read(recipe, "prompts")
    tell(found.source, ctx.warning, ctx.log)
    for warning in set_template(tokenizer, recipe.chat_template):
        ctx.warning(*warning)
    rows = method.fitting(recipe, ctx, tokenizer, list(data.as_chat(found.train, tokenizer.chat_template)))
    steps = method.steps(recipe, len(rows))
    batch = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
    if len(rows) < batch:
        raise StudioError(f"{batch} prompts are answered at once, and there are {len(rows)}.", "Lower the batch size, "
                          "or take more data.", "per_device_train_batch_size")
    ctx.log(f"{len(rows)} prompts; {steps} steps.")
    (ctx.run_dir / "data.json").write_text("{}")
    transformers.set_seed(recipe.seed)
    torch.set_num_threads(max(1, ctx.threads))
    trainer = _trainer(method, recipe, ctx, ref, tokenizer, rows, steps, PPOConfig, PPOTrainer)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_Told(trainer, ctx, recipe.sample_prompts, recipe.eval_steps or max(1, steps // 10),
                               tokenizer))
    ctx.progress(0, steps)
    try:
        trainer.train()
    except _Asked:
        ctx.log("Stopped; the model as it is by now becomes the result.")
    return _finish(recipe, ctx, ref, tokenizer, trainer, rows, steps, began)


def _trainer(method: Any, recipe: Any, ctx: Any, ref: Any, tokenizer: Any, rows: list, steps: int, config: type,
             trainer: type) -> Any:
    gpu, lora = settings.has_gpu(), method.lora(recipe)
    dtype = plan.load_dtype(recipe, gpu, lora is not None)
    policy = load.model(ref, dtype, recipe.trust_remote_code, gpu, merge=lora is None,
                        quantization=method.quantization(recipe))
    reward_ref = refs.fetched(refs.resolve_model(recipe.reward_model))
    reward, value = (load.model(reward_ref, dtype, recipe.trust_remote_code, gpu, merge=True,
                                head="reward") for _ in range(2))
    reward.eval().requires_grad_(False)
    adapter = None
    if lora:
        bases.keep(ctx.run_dir, recipe.model, False)
        from peft import LoraConfig

        adapter = None if ref.is_adapter else LoraConfig(**lora)
    known = {item.name for item in dataclasses.fields(config)} - {"max_steps", "eval_steps"}
    shared = {name: value for name, value in settings.shared(recipe, ctx, steps, False).items() if name in known}
    batch = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
    args = config(**shared | method.settings(recipe) | {
        "total_episodes": steps * batch, "stop_token": "eos", "num_sample_generations": 0, "report_to": "none",
        "save_strategy": "no", "eval_strategy": "no"})
    ids = [tokenizer(p)["input_ids"] if isinstance(p, str) else
           tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
           for p in (row["prompt"] for row in rows)]

    class Told(trainer):
        """Reports go to the run; the last answers of a logged step become roll-outs."""

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            step = self.state.global_step
            logs = {name: value for name, value in logs.items() if name != "eps"}
            logs["learning_rate"] = logs.pop("lr", None)
            logs["loss"] = logs.get("loss/policy_avg")
            self.state.log_history.append(logs | {"step": step})
            if step == 1 or step % self.args.logging_steps == 0:
                ctx.metric(step, logs)
                for roll in self.rolls:
                    ctx.rollout(step, **roll)

    Told.rolls = []
    made = Told(args=args, processing_class=tokenizer, model=policy, ref_model=None, reward_model=reward,
                value_model=value,
                train_dataset=Dataset.from_dict({"input_ids": ids}), peft_config=adapter)
    _listen(made, reward, tokenizer)
    return made


def _listen(trainer: Any, reward: Any, tokenizer: Any) -> None:
    """Keep the answers that the reward model read last, and what it gave."""
    module = sys.modules[type(trainer).__mro__[1].__module__]
    seen: dict[str, Any] = {}

    def drawn(policy: Any, queries: Any, *args: Any, real: Any = module.batch_generation) -> Any:
        seen["width"] = queries.shape[1]
        return real(policy, queries, *args)

    def scored(head: Any, args: Any, output: Any) -> None:
        pad, width, rolls = tokenizer.pad_token_id, seen["width"], []
        for row, scores in zip(seen["ids"].tolist(), output.squeeze(-1), strict=True):
            last = max((i for i, token in enumerate(row) if token != pad), default=0)
            prompt, text = (tokenizer.decode(part, skip_special_tokens=True) for part in (row[:width], row[width:]))
            rolls.append((prompt, text, float(scores[last])))
        mean = sum(value for *_, value in rolls) / len(rolls)
        rolls.sort(key=lambda one: -one[2])
        places = sorted({round(i * (len(rolls) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
        type(trainer).rolls = [{"prompt": _short(prompt), "completion": _short(text),
                                "rewards": {"reward_model": value},
                                "advantage": round(value - mean, 4)} for prompt, text,
                                value in (rolls[i] for i in places)]

    module.batch_generation = drawn
    backbone = getattr(reward, reward.base_model_prefix)
    backbone.register_forward_pre_hook(lambda _, args, kwargs: seen.update(ids=kwargs["input_ids"]), with_kwargs=True)
    reward.score.register_forward_hook(scored)


def _finish(recipe: Any, ctx: Any, ref: Any, tokenizer: Any, trainer: Any, rows: list, steps: int, began: float
            ) -> dict[str, Any]:
    policy = trainer.accelerator.unwrap_model(trainer.model).policy
    done, seen = trainer.state.global_step, [h for h in trainer.state.log_history if "objective/scores" in h]
    adapter = hasattr(policy, "peft_config")
    finish.save(policy, tokenizer, ctx.output, None if adapter else finish.native_dtype(ref))
    name = recipe.name or finish.default_name(recipe, ref)
    scores = (seen[0]["objective/scores"], seen[-1]["objective/scores"]) if seen else (None, None)
    summary = {"steps": done, "of_steps": steps, "samples": len(rows), "train_reward_first": scores[0],
               "train_reward": scores[1], "kl": seen[-1]["objective/kl"] if seen else None,
               "wall_seconds": round(time.time() - began, 2),
               "parameters": sum(p.numel() for p in policy.parameters()),
               "trained_parameters": sum(p.numel() for p in policy.parameters() if p.requires_grad)}
    (ctx.output / "README.md").write_text(
        f"---\ntags:\n- atelier\n- align\n- ppo\n---\n\n# {name}\n\nPPO from {ref.label} (`{recipe.model}`) on "
        f"`{recipe.dataset}`, scored by `{recipe.reward_model}`; {done} of {steps} steps.\n\n## Recipe\n\n```yaml\n"
        f"{recipe.to_yaml().rstrip()}\n```\n", "utf-8")
    meta = {"method": "align/ppo", "step": done} | (bases.meta(ctx.run_dir) if adapter else {})
    ctx.artifact("adapter" if adapter else "model", ctx.output, name, meta,
                 [(recipe.model, "base"), (recipe.dataset, "data"), (recipe.reward_model, "reward model")])
    return {key: value for key, value in summary.items() if value is not None}
