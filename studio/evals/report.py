"""eval/report: chosen runs as one HTML file that loads nothing, a PDF and a Markdown model card."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from studio import settings
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.method import Method
from studio.recipe import Recipe, field

FORMATS = {"html": "report.html", "pdf": "report.pdf", "card": "README.md"}
FILE, VERSION = "report.json", 1
MOST_RUNS = 40


class ReportRecipe(Recipe):
    """What a report tells of."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "report"

    runs: list[str] = field([], "Runs", "Trainings, evaluations and error analyses to tell of. The trainings behind evaluated models are "
                            "found by themselves.", max_length=MOST_RUNS, placeholder="run:rabcdefghij")
    model: str = field("", "Model", "Whom the report is about; left empty, what the newest of the runs made.", widget="model", max_length=1000)
    title: str = field("", "Title", "Stands at the top; left empty, the name of the model.", max_length=120)
    notes: str = field("", "Notes", "What readers should know besides: what it is for, its limits, its licence. Plain text.", widget="text",
                       max_length=20_000)
    samples: int = field(6, "Samples", "Answers of each evaluation that are shown side by side, drawn by the seed.", unit="questions", ge=0,
                         le=200)
    flips: int = field(4, "Changed answers", "Examples of answers that got worse, and as many that got better.", unit="answers", ge=0, le=50)
    formats: list[Literal["html", "pdf", "card"]] = field(
        ["html", "pdf", "card"], "Files", "What is written. The HTML file holds everything; the model card has no pictures.",
        choices={"html": "One HTML file", "pdf": "PDF", "card": "Model card (Markdown)"})
    ancestors: bool = field(True, "Tell of ancestors", "Tell also of the runs that made the models before.", group="advanced")
    seed: int = field(0, "Seed", "Which samples are shown.", group="advanced", ge=0, le=2**31 - 1)

    @field_validator("runs")
    @classmethod
    def _references(cls, value: list[str]) -> list[str]:
        return [run if not run or ":" in run else f"run:{run}" for run in value]


class Report(Method):
    """Everything about some runs in a file."""

    title = "Report"
    summary = "Writes up chosen runs: process, settings and why, curves, scores, differences, errors and samples; as HTML, PDF and model card."
    Recipe = ReportRecipe
    others: ClassVar = {"runs": "run"}  # on a Space they must be one's own

    @classmethod
    def check(cls, recipe: ReportRecipe) -> None:
        from studio.jobs import store

        if not recipe.runs:
            raise StudioError("No run is chosen.", "Choose a training or an evaluation.", "runs")
        if not recipe.formats:
            raise StudioError("No file is chosen.", "Choose at least one.", "formats")
        for ref in recipe.runs:
            try:
                row = store.get(ref.removeprefix("run:"))
            except StudioError as err:
                raise StudioError(err.message, err.hint, "runs") from err
            if not store.is_final(row["state"]):
                raise StudioError(f"'{row['name'] or row['id']}' still goes on.", "Wait for its end, or leave it out.", "runs")

    @classmethod
    def run(cls, recipe: ReportRecipe, ctx: Any) -> dict[str, Any]:
        from studio.evals.reporting import document, facts

        found = facts.gathered([ref.removeprefix("run:") for ref in recipe.runs], recipe.model, recipe.ancestors)
        made = document.made(found, recipe, warn=lambda text: ctx.warning("report", text))
        ctx.log(f"{len(found.runs)} runs, {len(found.evaluations)} evaluations, {len(made.sections)} sections.")
        written, facts_of = [], {}
        for number, name in enumerate(recipe.formats):
            if ctx.stop_requested:
                return {}
            facts_of |= _write(ctx.output / FORMATS[name], name, made)
            written.append(FORMATS[name])
            ctx.progress(number + 1, len(recipe.formats))
        if missing := facts_of.get("missing"):
            ctx.warning("letters", f"The PDF shows {len(missing)} kinds of letters as boxes ({missing[:12]}), because no font here has them.",
                        "The HTML file and the model card have them all.")
        write_json(ctx.output / FILE, {"version": VERSION, "title": made.title, "files": written, "made": time.time(), "pages": facts_of.get("pages")})
        ctx.artifact("file", ctx.output, recipe.name or f"Report: {made.title}"[:80], {"method": "eval/report", "files": len(written)},
                     [(ref, "reported") for ref in recipe.runs])
        return {"title": made.title, "files": written, "sections": [section.title for section in made.sections if section.level == 1],
                "pages": facts_of.get("pages")}


def _write(path: Path, name: str, made: Any) -> dict[str, Any]:
    """One of the files, under its name only when it is whole."""
    from studio.evals.reporting import html, markdown, pdf

    part, told = path.with_name(f".{path.name}.part"), {}
    if name == "pdf":
        told = pdf.write(part, made.title, made.about, made.sections, made.footer)
    else:
        text = html.page(made.title, made.about, made.sections, made.footer) if name == "html" else markdown.page(
            made.front, made.title, made.about, made.sections, made.footer)
        part.write_text(text, "utf-8", errors="replace")
    part.replace(path)
    return told


def read(run_id: str) -> dict[str, Any]:
    """``{title, files: [paths], made, pages}`` of a finished report.

    Raises:
        StudioError: there is none.
    """
    folder = settings.run_dir(run_id) / "output"
    found = read_json(folder / FILE)
    if not found or found.get("version") != VERSION:
        raise StudioError("This run has no report.", "Choose a finished one, or write it again.", "run")
    return found | {"files": [folder / name for name in found["files"] if (folder / name).is_file()]}
