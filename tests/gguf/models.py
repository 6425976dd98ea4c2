"""Tiny random models of every architecture that is converted, with tokenizers of several kinds. The same bytes every time."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TEXT = ["What colour is grass? Grass is green.", "How many legs has a dog? A dog has 4 legs.", "2 plus 3 is 5, and 23 less 7 is 16.",
        "Where do fish live? Fish live in water.", "Überall ist es schön, sagt der Bär.", "The sky is blue; the sea isn't.",
        "user", "assistant", "system", "I've 3 cats, you've 12.\n\nThey're grey.", "x = [1, 2]; print(x)"]
PROBES = ["What is 2 plus 3?", " two  spaces,\nlines\n\n and\ttabs ", "schön überall — 日本語 🦙", "I'VE it's 1234567 3.14 a_b", "",
          "<|im_start|>user\nHow many legs?<|im_end|>\n<|im_start|>assistant\n", "<|im_end|> after", "lumière", "a\u2581b"]
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class Case(NamedTuple):
    """``config``: the class of transformers and what differs from :data:`SMALL`; ``tokenizer``: see :func:`tokenizer`."""

    config: str
    tokenizer: str
    changes: dict[str, Any] = {}
    stored: str = "float32"
    shard: str = "50GB"
    refused: str = ""  # why llama.cpp's own converter does not take it as it is


SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": 448}
HOME = "the tokenizer was trained at home"
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16, "norm_topk_prob": True}
CASES = {
    "llama-home": Case("Llama", "qwen2", {"tie_word_embeddings": True}, refused=HOME),
    "llama3": Case("Llama", "llama3", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}, "max_position_embeddings": 512}, "bfloat16", refused=HOME),
    "llama-linear": Case("Llama", "gpt2", {"attention_bias": True, "mlp_bias": True, "rope_parameters": {
        "rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}, "float16", "60KB", refused=HOME),
    "llama-pieces": Case("Llama", "sentencepiece"),
    "mistral": Case("Mistral", "sentencepiece", {"sliding_window": 64, "head_dim": 32}, "bfloat16"),
    "mixtral": Case("Mixtral", "qwen2", {"num_local_experts": 4, "num_experts_per_tok": 2}, refused=HOME),
    "qwen2": Case("Qwen2", "qwen2", {"tie_word_embeddings": True}, "bfloat16", refused=HOME),
    "qwen2-yarn": Case("Qwen2", "qwen2", {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 64}}, refused=HOME),
    "qwen3": Case("Qwen3", "qwen2", {"head_dim": 32}, "bfloat16", refused=HOME),
    "qwen3-moe": Case("Qwen3Moe", "qwen2", MOE, refused=HOME),
    "gemma": Case("Gemma", "gemma", {"head_dim": 16}),
    "gemma2": Case("Gemma2", "gemma", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32}, "bfloat16"),
    "gemma3": Case("Gemma3Text", "gemma", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32,
                                           "num_hidden_layers": 7}),
    "phi3": Case("Phi3", "sentencepiece", {"original_max_position_embeddings": 256, "pad_token_id": 0}),
    "phi3-long": Case("Phi3", "sentencepiece", {
        "original_max_position_embeddings": 64, "pad_token_id": 0, "sliding_window": 128, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
            "short_factor": [1.0 + i / 10 for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}}),
}


def build(name: str, folder: Path) -> Path:
    """The model folder of a case, as transformers saves it."""
    import torch
    import transformers

    case = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(case.tokenizer, folder)
    words = {"bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{case.config}Config")(**(SMALL | words | case.changes))
    kind = case.config.removesuffix("Text") if case.config == "Gemma3Text" else case.config
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    random = np.random.RandomState(3)
    with torch.no_grad():
        for part, weight in sorted(model.named_parameters()):
            values = random.standard_normal(tuple(weight.shape)).astype(np.float32) * np.float32(0.2)
            weight.copy_(torch.from_numpy(values + np.float32("norm" in part and "Gemma" not in case.config)))
    model.to(getattr(torch, case.stored)).save_pretrained(folder, max_shard_size=case.shard)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage:\n- en\nbase_model: someone/Base-7B-v0.1\ntags:\n- tiny\n"
                                      "---\n# Tiny\n")
    return folder


def tokenizer(kind: str, folder: Path) -> None:
    """``qwen2`` | ``llama3`` | ``gpt2`` | ``smollm``: byte-level BPE with that way of splitting, trained here;
    ``sentencepiece`` (Llama 2) | ``gemma``: BPE of SentencePiece, with tokenizer.model;
    ``pieces``: the same as tokenizer.json alone; ``unigram``: SentencePiece's other kind, as tokenizer.json alone."""
    if kind in ("sentencepiece", "gemma", "pieces", "metaspace"):
        _sentencepiece(kind, folder)
        return
    if kind == "unigram":
        _unigram(folder)
        return
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "smollm"))
    first = {"qwen2": [pre_tokenizers.Split(Regex(QWEN2), "isolated")], "llama3": [pre_tokenizers.Split(Regex(LLAMA3), "isolated")],
             "smollm": [pre_tokenizers.Digits(individual_digits=True)], "gpt2": []}[kind]
    bpe.pre_tokenizer = pre_tokenizers.Sequence([*first, level]) if first else level
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(TEXT * 4, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        min_frequency=2, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    if kind == "llama3":
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.add_tokens(["lumière"])
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)


def _sentencepiece(kind: str, folder: Path) -> None:
    import sentencepiece
    import transformers

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 10), model_writer=out, vocab_size=400, model_type="bpe", byte_fallback=True, num_threads=1,
        pad_id=-1, unk_id=0, bos_id=1, eos_id=2, hard_vocab_limit=False, minloglevel=2, add_dummy_prefix=kind != "gemma",
        remove_extra_whitespaces=False, normalization_rule_name="identity")
    name = "GemmaTokenizer" if kind in ("gemma", "pieces") else "LlamaTokenizer"
    source = folder / "source"
    source.mkdir()
    (source / "tokenizer.model").write_bytes(out.getvalue())
    (source / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": name, "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
         "pad_token": "<s>", "mask_token": None, "legacy": False}))
    made = getattr(transformers, name).from_pretrained(source)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens(["lumière"])
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    if kind not in ("pieces", "metaspace"):
        shutil.copy(source / "tokenizer.model", folder)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["added_tokens_decoder"] = {str(at): {"content": token.content, "special": token.special}
                                          for at, token in made.added_tokens_decoder.items()}
        config["add_bos_token"], config["add_eos_token"] = True, False
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    shutil.rmtree(source)


def _unigram(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    uni = Tokenizer(models.Unigram())
    uni.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    uni.decoder = decoders.Metaspace(prepend_scheme="always")
    uni.train_from_iterator(TEXT * 4, trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"], unk_token="<unk>",
        show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=uni, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)


PRE = {"qwen2": "qwen2", "llama3": "llama-bpe", "gpt2": "gpt-2", "smollm": "smollm"}
OUTTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def jobs(folder: Path) -> list[dict[str, str]]:
    """Builds every case below ``folder``; what llama.cpp's converter is to do with each (see ``upstream.convert``)."""
    made = []
    for name, case in CASES.items():
        build(name, folder / name)
        made.append({"folder": str(folder / name), "out": str(folder / f"{name}.gguf"), "outtype": OUTTYPES[case.stored],
                     "pre": PRE.get(case.tokenizer, "")})
    one = CASES["qwen3"]
    for outtype in ("f16", "f32", "q8_0"):
        made.append({"folder": str(folder / "qwen3"), "out": str(folder / f"qwen3-{outtype}.gguf"), "outtype": outtype,
                     "pre": PRE[one.tokenizer]})
    return made
