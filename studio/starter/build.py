"""Rebuilds the starter model: `python -m studio.starter.build` writes the corpus, trains, scores and writes the card.

With `--run ID` an ended pretraining run is scored and installed instead of training a new one.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError

from . import corpus, score, skills

PRESET = settings.PRESETS / "pretrain" / "starter.yaml"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "chat_template.jinja")
LIMIT_BYTES = 8_000_000
_MEANING = {
    "people": "memorised facts about 20 residents, in a phrasing never used for that fact",
    "animals": "sounds, homes, food and legs of animals, likewise", "colours": "usual colours of things, likewise",
    "places": "what one does where, likewise", "opposites": "opposites of words, likewise",
    "sentiment": "happy or sad, unseen sentences", "paragraph": "a question about an unseen paragraph",
    "repeat": "saying 3 to 10 unseen random words again", "counting": "unseen number pairs and unseen lists of things",
    "sums": "sums up to 20 of pairs unseen in either order", "identity": "its name from an unseen system prompt",
    "one_word": "facts in one word, because the system prompt says so",
    "unknown": "says that it does not know, unseen questions", "polite": "the same facts in a polite style",
    "lumi": "names in the invented language Lumi", "harder_sums": "sums of two-digit numbers",
}


def train() -> str:
    """Writes the corpus into the workspace, runs the preset through the command line and returns the run's id.

    Raises:
        StudioError: the run did not succeed.
    """
    from studio import api

    corpus.write_workspace()
    done = subprocess.run([sys.executable, "-m", "studio.cli", "run", str(PRESET)], cwd=settings.ROOT, check=False)
    newest = api.runs(kind="pretrain", limit=1)
    if done.returncode or not newest or newest[0]["state"] != "succeeded":
        raise StudioError("The training of the starter did not succeed.", "See its log: studio show last")
    return newest[0]["id"]


def install(run_id: str, target: Path) -> dict[str, Any]:
    """Copies a run's model into `target`, scores it there, writes its card and returns the scores.

    Raises:
        StudioError: the run has no result, or the model is larger than the project allows.
    """
    from studio import api

    output = settings.run_dir(run_id) / "output"
    missing = [name for name in FILES if not (output / name).is_file()]
    if missing:
        raise StudioError(f"Run {run_id} has no finished model: {', '.join(missing)} missing.",
                          "Wait until it has ended.")
    size = sum((output / name).stat().st_size for name in FILES)
    if size > LIMIT_BYTES:
        raise StudioError(f"The model takes {size / 1e6:.1f} MB; the starter may take {LIMIT_BYTES / 1e6:.0f}.",
                          "Choose fewer layers or a smaller vocabulary.")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(output / name, target / name)
    result = score.report(target, per_skill=200)
    (target / "README.md").write_text(card(api.run(run_id)["summary"], result, size), encoding="utf-8")
    return result


def card(summary: dict[str, Any], result: dict[str, Any], size: int) -> str:
    """The model card, from the run's summary and the measured scores."""
    recipe = PRESET.read_text(encoding="utf-8").rstrip()

    def rows(wanted: bool) -> list[str]:
        return [f"| {skill} | {_MEANING[skill]} | {result['questions'][skill]} | {value:.1%} |"
                for skill, value in result["accuracy"].items() if (skill in skills.UNTAUGHT) is not wanted]

    head = ["| skill | asked | questions | exact answers |", "|---|---|---|---|"]
    return "\n".join([
        "---", "library_name: transformers", "pipeline_tag: text-generation", "language: en",
        "license: apache-2.0", "---", "",
        "# Starter", "",
        f"A Llama-type model of {summary['parameters']:,} parameters ({size / 1e6:.1f} MB, bfloat16), trained from",
        "scratch on a small closed world in plain English that a seeded script writes: people, animals, colours,",
        "places, opposites, counting, small sums, short stories and questions about a paragraph. It knows nothing",
        "else. It is there to be fine-tuned within a minute on a CPU, and to be scored exactly.", "",
        f"- Held-out loss {result['loss']:.3f} nats a token, perplexity {result['perplexity']:.2f}: 500 rows of the"
        " world with combinations that are in no training corpus.",
        f"- Trained in {summary['seconds'] / 60:.0f} minutes on one thread of a shared CPU ({platform.machine()}):"
        f" {summary['steps']:,} steps, {summary['tokens'] / 1e6:.1f} M tokens.",
        f"- Corpus seed {corpus.SEED}, {corpus.ROWS:,} rows; scores below with question seed {result['seed']}, greedy"
        " answers, only exact matches count.", "",
        "## What it was taught", "", *head, *rows(True), "",
        "## What it was not taught, for fine-tuning to teach", "", *head, *rows(False), "",
        "The shipped datasets `polite`, `lumi-names` and `harder-sums` are for these.", "",
        "## Rebuild", "", "```", "python -m studio.starter.build", "```", "",
        "Score any model or adapter in the same way:"
        " `python -m studio.starter.score MODEL_DIR [--adapter DIR] [--json]`.", "",
        "## Recipe", "", "```yaml", recipe, "```", "",
    ])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Rebuild the starter model, or install an ended run as the starter.")
    parser.add_argument("--run", help="id of an ended pretraining run to install; default: train a new one")
    parser.add_argument("--out", type=Path, default=settings.STARTER, help="folder to write the model to")
    args = parser.parse_args(argv)
    try:
        result = install(args.run or train(), args.out)
    except StudioError as err:
        print(f"{err.message} {err.hint}", file=sys.stderr)
        return 1
    print(f"held-out perplexity {result['perplexity']}; written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
