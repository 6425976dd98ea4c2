"""A model small enough to quantize in a second, taught a few answers, so that rounding can take something from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.train.conftest import QUESTIONS, _home, chats, tiny  # noqa: F401


def templated(tokenizer) -> list[list[int]]:
    return [tokenizer.apply_chat_template([{"role": "user", "content": q}, {"role": "assistant", "content": a}],
                                          return_dict=False) for q, a in QUESTIONS]


@pytest.fixture(scope="session")
def taught(tiny: Path, tmp_path_factory) -> Path:  # noqa: F811
    """The tiny model after 300 steps on its six questions, in bfloat16."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    rows = [torch.tensor([ids]) for ids in templated(tokenizer)]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(300):
        model(rows[step % 6], labels=rows[step % 6]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("taught")
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def perplexity(model, tokenizer) -> float:
    """Of a loaded model on the six chats."""
    import torch

    nats = count = 0.0
    model.eval()
    for ids in templated(tokenizer):
        given = torch.tensor([ids])
        with torch.inference_mode():
            logits = model(given).logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, given[0, 1:], reduction="sum"))
        count += len(ids) - 1
    return math.exp(nats / count)


def greedy(model, tokenizer, question: str = QUESTIONS[0][0]) -> str:
    import torch

    given = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                          return_tensors="pt", return_dict=True)["input_ids"]
    with torch.inference_mode():
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False,
                              pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(made[0, given.shape[1]:], skip_special_tokens=True).strip()


def tensors(folder: Path) -> dict:
    """Name -> (dtype, shape, bytes) of every tensor of a folder."""
    from safetensors import safe_open

    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                value = file.get_tensor(name)
                import torch

                found[name] = (str(value.dtype), tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes()
                               if value.dim() else value.reshape(1).view(torch.uint8).numpy().tobytes())
    return found
