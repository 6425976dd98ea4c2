"""From documents: texts are cut into parts; a model writes questions to each part and answers them from it alone."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets import llm
from studio.datasets.generate import TEXTS, Asker, Bad, Generation, Job, Made, MakeRecipe, MakeStep, chat, rows_of
from studio.datasets.generate_text import plain, support, unquoted, verdict, words
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

QUESTION = """Here is a part of a document:

<text>
{text}
</text>

Write one question that somebody might ask who has never seen this text, and that the text answers. It asks for \
{focus}. It names what it is about, so that it is understood without the text: never write "the text", "the passage", \
"the author" or "according to".{language}{asked}

Write the question and nothing else."""

ANSWER = """You answer from the text that you are given and from nothing else. Answer in full sentences, with the \
names and numbers of the text, and do not mention the text itself. If the text does not hold the answer, reply only: \
NOT IN THE TEXT"""

JUDGE = """Text:
{text}

Question: {question}
Answer: {answer}

Does the text support every statement of the answer, and does the answer reply to the question? Reply yes or no, then \
one short sentence why."""

FOCUS = ("a plain fact", "the reason for something", "how something is done or works", "a comparison or a difference",
         "who or what does something", "what follows from something", "a number, a date or an amount", "the meaning "
         "of a word or an idea",
         "an example", "a summary of the most important point")
_UNKNOWN = re.compile(r"\bI (?:do not|don['’]t) (?:know|have (?:that|any|the|this) information)|\b(?:the|this) "
                      r"(?:text|passage|document|context|excerpt) (?:does not|doesn['’]t) "
                      r"(?:say|mention|state|specify|tell|provide|contain|give)|\bnot "
                      r"(?:mentioned|specified|stated|given) in the (?:text|passage|document|context)", re.IGNORECASE)
_ABOUT_TEXT = ("the text", "the passage", "the document", "the author", "according to", "this article", "the excerpt",
               "mentioned above")


class DocumentsRecipe(MakeRecipe):
    method = "generate_from_documents"

    per_part: int = field(2, "Questions a part", "How many questions are written to each part of a document.", ge=1,
                          le=20)
    count: int = field(0, "At most", "Stop after about so many rows; 0 goes through all documents.", unit="rows", ge=0,
                       le=1_000_000)
    questions: list[str] = field([], "Own questions", "Asked of every part instead of questions that the model "
                                 "writes, one a line. Good for small models, and to read the same facts out of many "
                                 "texts.", widget="lines", max_length=100)
    part_size: int = field(300, "Length of a part", "Documents are cut at paragraphs and sentences into parts of at "
                           "most this length.", unit="words", ge=10, le=20_000)
    overlap: int = field(0, "Overlap", "Words that a part shares with the one before it.", unit="words",
                         group="advanced", ge=0, le=1000)
    answer: Literal["with_text", "without_text"] = field(
        "with_text", "Rows", "With the text: the model learns to answer from a text that it is given. Without: it "
        "learns the facts themselves.", choices={"with_text": "With the text", "without_text": "Without the text"})
    support: float = field(0.6, "Support", "Share of an answer's words that its part must hold; numbers and names "
                           "must all be there. 0 does not check.", group="advanced", ge=0, le=1)
    judge: str = field("", "Judge", "A model that is asked whether the text supports the answer; it may be the same "
                       "one. Left empty, only the words are compared.", widget="model", group="advanced",
                       max_length=1000)
    instructions: bool = field(True, "Explain the task", "Tell the answering model to keep to the text. Off for small "
                               "models that know only text and question.", group="advanced")
    language: str = field("", "Language", "Of questions and answers. Left empty, that of the document.",
                          group="advanced", max_length=60)


class Documents(MakeStep):
    title = "Questions from documents"
    summary = "Writes questions to each part of your texts and answers them from it alone."
    Recipe = DocumentsRecipe
    others = {"generator": "generator", "judge": "judge"}
    texts = TEXTS | {"about_the_text": "speak of the text instead of its subject", "not_supported": "were judged to "
                     "be unsupported",
                     "no_question": "are no questions"}

    @classmethod
    def check(cls, recipe: DocumentsRecipe) -> None:
        super().check(recipe)
        if recipe.judge:
            llm.check(recipe, recipe.judge, "judge")
        if recipe.overlap >= recipe.part_size:
            raise StudioError("The overlap is as long as a whole part.", "Make it shorter, a tenth of a part, say.",
                              "overlap")

    @classmethod
    def calls(cls, recipe: DocumentsRecipe) -> float:
        rows = 1 if recipe.count else len(recipe.questions) or recipe.per_part
        return rows * (1.0 + (not recipe.questions) + bool(recipe.judge))

    @classmethod
    def work(cls, recipe: DocumentsRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        parts = ((number, item.source, part) for number, item in enumerate(rows_of(source, "documents"))
                 for part in split(document(item.row), recipe.part_size, recipe.overlap))
        with ExitStack() as stack:
            client = stack.enter_context(llm.open(recipe, ctx))
            journal = stack.enter_context(llm.journal(ctx, out))
            judge = None
            if recipe.judge:
                same = recipe.judge == recipe.generator
                judge = client if same else stack.enter_context(
                    llm.open(recipe, ctx, recipe.judge, name="judge", price_in=0.0, price_out=0.0))
            run = Generation(recipe, out, ctx, client, journal)
            out.seen.update(source.splits if source else [])  # texts of the other splits are no such rows

            def make(job: Job, ask: Asker) -> list[Made | Bad]:
                found, asked = [], []
                for turn in range(len(recipe.questions) or recipe.per_part):
                    try:
                        found.append(_one(recipe, ask, judge, job.data, turn, asked))
                    except Bad as bad:
                        found.append(bad)
                    except llm.Failed as err:
                        found.append(Bad("failed", str(err)))
                return found

            jobs = (Job(f"part/{number}", part) for number, part in enumerate(parts))
            run.work(jobs, make, want=recipe.count or None, total=_parts(source, recipe))
            if not run.settled:
                raise StudioError("The documents hold no text.", "Choose a dataset of texts.", "dataset")
            more = {"judge": judge.usage.to_dict()} if judge and judge is not client else {}
            return run.facts(documents=source.count(), parts=run.settled, **more)


def document(row: dict[str, Any]) -> str:
    """The text of a row: plain text, or everything that is said in it."""
    from studio.datasets.convert import turns_of

    if "text" in row:
        return row["text"]
    if row.get("contexts"):
        return "\n\n".join(row["contexts"])
    return "\n\n".join(str(turn.get("content") or "") for turn in turns_of(row) if turn["role"] != "system")


def split(text: str, size: int, overlap: int = 0) -> list[str]:
    """Parts of at most ``size`` words, cut where the text itself pauses. Parts of less than four words are left
    out."""
    import semchunk

    chunker = semchunk.chunkerify(_length, size, memoize=False)
    return [part for part in chunker(text, overlap=overlap or None) if _length(part) >= 4]


def _length(text: str) -> int:
    return len(words(text))


def _parts(source: Version, recipe: DocumentsRecipe) -> int:
    """About how many parts there will be, for the progress: a word has some six characters."""
    lengths = (sum(batch.column(0).to_pylist()) for batch in source.batches(columns=["chars"]))
    return source.count() + int(sum(lengths) / 6 / (recipe.part_size - recipe.overlap))


def _one(recipe: DocumentsRecipe, ask: Asker, judge: llm.Client | None, part: tuple[int, str, str], turn: int,
         asked: list[str]) -> Made:
    number, name, text = part
    language = f" Write it in {recipe.language}." if recipe.language else ""
    if recipe.questions:
        question = recipe.questions[turn]
    else:
        earlier = "".join(f"\n- {q}" for q in asked)
        earlier = f"\nThese questions exist already; ask for something else:{earlier}" if asked else ""
        focus = FOCUS[(ask.rng.randrange(len(FOCUS)) + turn) % len(FOCUS)]
        request = QUESTION.format(text=text, focus=focus, language=language, asked=earlier)
        question = unquoted(ask(f"question{turn}", request))
        if len(words(question)) < 2 or plain(question) in plain(text):
            raise Bad("no_question", question)
        if any(phrase in question.lower() for phrase in _ABOUT_TEXT):
            raise Bad("about_the_text", question)
        asked.append(question)
    prompt = f"{text}\n\n{question}"
    answer = ask(f"answer{turn}", prompt, (ANSWER + language) if recipe.instructions else "")
    row = {"prompt": question, "completion": answer, "label": True, "contexts": [text]}
    if "NOT IN THE TEXT" in answer.upper() or _UNKNOWN.search(answer):
        raise Bad("unanswerable", question, row)
    if plain(answer) == plain(question):
        raise Bad("not_in_form", answer, row)
    if recipe.support:
        share, strange = support(answer, text, question)
        if share < recipe.support or strange:
            more = f"; not there: {', '.join(strange[:5])}" if strange else ""
            raise Bad("not_grounded", f"{share:.0%} of its words{more}", row)
    if judge is not None:
        said = ask.all(f"judge{turn}", JUDGE.format(text=text, question=question, answer=answer), client=judge,
                       temperature=0.0)[0].text
        if verdict(said) is not True:
            raise Bad("not_supported", said, row)
    if recipe.answer == "without_text":
        row = chat("", question, answer)
    # one question may be asked of every text, and answered alike
    same = f"{question} {answer}"
    if recipe.questions and recipe.answer == "with_text":
        same += f" {text}"
    tags = {"document": str(number)} | ({"file": name} if name else {})
    return Made(row, same, near=not recipe.questions, tags=tags)
