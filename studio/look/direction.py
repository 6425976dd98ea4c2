"""The direction of a behaviour in the residual stream, and the weights without it: the arithmetic of ``look/abliterate``. Imports torch.

After Arditi et al. 2024, https://arxiv.org/abs/2406.11717: the difference of the mean activations between two sets of prompts,
projected out of every matrix that writes into the stream, W ← W − r rᵀ W for a unit vector r.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from studio.errors import StudioError

# the last matrix of attention and feed-forward parts, as the architectures of transformers call it
WRITERS = frozenset("o_proj out_proj dense dense_4h_to_h c_proj down_proj fc2 fc_out w2 wo".split())
LEFT = 1e-3  # share of the stream that may lie along a removed direction, by rounding


def layers(net: Any) -> Any:
    """The list of the model's layers: the longest list of modules in it.

    Raises:
        StudioError: there is none.
    """
    lists = [own for own in net.modules() if isinstance(own, torch.nn.ModuleList)]
    if not lists or not len(max(lists, key=len)):
        raise StudioError("The layers of this model are not known.", "Choose another model.", "model")
    return max(lists, key=len)


def writers(net: Any) -> dict[str, Any]:
    """Name -> module that writes into the residual stream: embeddings of words and positions, and the ends of the parts of each
    layer."""
    width = net.get_input_embeddings().weight.shape[1]
    inner = {id(one) for one in layers(net).modules()}
    output = net.get_output_embeddings()
    found = {}
    for name, own in net.named_modules():
        weight = getattr(own, "weight", None)
        if weight is None or weight.dim() != 2 or own is output:
            continue
        if isinstance(own, torch.nn.Embedding) and id(own) not in inner and weight.shape[1] == width:
            found[name] = own
        elif id(own) in inner and name.rpartition(".")[2] in WRITERS and weight.shape[1 if _turned(own) else 0] == width:
            found[name] = own
    return found


def means(net: Any, prompts: list[list[int]], stop: Callable[[], bool], tell: Callable[[], None]) -> Any:
    """Mean of the stream behind every layer at the last token of the prompts, (layers + 1, width); ``None`` if stopped."""
    total = None
    for ids in prompts:
        if stop():
            return None
        with torch.no_grad():
            states = net(input_ids=torch.tensor([ids], device=net.device), output_hidden_states=True, use_cache=False).hidden_states
        last = torch.stack([one[0, -1].double().cpu() for one in states])
        total = last if total is None else total + last
        tell()
    return total / len(prompts)


@contextlib.contextmanager
def without(own: Iterable[Any], direction: Any) -> Iterator[None]:
    """While it lasts the modules write nothing along a unit vector, as if their weights were projected."""
    def hook(_: Any, __: Any, out: Any) -> Any:
        along = direction.to(out.device, out.dtype)
        return out - (out @ along).unsqueeze(-1) * along

    hooks = [one.register_forward_hook(hook) for one in own]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def left(net: Any, prompts: list[list[int]], direction: Any) -> float:
    """The largest share of the stream, over layers and prompts, that lies along a unit vector; of the raw states only, not of
    the last, which has passed the final norm."""
    worst = 0.0
    for ids in prompts:
        with torch.no_grad():
            states = net(input_ids=torch.tensor([ids], device=net.device), output_hidden_states=True, use_cache=False).hidden_states
        for one in states[:-1]:
            flat = one[0].float()
            worst = max(worst, float(((flat @ direction.to(flat)).abs() / flat.norm(dim=-1).clamp_min(1e-12)).max()))
    return worst


def outcomes(net: Any, prompts: list[list[int]], stop: Callable[[], bool]) -> Any:
    """Log-probabilities of the next token after each prompt, (prompts, words); ``None`` if stopped."""
    made = []
    for ids in prompts:
        if stop():
            return None
        with torch.no_grad():
            made.append(torch.log_softmax(net(input_ids=torch.tensor([ids], device=net.device), use_cache=False).logits[0, -1].float().cpu(), -1))
    return torch.stack(made)


def project(net: Any, own: dict[str, Any], direction: Any, dtype: Any = None) -> float:
    """Take a unit vector out of everything that these modules write, in place; a shared output matrix gets a copy of its own first,
    because what it reads must stay.

    Args:
        dtype: What the weights will be stored in; they are rounded to it at once, so that what is measured is what is stored.

    Returns:
        The largest share of a matrix that still lies along the vector, which is its rounding.
    """
    output = net.get_output_embeddings()
    if output is not None and any(one.weight is output.weight for one in own.values()):
        output.weight = torch.nn.Parameter(output.weight.detach().clone())
        for config in (net.config, net.config.get_text_config()):
            config.tie_word_embeddings = False
    worst = 0.0
    with torch.no_grad():
        for one in own.values():
            weight = one.weight.data
            along = direction.to(weight.device, torch.float64)
            wide = weight.double() if weight.numel() < 1 << 24 else weight.float()
            along = along.to(wide.dtype)
            columns = isinstance(one, torch.nn.Embedding) or _turned(one)
            made = wide - torch.outer(wide @ along, along) if columns else wide - torch.outer(along, along @ wide)
            weight.copy_(made.to(dtype or weight.dtype))
            kept = weight.float()
            rest = kept @ along.float() if columns else along.float() @ kept
            worst = max(worst, float(rest.norm() / kept.norm().clamp_min(1e-12)))
            if getattr(one, "bias", None) is not None:
                bias, way = one.bias.data, direction.to(one.bias.device, torch.float32)
                bias.copy_((bias.float() - (bias.float() @ way) * way).to(dtype or bias.dtype))
    return worst


def _turned(own: Any) -> bool:
    """Whether the matrix is kept the other way round, (in, out), as GPT-2 does."""
    return type(own).__name__ == "Conv1D"
