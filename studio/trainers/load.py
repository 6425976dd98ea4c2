"""Models and tokenizers for training, with refusals a person can act on. Imports transformers."""

from __future__ import annotations

import os
from typing import Any

from studio.errors import StudioError
from studio.library import refs
from studio.library.modelinfo import PROMPT_TYPES
from studio.trainers import rope as rope_scaling


def _loaded(what: Any, ref: Any, trust: bool, **kwargs: Any) -> Any:
    refs.check_loads(ref)
    try:
        return what.from_pretrained(ref.source, revision=ref.revision, trust_remote_code=trust, **kwargs)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as err:
        text = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        if "trust_remote_code" in str(err):
            raise StudioError(f"{ref.label} needs Python code from its own repository.",
                              "If you trust its author, turn on 'Run the model's own code'.",
                              "trust_remote_code") from err
        if "gated" in str(err).lower() or "401" in str(err):
            raise StudioError(f"{ref.label} is gated: its owner wants you to accept terms first.",
                              "Accept them on its Hub page and log in with a token.", "model") from err
        raise StudioError(f"{ref.label} cannot be loaded: {text}", "Choose another model or mend its folder.",
                          "model") from err


def fetch(model: refs.ModelRef, ctx: Any) -> refs.ModelRef | None:
    """The model with its files on this disk; one of the Hub is downloaded, told in tenths.

    ``None`` if the run was stopped.

    Raises:
        StudioError: the Hub cannot be reached or refuses, or the disk is full.
    """
    from studio import hub
    from studio.hardware import size

    if model.path is not None:
        return model
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if total and (now := 10 * done // total) > told:
            told = now
            ctx.log(f"Downloading {model.label}: {now * 10} % of {size(total)}.")

    try:
        return refs.fetched(model, tell, lambda: ctx.stop_requested)
    except hub.Stopped:
        return None


def tokenizer(model: refs.ModelRef, trust: bool = False) -> Any:
    """The tokenizer of a model or adapter (an adapter's own, if it has one, else its base's).

    Raises:
        StudioError: none there, or broken.
    """
    from transformers import AutoTokenizer

    source = model
    if model.is_adapter and model.path and not (model.path / "tokenizer_config.json").exists():
        source = refs.resolve_model(base_of(model))
    made = _loaded(AutoTokenizer, source, trust)
    if made.pad_token is None:
        made.pad_token = made.eos_token or made.unk_token
    if made.pad_token is None:
        raise StudioError(f"The tokenizer of {model.label} has neither a padding nor an end token.",
                          "Choose another model.", "model")
    return made


def base_of(model: refs.ModelRef) -> str:
    """Reference of the base of an adapter.

    Raises:
        StudioError: if nobody knows it.
    """
    if not model.base:
        raise StudioError(f"The adapter {model.label} does not say which model it belongs to.",
                          "Choose the base model itself, or an adapter made here.", "model")
    return model.base


def model(ref: refs.ModelRef, dtype: Any, trust: bool = False, gpu: bool = False, merge: bool = False,
          quantization: dict[str, Any] | None = None, head: str = "causal", rope: dict[str, Any] | None = None) -> Any:
    """A causal language model, an adapter on its base where ``ref`` is one.

    Args:
        dtype: Torch dtype of the weights.
        quantization: Arguments of ``BitsAndBytesConfig``, to hold the weights in fewer bits.
        merge: Fold an adapter into its base, for training all weights; else it stays trainable.
        rope: Stretched positions, as :mod:`studio.trainers.rope` keeps them; by default those an adapter was trained with.
        head: ``causal``, or ``reward``: one number in place of the words. An adapter is then folded into its base.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    source = refs.fetched(refs.resolve_model(base_of(ref))) if ref.is_adapter else ref
    more: dict[str, Any] = {"device_map": "auto"} if gpu else {}
    if quantization:
        import torch
        from transformers import BitsAndBytesConfig

        compute = {"bnb_4bit_compute_dtype": getattr(torch, dtype)} if "load_in_4bit" in quantization else {}
        more["quantization_config"] = BitsAndBytesConfig(**quantization, **compute)
    rope = rope or (ref.meta.get("rope") if ref.is_adapter else None)
    if rope:
        more["config"] = rope_scaling.config(source, rope, trust)
    if head == "reward":
        made = _loaded(AutoModelForSequenceClassification, source, trust, dtype=dtype, num_labels=1, **more)
    else:
        made = _loaded(AutoModelForCausalLM, source, trust, dtype=dtype, **more)
    made.config.use_cache = False
    rope_scaling.mark(made, rope)
    if ref.is_adapter:
        from peft import PeftConfig, PeftModel

        config, merge = PeftConfig.from_pretrained(ref.source), merge or head == "reward"
        if head == "reward":
            config.task_type = None  # what belongs to a model that writes does not fit around one that gives a number
        try:
            made = PeftModel.from_pretrained(made, ref.source, config=config,
                                             is_trainable=not merge and ref.meta.get("peft_type") not in PROMPT_TYPES)
        except (OSError, ValueError, RuntimeError) as err:
            raise StudioError(f"The adapter {ref.label} does not fit its base {source.label}.",
                              "Choose the model it was trained on.", "model") from err
        if merge:
            made = made.merge_and_unload().requires_grad_(True)  # PEFT froze what the adapter was laid on
    return made


def quiet() -> None:
    """Keeps the libraries' progress bars and advice out of the worker's log; their warnings stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
