"""``Copy as Python``: a fine-tuning recipe as a short plain TRL script that gives the same losses without the studio.

The rows of a file are read by a few copied lines if those give exactly the rows that the studio trains on; else the studio
writes the rows it trains on into the workspace's ``exports`` as JSONL, and the script reads that.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.library import refs
from studio.trainers import chatml, plan, script_parts

# Arguments that a script states even where they are the library's defaults, because they shape the result.
_ALWAYS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length", "seed", "lr_scheduler_type")
_DEFAULTS = {"max_steps": -1, "gradient_accumulation_steps": 1, "weight_decay": 0.0, "max_grad_norm": 1.0, "warmup_steps": 0,
             "neftune_noise_alpha": 0.0, "optim": "adamw_torch_fused", "packing": False, "trust_remote_code": False}


def write(recipe: Any, lora: bool) -> str:
    """The script of an SFT recipe.

    Raises:
        StudioError: model or data cannot be found or read.
    """
    model = refs.resolve_model(recipe.model)
    reading, kinds = _reading(recipe)
    chat = "messages" in kinds or ("prompt" in kinds and recipe.chat_template != "none" and _has_template(model, recipe))
    parts = [_head(recipe, lora), reading, _templates(recipe, model, chat), _split(recipe, chat, kinds), _model(recipe, model, lora),
             _train(recipe, lora, chat, kinds, model)]
    return "\n\n".join(p.strip("\n") for p in parts if p.strip()) + "\n"


def _has_template(model: refs.ModelRef, recipe: Any) -> bool:
    base = refs.resolve_model(model.base) if model.is_adapter and model.base and not model.meta.get("chat_template") else model
    return recipe.chat_template in ("auto", "chatml") or bool(base.meta.get("chat_template"))


def _head(recipe: Any, lora: bool) -> str:
    what = "LoRA" if lora else "full fine-tuning"
    peft = "\nfrom peft import LoraConfig" if lora else ""
    return f'''"""{recipe.name or "Fine-tuning"}: {what} of {recipe.model} on {recipe.dataset} with TRL.

pip install trl peft datasets torch
"""
import json
import math
import random

import torch
from datasets import Dataset{", load_dataset" if recipe.dataset.startswith("hub:") else ""}{peft}
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer'''


def read_file(path: Path) -> list[Any]:
    """Rows of a file as plain Python reads them; the scripts use the same lines (``_OPEN``)."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.open(encoding="utf-8") if line.strip()]
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    if path.suffix == ".csv":
        return list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    raise ValueError(path.suffix)


_OPEN = {".jsonl": "rows = [json.loads(line) for line in open({path!r}, encoding=\"utf-8\") if line.strip()]",
         ".json": "rows = json.load(open({path!r}, encoding=\"utf-8\"))",
         ".csv": "import csv\n\nrows = list(csv.DictReader(open({path!r}, encoding=\"utf-8\", newline=\"\")))"}


def _reading(recipe: Any) -> tuple[str, set[str]]:
    """(code that sets ``rows``, keys of the rows)."""
    code, rows = _source(recipe, "dataset")
    kinds = {key for row in rows[:50] for key in row}
    if recipe.eval_dataset:
        held, _ = _source(recipe, "eval_dataset")
        code += "\n\n\n# The validation set\n" + _body_only(held, code).replace("rows = ", "held_rows = ").replace("in rows]", "in held_rows]")
    return code, kinds


def _body_only(held: str, code: str) -> str:
    """``held`` without the function that ``code`` already defines."""
    for conversion in script_parts.CONVERSIONS:
        source = inspect.getsource(conversion)
        if source in held and source in code:
            held = held.replace(source, "")
    return held.strip("\n")


def _source(recipe: Any, name: str) -> tuple[str, list[dict[str, Any]]]:
    from studio.datasets import formats

    ref = refs.resolve_dataset(getattr(recipe, name))
    rows = list(formats.load_rows(getattr(recipe, name), recipe.columns, "train")[0])
    if not rows:
        raise StudioError("No usable rows are left in the dataset.", "Look at its preview.", name)
    opened = None
    if ref.hub_id:
        revision = f", revision={ref.revision!r}" if ref.revision else ""
        opened = f"rows = list(load_dataset({ref.hub_id!r}, split=\"train\"{revision}))"
    elif ref.path and ref.path.suffix in _OPEN:
        opened = _OPEN[ref.path.suffix].format(path=str(ref.path))
    if opened and not ref.hub_id and (conversion := _conversion(read_file, ref.path, rows)):
        return _converted(opened, conversion), rows
    return _OPEN[".jsonl"].format(path=str(_export(rows))), rows


def _conversion(read: Any, path: Path, rows: list[dict[str, Any]]) -> Any:
    """The conversion that turns the file's own rows into exactly the studio's, if one does."""
    try:
        raw = read(path)
    except (ValueError, OSError, csv.Error):
        return None
    for conversion in script_parts.CONVERSIONS:
        try:
            if [conversion(row) for row in raw] == rows:
                return conversion
        except (KeyError, TypeError, AttributeError):
            continue
    return None


def _converted(opened: str, conversion: Any) -> str:
    if conversion is script_parts.as_it_is:
        return opened
    return f"{inspect.getsource(conversion)}\n\n{opened}\nrows = [{conversion.__name__}(row) for row in rows]"


def _export(rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = settings.home() / "exports" / f"rows-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(text, "utf-8")
        part.rename(path)
    return path


def _templates(recipe: Any, model: refs.ModelRef, chat: bool) -> str:
    source = model
    if model.is_adapter and model.base and not model.meta.get("tokenizer"):
        source = refs.resolve_model(model.base)
    trust = ", trust_remote_code=True" if recipe.trust_remote_code else ""
    lines = [f"tokenizer = AutoTokenizer.from_pretrained({source.source!r}{_revision(source)}{trust})",
             "if tokenizer.pad_token is None:", "    tokenizer.pad_token = tokenizer.eos_token"]
    if recipe.chat_template == "none":
        lines.append("tokenizer.chat_template = None")
    elif chat and (recipe.chat_template == "chatml" or not source.meta.get("chat_template")):
        lines += ['end = "<|im_end|>" if "<|im_end|>" in tokenizer.get_vocab() else tokenizer.eos_token',
                  f"tokenizer.chat_template = {chatml.template('@END@')!r}.replace(\"@END@\", end)"]
    return "\n".join(lines)


def _revision(ref: refs.ModelRef) -> str:
    return f", revision={ref.revision!r}" if ref.revision else ""


def _split(recipe: Any, chat: bool, kinds: set[str]) -> str:
    lines = []
    if chat and "prompt" in kinds:
        lines += ["def to_messages(row):", "    if \"prompt\" not in row:", "        return row",
                  "    return {\"messages\": [{\"role\": \"user\", \"content\": row[\"prompt\"]},",
                  "                         {\"role\": \"assistant\", \"content\": row[\"completion\"]}]}", "", "",
                  "rows = [to_messages(row) for row in rows]"]
        if recipe.eval_dataset:
            lines.append("held_rows = [to_messages(row) for row in held_rows]")
    if recipe.eval_dataset:
        lines += ["train, held = Dataset.from_list(rows), Dataset.from_list(held_rows)"]
    elif recipe.eval_share:
        lines += [f"held_count = min(max(round(len(rows) * {recipe.eval_share}), 1), len(rows) - 1)",
                  f"held_index = set(random.Random({recipe.seed}).sample(range(len(rows)), held_count))",
                  "train = Dataset.from_list([r for i, r in enumerate(rows) if i not in held_index])",
                  "held = Dataset.from_list([r for i, r in enumerate(rows) if i in held_index])"]
    else:
        lines += ["train, held = Dataset.from_list(rows), None"]
    return "\n".join(lines)


def _model(recipe: Any, model: refs.ModelRef, lora: bool) -> str:
    from studio.hardware import gpus

    trust = ", trust_remote_code=True" if recipe.trust_remote_code else ""
    base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
    dtype = plan.load_dtype(recipe, bool(gpus()), lora)
    lines = [f"model = AutoModelForCausalLM.from_pretrained({base.source!r}{_revision(base)}, dtype=torch.{dtype}{trust})"]
    if model.is_adapter:
        lines += ["from peft import PeftModel", "", f"model = PeftModel.from_pretrained(model, {model.source!r}, is_trainable={lora})"]
        if not lora:
            lines.append("model = model.merge_and_unload()")
    return "\n".join(lines)


def _train(recipe: Any, lora: bool, chat: bool, kinds: set[str], model: refs.ModelRef) -> str:
    from studio.hardware import gpus

    held = bool(recipe.eval_dataset or recipe.eval_share)
    values = {k: getattr(recipe, k) for k in (*_ALWAYS, *_DEFAULTS) if k in _ALWAYS or getattr(recipe, k) != _DEFAULTS[k]}
    if values.get("warmup_steps", 0) >= 1:
        values["warmup_steps"] = int(values["warmup_steps"])
    values |= {"bf16": plan.uses_bf16(recipe, True if gpus() else None), "gradient_checkpointing": recipe.gradient_checkpointing,
               "logging_steps": recipe.logging_steps, "logging_first_step": True}
    if chat:
        values["assistant_only_loss"] = recipe.assistant_only_loss
    elif "prompt" in kinds:
        values["completion_only_loss"] = recipe.assistant_only_loss
    values |= {"report_to": recipe.report_to} | recipe.extra
    lines = [f"    {k}={v!r}," for k, v in values.items()]
    lines += ["    use_cpu=not torch.cuda.is_available(),"]
    config = "args = SFTConfig(\n    output_dir=\"output\",\n" + "\n".join(lines)
    if held:
        every, save = (str(n) for n in (recipe.eval_steps, recipe.save_steps))
        config = _steps_code(recipe) + config + f"\n    eval_strategy=\"steps\", eval_steps={'every' if every == '0' else every},"
        config += f" save_steps={save if save != '0' else ('every' if every == '0' else every)}, save_total_limit={recipe.save_total_limit},"
        if recipe.load_best_model_at_end and (recipe.save_steps == 0 or recipe.eval_steps and recipe.save_steps % recipe.eval_steps == 0):
            config += "\n    load_best_model_at_end=True,"
    config += "\n)"
    lora_code = ""
    if lora and not model.is_adapter:
        names = [n.strip() for n in recipe.target_modules.split(",") if n.strip()]
        target = "all-linear" if names in ([], ["all-linear"]) else names
        more = "".join(f", {k}=True" for k in ("use_rslora", "use_dora") if getattr(recipe, k))
        lora_code = (f"lora = LoraConfig(task_type=\"CAUSAL_LM\", r={recipe.r}, lora_alpha={recipe.lora_alpha}, "
                     f"lora_dropout={recipe.lora_dropout}, target_modules={target!r}{more})\n")
    stop = ""
    if held and recipe.early_stopping_patience:
        stop = f", callbacks=[EarlyStoppingCallback({recipe.early_stopping_patience})]"
        config = "from transformers import EarlyStoppingCallback\n\n" + config.replace("\n)", "\n    metric_for_best_model=\"loss\",\n)")
    peft = ", peft_config=lora" if lora_code else ""
    return (f"{config}\n{lora_code}trainer = SFTTrainer(model, args, train_dataset=train, eval_dataset=held, "
            f"processing_class=tokenizer{peft}{stop})\ntrainer.train()\ntrainer.save_model(\"output/final\")")


def _steps_code(recipe: Any) -> str:
    """Lines that set ``every``: a tenth of the run, as the studio counts it."""
    if recipe.eval_steps:
        return ""
    if recipe.max_steps > 0:
        return f"every = {max(1, -(-recipe.max_steps // 10))}\n"
    per_epoch = f"math.ceil(len(train) / {recipe.per_device_train_batch_size})"
    if recipe.gradient_accumulation_steps > 1:
        per_epoch = f"math.ceil({per_epoch} / {recipe.gradient_accumulation_steps})"
    return (f"steps = math.ceil({recipe.num_train_epochs} * {per_epoch})\n"
            "every = max(1, math.ceil(steps / 10))  # ten validations in a run\n")
