"""``Copy as Python``: a recipe of alignment as a short plain TRL script that gives the same losses without the studio.

The rows are those that the studio trains on, after conversion and split, as JSONL in the workspace's ``exports``.
"""

from __future__ import annotations

import json
from typing import Any

from studio.aligners import data
from studio.library import refs
from studio.trainers import chatml, plan, script

# Arguments that are left out where they are as in the library.
DEFAULTS = {"label_smoothing": 0.0, "use_weighting": False, "f_divergence_type": "reverse_kl", "ld_alpha": None,
            "f_alpha_divergence_coef": 0.5, "discopop_tau": 0.05, "precompute_ref_log_probs": False,
            "sync_ref_model": False, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 512, "desirable_weight": 1.0,
            "undesirable_weight": 1.0, "center_rewards_coefficient": None, "alpha": 0.0}
_ALWAYS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed", "lr_scheduler_type")

_FITS = '''def fits(row):
    """Something of the answer is left, however long the prompt is."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        ids = tokenizer(prompt)["input_ids"]
    else:
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    return len(ids) + {spare} < {longest}


rows = [row for row in rows if fits(row)]'''


def write(method: Any, recipe: Any) -> str:
    """The script of a recipe for a method on pairs or on marked answers.

    Args:
        method: An :class:`studio.aligners.base.AlignMethod`.

    Raises:
        StudioError: model or data cannot be found or read.
    """
    model = refs.resolve_model(recipe.model)
    found = data.read(recipe, method.shape)
    template = template_of(recipe, model)
    train, held = ([_plain(method, recipe, row) for row in data.as_chat(rows, template)]
                   for rows in (found.train, found.held))
    parts = [head(method, recipe, model), reading(train, held), script._templates(recipe, model, template is not None),
             _fitting(method, recipe, bool(held)), f"train = Dataset.from_list(rows)\nheld = "
             f"{'Dataset.from_list(held_rows)' if held else 'None'}", models(method, recipe, model),
             training(method, recipe, model, bool(held))]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _plain(method: Any, recipe: Any, row: dict[str, Any]) -> dict[str, Any]:
    if method.head == "reward" and recipe.use_margin:
        return row
    return {key: value for key, value in row.items() if key != "margin"}


def template_of(recipe: Any, model: refs.ModelRef) -> str | None:
    """The chat template that the run will use, as far as files on this disk tell."""
    if recipe.chat_template == "none":
        return None
    source = script._template_source(model)
    if recipe.chat_template != "chatml" and source.path and source.meta.get("chat_template"):
        try:
            return (source.path / "chat_template.jinja").read_text("utf-8")
        except OSError:
            written = json.loads((source.path / "tokenizer_config.json").read_text("utf-8")).get("chat_template")
            return written if isinstance(written, str) else ""
    return chatml.template("<|im_end|>")


def head(method: Any, recipe: Any, model: refs.ModelRef) -> str:
    """Docstring and imports."""
    module, _, trainer = method.trainer.rpartition(".")
    config = recipe.config.rpartition(".")[2]
    peft = "\nfrom peft import LoraConfig" if method.lora(recipe) and _fresh(method, model) else ""
    auto = "AutoModelForCausalLM" if method.head == "causal" else "AutoModelForSequenceClassification"
    extra = ", set_seed" if method.head == "reward" else ""
    return f'''"""{recipe.name or method.title}: {method.title} of {recipe.model} on {recipe.dataset} with TRL.

pip install trl peft datasets torch
"""
import json
import math

import torch
from datasets import Dataset{peft}
from transformers import {auto}, AutoTokenizer{extra}
from {module} import {config}, {trainer}'''


def _fresh(method: Any, model: refs.ModelRef) -> bool:
    """A new adapter is made, instead of training the one that is there."""
    return not model.is_adapter or method.head == "reward"


def reading(train: list, held: list) -> str:
    """Lines that set ``rows`` and ``held_rows``."""
    code = script._OPEN[".jsonl"].format(path=str(script._export(train)))
    if held:
        code += "\nheld_" + script._OPEN[".jsonl"].format(path=str(script._export(held)))
    return code


def _fitting(method: Any, recipe: Any, held: bool) -> str:
    if not method.spare:
        return ""  # the trainer leaves out such rows itself
    code = _FITS.format(spare=method.spare, longest=recipe.max_length)
    return code + ("\nheld_rows = [row for row in held_rows if fits(row)]" if held else "")


def models(method: Any, recipe: Any, model: refs.ModelRef) -> str:
    """Lines that set ``model``, and ``ref_model`` where there is one."""
    lora = method.lora(recipe) is not None
    merged = not lora or method.head == "reward"
    code = script._model(recipe, model, not merged, method.quantization(recipe))
    if method.head == "reward":
        code = code.replace("AutoModelForCausalLM.", "AutoModelForSequenceClassification.")
        code = code.replace(", dtype=", ", num_labels=1, dtype=", 1)
        if model.is_adapter:
            code = code.replace("from peft import PeftModel", "from peft import PeftConfig, PeftModel")
            code = code.replace("model = PeftModel", f"config = PeftConfig.from_pretrained({model.source!r})\n"
                                "config.task_type = None\nmodel = PeftModel", 1)
            code = code.replace("is_trainable=", "config=config, is_trainable=")
        return f"set_seed({recipe.seed})  # the head is drawn at random\n{code}"
    if not method.reference:
        return code
    itself = not lora and model.is_adapter and not recipe.precompute_ref_log_probs
    if wanted := recipe.ref_model or (recipe.model if itself else ""):
        other = script._model(recipe.model_copy(update={"model": wanted}), refs.resolve_model(wanted), False, None)
        other = other.replace("from_pretrained(model,", "from_pretrained(ref_model,")
        other = other.replace("= model.", "= ref_model.")
        code += "\n\n" + other.replace("model = ", "ref_model = ")
    return code


def training(method: Any, recipe: Any, model: refs.ModelRef, held: bool) -> str:
    """Lines that set up the trainer and train."""
    from studio.hardware import gpus

    values = {k: getattr(recipe, k) for k in (*_ALWAYS, *script._DEFAULTS) if hasattr(recipe, k)
              and (k in _ALWAYS or getattr(recipe, k) != script._DEFAULTS[k])}
    if values.get("warmup_steps", 0) >= 1:
        values["warmup_steps"] = int(values["warmup_steps"])
    values |= {k: v for k, v in method.settings(recipe).items() if k not in DEFAULTS or v != DEFAULTS[k]}
    values |= {"bf16": plan.uses_bf16(recipe, True if gpus() else None),
               "gradient_checkpointing": recipe.gradient_checkpointing, "logging_steps": recipe.logging_steps,
               "logging_first_step": True}
    if held:
        values["per_device_eval_batch_size"] = recipe.per_device_train_batch_size
    values |= {"report_to": recipe.report_to} | getattr(recipe, "beyond", dict)() | recipe.extra
    name, trainer = recipe.config.rpartition(".")[2], method.trainer.rpartition(".")[2]
    lines = [f"    {k}={v!r}," for k, v in values.items()] + ["    use_cpu=not torch.cuda.is_available(),"]
    config = f"args = {name}(\n    output_dir=\"output\",\n" + "\n".join(lines)
    if held:
        every = str(recipe.eval_steps or "every")
        config = (f"{script._steps_code(recipe)}{config}\n    eval_strategy=\"steps\", eval_steps={every}, "
                  f"save_steps={recipe.save_steps or every}, save_total_limit={recipe.save_total_limit},")
        if recipe.load_best_model_at_end and (recipe.save_steps == 0 or recipe.eval_steps
                                              and recipe.save_steps % recipe.eval_steps == 0):
            config += "\n    load_best_model_at_end=True,"
    stop = ""
    if held and recipe.early_stopping_patience:
        stop = f", callbacks=[EarlyStoppingCallback({recipe.early_stopping_patience})]"
        config = f"from transformers import EarlyStoppingCallback\n\n{config}\n    metric_for_best_model=\"loss\","
    adapter = more = ""
    if (lora := method.lora(recipe)) and _fresh(method, model):
        adapter = f"adapter = LoraConfig({', '.join(f'{k}={v!r}' for k, v in lora.items())})\n"
        more = ", peft_config=adapter"
    itself = not lora and model.is_adapter
    if method.reference and (recipe.ref_model or itself and not recipe.precompute_ref_log_probs):
        more += ", ref_model=ref_model"
    return (f"{config}\n)\n{adapter}trainer = {trainer}(model=model, args=args, train_dataset=train, eval_dataset=held, "
            f"processing_class=tokenizer{more}{stop})\ntrainer.train()\ntrainer.save_model(\"output/final\")")
