"""Refusals and estimates of every quantization, from files' headers and formulas. No torch here."""

from __future__ import annotations

from typing import Any

from studio import hardware
from studio.errors import StudioError
from studio.library import modelinfo, refs

KEPT = ("embed", "lm_head", "norm", "wte", "wpe", "ln_", "bias", "rotary")  # parts of names of what keeps 16 bits
MEMORIES = (4, 8, 12, 16, 24, 48, 80, 160)  # GB of machines and GPUs that people have
START = 6.0  # seconds until the libraries are there
LIBRARIES = 700e6  # bytes that a process with them holds
# Measured by tests/benchmarks/quantize.py (docs/quantize.md) on one core of an AVX-512 server:
LAYER = 0.0054  # seconds a layer and text while a model is calibrated, however small it is
READING = 0.041  # seconds a million weights and thousand tokens on top of that
TEXT = 60  # tokens of a text of the shipped set, on average; longer ones take longer
NOTED = 8  # variants told one by one


def check(method: Any, recipe: Any) -> None:
    """Refuse what can be known to fail before anything starts.

    Raises:
        StudioError: naming the field: no source that can be quantized, no variants, no texts, no GPU, no disk.
    """
    model = source_of(recipe.model)
    names = method.variants(recipe)
    if not names:
        raise StudioError("No variant is chosen.", "Choose at least one.", chosen_in(recipe))
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise StudioError(f"{doubled[0]} is chosen twice.", "Choose each once.", chosen_in(recipe))
    if method.needs_gpu and not hardware.gpus():
        raise StudioError(f"{method.title} needs an NVIDIA GPU, and this machine has none.",
                          "GGUF, AWQ and GPTQ are made without one.", "method")
    check_texts(recipe, method.needs_texts(recipe), method.title)
    if model.meta.get("parameters"):
        hardware.need_disk(estimate(method, recipe).disk or 0, f"Quantizing {model.label}", "model")


def chosen_in(recipe: Any) -> str | None:
    """The field that lists the variants."""
    return next((name for name in ("types", "schemes") if name in type(recipe).model_fields), None)


def source_of(ref: str) -> refs.ModelRef:
    """The whole model that is quantized: the one named, or the base of an adapter.

    Raises:
        StudioError: in the field ``model``: it does not write, is quantized already, or cannot be folded.
    """
    model = refs.resolve_model(ref)
    refs.check_writes(model)
    if model.is_adapter:
        if model.meta.get("peft_type") in modelinfo.PROMPT_TYPES:
            raise StudioError(f"{model.label} adds virtual words to the input, which have no place in the weights.",
                              "Quantize its base, or train a LoRA instead.", "model")
        if not model.base:
            raise StudioError(f"The adapter {model.label} does not say which model it belongs to.",
                              "Choose the base model itself, or an adapter made here.", "model")
        model = refs.resolve_model(model.base)
    refuse_quantized(model)
    return model


def refuse_quantized(model: refs.ModelRef) -> None:
    """Refuse a source whose weights were rounded before: rounding twice adds the errors.

    Raises:
        StudioError: in the field ``model``.
    """
    word = model.meta.get("format") or model.meta.get("quantization")
    if not word and model.path and (model.path / "config.json").is_file():
        held = modelinfo._json(model.path / "config.json").get("quantization_config")
        word = (held.get("quant_method") or "quantized") if isinstance(held, dict) else None
    if word:
        raise StudioError(f"{model.label} is quantized already ({word}).",
                          "Choose the model it was made from, in 16 or 32 bits.", "model")


def check_texts(recipe: Any, needed: bool, title: str) -> None:
    """Refuse texts that cannot be read, or none where they are needed.

    Raises:
        StudioError: in the field ``dataset`` or ``columns``.
    """
    from studio.datasets import formats

    if not recipe.dataset:
        if needed:
            raise StudioError(f"{title} needs texts, and none are chosen.", "Choose texts like those the model will meet; "
                              "the shipped set 'Calibration texts' serves any model.", "dataset")
    elif not str(recipe.dataset).startswith(("hub:", "hf:", "http")):  # those of the Hub are read by the run
        next(iter(formats.load_rows(recipe.dataset, recipe.columns or None)), None)


def parts(model: refs.ModelRef) -> tuple[int, int] | None:
    """(weights of the layers, weights of embeddings, output layer and norms), or ``None`` where nobody knows."""
    if model.path:
        try:
            sizes = modelinfo.weights(model.path)
        except StudioError:
            return None
        kept = sum(size for name, size in sizes.items() if any(word in name for word in KEPT))
        return sum(sizes.values()) - kept, kept
    total, widths = model.meta.get("parameters"), model.meta.get("widths") or [0]
    kept = min((model.meta.get("vocab_size") or 0) * widths[0], (total or 0) // 2)
    return (total - kept, kept) if total else None


def sizes(method: Any, recipe: Any) -> list[dict[str, Any]]:
    """What each variant will be: ``variant``, ``bits`` (a weight, over all), ``size`` and ``needs`` (bytes of the folder, and to
    run it), ``fits`` (GB). Empty where the model's size is not known."""
    model = source_of(recipe.model)
    found = parts(model)
    if not found:
        return []
    layers, kept = found
    beside = _beside(model)
    made = []
    for name in method.variants(recipe):
        bits = method.bits(recipe, name)
        weights = (layers + kept) * bits / 8 if method.whole else layers * bits / 8 + kept * 2
        need = weights * 1.2 + 5e8  # a rule of thumb: a fifth for the conversation, half a GB for the program
        made.append({"variant": name, "bits": round(weights * 8 / (layers + kept), 2), "size": int(weights + beside),
                     "needs": int(need), "fits": next((gb for gb in MEMORIES if need <= gb * 1e9), None)})
    return made


def _beside(model: refs.ModelRef) -> int:
    """Bytes of the tokenizer and the settings, which every variant brings along."""
    if not model.path:
        return 0
    return sum(p.stat().st_size for p in model.path.iterdir() if p.is_file() and p.suffix in (".json", ".jinja", ".model"))


def estimate(method: Any, recipe: Any) -> Any:
    """Size of each variant, memory, disk and time; what is not known stays ``None``."""
    from studio.method import Estimate

    made = Estimate(device="gpu" if hardware.gpus() else "cpu")
    try:
        named, model, found = refs.resolve_model(recipe.model), source_of(recipe.model), sizes(method, recipe)
    except StudioError:
        return made  # check() refuses; an estimate never keeps a person from typing
    parameters = model.meta.get("parameters")
    if not parameters or not found:
        return made
    folded = parameters * 4 if named.is_adapter else 0
    made.disk = sum(row["size"] for row in found) + int(method.scratch * parameters) + folded
    made.memory = int(max(parameters * method.copies + LIBRARIES, parameters * 4.5 + 2 * LIBRARIES if recipe.prove else 0))
    millions, (rounding, passes) = parameters / 1e6, method.pace(recipe)
    if (rounding or passes) and made.device == "cpu":
        texts = recipe.num_calibration_samples * passes if method.needs_texts(recipe) else 0
        layers = model.meta.get("layers") or 24
        reading = texts * (layers * LAYER + millions * min(recipe.max_seq_length, TEXT) / 1000 * READING)
        made.seconds = START + len(found) * (millions * rounding + reading)
        made.notes.append("Time is an estimate for one core with nothing else running"
                          + ("; the proof of each variant comes on top." if recipe.prove else "."))
    for row in found[:NOTED]:
        fits = f"fits {row['fits']} GB" if row["fits"] else f"needs more than {MEMORIES[-1]} GB"
        made.notes.append(f"{row['variant']}: about {hardware.size(row['size'])}, {fits} of memory.")
    if len(found) > NOTED:
        made.notes.append(f"{len(found) - NOTED} more variants, {hardware.size(sum(r['size'] for r in found))} in all.")
    return made
