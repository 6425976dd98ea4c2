"""What the looks inside share: a model that can be taken apart, a prompt as tokens, one file of what was found.

``output/look.json`` holds ``{version, method, made, model: {ref, label}, facts}``; ``facts`` is what the page draws. No torch at
import.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from studio.chat.address import is_address
from studio.errors import StudioError
from studio.evals.results import told
from studio.jobs.files import read_json, write_json
from studio.library import refs
from studio.mergers import tools
from studio.method import Estimate
from studio.recipe import field

FILE, VERSION = "look.json", 1
SYSTEM = 700_000_000  # bytes of the libraries themselves


def model_field(help: str) -> Any:
    return field("starter", "Model", help, widget="model", max_length=1000)


def trust_field() -> Any:
    return field(False, "Run the model's own code", "Some Hub models need Python code from their repository. That code can do "
                 "anything on this machine: turn on only for an author you trust.", group="advanced")


def opened(ref: str, field_name: str = "model") -> refs.ModelRef:
    """A model whose weights and activations can be read: of transformers, in plain numbers.

    Raises:
        StudioError: in that field: an address, a GGUF file, packed weights, a reward model, or not there.
    """
    if is_address(ref):
        raise StudioError("A server at an address shows what its model says, not what is inside.",
                          "Choose a model of this studio, or download it from the Hub.", field_name)
    return tools.source(ref, field_name)


def estimate(model: refs.ModelRef, copies: float = 1.0, notes: list[str] | None = None) -> Estimate:
    """Memory of ``copies`` of the weights in 32 bits, with a fifth for what is computed; not known where the size is not."""
    count = tools.facts(model).get("parameters") or 0
    return Estimate(memory=int(count * 4 * (copies + 0.2) + SYSTEM) if count else None,
                    notes=["Memory is an estimate.", *(notes or [])])


def loaded(model: refs.ModelRef, ctx: Any, trust: bool = False) -> tuple[Any, Any] | None:
    """(tokenizer, model) in 32 bits, an adapter folded into its base; ``None`` if the run was stopped meanwhile.

    Also on a GPU: small steps between weights and what is left of a direction are below the rounding of 16 bits.
    """
    import torch

    from studio.trainers import load
    from studio.trainers.settings import has_gpu

    load.quiet()
    local = load.fetch(model, ctx)
    if local is None or ctx.stop_requested:
        return None
    tokenizer = load.tokenizer(local, trust)
    net = load.model(local, torch.float32, trust, has_gpu(), merge=local.is_adapter).eval()
    return None if ctx.stop_requested else (tokenizer, net)


def encoded(tokenizer: Any, prompt: str, chat: bool) -> list[int]:
    """Tokens of a prompt: as a question in the model's chat template where ``chat`` is on and it has one, else as it is."""
    if chat and tokenizer.chat_template:
        text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


def sequence(net: Any, tokenizer: Any, recipe: Any, ctx: Any) -> Any:
    """Tokens that are looked at, as a tensor (1, tokens): the prompt and so many tokens of the model's own greedy answer.

    What is longer than ``max_length`` loses its beginning, and the run says so.
    """
    import torch

    ids = encoded(tokenizer, recipe.prompt, recipe.apply_chat_template)
    if not ids:
        raise StudioError("The prompt has no tokens.", "Write a few words.", "prompt")
    context = getattr(net.config.get_text_config(), "max_position_embeddings", None) or recipe.max_length
    most = min(recipe.max_length, context)
    room = max(1, most - recipe.max_new_tokens)
    if len(ids) > room:
        ctx.warning("cut", f"The prompt has {len(ids)} tokens; the last {room} of them are looked at.",
                    "A larger 'Most tokens' takes in more.")
        ids = ids[-room:]
    made = torch.tensor([ids], device=net.device)
    new = min(recipe.max_new_tokens, most - len(ids))
    if new > 0:
        with torch.no_grad():
            made = net.generate(input_ids=made, attention_mask=torch.ones_like(made), max_new_tokens=new, do_sample=False,
                                temperature=None, top_p=None, top_k=None, pad_token_id=tokenizer.pad_token_id)
    return made


def words(tokenizer: Any, ids: Any) -> list[str]:
    """Each token as text of its own; spaces and line breaks are kept."""
    return [tokenizer.decode([int(one)]) for one in ids]


def numbers(values: Any, digits: int = 5) -> Any:
    """A tensor as nested lists of rounded numbers."""
    return _rounded(values.detach().double().cpu().tolist(), digits)


def _rounded(value: Any, digits: int) -> Any:
    return [_rounded(one, digits) for one in value] if isinstance(value, list) else float(f"{value:.{digits}g}")


def finish(recipe: Any, ctx: Any, model: refs.ModelRef, facts: dict[str, Any], name: str, **summary: Any) -> dict[str, Any]:
    """Write what was found, register it, and give the run's summary."""
    values = recipe.to_dict()
    method = f"{values['kind']}/{values['method']}"
    write_json(ctx.output / FILE, {"version": VERSION, "method": method, "made": time.time(),
                                   "model": {"ref": recipe.model, "label": model.label}, "facts": told(facts)})
    ctx.artifact("file", ctx.output / FILE, recipe.name or f"{name}: {model.label}"[:80], {"method": method},
                 [(recipe.model, "scored")])
    ctx.progress(1, 1)
    return told(summary)


def found(folder: Path) -> dict[str, Any] | None:
    """What a finished look wrote, or ``None``."""
    made = read_json(Path(folder) / FILE)
    return made if made and made.get("version") == VERSION else None
