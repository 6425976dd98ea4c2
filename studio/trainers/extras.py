"""The checked table for every other field of TRL's SFTConfig, from a list written once: no library is imported.

``python -m studio.trainers.extras`` writes ``trl_fields.json`` again from the installed TRL.
"""

from __future__ import annotations

import difflib
import json
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
            "truncation_mode",}


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, Any]]:
    """Name -> ``{"type", "help", "choices"?}`` of every SFTConfig field."""
    return json.loads(TABLE.read_text("utf-8"))


def problem(extra: dict[str, Any], recipe: type) -> str:
    """What is wrong with a table of extra settings, or an empty string."""
    for name, value in extra.items():
        if name in recipe.model_fields:
            return f"'{name}' has its own field above; set it there"
        if name in RESERVED:
            return f"'{name}' is set by the studio"
        if name not in table():
            near = difflib.get_close_matches(name, table(), n=1)
            return f"SFTConfig has no field '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
        if why := _mismatch(value, table()[name]["type"]) or unknown(name, value):
            return f"'{name}' {why}; it is {value!r}"
    return ""


def unknown(name: str, value: Any) -> str:
    """Why the library does not know this value of a field that has a list of them, or an empty string."""
    known = table()[name].get("choices", [])
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


def read_library() -> dict[str, dict[str, Any]]:
    """The table as the installed TRL has it. Imports TRL."""
    import dataclasses
    import enum
    import re
    import typing

    from trl import SFTConfig

    made = {}
    for item in dataclasses.fields(SFTConfig):
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
    print(f"{TABLE}: {len(table())} fields")
