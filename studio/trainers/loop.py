"""The trainer: TRL's SFTTrainer with a faster loss, exact resume and checkpoints that are whole or not there.

Imports torch, so only ``run`` methods import this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from studio.library import bases
from studio.trainers import kernels, ranks, settings, starts
from studio.trainers.common import FineFields
from studio.trainers.kept import Kept, clean, digest_of, go, same_data

# Above this the logits of a batch are not built: TRL's tiled loss is slower on small models but needs far less memory.
PLAIN_LOSS_BYTES = 1 << 30


class StudioTrainer(Kept, SFTTrainer):
    """SFTTrainer whose loss is the model's own unless the logits would be huge.

    Accuracy and entropy are computed at logging steps only, from the logits of that step.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._tokens: Any = 0
        vocab = self.model.get_output_embeddings().weight.shape[0]
        longest = self.args.max_length or 1024
        rows = max(self.args.per_device_train_batch_size, self.args.per_device_eval_batch_size)
        self.plain = (vocab * rows * longest * 4 <= PLAIN_LOSS_BYTES and self.args.loss_type in ("nll", "dft")
                      and not self.aux_loss_enabled and self.label_smoother is None
                      and not self.args.activation_offloading)

    def compute_loss(self, model: Any, inputs: dict, return_outputs: bool = False,
                     num_items_in_batch: Any = None) -> Any:
        training = self.model.training
        if training:
            mask = inputs.get("attention_mask")
            self._tokens = self._tokens + (inputs["input_ids"].numel() if mask is None else mask.sum())
        if not self.plain:
            kind, self.args.loss_type = self.args.loss_type, self.args.loss_type if training else "nll"
            try:
                made = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            finally:
                self.args.loss_type = kind
            self._metrics["train" if training else "eval"].pop("num_tokens", None)
            return made
        labels = inputs["labels"]
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"}, use_cache=False)
        # learned tokens before the text (P-Tuning, prompt tuning) have logits but no labels
        logits = outputs.logits[:, -labels.shape[1]:]
        loss = self._nll(logits[:, :-1], labels[:, 1:], num_items_in_batch)
        if not training or self._logs_next():
            self._measure(logits, labels, "train" if training else "eval")
        return (loss, outputs) if return_outputs else loss

    def _nll(self, logits: torch.Tensor, labels: torch.Tensor, items: Any) -> torch.Tensor:
        """The loss in the order of operations of TRL's tiled one, so that both give the same digits.

        The model's own (``cross_entropy``) sums in another order: up to four units in the last place apart.
        """
        seen = labels != -100
        logits = logits.float()
        said = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        said = said.masked_fill(~seen, 0)
        lost = -said
        if self.args.loss_type == "dft" and self.model.training:  # arXiv 2508.05629; it may rise while the model learns,
            lost = lost * said.exp().detach()  # so a validation is by the likelihood
        loss = lost.sum() / torch.as_tensor(seen.sum() if items is None else items).clamp(min=1)
        if self.args.average_tokens_across_devices and items is not None:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean of the processes' gradients
        return loss

    def _logs_next(self) -> bool:
        step = self.state.global_step + 1
        return step % self.state.logging_steps == 0 or (step == 1 and self.args.logging_first_step)

    @torch.no_grad()
    def _measure(self, logits: torch.Tensor, labels: torch.Tensor, mode: str) -> None:
        labels = labels[:, 1:]
        seen = labels != -100
        if not bool(seen.any()):
            return
        logits, labels = logits[:, :-1][seen], labels[seen]
        accuracy = (logits.argmax(-1) == labels).float().mean()
        entropy = sum(torch.distributions.Categorical(logits=part.float(), validate_args=False).entropy().sum()
                      for part in logits.split(1024)) / len(labels)
        self._metrics[mode]["mean_token_accuracy"].append(accuracy.item())
        self._metrics[mode]["entropy"].append(entropy.item())

    def count_tokens(self) -> int:
        seen = self._tokens
        if self.args.world_size > 1:
            seen = self.accelerator.reduce(torch.as_tensor(seen, device=self.accelerator.device), "sum")
        self.memory["num_tokens"] += int(seen)
        self._tokens = 0
        return self.memory["num_tokens"]


def arguments(recipe: Any, ctx: Any, steps: int, held: bool) -> SFTConfig:
    """The library's own config for a recipe.

    Args:
        steps: Optimiser steps of the whole run, for the intervals that are left to the studio.
        held: There are validation samples.
    """
    own = {"max_length": recipe.max_length, "packing": recipe.packing, "completion_only_loss": False,
           "dataset_kwargs": {"skip_prepare_dataset": True}}
    if isinstance(recipe, FineFields):
        own |= {name: getattr(recipe, name) for name in ("packing_strategy", "padding_free", "loss_type")}
        own |= kernels.arguments(recipe.kernels)
        if recipe.padding_free and not recipe.packing:
            own["max_length"] = None  # which TRL does not apply then; the samples are cut already
    return settings.make(SFTConfig, settings.shared(recipe, ctx, steps, held) | own, recipe)


def dataset(samples: list, recipe: Any) -> Any:
    """Samples as the library's table; packed ones best-fit-decreasing, as TRL packs them."""
    from datasets import Dataset

    made = Dataset.from_dict({"input_ids": [s.input_ids for s in samples], "labels": [s.labels for s in samples]})
    if recipe.packing:
        from trl import pack_dataset

        made = pack_dataset(made, recipe.max_length, getattr(recipe, "packing_strategy", "bfd"))
    return made


def train(model: Any, tokenizer: Any, recipe: Any, ctx: Any, train_data: Any, eval_data: Any, steps: int,
          peft_config: Any = None, chat: bool = True) -> StudioTrainer:
    """Runs the training to its end or to the person's stop, and returns the trainer.

    Args:
        steps: Optimiser steps of the whole run.
        chat: The prompts to watch are asked as chats, not given as text to go on with.

    Raises:
        StudioError: settings the library refuses, other data than before, a full disk, a loss that ran away.
    """
    torch.set_num_threads(max(1, ctx.threads))
    clean(ctx.checkpoints)
    same_data(digest_of(train_data), len(train_data), ctx)
    if peft_config is not None or hasattr(model, "peft_config"):
        bases.keep(ctx.run_dir, recipe.model, ctx.resume_from is not None)
        if told := bases.replaced_by_ref(recipe.model):
            ctx.warning("base-replaced", *told)
    held = eval_data is not None and len(eval_data) > 0
    args = arguments(recipe, ctx, steps, held)
    cuts = getattr(peft_config, "peft_type", "") == "ADALORA"
    trainer = (ranks.moving(StudioTrainer) if cuts else StudioTrainer)(
        model, args, train_dataset=train_data, eval_dataset=eval_data if held else None, processing_class=tokenizer,
        peft_config=peft_config, ctx=ctx, keep=recipe.save_total_limit, best=recipe.load_best_model_at_end and held,
        patience=recipe.early_stopping_patience)
    if getattr(recipe, "init_lora_weights", "") == "loftq" and peft_config is not None:
        starts.loftq(trainer.accelerator.unwrap_model(trainer.model), Path(model.name_or_path), ctx.run_dir)
    return go(trainer, recipe, ctx, recipe.sample_prompts, chat)
