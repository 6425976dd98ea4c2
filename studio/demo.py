"""``python launch.py demo``: the main job without a browser.

Fine-tunes the starter with LoRA on the shipped polite answers, draws the loss, asks base and tuned five held-out
questions, and fails if the held-out loss did not fall.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from studio import api, settings
from studio.errors import StudioError
from studio.recipe import read_values

PRESET = settings.PRESETS / "sft" / "first-try.yaml"
HELD_OUT = settings.DATASETS / "polite-heldout.jsonl"


def main(argv: list[str] | None = None) -> int:
    """Runs the demo; 0 if the tuned model is better on the held-out questions, 1 if not, 2 if it could not be run."""
    parser = argparse.ArgumentParser(prog="launch.py demo", description="Fine-tune, compare and chart without a "
                                     "browser.")
    parser.add_argument("--out", type=Path, help="folder for the charts (default: exports in the workspace)")
    try:
        return _demo(parser.parse_args(argv))
    except StudioError as err:
        print(f"{err.message} {err.hint}".strip())
        return 2


def _demo(args: argparse.Namespace) -> int:
    from studio.commands.run import watch

    began = time.monotonic()
    print("Fine-tuning the starter with LoRA on 200 polite answers.", flush=True)
    run = api.submit(read_values(PRESET) | {"name": "Demo", "sample_prompts": []})
    watch(run["id"])
    done = api.run(run["id"], details=True)
    if done["state"] != "succeeded":
        print(f"The run {done['state']}: {done['reason']} {done['hint'] or ''}".strip())
        return 2
    series, summary = api.poll(run["id"])["series"], done["summary"]
    out = args.out or settings.home() / "exports" / f"demo-{run['id']}"
    out.mkdir(parents=True, exist_ok=True)
    _html(series, out / "loss.html")
    _png(series, out / "loss.png")

    tuned = f"library:{done['artifacts'][0]['id']}"
    prompts = _prompts(5)
    print("\nFive questions that were not in the training data:\n")
    for prompt, base, better in zip(prompts, *_answers(["starter", tuned], prompts), strict=True):
        print(f"  {prompt}\n    base   {base}\n    tuned  {better}")
    before, after = summary["eval_loss_before"], summary["eval_loss"]
    print(f"\nHeld-out loss: base {before:.3f}, tuned {after:.3f}.")
    print(f"Loss curve: {out / 'loss.html'}\n            {out / 'loss.png'}")
    print(f"Took {time.monotonic() - began:.0f} s.")
    if not after < before:
        print("The held-out loss did not improve.")
        return 1
    return 0


def _prompts(count: int) -> list[str]:
    rows = [json.loads(line) for line in HELD_OUT.read_text("utf-8").splitlines() if line.strip()]
    step = max(1, len(rows) // count)
    return [row["messages"][0]["content"] for row in rows[::step][:count]]


def _answers(models: list[str], prompts: list[str]) -> list[list[str]]:
    """Greedy answers of each model, computed in another process."""
    from studio.jobs import probe

    return probe.call("studio.demo:answers", {"models": models, "prompts": prompts}, timeout=120)


def answers(models: list[str], prompts: list[str]) -> list[list[str]]:
    """Greedy answers of each model to each prompt. Imports torch."""
    from studio.library import refs
    from studio.trainers import load
    from studio.trainers.callbacks import answer

    load.quiet()
    found = []
    for name in models:
        ref = refs.resolve_model(name)
        found.append(answer(load.model(ref, "float32"), load.tokenizer(ref), prompts))
    return found


def _curves(series: dict[str, list]) -> list[tuple[str, list[int], list[float]]]:
    named = (("training", series.get("loss", [])), ("held-out", series.get("eval_loss", [])))
    return [(name, [p[0] for p in points], [p[1] for p in points]) for name, points in named if points]


def _html(series: dict[str, list], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure([go.Scatter(x=x, y=y, name=name, mode="lines" + ("+markers" if name == "held-out" else ""))
                        for name, x, y in _curves(series)])
    figure.update_layout(title="Loss of the starter on polite answers", xaxis_title="step", yaxis_title="loss",
                         template="plotly_white")
    figure.write_html(path, include_plotlyjs=True)


def _png(series: dict[str, list], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    for name, x, y in _curves(series):
        axes.plot(x, y, label=name, marker="o" if name == "held-out" else None)
    axes.set(title="Loss of the starter on polite answers", xlabel="step", ylabel="loss")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
