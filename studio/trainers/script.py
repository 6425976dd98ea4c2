"""``Copy as Python``: a fine-tuning recipe as a short plain TRL script that gives the same losses without the studio.

The rows of a file are read by a few copied lines if those give exactly the rows that the studio trains on; else the
studio writes the rows it trains on into the workspace's ``exports`` as JSONL, and the script reads that.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

from studio import settings
from studio.library import refs
from studio.trainers import chatml, data, kernels, optimizers, plan, rope, script_parts, unsloth

MOST_LISTED = 400  # validation rows that a script names one by one; more are exported

# Arguments that a script states even where they are the library's defaults, because they shape the result.
_ALWAYS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length", "seed",
           "lr_scheduler_type")
_DEFAULTS = {"max_steps": -1, "gradient_accumulation_steps": 1, "weight_decay": 0.0, "max_grad_norm": 1.0,
             "warmup_steps": 0, "neftune_noise_alpha": 0.0, "packing": False, "packing_strategy": "bfd",
             "padding_free": False, "loss_type": "nll", "trust_remote_code": False}


class Code(str):
    """An argument that is not a value but an expression of the script."""

    __repr__ = str.__str__


def write(recipe: Any, adapter: tuple[str, dict[str, Any]] | None = None,
          quantization: dict[str, Any] | None = None) -> str:
    """The script of an SFT recipe.

    Args:
        adapter: PEFT's config class and its arguments, if an adapter is trained.
        quantization: Arguments of ``BitsAndBytesConfig``, if the base is held in fewer bits.

    Raises:
        StudioError: model or data cannot be found or read.
    """
    model = refs.resolve_model(recipe.model)
    rows, held, _ = data.read(recipe)
    kinds = {key for row in rows[:50] for key in row}
    reading = _reading(recipe, rows, held)
    asked_as_text = "prompt" in kinds and isinstance(rows[0]["prompt"], str)
    chat = "messages" in kinds or ("prompt" in kinds and recipe.chat_template != "none"
                                   and _has_template(model, recipe))
    own_labels = chat and recipe.assistant_only_loss and _unmarked(recipe, model)
    parts = [_head(recipe, adapter), reading, _templates(recipe, model, chat),
             _tables(chat and asked_as_text, bool(held), _with_tools(rows), own_labels), _model(recipe, model, adapter is not None, quantization),
             _train(recipe, adapter, chat and not own_labels, kinds, model, bool(held))]
    return "\n\n".join(p.strip("\n") for p in parts if p.strip()) + "\n"


def _has_template(model: refs.ModelRef, recipe: Any) -> bool:
    return recipe.chat_template in ("auto", "chatml") or bool(_template_source(model).meta.get("chat_template"))


def _template_source(model: refs.ModelRef) -> refs.ModelRef:
    """Whose template is used: an adapter's own, else its base's."""
    lacks = model.is_adapter and model.base and not model.meta.get("chat_template")
    return refs.resolve_model(model.base) if lacks else model


def _head(recipe: Any, adapter: tuple[str, dict[str, Any]] | None) -> str:
    from studio.registry import method

    what = method(recipe.kind, recipe.method).title
    fast = "\nThe studio let Unsloth load the model and add the adapter; these lines do not.\n" if unsloth.wanted(recipe) else ""
    peft = f"\nfrom peft import {adapter[0]}" if adapter else ""
    return f'''"""{recipe.name or "Fine-tuning"}: {what} of {recipe.model} on {recipe.dataset} with TRL.

pip install trl peft datasets torch
{fast}"""
import json
import math

import torch
from datasets import Dataset{peft}
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


def _reading(recipe: Any, rows: list, held: list) -> str:
    """Code that sets ``rows`` and ``held_rows`` to exactly the rows that the studio trains and validates on."""
    ref = refs.resolve_dataset(recipe.dataset)
    if not recipe.eval_dataset and ref.path and ref.path.suffix in _OPEN and len(held) <= MOST_LISTED:
        from studio.datasets import formats

        everything = list(formats.load_rows(recipe.dataset, recipe.columns))
        if conversion := _conversion(ref.path, everything):
            code = _OPEN[ref.path.suffix].format(path=str(ref.path))
            if conversion is not script_parts.as_it_is:
                name = conversion.__name__
                code = f"{inspect.getsource(conversion)}\n\n{code}\nrows = [{name}(row) for row in rows]"
            if not held:
                return code
            return (f"{code}\nheld_index = {{{_numbers(everything, held)}}}\n"
                    "held_rows = [row for i, row in enumerate(rows) if i in held_index]\n"
                    "rows = [row for i, row in enumerate(rows) if i not in held_index]")
    code = _OPEN[".jsonl"].format(path=str(_export(rows)))
    if held:
        code += "\nheld_" + _OPEN[".jsonl"].format(path=str(_export(held)))
    return code


def _numbers(everything: list, held: list) -> str:
    """Positions of the validation rows, in the order of all rows; identical rows are never parted."""
    found, position = [], 0
    for i, row in enumerate(everything):
        if position < len(held) and row == held[position]:
            found.append(i)
            position += 1
    lines = [", ".join(map(str, found[i:i + 20])) for i in range(0, len(found), 20)]
    return ",\n              ".join(lines)


def _conversion(path: Path, rows: list[dict[str, Any]]) -> Any:
    """The conversion that turns the file's own rows into exactly the studio's, if one does."""
    try:
        raw = read_file(path)
    except (ValueError, OSError, csv.Error):
        return None
    for conversion in script_parts.CONVERSIONS:
        try:
            if [conversion(row) for row in raw] == rows:
                return conversion
        except (KeyError, TypeError, AttributeError):
            continue
    return None


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


def _unmarked(recipe: Any, model: refs.ModelRef) -> bool:
    """The model's own template does not say which words are the assistant's, and TRL has no marked version of it."""
    source = _template_source(model)
    if recipe.chat_template == "chatml" or not source.path or not source.meta.get("chat_template"):
        return False
    try:
        text = (source.path / "chat_template.jinja").read_text("utf-8")
    except OSError:
        text = json.loads((source.path / "tokenizer_config.json").read_text("utf-8")).get("chat_template") or ""
    return isinstance(text, str) and not chatml.has_marks(text) and not chatml.known_to_trl(text)


def _tables(as_chat: bool, held: bool, as_json: list[str], own_labels: bool) -> str:
    lines, features = [], ""
    if as_chat:
        lines += ["def as_chat(row):", "    return {\"prompt\": [{\"role\": \"user\", \"content\": row[\"prompt\"]}],",
                  "            \"completion\": [{\"role\": \"assistant\", \"content\": row[\"completion\"]}]}", "", "",
                  "rows = [as_chat(row) for row in rows]"]
        lines += ["held_rows = [as_chat(row) for row in held_rows]"] if held else []
    if own_labels:
        lines += ["", "", inspect.getsource(script_parts.answer_mask), "", "def labelled(row):",
                  "    messages = row[\"messages\"] if \"messages\" in row else row[\"prompt\"] + row[\"completion\"]",
                  "    ids, mask = answer_mask(tokenizer, messages, row.get(\"tools\"))",
                  "    return {\"input_ids\": ids, \"labels\": [i if m else -100 for i, m in zip(ids, mask)]}", "", "",
                  "rows = [labelled(row) for row in rows]"]
        lines += ["held_rows = [labelled(row) for row in held_rows]"] if held else []
        as_json = []
    if as_json:  # a table of columns would give every tool the arguments of all others
        lines += ["from datasets import Features, Json", "",
                  f"features = Features({{{', '.join(f'{k!r}: Json()' for k in as_json)}}})",
                  f"rows = [{{k: row.get(k) for k in {as_json!r}}} for row in rows]"]
        lines += [f"held_rows = [{{k: row.get(k) for k in {as_json!r}}} for row in held_rows]"] if held else []
        features = ", features=features"
    return "\n".join([*lines, f"train = Dataset.from_list(rows{features})",
                      f"held = {f'Dataset.from_list(held_rows{features})' if held else 'None'}"])


def _with_tools(rows: list[dict[str, Any]]) -> list[str]:
    """Columns of rows with tools, empty where there are none."""
    if not any("tools" in row or "tool_calls" in json.dumps(row) for row in rows):
        return []
    return sorted({key for row in rows for key in row})


def _model(recipe: Any, model: refs.ModelRef, lora: bool, quantization: dict[str, Any] | None) -> str:
    from studio.hardware import gpus

    trust = ", trust_remote_code=True" if recipe.trust_remote_code else ""
    base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
    dtype = plan.load_dtype(recipe, bool(gpus()), lora)
    bits = ""
    if quantization:
        values = ", ".join(f"{k}={v!r}" for k, v in quantization.items())
        compute = f", bnb_4bit_compute_dtype=torch.{dtype}" if "load_in_4bit" in quantization else ""
        bits = f", quantization_config=BitsAndBytesConfig({values}{compute})"
    lines = ["from transformers import BitsAndBytesConfig\n"] if bits else []
    stretched = rope.of_recipe(recipe, model)
    if stretched:
        lines += ["from transformers import AutoConfig", "", "", inspect.getsource(script_parts.stretch), "",
                  f"config = AutoConfig.from_pretrained({base.source!r}{_revision(base)}{trust})",
                  f"stretch(config, {stretched['rope_type']!r}, {stretched['factor']!r})"]
        bits += ", config=config"
    lines += [f"model = AutoModelForCausalLM.from_pretrained({base.source!r}{_revision(base)}, "
              f"dtype=torch.{dtype}{trust}{bits})"]
    if stretched and stretched["rope_type"] == "dynamic":
        lines += ["", "", inspect.getsource(script_parts.forget_lengths), "", "forget_lengths(model)"]
    if model.is_adapter:
        lines += ["from peft import PeftModel", "", f"model = PeftModel.from_pretrained(model, {model.source!r}, "
                  f"is_trainable={lora})"]
        if not lora:
            lines.append("model = model.merge_and_unload().requires_grad_(True)  # PEFT froze it")
    if getattr(recipe, "freeze", "none") != "none":
        lines += ["", "", inspect.getsource(script_parts.frozen), "", "weights = dict(model.named_parameters())",
                  f"for name in frozen(weights, {recipe.freeze!r}, {recipe.trained_layers}):",
                  "    weights[name].requires_grad_(False)"]
    return "\n".join(lines)


def _train(recipe: Any, adapter: tuple[str, dict[str, Any]] | None, chat: bool, kinds: set[str], model: refs.ModelRef, held: bool) -> str:
    from studio.hardware import gpus

    values = {k: getattr(recipe, k) for k in (*_ALWAYS, *_DEFAULTS) if k in _ALWAYS
              or getattr(recipe, k) != _DEFAULTS[k]}
    if values.get("warmup_steps", 0) >= 1:
        values["warmup_steps"] = int(values["warmup_steps"])
    values |= {"bf16": plan.uses_bf16(recipe, True if gpus() else None),
               "gradient_checkpointing": recipe.gradient_checkpointing, "logging_steps": recipe.logging_steps,
               "logging_first_step": True}
    if held:
        values["per_device_eval_batch_size"] = recipe.per_device_train_batch_size
    if chat:
        values["assistant_only_loss"] = recipe.assistant_only_loss
    if "prompt" in kinds:
        values["completion_only_loss"] = recipe.assistant_only_loss
    if recipe.padding_free and not recipe.packing:
        values["max_length"] = None  # TRL does not cut then, so the lines below do
    values |= {k: v for k, v in optimizers.arguments(recipe).items() if v != "adamw_torch_fused"}
    values |= kernels.arguments(recipe.kernels) | {"report_to": recipe.report_to} | recipe.extra
    lines = [f"    {k}={v!r}," for k, v in values.items()]
    lines += ["    use_cpu=not torch.cuda.is_available(),"]
    cuts = bool(adapter) and adapter[0] == "AdaLoraConfig"  # whose cut checkpoints PEFT cannot load into the running model
    config = "args = SFTConfig(\n    output_dir=\"output\",\n" + "\n".join(lines)
    if held:
        every = str(recipe.eval_steps or "every")
        config = (f"{_steps_code(recipe)}{config}\n    eval_strategy=\"steps\", eval_steps={every}, "
                  f"save_steps={recipe.save_steps or every}, save_total_limit={recipe.save_total_limit},")
        if recipe.load_best_model_at_end and recipe.loss_type == "nll" and not cuts and (recipe.save_steps == 0 or recipe.eval_steps
                                              and recipe.save_steps % recipe.eval_steps == 0):
            config += "\n    load_best_model_at_end=True,"
    config += "\n)"
    adapter_code = ""
    if adapter and not model.is_adapter:
        name, values = adapter
        adapter_code = f"{_all_steps(recipe)}\n\n{inspect.getsource(script_parts.adalora)}\n\n" if cuts else ""
        adapter_code += f"adapter = {name}({', '.join(f'{k}={v!r}' for k, v in values.items())})\n"
    stop = ""
    if held and recipe.early_stopping_patience:
        stop = f", callbacks=[EarlyStoppingCallback({recipe.early_stopping_patience})]"
        config = config.replace("\n)", "\n    metric_for_best_model=\"loss\",\n)")
        config = "from transformers import EarlyStoppingCallback\n\n" + config
    more = ", peft_config=adapter" if adapter_code else ""
    if own := optimizers.maker(recipe):
        made, options = own
        config = f"{inspect.getsource(made)}\n\n{config}"
        options = ", ".join(['"args": args', *(f'"{k}": {v!r}' for k, v in options.items())])
        more += f", optimizer_cls_and_kwargs=({made.__name__}, {{{options}}})"
    trainer = "adalora(SFTTrainer)" if cuts and adapter_code else "SFTTrainer"
    return (f"{config}\n{adapter_code}trainer = {trainer}(model, args, train_dataset=train, eval_dataset=held, "
            f"processing_class=tokenizer{more}{stop})\n{_cut(recipe, held)}{_end(adapter if adapter_code else None)}")


def _cut(recipe: Any, held: bool) -> str:
    """Lines that cut padding-free samples."""
    if not recipe.padding_free or recipe.packing:
        return ""
    lines = ["def cut(row):", f"    return {{k: v[:{recipe.max_length}] for k, v in row.items()}}", "", "",
             "trainer.train_dataset = trainer.train_dataset.map(cut)"]
    lines += ["trainer.eval_dataset = trainer.eval_dataset.map(cut)"] if held else []
    return "\n\n" + "\n".join(lines) + "\n"


def _end(adapter: tuple[str, dict[str, Any]] | None) -> str:
    """Training and saving. What an adapter that moves its base began with is subtracted from it."""
    if not adapter or adapter[1].get("init_lora_weights") not in ("pissa", "olora"):
        return "trainer.train()\ntrainer.save_model(\"output/final\")"
    return ("trainer.model.save_pretrained(\"output/start\")\ntrainer.train()\n"
            "trainer.model.save_pretrained(\"output/final\", path_initial_model_for_weight_conversion=\"output/start\")")


def _steps_code(recipe: Any) -> str:
    """Lines that set ``every``: a tenth of the run, as the studio counts it."""
    if recipe.eval_steps:
        return ""
    if recipe.max_steps > 0:
        return f"every = {max(1, -(-recipe.max_steps // 10))}\n"
    return f"{_all_steps(recipe)}every = max(1, math.ceil(steps / 10))  # ten validations in a run\n"


def _all_steps(recipe: Any) -> str:
    """The line that sets ``steps``, of the whole run."""
    if recipe.max_steps > 0:
        return f"steps = {recipe.max_steps}\n"
    per_epoch = f"math.ceil(len(train) / {recipe.per_device_train_batch_size})"
    if recipe.gradient_accumulation_steps > 1:
        per_epoch = f"math.ceil({per_epoch} / {recipe.gradient_accumulation_steps})"
    return f"steps = math.ceil({recipe.num_train_epochs} * {per_epoch})\n"
