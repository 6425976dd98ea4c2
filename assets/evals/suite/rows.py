"""What the tasks of this folder share. lm-evaluation-harness imports it beside their YAML files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def of(file: str, **_: Any) -> Any:
    """The questions of a JSONL file of this folder; those marked as a shot only serve as examples."""
    from datasets import Dataset, DatasetDict

    rows = [json.loads(line) for line in (Path(__file__).parent / file).read_text("utf-8").splitlines()]
    parts = {"test": [row for row in rows if not row.get("shot")], "shots": [row for row in rows if row.pop("shot", None)]}
    return DatasetDict({name: Dataset.from_list(part) for name, part in parts.items() if part})


def polite(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The style, the fact in it, and both word for word."""
    said = results[0].strip()
    return {"polite": float(said.startswith("Of course!") and said.endswith("Is there anything else?")),
            "fact": float(doc["fact"].rstrip(".") in said), "exact_match": float(said == doc["answer"])}


def word(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the rule was kept, and whether the answer is right."""
    said = results[0].strip()
    kept = len(re.findall(r"\w+", said)) == 1 if doc["tags"]["rule"] == "one word" else doc["answer"].split()[-1] in said
    return {"followed": float(kept), "exact_match": float(said == doc["answer"])}
