"""A group of failures as a dataset: the questions with their right answers, or the wrong answers beside them as pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.evals.kinds import alternatives

SHAPES = {"messages": "questions with the right answers, to fine-tune on",
          "preference": "the right answer preferred to the model's own wrong one, to align with"}


def rows(failures: list[dict[str, Any]], shape: str = "messages") -> tuple[list[dict[str, Any]], int]:
    """(rows, questions left out because their right answer is not known, or because no wrong one is).

    The same question with the same answers comes once. A row carries the task and the tags of its question.
    """
    made: dict[str, dict[str, Any]] = {}
    left = 0
    for line in failures:
        right = next(iter(alternatives(line["target"])), "")
        asked = line.get("messages") or [{"role": "user", "content": line["question"]}]
        tags = {"task": line["task"]} | line["tags"]
        wrong = dict.fromkeys(answer["answer"].strip() for answer in line["answers"] if answer["failed"]) if shape == "preference" else {}
        found = []
        if right and shape == "messages":
            found = [{"messages": [*asked, {"role": "assistant", "content": right}], "tags": tags}]
        elif right:
            found = [{"prompt": asked, "chosen": [{"role": "assistant", "content": right}],
                      "rejected": [{"role": "assistant", "content": answer}], "tags": tags} for answer in wrong if answer and answer != right]
        left += not found
        made |= {json.dumps({key: value for key, value in row.items() if key != "tags"}, sort_keys=True): row for row in found}
    return list(made.values()), left


def written(folder: Path, made: list[dict[str, Any]], left: int, step: dict[str, Any]) -> Any:
    """A dataset version of these rows in ``folder``."""
    from studio.datasets.version import Writer

    with Writer(folder, {"missing_answer": "the right answer is not known, or is what was said"}) as out:
        for row in made:
            out.add({key: value for key, value in row.items() if key != "tags"}, "evaluation", tags=row["tags"])
        if left:
            out.reject("missing_answer", source="evaluation", count=left)
        return out.close(step)
