"""One loaded base model, its adapters, and generations that run on it side by side."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.chat.parts import thinking
from studio.chat.text import PLAIN_NOTE, PLAIN_STOP, Detokenizer, merge_system, plain_prompt
from studio.chat.turn import Turn
from studio.chat.writing import Result, Sampling, Writer
from studio.errors import StudioError

TURN_SECONDS = 0.05


class Host:
    """Loads ``path`` (a folder, or a Hub id with ``revision``) and answers with it or with adapters on it.

    Args:
        rope: Its positions are stretched, as the adapters need it; see :mod:`studio.trainers.rope`.
        exact: Compute in 32 bits also where a graphics card would do with 16.
        trust: Run the model's own code.

    Raises:
        StudioError: if it cannot be loaded; the message says why.
    """

    auto = "AutoModelForCausalLM"  # transformers' class that loads it
    sees = False

    def __init__(self, path: str, revision: str | None = None, rope: dict[str, Any] | None = None, exact: bool = False,
                 trust: bool = False):
        import torch
        import transformers
        from transformers import AutoConfig

        from studio.trainers.script_parts import stretch

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.bfloat16 if self.device == "cuda" and not exact else torch.float32
        more = {"trust_remote_code": True} if trust else {}
        try:
            self.tokenizer = _tokenizer(path, revision, **more)
            config = AutoConfig.from_pretrained(path, revision=revision, **more)
            if rope:
                stretch(config, rope["rope_type"], rope["factor"])
            if _quantized_by(config) == "hqq":  # which transformers 5 does not read
                from studio.quantizers import hqq

                self.model = hqq.opened(Path(path), self.dtype, trust)
            else:
                # packed weights are put where they run while they are loaded; bitsandbytes does not let them be moved later
                placed = {"device_map": {"": 0}} if _quantized_by(config) and self.device == "cuda" else {}
                model = getattr(transformers, self.auto).from_pretrained(path, revision=revision, dtype=self.dtype, config=config,
                                                                         use_safetensors=True, **placed, **more)
                self.model = (model if placed else model.to(self.device)).eval()
        except Exception as err:
            raise _explain(err, path) from err
        self.context = _context(self.model)
        self._turn = Turn()
        self._peft: Any = None
        self._adapters: dict[str, tuple[str, Any]] = {}  # name -> (inner name, tokenizer)
        self._switches: list[Any] = []
        self._selected: str | None = None
        self._stale: list[str] = []
        self._running = 0
        self._counting = threading.Lock()
        self._helper: tuple[str, Any] = ("", None)  # folder and model that proposes tokens
        self._since = 0.0  # when the turn under way began
        self._batcher = None
        if os.environ.get("ATELIER_BATCHING") != "0":
            from studio.chat import batching

            self._batcher = batching.Batcher(self) if batching.able(self.model) else None

    @property
    def threads(self) -> int:
        return self.torch.get_num_threads()

    @property
    def templated(self) -> bool:
        return bool(self.tokenizer.chat_template)

    # ---- adapters

    def add_adapter(self, name: str, path: str) -> None:
        """Puts the adapter of folder ``path`` on the base as ``name``, replacing one of that name.

        Raises:
            StudioError: if it does not fit this base.
        """
        from peft import PeftModel

        inner = f"a{sum(1 for _ in self._adapters)}_{time.monotonic_ns()}"  # peft forbids dots and slashes
        tokenizer = _tokenizer(path, None) if (Path(path) / "tokenizer_config.json").exists() else self.tokenizer
        with self._turn:
            try:
                if self._peft is None:
                    self._peft = PeftModel.from_pretrained(self.model, path, adapter_name=inner).eval()
                else:
                    self._peft.load_adapter(path, inner)
            except Exception as err:
                self._find_switches()
                self._select(None)
                first = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
                raise StudioError(f"The adapter does not fit its base model: {first}",
                                  "Load it on the model it was trained from.", "model") from err
            if self._peft.peft_config[inner].is_prompt_learning:
                self._peft.set_adapter(inner)
            if old := self._adapters.get(name):
                self._stale.append(old[0])
            self._adapters[name] = (inner, tokenizer)
            if not self._running:  # an answer under way keeps the weights it began with
                for inner in self._stale:
                    self._peft.delete_adapter(inner)
                self._stale.clear()
            self._find_switches()
            self._select(None)
        gc.collect()

    def adapters(self) -> list[str]:
        return list(self._adapters)

    def _find_switches(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
        self._switches = [m for m in self.model.modules() if isinstance(m, kinds)]
        self._selected = "?"

    def _select(self, inner: str | None) -> None:
        """Makes the next forward run through ``inner``, or the bare base.

        peft's own ``set_adapter`` also walks all weights to set ``requires_grad``, which is far too slow to do
        twice a token; a frozen engine only needs the two names that the layers' forward looks at.
        """
        if self._selected != inner:
            for layer in self._switches:
                layer._disable_adapters = inner is None
                if inner is not None:
                    layer._active_adapter = [inner]
            self._selected = inner

    # ---- prompts

    def encode(self, messages: list[dict[str, Any]], name: str | None = None,
               tools: list[dict[str, Any]] | None = None) -> tuple[list[int], str]:
        """(token ids, note) of a conversation that asks for the next answer of the base or of adapter ``name``.

        Args:
            tools: What it may call, in OpenAI's form.

        Raises:
            StudioError: the template refuses the conversation or knows no tools, or it is longer than the context.
        """
        tokenizer = self._adapters[name][1] if name else self.tokenizer
        note = ""
        if tools and "tools" not in str(tokenizer.chat_template or ""):
            raise StudioError("This model's chat template knows no tools.",
                              "Choose a model that was taught to call tools, or describe them in the system prompt.", "tools")
        if not tokenizer.chat_template:
            note = PLAIN_NOTE
            ids = tokenizer(plain_prompt(messages))["input_ids"]
        else:
            try:
                ids = _template(tokenizer, messages, tools)
            except Exception as err:
                merged = merge_system(messages)
                if merged == messages:
                    raise StudioError(f"The model's chat template refuses this conversation: {err}",
                                      "Messages must alternate between user and assistant.", "messages") from err
                try:
                    ids = _template(tokenizer, merged, tools)
                except Exception as again:
                    raise StudioError(f"The model's chat template refuses this conversation: {again}",
                                      "Messages must alternate between user and assistant.", "messages") from again
                note = "This model's template has no system role; the system prompt goes before the first message."
        if not ids:
            raise StudioError("There is nothing to answer.", "Write a message first.", "messages")
        if self.context and len(ids) >= self.context:
            raise StudioError(f"The conversation is {len(ids)} tokens long; this model can read {self.context}.",
                              "Start a new chat, or shorten the messages or the system prompt.", "messages")
        return ids, note

    def thinks(self, ids: list[int]) -> bool:
        """Whether a prompt ends within a thought that its template began."""
        return thinking(self.tokenizer.decode(ids[-12:], skip_special_tokens=False))

    def piece(self, token: int, name: str | None = None) -> str:
        """The text of one token."""
        return (self._adapters[name][1] if name else self.tokenizer).decode([token])

    # ---- generation

    def generate(self, ids: list[int], sampling: Sampling, emit: Callable[[str], None], cancelled: threading.Event,
                 name: str | None = None, note: str = "") -> Result:
        """Answers in the calling thread, giving text to ``emit`` as it comes. Others may run on the model meanwhile.

        Args:
            ids: The prompt, from :meth:`encode`.
            sampling: How to choose tokens.
            emit: Called with pieces of text.
            cancelled: Set it to end the generation at the next token.
            name: Adapter to answer with.
            note: Passed through to the result.
        """
        began = time.perf_counter()
        with self._counting:
            self._running += 1
        try:
            inner, tokenizer = self._adapters[name] if name else (None, self.tokenizer)
            stop = sampling.stop + ([] if tokenizer.chat_template else PLAIN_STOP)
            writer = Writer(Detokenizer(tokenizer, stop), emit, cancelled, self._ends(tokenizer))
            config = self._config(sampling, len(ids), writer.ends, tokenizer)
            # Learned tokens are put before the text by PEFT's wrapper, not by the layers.
            prompts = bool(inner) and self._peft.peft_config[inner].is_prompt_learning
            result = Result(prompt_tokens=len(ids), note=note)
            if self._batcher and not prompts:
                from studio.chat.batching import Row

                row = Row(self.model, ids, config, writer, inner, sampling.seed, sampling.logprobs)
                self._batcher.write(row)
                result.logprobs = row.logprobs if sampling.logprobs is not None else None
            elif sampling.logprobs is not None:
                raise StudioError("This model's probabilities cannot be told.", "Leave logprobs out.", "logprobs")
            else:
                self._take_turns(ids, config, writer, inner, self._peft if prompts else self.model, sampling.seed)
            return writer.result(result, began)
        finally:
            with self._counting:
                self._running -= 1

    def _take_turns(self, ids: list[int], config: Any, writer: Writer, inner: str | None, model: Any, seed: int | None) -> None:
        """One answer by the library's ``generate``; others get their turn between its tokens."""
        torch = self.torch
        with self._turn:
            self._since = time.perf_counter()
            self._select(inner)
            torch.manual_seed(seed) if seed is not None else torch.seed()
            model.generate(**self._inputs(ids), generation_config=config, stopping_criteria=[_Loop(self, inner, writer)])

    def _inputs(self, ids: list[int]) -> dict[str, Any]:
        inputs = self.torch.tensor([ids], device=self.device)
        return {"input_ids": inputs, "attention_mask": self.torch.ones_like(inputs)}

    def explore(self, messages: list[dict[str, str]], way: dict[str, Any], prefix: list[int], name: str | None = None) -> dict[str, Any]:
        """One answer with what the model thought at every token; see :func:`studio.lab.decoding.explore`. Nobody else runs
        on the model meanwhile.

        Raises:
            StudioError: bad settings, or a conversation that the model cannot read.
        """
        from studio.lab import decoding

        chosen = decoding.way(way)
        ids, note = self.encode(messages, name)
        inner, tokenizer = self._adapters[name] if name else (None, self.tokenizer)
        if inner and self._peft.peft_config[inner].is_prompt_learning:
            raise StudioError("This adapter puts learned tokens before the text, which cannot be looked into here.",
                              "Choose another model.", "model")
        with self._turn:
            self._select(inner)
            return decoding.explore(self.model, tokenizer, ids, chosen, self._ends(tokenizer), prefix) | {"note": note}

    def speculate(self, messages: list[dict[str, Any]], values: dict[str, Any], assistant: str = "", name: str | None = None) -> dict[str, Any]:
        """One answer written plainly and by proposals; see :func:`studio.lab.speculative.measure`. Nobody else runs on the model
        meanwhile.

        Args:
            assistant: Folder of a small model that proposes; it stays loaded until another one is asked for.

        Raises:
            StudioError: bad settings, a conversation that the model cannot read, or an assistant that cuts text differently.
        """
        from studio.lab import speculative

        chosen = speculative.settings(values)
        ids, note = self.encode(messages, name)
        inner, tokenizer = self._adapters[name] if name else (None, self.tokenizer)
        if not self._batcher:
            raise StudioError("The memory of this model cannot be taken back by a token, which proposals need.",
                              "Choose a model without a sliding window.", "model")
        if inner and self._peft.peft_config[inner].is_prompt_learning:
            raise StudioError("This adapter puts learned tokens before the text, which proposals cannot do.",
                              "Choose another model.", "model")
        with self._turn:
            helper = self._assistant(assistant, tokenizer) if assistant else None
            self._select(inner)
            return {"ways": speculative.measure(self.model, tokenizer, ids, chosen, self._ends(tokenizer), helper), "note": note,
                    "prompt_tokens": len(ids)}

    def _assistant(self, path: str, tokenizer: Any) -> Any:
        from transformers import AutoModelForCausalLM

        if self._helper[0] != path:
            try:
                own = _tokenizer(path, None)
                if own.get_vocab() != tokenizer.get_vocab():
                    raise StudioError("The assistant cuts text into other tokens than the model does.",
                                      "Choose a smaller model with the same tokenizer.", "assistant")
                self._helper = ("", None)  # the one before gives way first
                model = AutoModelForCausalLM.from_pretrained(path, dtype=self.dtype, use_safetensors=True).to(self.device).eval()
            except Exception as err:
                raise _explain(err, path) from err
            self._helper = (path, model)
        return self._helper[1]

    def _ends(self, tokenizer: Any) -> set[int]:
        own = self.model.generation_config.eos_token_id
        ends = set(own if isinstance(own, list) else [] if own is None else [own])
        return ends | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())

    def _config(self, sampling: Sampling, prompt: int, ends: set[int], tokenizer: Any) -> Any:
        from transformers import GenerationConfig

        own = self.model.generation_config

        def pick(name: str, default: float) -> float:
            asked, model = getattr(sampling, name), getattr(own, name, None)
            return asked if asked is not None else model if model is not None else default

        temperature = pick("temperature", 1.0)
        room = max(1, self.context - prompt) if self.context else 1 << 20
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
        config = GenerationConfig(do_sample=temperature > 0, max_new_tokens=min(sampling.max_tokens or 512, room),
                                  repetition_penalty=pick("repetition_penalty", 1.0), pad_token_id=pad,
                                  eos_token_id=sorted(ends) or None, use_cache=True, num_beams=1)
        if temperature > 0:
            config.temperature = float(temperature)
            config.top_p, config.top_k = pick("top_p", 1.0), int(pick("top_k", 0))
            if min_p := pick("min_p", 0.0):
                config.min_p = min_p
        return config

    def step_aside(self, inner: str | None) -> None:
        """Lets the others run, then takes the model back as it was: own adapter, own random state.

        A small model makes a token in a millisecond or two and handing over costs as much, so it keeps its turn for
        a moment that no reader notices; a large one hands over after every token.
        """
        if not self._turn.wanted or time.perf_counter() - self._since < TURN_SECONDS:
            return
        torch = self.torch
        state = torch.cuda.get_rng_state() if self.device == "cuda" else torch.get_rng_state()
        self._turn.release()
        self._turn.acquire()
        self._since = time.perf_counter()
        torch.cuda.set_rng_state(state) if self.device == "cuda" else torch.set_rng_state(state)
        self._select(inner)


class _Loop:
    """A stopping criterion, because ``generate`` calls it exactly once per token with nothing half done."""

    def __init__(self, host: Host, inner: str | None, writer: Writer):
        self.host, self.inner, self.writer = host, inner, writer
        self.no, self.yes = (host.torch.tensor([value], device=host.device) for value in (False, True))

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if not self.writer.finish:
            self.writer.token(int(input_ids[0, -1]))
            if not self.writer.finish:
                self.host.step_aside(self.inner)
        return self.yes if self.writer.finish else self.no


def _template(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
    return tokenizer.apply_chat_template(messages, tools=tools or None, add_generation_prompt=True, tokenize=True,
                                         return_dict=True)["input_ids"]


def _tokenizer(path: str, revision: str | None, **more: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, revision=revision, **more)


def _quantized_by(config: Any) -> str:
    told = getattr(config, "quantization_config", None)
    return str(told.get("quant_method") or "") if isinstance(told, dict) else ""


def _context(model: Any) -> int | None:
    """Tokens the model can read; ``None`` where its config does not say."""
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    rope = getattr(config, "rope_parameters", None) or {}
    return int(longest * rope["factor"]) if longest and rope.get("rope_type") == "dynamic" else longest


def _explain(err: Exception, path: str) -> StudioError:
    if isinstance(err, StudioError):
        return err
    name = Path(path).name
    text = str(err).strip()
    first = text.splitlines()[0] if text else type(err).__name__
    if "out of memory" in text.lower() or isinstance(err, MemoryError):
        return StudioError(f"{name} does not fit into memory.", "Unload other models, or choose a smaller one.",
                           "model")
    if "trust_remote_code" in text:
        return StudioError(f"{name} needs code of its own to run, which the studio does not execute.",
                           "Choose a model that transformers supports.", "model")
    if type(err).__name__ == "SafetensorError":
        return StudioError(f"The weights of {name} are damaged: {first}", "Copy or download the model again.", "model")
    return StudioError(f"{name} cannot be loaded: {first}",
                       "Check that the folder holds a whole causal language model.", "model")
