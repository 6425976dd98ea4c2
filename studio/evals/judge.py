"""A model as the judge of other models' answers: a mark by a rubric, the better of two, or a mark beside the right answer.

How far such a judge is to be believed is told with every result: its agreement with people's votes in the arena, and whether the
place of an answer, its length or being its own sways it (Zheng et al. 2023, https://arxiv.org/abs/2306.05685).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.datasets import llm
from studio.errors import StudioError
from studio.evals import judging
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST = 16  # models of one run
_ANSWERED, _ASKED, _PAIRS = {"answers_from": ["models"]}, {"answers_from": ["models", "columns"]}, {"mode": ["pairwise"]}


class JudgeRecipe(Recipe):
    """Whose answers, to what, and who judges them how."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "judge"

    mode: Literal["single", "pairwise", "reference"] = field(
        "single", "Way of judging", "A mark from 1 to 10 for each answer; the better of two, which small differences show up in "
        "better; or a mark beside the right answer, for questions that have one.",
        choices={"single": "A mark for each answer", "pairwise": "The better of two", "reference": "A mark beside the right answer"})
    judge: str = field("", "Judge", "The model that judges: one of yours, hub:owner/name, or the address of an OpenAI-compatible server, "
                       "http://host:port/v1. It should be clearly stronger than what it judges.", widget="model", max_length=1000)
    judge_model: str = field("", "Model at the judge's address", "Which of that server's models judges. Left empty, the first it serves.",
                             max_length=300, group="advanced")
    answers_from: Literal["models", "run", "columns", "votes"] = field(
        "models", "Answers from", "Models that answer now; the answers of an evaluation that is finished; columns of a dataset; or the "
        "battles of the arena on which people voted, which also says how far the judge agrees with them.",
        choices={"models": "Models, asked now", "run": "A finished evaluation", "columns": "Columns of a dataset",
                 "votes": "Voted battles of the arena"})
    models: list[str] = field([], "Models", "Whose answers are judged: models of yours, hub:owner/name, or addresses, "
                              "http://host:port/v1#model. Comparing needs two.", widget="models", max_length=MOST, when=_ANSWERED)
    run: str = field("", "Evaluation", "The number of the finished run whose answers are judged, as it stands in its address.",
                     max_length=60, when={"answers_from": ["run"]})
    task: str = field("", "Task of it", "Only the answers to this task of that run; left empty, to all its tasks.", max_length=200,
                      when={"answers_from": ["run"]})
    arena_prompts: bool = field(False, "The arena's prompts", "Ask what the arena asks, in place of a dataset.", when=_ANSWERED)
    dataset: str = field("shipped:polite-heldout", "Dataset", "Questions; the right answers too, for judging beside them.",
                         widget="dataset", max_length=1000, when=_ASKED | {"arena_prompts": [False]})
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by itself.",
                                    widget="hidden")
    answer_columns: list[str] = field([], "Columns with answers", "One a line: chosen, rejected, answer (the row's own), or any other "
                                      "column of the dataset. Each is judged like a model.", widget="lines", max_length=MOST,
                                      when={"answers_from": ["columns"]})
    samples: int = field(50, "Questions", "How many, drawn once by the seed. More give smaller errors: four times as many halve them.",
                         ge=2, le=10_000)
    rubric: str = field("", "Rubric", "What makes a good answer, in your words. Left empty: correct, complete, to the point, clear.",
                        widget="text", max_length=20_000)
    both_orders: bool = field(True, "Both orders", "Show each pair twice, the second time turned round. It costs twice as much and "
                              "takes out what the mere place of an answer does; it also measures that.", when=_PAIRS)
    tie_rule: Literal["tie", "average", "drop"] = field(
        "tie", "Where the orders disagree", "What counts when the judge changes its mind with the order: a tie is the careful choice and "
        "that of MT-Bench; half a win each way keeps a win beside a tie; left out counts clear verdicts alone.",
        choices=dict(judging.RULES), when=_PAIRS | {"both_orders": [True]})
    against: Literal["all", "first"] = field(
        "all", "Who meets whom", "Every two models, or each against the first one alone, which costs less with many models.",
        choices={"all": "Every two", "first": "All against the first"}, when=_PAIRS)
    show_reference: bool = field(False, "Show the right answer", "The judge sees the row's own answer beside the two. It helps a judge "
                                 "that could not solve the task itself.", when=_PAIRS)
    votes: int = field(100, "Compare with people on", "So many battles of the arena on which people voted are judged as well, to say how "
                       "far this judge agrees with people; 0 = none. Where nobody voted yet it costs nothing.", unit="battles", ge=0,
                       le=10_000, when={"answers_from": ["models", "run", "columns"]})
    temperature: float = field(0.0, "Temperature", "How freely the models choose their words: 0 always takes the likeliest, so that "
                               "answers repeat. The judge always has 0.", group="advanced", ge=0, le=2, when=_ANSWERED)
    top_p: float = field(1.0, "Top p", "The models choose among the likeliest words that together have this probability.",
                         group="advanced", gt=0, le=1, when=_ANSWERED)
    max_new_tokens: int = field(512, "Longest answer", "Answers are cut at so many tokens, and judged as they are then.", group="advanced",
                                unit="tokens", ge=1, le=131_072, when=_ANSWERED)
    judge_tokens: int = field(768, "Longest judgement", "A judge that thinks aloud first needs more.", group="advanced", unit="tokens",
                              ge=8, le=131_072)
    seed: int = field(0, "Seed", "Which questions are drawn, and which order where only one is shown.", group="advanced", ge=0, le=2**31 - 1)
    concurrency: int = field(4, "At once", "Requests under way together. Servers answer many; a model of this computer gains little.",
                             group="advanced", ge=1, le=64)
    timeout: float = field(300, "Longest wait", "A request without an answer by then is tried again.", group="advanced", unit="s", ge=1,
                           le=3600)
    price_in: float = field(0.0, "Price, read", "Of a million tokens that the judge reads; 0 = free.", group="advanced", ge=0, le=10_000)
    price_out: float = field(0.0, "Price, written", "Of a million tokens that the judge writes; 0 = free.", group="advanced", ge=0,
                             le=10_000)

    def refers_to(self) -> list[tuple[str, str, str]]:
        found = [one for one in super().refers_to() if self.answers_from in ("models", "columns") or one[0] not in ("models", "dataset")]
        return [*found, *([("run", f"run:{self.run}", "dataset")] if self.answers_from == "run" and self.run else [])]


class Judge(Method):
    """Marks or comparisons by a model."""

    title = "LLM judge"
    summary = "A model marks answers by a rubric or says which of two is better, with its agreement with people and its biases."
    paper = "https://arxiv.org/abs/2306.05685"
    Recipe = JudgeRecipe

    @classmethod
    def check(cls, recipe: JudgeRecipe) -> None:
        from studio.datasets import formats
        from studio.evals import asking, judge_sources

        if not recipe.judge:
            raise StudioError("No judge is chosen.", "Choose a model, or an address with a model behind it.", "judge")
        asking.check_models([recipe.judge], "judge")
        if recipe.answers_from == "models":
            asking.check_models(recipe.models)
            if recipe.mode == "pairwise" and len(recipe.models) < 2:
                raise StudioError("Comparing needs two models.", "Choose another one, or give each answer a mark.", "models")
            if recipe.arena_prompts:
                judge_sources.arena_prompts()
            else:
                formats.check(recipe.dataset, recipe.columns, purpose="as_is")
        elif recipe.answers_from == "columns":
            formats.check(recipe.dataset, recipe.columns, purpose="as_is")
            wanted = 2 if recipe.mode == "pairwise" else 1
            if len(set(recipe.answer_columns)) < max(wanted, len(recipe.answer_columns)):
                raise StudioError(f"{'Comparing needs two columns' if wanted == 2 else 'No column is named'}, each once.",
                                  "For example chosen and rejected, one a line.", "answer_columns")
        elif recipe.answers_from == "run":
            judge_sources.opened(recipe.run, recipe.task)
        elif recipe.mode == "reference":
            raise StudioError("Battles of the arena have no right answers to judge beside.", "Give marks, or compare the two.", "mode")
        elif not judge_sources.voted(None):
            raise StudioError("Nobody voted in the arena yet.", "Vote on some battles in the Chat tab, or choose other answers.",
                              "answers_from")

    @classmethod
    def estimate(cls, recipe: JudgeRecipe) -> Estimate:
        """How often models are asked; what a server takes is not known before."""
        from studio.evals import judge_sources

        count, models = judge_sources.size(recipe)
        pairs = models - 1 if recipe.against == "first" else models * (models - 1) // 2
        each = (pairs * (2 if recipe.both_orders else 1)) if recipe.mode == "pairwise" else models
        notes = [f"At most {count * each:,} judgements of {count:,} questions, more where the judge does not answer in form."]
        if recipe.answers_from == "models":
            notes.insert(0, f"{count * models:,} answers are written first.")
        if recipe.judge == "starter":
            notes.append("The starter is far too small to judge. Choose a larger model or a server.")
        return Estimate(notes=notes)

    @classmethod
    def run(cls, recipe: JudgeRecipe, ctx: Any) -> dict[str, Any] | None:
        from studio.evals import judge_work

        try:
            return judge_work.run(recipe, ctx)
        except llm.Stopped:
            return None
