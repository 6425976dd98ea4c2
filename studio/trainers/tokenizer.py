"""Byte-level BPE tokenizers trained from the data (GPT-2's scheme: Radford et al. 2019; BPE: Sennrich et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from studio.trainers import chatml

PAD = "<|pad|>"
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Every piece of text in normalised rows, the roles of the template too, so that each becomes one token."""
    for row in rows:
        if "messages" in row:
            for message in row["messages"]:
                yield message["role"]
                yield message.get("content") or ""
        elif "prompt" in row:
            yield from ("user", str(row["prompt"]), "assistant", str(row["completion"]))
        else:
            yield row["text"]


def train(rows: Iterable[dict[str, Any]], vocab_size: int, context: int) -> Any:
    """A tokenizer with single digits, so that sums can be learned, ChatML marks and a chat template.

    Text is parted before merging exactly as Qwen2's tokenizer does it, which GGUF programs know by that name.

    Args:
        vocab_size: Entries in all; fewer when the text has fewer pieces worth one.
        context: Longest input, kept in its config.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts(rows), trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, chatml.START, chatml.END], show_progress=False, min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=chatml.END, pad_token=PAD, model_max_length=context,
                                   additional_special_tokens=[chatml.START], clean_up_tokenization_spaces=False)
    made.chat_template = chatml.template()
    return made
