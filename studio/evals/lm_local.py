"""A model that transformers loaded, asked by lm-evaluation-harness: the library's own numbers in less time.

Three things are done once where the library does them for each request: texts become tokens in one call, the options of a question share
the computation of what stands before them, and an answer of a batch that has ended is not written on. The shared computation is
checked against the library's at the first batch; where a model's memory cannot be shared, the library's way is taken.
For the worker only.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from lm_eval import utils
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix
from torch.nn import functional
from transformers import StoppingCriteria, StoppingCriteriaList

from studio.errors import StudioError

NEAR = 1e-3  # nats by which a shared computation may differ from the library's in 32 bits
LEAST = 4  # tokens before the options below which nothing is gained
Request = tuple[Any, list[int], list[int]]  # (texts, tokens before, tokens judged)


class Local(HFLM):
    """See above.

    Args:
        net, tokenizer: Of :func:`studio.evals.compare.ready`.
        recipe: Gives ``batch_size`` and ``max_length``.
        watch: A :class:`studio.evals.lm_models.Watch`.
    """

    likelihoods = True

    def __init__(self, net: Any, tokenizer: Any, recipe: Any, watch: Any):
        self.watch = watch
        super().__init__(net, tokenizer=tokenizer, backend="causal", batch_size=recipe.batch_size, max_length=recipe.max_length)
        # Every step of an answer passes here, so a stop need not wait for the answer's end.
        self._hook = self.model.get_input_embeddings().register_forward_pre_hook(lambda *_: watch.check())
        self._known: dict[str, list[int]] = {}
        whole = self.model.dtype == torch.float32 and not hasattr(self.model, "peft_config")
        self._shares = whole and {"past_key_values", "position_ids"} <= set(inspect.signature(self.model.forward).parameters)
        self._proved = False

    @property
    def templated(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def close(self) -> None:
        self._hook.remove()
        self._model, self._known = None, {}

    # Tokens

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **more: Any
                   ) -> list[int]:
        if add_special_tokens is None and left_truncate_len is None and not more and string in self._known:
            return self._known[string]
        return super().tok_encode(string, add_special_tokens, left_truncate_len, **more)

    def _know(self, texts: Any) -> None:
        """Tokens of many texts at once, as :meth:`tok_encode` gives them one by one."""
        prefix = self.tokenizer.decode(self.prefix_token_id)
        self._known = {}
        for marked in (False, True):
            part = [text for text in dict.fromkeys(texts) if has_bos_prefix(text, prefix) is marked]
            if part:
                how = {"add_special_tokens": False} if marked else {}
                self._known |= dict(zip(part, self.tokenizer(part, **how)["input_ids"], strict=True))

    # Likelihoods

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.watch.begin(len(requests))
        pairs = [request.args for request in requests]
        self._know([text for context, rest in pairs if context for text in (context.rstrip(), context + rest)])
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        texts = [request.args[0] for request in requests]
        self._know(texts)
        windows: list[tuple[int, Request]] = []
        for number, text in enumerate(texts):
            parts = utils.get_rolling_token_windows(token_list=self.tok_encode(text), prefix_token=self.prefix_token_id,
                                                    max_seq_len=self.max_length, context_len=1)
            windows += [(number, (None, *part)) for part in map(utils.make_disjoint_window, parts)]
        self.watch.begin(len(windows))
        found = [0.0] * len(texts)
        asked = [window for _, window in windows]
        for (number, _), (value, _) in zip(windows, super()._loglikelihood_tokens(asked) if asked else [], strict=True):
            found[number] += value
        return found

    def _loglikelihood_tokens(self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
                              ) -> list[tuple[float, bool]]:
        for _, context, rest in requests:
            if len(rest) > self.max_length:
                raise StudioError(f"An answer of {len(rest)} tokens does not fit into this model's {self.max_length}.",
                                  "Leave this task out, or choose a model that reads more.", "max_length")
            self.watch.cut += len(context) + len(rest) > self.max_length + 1
        groups: dict[tuple[int, ...], list[int]] = {}
        size = max(2, int(self.batch_size))
        for place, (_, context, rest) in enumerate(requests):
            if len(context) >= LEAST and len(context) + len(rest) <= self.max_length:
                groups.setdefault(tuple(context), []).append(place)
        # Options of one token share a context in the library as well.
        gained = [(context, places[at:at + size]) for context, places in groups.items() for at in range(0, len(places), size)
                  if len(places) > 1 and any(len(requests[place][2]) > 1 for place in places)] if self._shares else []
        found: dict[int, tuple[float, bool]] = {}
        if gained:
            gained.sort(key=lambda one: -len(one[0]))
            found = self._shared(requests, gained)
        left = [place for place in range(len(requests)) if place not in found]
        if left:
            rest = super()._loglikelihood_tokens([requests[place] for place in left], disable_tqdm, override_bs)
            found |= dict(zip(left, rest, strict=True))
        return [found[place] for place in range(len(requests))]

    def _shared(self, requests: list[Request], groups: list[tuple[tuple[int, ...], list[int]]]) -> dict[int, tuple[float, bool]]:
        """The likelihoods of requests that share what stands before them; nothing where this model cannot do it."""
        found: dict[int, tuple[float, bool]] = {}
        batch: list[tuple[tuple[int, ...], list[int]]] = []
        size = max(2, int(self.batch_size))
        for number, one in enumerate(groups):
            batch.append(one)
            if number + 1 < len(groups) and sum(len(places) for _, places in batch) + len(groups[number + 1][1]) <= size:
                continue
            made = self._together(requests, batch)
            if not self._proved and not self._prove(requests, made):
                self._shares = False
                return {}
            found |= made
            self.watch.step(len(made))
            batch = []
        return found

    def _prove(self, requests: list[Request], made: dict[int, tuple[float, bool]]) -> bool:
        """Whether the first batch has the library's values."""
        if not made:
            return False
        done = self.watch.done
        theirs = super()._loglikelihood_tokens([requests[place] for place in made], True)
        self.watch.done = done
        near = all(abs(a[0] - b[0]) < NEAR * max(1.0, abs(b[0])) and a[1] == b[1] for a, b in zip(made.values(), theirs, strict=True))
        self._proved = near
        return near

    def _together(self, requests: list[Request], batch: list[tuple[tuple[int, ...], list[int]]]) -> dict[int, tuple[float, bool]]:
        """One pass over what stands before, one over all options behind it."""
        longest = max(len(context) for context, _ in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (context, _) in enumerate(batch):
            ids[row, longest - len(context):] = torch.tensor(context)
            mask[row, longest - len(context):] = 1
        of = [(row, place) for row, (_, places) in enumerate(batch) for place in places]
        owner = torch.tensor([row for row, _ in of])
        judged = [requests[place][2] for _, place in of]
        width = max(map(len, judged))
        more = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}
        with torch.inference_mode():
            try:
                out = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=True,
                                 position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(self.device), **more)
                first = out.logits[:, -1:][owner.to(self.device)]
                logits = first
                if width > 1:
                    out.past_key_values.batch_select_indices(owner.to(self.device))
                    told = torch.zeros((len(of), width - 1), dtype=torch.long)
                    seen = torch.zeros_like(told)
                    for row, tokens in enumerate(judged):
                        told[row, :len(tokens) - 1] = torch.tensor(tokens[:-1])
                        seen[row, :len(tokens) - 1] = 1
                    places = mask.sum(1)[owner][:, None] + torch.arange(width - 1)[None]
                    rest = self.model(input_ids=told.to(self.device), past_key_values=out.past_key_values, use_cache=True,
                                      attention_mask=torch.cat([mask[owner], seen], 1).to(self.device),
                                      position_ids=places.to(self.device)).logits
                    logits = torch.cat([first, rest], 1)
            except (AttributeError, TypeError, ValueError, RuntimeError) as err:
                if isinstance(err, torch.OutOfMemoryError):
                    raise
                return {}  # a memory of another kind
        chances = functional.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
        wanted = torch.zeros((len(of), width), dtype=torch.long)
        for row, tokens in enumerate(judged):
            wanted[row, :len(tokens)] = torch.tensor(tokens)
        wanted = wanted.to(self.device)
        values = torch.gather(chances, 2, wanted[..., None])[..., 0].cpu()
        same = (chances.argmax(-1) == wanted).cpu()
        return {place: (float(values[row, :len(judged[row])].sum()), bool(same[row, :len(judged[row])].all()))
                for row, (_, place) in enumerate(of)}

    # Answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.watch.begin(len(requests))
        self._know([request.args[0] for request in requests])
        for request in requests:
            most = int(request.args[1].get("max_gen_toks", request.args[1].get("max_new_tokens", self.max_gen_toks)))
            if most >= self.max_length:
                raise StudioError(f"Answers of {most} tokens do not fit into this model's {self.max_length}.",
                                  "Set a smaller longest answer.", "max_gen_toks")
            self.watch.cut += len(self.tok_encode(request.args[0])) > self.max_length - most
        return super().generate_until(requests, disable_tqdm)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
        if settings.get("do_sample") or settings.get("temperature") or settings.get("num_beams", 1) > 1:
            return super()._model_generate(context, max_length, stop, **settings)
        settings = {key: value for key, value in settings.items() if key != "temperature"} | {"do_sample": False}
        ends = StoppingCriteriaList([_Ends(self.tokenizer, stop, context.shape[1])])
        return self.model.generate(input_ids=context, max_length=max_length, stopping_criteria=ends, use_cache=True,
                                   pad_token_id=self.tokenizer.pad_token_id, **settings)


class _Ends(StoppingCriteria):
    """Ends each greedy answer of a batch for itself once a word that ends it was written. The library cuts off what stands
    behind such a word, so an answer's text stays the same."""

    def __init__(self, tokenizer: Any, words: list[str], start: int):
        self.tokenizer, self.words, self.start = tokenizer, [word for word in words if word], start
        self.back = max((len(word.encode()) for word in self.words), default=0) + 1
        self.ended: Any = None

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
        if self.ended is None:
            self.ended = torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
        going = (~self.ended).nonzero()[:, 0].tolist() if self.words else []
        tails = self.tokenizer.batch_decode(ids[going, max(self.start, ids.shape[1] - self.back):].tolist()) if going else []
        for row, tail in zip(going, tails, strict=True):
            self.ended[row] = any(word in tail for word in self.words)
        return self.ended
