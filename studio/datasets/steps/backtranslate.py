"""Instruction back-translation: good texts become the answers of instructions that a model writes for them.

After Li et al., https://arxiv.org/abs/2308.06259: every text is taken as an answer, an instruction is written that it
answers (self-augmentation), and the model rates each pair from 1 to 5 (self-curation); only the good ones are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studio.datasets import llm
from studio.datasets.generate import (TEXTS, Asker, Bad, Generation, Job, Made, MakeRecipe, MakeStep, chat, exchange,
                                      rows_of)
from studio.datasets.generate_text import plain, rating, unquoted, words
from studio.datasets.version import Version, Writer
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

INSTRUCTION = """Below is a text. Imagine that it is the answer of an excellent assistant. Write the message of the \
person it answers: clear, complete, and such that this very text is the best answer to it. Do not quote long pieces \
of the text.{language}

<text>
{text}
</text>

Write that message and nothing else."""

RATE = """Rate how well an answer serves as an example for an assistant.

Instruction:
{instruction}

Answer:
{answer}

5 = a perfect answer of an expert assistant: to the point, complete, nothing off the subject
4 = a good answer with a small weakness in wording or focus
3 = it helps, but was written for something else: another voice, missing context, parts of a web page
2 = it touches the subject and misses what was asked
1 = it is no answer: off the subject, a fragment, advertising, or empty

Write one sentence why, then on a line of its own: Score: <number>"""


class BacktranslateRecipe(MakeRecipe):
    method = "backtranslate"

    least_score: int = field(4, "Least score", "Pairs that the model itself rates lower are dropped, 1 to 5; 0 does "
                             "not rate. The paper keeps only those rated 5 (4.5 on average).", ge=0, le=5)
    shortest: int = field(5, "Shortest text", "Texts of fewer words are no answer worth learning.", unit="words", ge=1,
                          le=10_000)
    longest: int = field(1500, "Longest text", "Longer texts are left out.", unit="words", ge=10, le=100_000)
    system_prompt: str = field("", "System prompt", "Put at the head of every new row, e.g. that of an assistant that "
                               "answers with texts of this kind.", widget="text", group="advanced", max_length=20_000)
    language: str = field("", "Language", "Of the instructions. Left empty, that of the text.", group="advanced",
                          max_length=60)


class Backtranslate(MakeStep):
    title = "Instructions for texts"
    summary = "Back-translation: writes the instruction that each text answers, and rates the pair."
    paper = "https://arxiv.org/abs/2308.06259"
    Recipe = BacktranslateRecipe
    texts = TEXTS | {"too_long": "are too long", "copies": "only repeat the beginning of the text",
                     "no_score": "got no readable score"}

    @classmethod
    def calls(cls, recipe: BacktranslateRecipe) -> float:
        return 1.0 + bool(recipe.least_score)

    @classmethod
    def work(cls, recipe: BacktranslateRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        scores: dict[str, int] = {}
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)
            out.seen.update(source.splits if source else [])  # texts of the other splits are no such rows

            def make(job: Job, ask: Asker) -> list[Made]:
                text = exchange(job.data.row)[1].strip()
                size = len(words(text))
                if size < recipe.shortest or size > recipe.longest:
                    raise Bad("too_short" if size < recipe.shortest else "too_long", f"{size} words", job.data.row)
                language = f" Write it in {recipe.language}." if recipe.language else ""
                asked = unquoted(ask("instruction", INSTRUCTION.format(text=text, language=language),
                                     temperature=recipe.temperature))
                row = chat(recipe.system_prompt, asked, text)
                if plain(asked) in plain(text):
                    raise Bad("copies", asked, row)
                score = None
                if recipe.least_score:
                    said = ask.all("score", RATE.format(instruction=asked, answer=text), temperature=0.0)[0].text
                    score = rating(said)
                    if score is None:
                        raise Bad("no_score", said, row)
                    if score < recipe.least_score:
                        raise Bad("low_score", f"{score}: {said}", row)
                return [Made(row, f"{asked} {text}", score=score)]

            def settle(job: Job, value: Any) -> None:
                for one in value:
                    score = getattr(one, "score", None)
                    if isinstance(one, Bad) and one.reason == "low_score":
                        score = int(one.detail[0])
                    if score is not None:
                        scores[str(score)] = scores.get(str(score), 0) + 1
                run.take(job, value)

            jobs = (Job(f"text/{number}", item) for number, item in enumerate(rows_of(source, "texts")))
            run.work(jobs, make, total=source.count(), settle=settle)
            return run.facts(scores=dict(sorted(scores.items())))
