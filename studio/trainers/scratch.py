"""Pretraining from scratch: a Llama-type model with its own tokenizer. Touvron et al. 2023."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import field
from studio.trainers.common import SFT, DataFields, ExtraFields, LearnFields, LengthFields, PackFields, SpreadFields, WatchFields

LLAMA = "transformers.LlamaConfig"
ARGS = "transformers.TrainingArguments"


class ScratchRecipe(ExtraFields, WatchFields, SpreadFields, PackFields, LearnFields, LengthFields, DataFields):
    """Fields of a model made from nothing."""

    kind: ClassVar[str] = "pretrain"
    method: ClassVar[str] = "scratch"

    max_length: int = field(256, "Block", "Tokens of text in one training block. Longer costs memory and time.",
                            library=SFT, unit="tokens", ge=16, le=32768)
    tokenizer: str = field("", "Tokenizer", "Left empty, one is trained on the data. Else the model whose tokenizer "
                           "is taken over.", widget="model", max_length=1000)
    vocab_size: int = field(2048, "Vocabulary", "Pieces of text the tokenizer knows. Larger reads faster and makes a "
                            "larger model; 1000 to 4000 suits a small corpus.", library=LLAMA, ge=300, le=262144,
                            when={"tokenizer": [""]})
    hidden_size: int = field(256, "Width", "Numbers that stand for one token. The size of the model grows with its "
                             "square.", library=LLAMA, ge=16, le=16384)
    intermediate_size: int = field(768, "Inner width", "Width inside each layer's feed-forward part, usually two to "
                                   "four times the width. Multiples of 256 can be quantized best.", library=LLAMA,
                                   ge=16, le=65536)
    num_hidden_layers: int = field(4, "Layers", "More layers can combine facts in more steps, and are slower.",
                                   library=LLAMA, ge=1, le=200)
    num_attention_heads: int = field(4, "Attention heads", "Must divide the width; 32 to 128 numbers a head is usual.",
                                     library=LLAMA, ge=1, le=256)
    num_key_value_heads: int = field(4, "Key-value heads", "Fewer than the attention heads saves memory when "
                                     "chatting; must divide them.", library=LLAMA, ge=1, le=256)
    max_position_embeddings: int = field(0, "Context", "Tokens the model can be given later; 0 = as the block. Beyond "
                                         "the block it has learned nothing, but short overruns work.",
                                         library=LLAMA, unit="tokens", ge=0, le=131072)
    tie_word_embeddings: bool = field(True, "Tied embeddings", "Uses one table for reading and writing tokens: a "
                                      "smaller model.", library=LLAMA)

    learning_rate: float = field(3e-3, "Learning rate", "How large each step is. Too high: the loss jumps or becomes "
                                 "NaN. Too low: it hardly falls. 3e-3 suits a few million parameters, 3e-4 a "
                                 "hundred million and more.", group="training", widget="log", library=SFT, gt=0,
                                 le=1.0)
    num_train_epochs: float = field(1.0, "Epochs", "How often the data is seen.", group="training", library=SFT, gt=0,
                                    le=1000)
    per_device_train_batch_size: int = field(8, "Batch size", "Blocks of text a step looks at together. On a CPU, "
                                             "many small steps learn faster than few large ones.", group="training",
                                             library=SFT, ge=1, le=4096)
    packing: bool = field(True, "Packing", "Joins texts end to end and cuts them in blocks of the context, so that no "
                          "time goes to padding.", group="training", library=SFT)
    weight_decay: float = field(0.1, "Weight decay", "Pulls weights towards zero, against learning by heart.",
                                group="training", library=SFT, ge=0, le=1)
    adam_beta1: float = field(0.9, "Adam beta 1", "Memory of the direction; 0.9 suits nearly all.", group="training",
                              library=ARGS, ge=0, lt=1)
    adam_beta2: float = field(0.95, "Adam beta 2", "Memory of the size of steps; 0.95 is usual for pretraining.",
                              group="training", library=ARGS, ge=0, lt=1)
    eval_share: float = field(0.02, "Share kept for validation", "This part of the data is not trained on; the "
                              "validation loss on it shows real learning. 0 = none.", ge=0.0, le=0.5)
    save_dtype: Literal["float32", "bfloat16"] = field("float32", "Saved precision",
                                                       "bfloat16 halves the files of the result; "
                                                       "checkpoints stay exact.", group="watch",
                                                       choices={"float32": "32 bits",
                                                                "bfloat16": "16 bits (bfloat16)"})

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchRecipe:
        if self.hidden_size % self.num_attention_heads or (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(f"the width ({self.hidden_size}) must be an even multiple of the attention heads "
                             f"({self.num_attention_heads})")
        if 0 < self.max_position_embeddings < self.max_length:
            raise ValueError(f"the context ({self.max_position_embeddings}) must be at least the block "
                             f"({self.max_length})")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"the key-value heads ({self.num_key_value_heads}) must divide the attention heads "
                             f"({self.num_attention_heads})")
        return self

    def context(self) -> int:
        """Tokens the model can be given."""
        return self.max_position_embeddings or self.max_length

    def beyond(self) -> dict[str, Any]:
        """Arguments of the library's config that only this recipe has."""
        return {"adam_beta1": self.adam_beta1, "adam_beta2": self.adam_beta2, "packing": False}  # blocks are made here

    def parameters(self, vocab: int | None = None) -> int:
        """Number of weights of the model these fields describe."""
        d, kv = self.hidden_size, self.hidden_size // self.num_attention_heads * self.num_key_value_heads
        layer = 2 * d * d + 2 * d * kv + 3 * d * self.intermediate_size + 2 * d
        return (vocab or self.vocab_size) * d * (1 if self.tie_word_embeddings
                                                 else 2) + self.num_hidden_layers * layer + d


class Scratch(Method):
    """A new model and its tokenizer."""

    title = "From scratch"
    summary = "Makes a small model of your own: trains a tokenizer and a Llama-type model on plain text and chats."
    paper = "https://arxiv.org/abs/2302.13971"
    Recipe = ScratchRecipe

    @classmethod
    def check(cls, recipe: ScratchRecipe) -> None:
        from studio.trainers import data, spread

        data.check(recipe)
        spread.check(recipe)
        if recipe.tokenizer:
            try:
                refs.resolve_model(recipe.tokenizer)
            except StudioError as err:
                raise StudioError(err.message, err.hint, "tokenizer") from err

    @classmethod
    def estimate(cls, recipe: ScratchRecipe) -> Estimate:
        from studio.trainers import plan

        return plan.estimate(recipe, parameters=recipe.parameters())

    @classmethod
    def run(cls, recipe: ScratchRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import blocks, data, finish, load, loop, plan, spread, tokenizer

        if spread.wanted(recipe):
            return spread.run(recipe, ctx)
        began = time.time()
        load.quiet()
        train_rows, held_rows, found = data.read(recipe)
        data.tell(found, ctx.warning, ctx.log)
        if recipe.tokenizer:
            words = load.tokenizer(refs.resolve_model(recipe.tokenizer), recipe.trust_remote_code)
        elif ctx.resume_from:
            words = load.tokenizer(refs.ModelRef("", "the checkpoint", ctx.resume_from))
        else:
            words = tokenizer.train(train_rows, recipe.vocab_size, recipe.context())
            ctx.log(f"Tokenizer: {len(words)} pieces, trained in {time.time() - began:.1f} s.")
        chat = data.is_chat(train_rows)
        encoder = data.Encoder(words, blocks.uncut(recipe), chat)
        made, held = encoder.prepare(train_rows), encoder.prepare(held_rows)
        for warning in encoder.warnings:
            ctx.warning(*warning)
        data.report(made, recipe, ctx.warning)
        table = blocks.table(made.samples, recipe)
        held_table = blocks.table(held.samples, recipe) if held.samples else None
        steps = plan.total_steps(recipe, len(table))
        ctx.log(f"{len(made.samples)} texts, {made.tokens} tokens, {len(table)} blocks; {steps} steps.")
        model = cls._model(recipe, words)
        trainer = loop.train(model, words, recipe, ctx, table, held_table, steps, chat=chat)
        return finish.finish(trainer, words, recipe, ctx, None, made, held, steps, began,
                             recipe.save_dtype if recipe.save_dtype != "float32" else None)

    @staticmethod
    def _model(recipe: ScratchRecipe, words: Any) -> Any:
        import transformers

        transformers.set_seed(recipe.seed)
        config = transformers.LlamaConfig(vocab_size=-(-len(words) // 8) * 8, hidden_size=recipe.hidden_size,
                                          intermediate_size=recipe.intermediate_size,
                                          num_hidden_layers=recipe.num_hidden_layers,
                                          num_attention_heads=recipe.num_attention_heads,
                                          num_key_value_heads=recipe.num_key_value_heads,
                                          max_position_embeddings=recipe.context(), rms_norm_eps=1e-5,
                                          tie_word_embeddings=recipe.tie_word_embeddings, bos_token_id=None,
                                          eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
                                          use_cache=False)
        return transformers.LlamaForCausalLM(config)
