"""Test-time compute: how much better a model answers when it may answer several times, and what that costs.

Each question is answered ``draws`` times. From that one pool come the curves: pass@k (one of k is right), best-of-n (a reward
picks, Stiennon et al. 2020; Cobbe et al. 2021) and self-consistency (the majority, Wang et al. 2022), against the tokens written.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.datasets import checking, llm
from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST, MOST_DRAWS = 8, 256


class _Models(Recipe):
    """Stands before the fields of a check, so that the form begins with it."""

    models: list[str] = field([], "Models", "The models that answer: models of yours, hub:owner/name, or addresses of servers, "
                              "http://host:port/v1#model.", widget="models", max_length=MOST)


class BudgetRecipe(checking.CheckFields, _Models):
    """Which models, on what, with how many answers."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "budget"

    dataset: str = field("shipped:sums", "Dataset", "Questions whose answers can be checked.", widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by itself.",
                                    widget="hidden")
    samples: int = field(32, "Questions", "How many, drawn once by the seed. More give smaller errors: four times as many halve them.",
                         ge=2, le=10_000)
    ways: list[Literal["pass_at_k", "self_consistency", "best_of_n"]] = field(
        ["pass_at_k", "self_consistency"], "Ways to choose", "Of several answers: whether any is right, which is the most that choosing could reach; the one "
        "that most give; the one that a reward likes best.",
        choices={"pass_at_k": "pass@k: any is right", "self_consistency": "Self-consistency: the majority",
                 "best_of_n": "Best of n: by a reward"})
    n: list[int] = field([1, 2, 4, 8, 16], "Budgets", "How many answers a question may take, one number a line.", widget="lines",
                         min_length=1, max_length=20)
    draws: int = field(0, "Answers drawn", "How many answers to each question are written; every budget is estimated from all of them. "
                       "More make the curve surer. 0 = as many as the largest budget.", unit="a question", ge=0, le=MOST_DRAWS)
    greedy: bool = field(True, "The likeliest answer too", "Answer each question once at temperature 0 as well: what the model does "
                         "without any of this.")
    reward_model: str = field("", "Reward model", "What best-of-n picks by: a model with one number as its answer, made in the Align tab, a "
                              "folder, or hub:owner/name.", widget="model", max_length=1000)
    rewards: list[dict[str, Any]] = field([], "Rewards", "Other things that best-of-n picks by, beside the reward model or in its place. One "
                                          "that knows the right answer shows what a perfect one would reach.", widget="rewards",
                                          max_length=20)
    vote_by: Literal["number", "words", "pattern"] = field(
        "number", "Votes are", "What of an answer is compared in the majority: the number it ends with, its words without case and "
        "punctuation, or what a pattern finds in it.",
        choices={"number": "Its last number", "words": "Its words", "pattern": "What a pattern finds"})
    vote_pattern: str = field("", "Pattern of a vote", "A regular expression; its first group, or all of it, is the vote. The last place it "
                              "is found at counts.", max_length=2000, when={"vote_by": ["pattern"]})
    temperature: float = field(0.8, "Temperature", "How freely words are drawn. At 0 all answers are the same and more of them are worth "
                               "nothing; 0.6 to 1 is usual.", gt=0, le=2)
    top_p: float = field(0.95, "Top p", "Chooses among the likeliest words that together have this probability.", group="advanced", gt=0,
                         le=1)
    max_new_tokens: int = field(256, "Longest answer", "Answers are cut at so many tokens, and checked as they are then.", unit="tokens",
                                ge=1, le=131_072)
    seed: int = field(0, "Seed", "Which questions are drawn, and which answers.", group="advanced", ge=0, le=2**31 - 1)
    concurrency: int = field(4, "At once", "Requests under way together. Servers answer many; a model of this computer gains little.",
                             group="advanced", ge=1, le=64)
    timeout: float = field(300, "Longest wait", "A request without an answer by then is tried again.", group="advanced", unit="s", ge=1,
                           le=3600)
    price_in: float = field(0.0, "Price, read", "Of a million tokens that a model reads; 0 = free.", group="advanced", ge=0, le=10_000)
    price_out: float = field(0.0, "Price, written", "Of a million tokens that a model writes; 0 = free.", group="advanced", ge=0,
                             le=10_000)

    @property
    def budgets(self) -> list[int]:
        """The budgets from small to large, each once."""
        return sorted(set(self.n))

    @property
    def picks(self) -> list[dict[str, Any]]:
        """All that best-of-n picks by, as rewards."""
        return [*self.rewards, *([{"name": "reward_model", "reward_model": self.reward_model}] if self.reward_model else [])]

    @property
    def drawn(self) -> int:
        """Answers to each question."""
        return self.draws or max(self.n)


class Budget(Method):
    """Accuracy against budget."""

    title = "More answers"
    summary = "How accurate a model gets with several answers a question: pass@k, the majority, the best by a reward; against tokens."
    paper = "https://arxiv.org/abs/2408.03314"
    Recipe = BudgetRecipe

    @classmethod
    def check(cls, recipe: BudgetRecipe) -> None:
        from studio import rewards
        from studio.datasets import formats, rewards as scoring, verify
        from studio.evals import asking

        asking.check_models(recipe.models)
        formats.check(recipe.dataset, recipe.columns, purpose="as_is")
        if not recipe.ways:
            raise StudioError("No way to choose is ticked.", "Tick at least one.", "ways")
        if wrong := [one for one in recipe.n if not 1 <= one <= MOST_DRAWS]:
            raise StudioError(f"A budget is 1 to {MOST_DRAWS} answers, not {wrong[0]}.", "For example 1, 2, 4, 8 and 16.", "n")
        if recipe.drawn < max(recipe.n):
            raise StudioError(f"{recipe.drawn} answers cannot fill a budget of {max(recipe.n)}.",
                              f"Draw at least {max(recipe.n)}, or leave it at 0.", "draws")
        if "best_of_n" in recipe.ways:
            if not recipe.picks:
                raise StudioError("Best of n needs something to pick by.", "Choose a reward model, add a reward, or untick it.",
                                  "reward_model")
            if recipe.reward_model:
                scoring.check(recipe.reward_model)
            rewards.check(recipe.picks)
        if recipe.vote_by == "pattern" and "self_consistency" in recipe.ways:
            if not recipe.vote_pattern:
                raise StudioError("There is no pattern for the votes.", "For example: answer is (\\w+)", "vote_pattern")
            try:
                verify.compiled(recipe.vote_pattern)
            except StudioError as err:
                raise StudioError(err.message, err.hint, "vote_pattern") from err
        if recipe.check == "judge" and not recipe.judge:
            raise StudioError("No judge is chosen.", "Choose the model that says which answers are right.", "judge")
        checking.refuse(recipe)

    @classmethod
    def estimate(cls, recipe: BudgetRecipe) -> Estimate:
        """How often models are asked; how long that takes depends on their answers."""
        if not recipe.n:
            return Estimate()
        count = recipe.samples * len(recipe.models) * (recipe.drawn + recipe.greedy)
        notes = [f"{count:,} answers of at most {recipe.max_new_tokens:,} tokens are written."]
        if "best_of_n" in recipe.ways:
            notes.append(f"The rewards score {recipe.samples * len(recipe.models) * recipe.drawn:,} of them; what that reads is not among the "
                         "tokens of the curve.")
        return Estimate(notes=notes)

    @classmethod
    def run(cls, recipe: BudgetRecipe, ctx: Any) -> dict[str, Any] | None:
        from studio.evals import budget_work

        try:
            return budget_work.run(recipe, ctx)
        except llm.Stopped:
            return None
