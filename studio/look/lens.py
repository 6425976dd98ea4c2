"""Logit lens: what a model would say if it stopped at each layer.

After nostalgebraist, "interpreting GPT: the logit lens" (2020). The residual stream behind every layer is read through the model's
own final norm and output matrix. The last layer's stream has passed the norm already, so its reading is the model's own output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.look import inside
from studio.method import Estimate, Method
from studio.recipe import Recipe, field


class LensRecipe(Recipe):
    """Which model, on what text."""

    kind: ClassVar[str] = "look"
    method: ClassVar[str] = "lens"

    model: str = inside.model_field("The model that is looked into.")
    prompt: str = field("What is the colour of grass?", "Prompt", "What the model reads. Short prompts are easier to look at.",
                        widget="text", min_length=1, max_length=20_000)
    apply_chat_template: bool = field(True, "As a chat", "The prompt is a question in the model's chat template. Off: it is plain "
                                      "text that the model goes on with.")
    max_new_tokens: int = field(8, "Tokens of the answer", "The model's own greedy answer is looked at as well, up to so many "
                                "tokens. 0 = the prompt alone.", unit="tokens", ge=0, le=128)
    top_k: int = field(5, "Best guesses", "How many tokens are kept for each layer and position.", ge=1, le=20)
    max_length: int = field(64, "Most tokens", "Of the prompt and the answer together; a longer prompt loses its beginning.",
                            group="advanced", unit="tokens", ge=2, le=256)
    trust_remote_code: bool = inside.trust_field()


class Lens(Method):
    """The guess of every layer."""

    title = "Logit lens"
    summary = "Shows layer by layer which next token the model has in mind, and when it makes up its mind."
    paper = "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens"
    Recipe = LensRecipe

    @classmethod
    def check(cls, recipe: LensRecipe) -> None:
        inside.opened(recipe.model)

    @classmethod
    def estimate(cls, recipe: LensRecipe) -> Estimate:
        return inside.estimate(inside.opened(recipe.model))

    @classmethod
    def run(cls, recipe: LensRecipe, ctx: Any) -> dict[str, Any]:
        model = inside.opened(recipe.model)
        made = inside.loaded(model, ctx, recipe.trust_remote_code)
        if made is None:
            return {}
        tokenizer, net = made
        ids = inside.sequence(net, tokenizer, recipe, ctx)
        facts = read(net, tokenizer, ids, recipe.top_k, ctx)
        if facts is None:
            return {}
        ctx.log(f"{len(facts['layers'])} readings of {len(facts['tokens'])} tokens; final norm: {facts['norm'] or 'none'}.")
        settled = [one["settled"] for one in facts["positions"]]
        mean = sum(settled) / len(settled)
        return inside.finish(recipe, ctx, model, facts, "Logit lens", tokens=len(facts["tokens"]), layers=len(facts["layers"]) - 1,
                             norm=facts["norm"], settled=round(mean, 3))


def read(net: Any, tokenizer: Any, ids: Any, top_k: int, ctx: Any = None) -> dict[str, Any] | None:
    """The reading of every layer at every position of ``ids`` (1, tokens); ``None`` if it was stopped.

    Returns:
        ``tokens`` (texts), ``norm`` (name of the final norm that was applied, or ``None``), ``vocabulary`` (its size),
        ``positions``: of each ``{final: text of the model's own best next token, next: the one that follows, settled: first layer
        from which on the best guess stays the final one}``, and ``layers``: of each ``{top: [[[text, probability], …], …],
        entropy: [bits], final: [probability of the final token], rank: [its place, 0 the best], next: [probability of the token
        that follows; null at the end]}``, one entry a position. Layer 0 is the embeddings, the last one the model's output.

    Raises:
        StudioError: the model is built so that its layers cannot be read this way.
    """
    import torch

    with torch.no_grad():
        hidden, logits, norm, name = stream(net, ids)
        final = logits.argmax(-1)
        tokens, count = inside.words(tokenizer, ids[0]), ids.shape[1]
        layers, best = [], []
        for number, state in enumerate(hidden):
            if ctx is not None and ctx.stop_requested:
                return None
            last = number == len(hidden) - 1
            scores = torch.log_softmax(head(net, ids, state if last or norm is None else norm(state))[0].float(), -1)
            share = scores.exp()
            top = scores.topk(min(top_k, scores.shape[-1]), -1)
            wanted = scores.gather(-1, final.unsqueeze(-1))
            following = share[:-1].gather(-1, ids[0, 1:].unsqueeze(-1))[:, 0] if count > 1 else share[:0, 0]
            layers.append({
                "top": [[[tokenizer.decode([token]), chance] for token, chance in zip(own, inside.numbers(chances.exp()), strict=True)]
                        for own, chances in zip(top.indices.tolist(), top.values, strict=True)],
                "entropy": inside.numbers(-(share * scores).nan_to_num().sum(-1) / torch.log(torch.tensor(2.0))),
                "final": inside.numbers(wanted[:, 0].exp()), "rank": (scores > wanted).sum(-1).tolist(),
                "next": [*inside.numbers(following), None]})
            best.append(top.indices[:, 0])
            if ctx is not None:
                ctx.progress(number + 1, len(hidden))
        agrees = torch.stack(best) == final
        settled = [next((n for n in range(len(hidden)) if bool(agrees[n:, place].all())), len(hidden) - 1) for place in range(count)]
    positions = [{"final": tokenizer.decode([int(final[place])]), "next": tokens[place + 1] if place + 1 < count else None,
                  "settled": settled[place]} for place in range(count)]
    return {"tokens": tokens, "norm": name, "vocabulary": int(logits.shape[-1]), "positions": positions, "layers": layers}


def stream(net: Any, ids: Any) -> tuple[list[Any], Any, Any, str | None]:
    """(residual stream behind each layer, each (1, tokens, width), logits (tokens, words), the final norm, its name).

    The final norm is the module of the decoder that gave out the last of these states; some models have none.

    Raises:
        StudioError: the states do not lead to the model's own logits.
    """
    import torch

    base, seen = decoder(net), []
    hooks = [module.register_forward_hook(lambda own, _, out, name=name: seen.append((name, own, out)))
             for name, module in base.named_children() if not isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict))]
    try:
        out = net(input_ids=ids, output_hidden_states=True, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    hidden = [state for state in out.hidden_states or [] if state.dim() == 3 and state.shape[1] == ids.shape[1]]
    logits = out.logits[0]
    whole = len(hidden) > 1 and len(hidden) == len(out.hidden_states)
    if not whole or not torch.allclose(head(net, ids, hidden[-1])[0].float(), logits.float(), rtol=1e-3, atol=1e-3):
        raise StudioError("The layers of this model do not lead to its output in the usual way, so they cannot be read.",
                          "Choose another model.", "model")
    name, norm = next(((name, own) for name, own, given in reversed(seen) if torch.is_tensor(given) and torch.equal(given, hidden[-1])),
                      (None, None))
    return hidden, logits, norm, name


def decoder(net: Any) -> Any:
    """The part of a causal model that ends in the last hidden states."""
    found = net.get_decoder() if hasattr(net, "get_decoder") else None
    return found if found is not None and found is not net else net.base_model


def head(net: Any, ids: Any, hidden: Any) -> Any:
    """Logits (1, tokens, words) that the model's own output part makes of hidden states, with whatever scales or caps them."""
    with _saying(decoder(net), hidden):
        return net(input_ids=ids, use_cache=False).logits


@contextlib.contextmanager
def _saying(module: Any, hidden: Any) -> Iterator[None]:
    """The module gives these states out, whatever it is asked."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Said(BaseModelOutputWithPast):
        def __getattr__(self, name: str) -> None:  # what else a model's own output part passes on
            if name.startswith("__"):
                raise AttributeError(name)

    before = module.__dict__.get("forward")
    module.forward = lambda *_, **__: Said(last_hidden_state=hidden)
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
