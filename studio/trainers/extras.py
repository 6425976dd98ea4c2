"""The checked table for every other field of TRL's config classes, from a list written once: no library is imported.

``python -m studio.trainers.extras`` writes ``trl_fields.json`` again from the installed TRL.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
import os
import re
import typing
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("trl_fields.json")

# Set by the studio itself, or able to send files, run code or leave the machine without the person seeing it.
RESERVED = {"output_dir", "run_name", "push_to_hub", "hub_model_id", "hub_token", "hub_strategy", "hub_private_repo",
            "hub_always_push", "hub_revision", "resume_from_checkpoint", "do_train", "do_eval", "do_predict",
            "use_cpu", "disable_tqdm", "dataset_kwargs", "dataset_text_field", "chat_template_path", "eval_strategy",
            "save_strategy", "logging_strategy", "save_only_model", "metric_for_best_model", "greater_is_better",
            "eval_on_start", "prediction_loss_only", "local_rank", "eos_token", "pad_token", "completion_only_loss",
            "logging_nan_inf_filter", "enable_jit_checkpoint", "trackio_space_id", "trackio_bucket_id",
            "trackio_static_space_id", "ignore_data_skip", "restore_callback_states_from_checkpoint",
            "remove_unused_columns", "shuffle_dataset", "project", "log_level", "log_level_replica",
            "truncation_mode", "model_init_kwargs", "ref_model_init_kwargs", "teacher_model_init_kwargs",}

# Every config class whose fields a recipe may set; ``trl.X`` or ``trl.experimental.name.X``.
CONFIGS = ("trl.SFTConfig", "trl.DPOConfig", "trl.KTOConfig", "trl.RewardConfig", "trl.GRPOConfig", "trl.RLOOConfig",
           "trl.experimental.orpo.ORPOConfig", "trl.experimental.cpo.CPOConfig",
           "trl.experimental.online_dpo.OnlineDPOConfig", "trl.experimental.gkd.GKDConfig",
           "trl.experimental.gold.GOLDConfig")
SHARED = "transformers.TrainingArguments"


@lru_cache(maxsize=32)
def table(config: str = "trl.SFTConfig") -> dict[str, dict[str, Any]]:
    """Name -> ``{"type", "help", "choices"?}`` of every field of a config class."""
    known = _tables()
    return known[SHARED] | known[config]


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    return json.loads(TABLE.read_text("utf-8"))


def problem(extra: dict[str, Any], recipe: type) -> str:
    """What is wrong with a table of extra settings, or an empty string. ``recipe.config`` names the config class."""
    fields, name_of = table(recipe.config), recipe.config.rpartition(".")[2]
    for name, value in extra.items():
        if name in recipe.model_fields:
            return f"'{name}' has its own field above; set it there"
        if name in RESERVED:
            return f"'{name}' is set by the studio"
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            return f"{name_of} has no field '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
        if why := _mismatch(value, fields[name]["type"]) or unknown(name, value, recipe.config):
            return f"'{name}' {why}; it is {value!r}"
    return ""


def unknown(name: str, value: Any, config: str = "trl.SFTConfig") -> str:
    """Why the library does not know this value of a field that has a list of them, or an empty string."""
    known = table(config)[name].get("choices", [])
    if not known or value in known:
        return ""
    near = difflib.get_close_matches(str(value), known, n=1)
    if near:
        return f"is not one that the library knows; did you mean '{near[0]}'?"
    return f"must be one of {', '.join(known[:12])}"


def _mismatch(value: Any, kind: str) -> str:
    """Why ``value`` is not of the annotated type ``kind``, or an empty string."""
    words = {w.strip() for w in kind.replace("Optional[", "").replace("]", "").split("|")}
    if value is None:
        return "" if "None" in words else "must have a value"
    known = {"bool": bool, "int": int, "float": (int, float), "str": str, "dict": dict, "list": list}
    allowed = tuple(known[w.split("[")[0]] for w in words if w.split("[")[0] in known)
    flat = tuple(t for a in allowed for t in (a if isinstance(a, tuple) else (a,)))
    if not flat or (isinstance(value, flat) and not (isinstance(value, bool) and bool not in flat)):
        return ""
    return "must be " + " or ".join(sorted(w for w in words if w != "None"))


def read_library() -> dict[str, dict[str, dict[str, Any]]]:
    """The tables as the installed libraries have them: what all share, then each config's own. Imports TRL."""
    import importlib

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for name in (SHARED, *CONFIGS):
        module, _, cls = name.rpartition(".")
        found = _fields(getattr(importlib.import_module(module), cls))
        shared = made.get(SHARED, {})
        made[name] = {key: entry for key, entry in found.items() if shared.get(key) != entry}
    return made


def _fields(config: type) -> dict[str, dict[str, Any]]:
    made = {}
    for item in dataclasses.fields(config):
        if not item.init or item.name.startswith("_"):
            continue
        kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
        if not isinstance(item.type, (str, type)):
            kind = str(item.type)
        text = re.sub(r"\s+", " ", str(item.metadata.get("help", ""))).replace("`", "").strip()
        made[item.name] = {"type": kind.replace("typing.", "").replace("NoneType", "None"), "help": text[:300]}
        for part in typing.get_args(item.type):
            if isinstance(part, type) and issubclass(part, enum.Enum):
                made[item.name]["choices"] = [str(member.value) for member in part]
    return made


if __name__ == "__main__":
    TABLE.write_text(json.dumps(read_library(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    print(f"{TABLE}: {', '.join(f'{len(fields)} of {name}' for name, fields in read_library().items())}")
