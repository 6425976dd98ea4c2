"""How one answer of a benchmark of one's own is scored: exact, fuzzy, number, form, tests, BLEU, ROUGE, a judge.

    metric = metric_of("number", {"tolerance": 0.01})
    metric.check()                     # refuses options that cannot work, light
    metric.open()                      # loads what it needs: an embedding model, a judge
    metric.score("So it is 42.", {"references": ["#### 42"], "row": {}, "prompt": "6 * 7 ="}).values   # {"exact_match": 1.0}
    metric.close()

Checks are those of :mod:`studio.datasets.verify`, BLEU and chrF those of sacrebleu, ROUGE that of rouge-score. Nothing
heavy is imported before :meth:`Metric.open`.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.datasets import verify
from studio.datasets.verify import Undecided
from studio.errors import StudioError
from studio.evals.results import LOSS, NUMBER, SHARE
from studio.recipe import RecipeError, field, fields
from studio.registry import Registry
from studio.rewards.json_schema import JsonSchemaOptions
from studio.rewards.number import NumberOptions
from studio.rewards.regex import FORMS, PatternOptions
from studio.rewards.unit_tests import UnitTestsOptions

LONGEST = 5_000  # characters that are compared letter by letter; the time grows with their square
PERCENT = {"higher_is_better": True, "low": 0.0, "high": 100.0}
Item = dict[str, Any]

METRICS: Registry = Registry("metric", "Metric", "a score for each answer")
for _name, _target in (("multiple_choice", "Choice"), ("exact", "Exact"), ("fuzzy", "Fuzzy"), ("number", "Number"), ("regex", "Pattern"),
                       ("json_schema", "JsonSchema"), ("unit_tests", "UnitTests"), ("rouge", "Rouge"), ("bleu", "Bleu"), ("chrf", "Chrf"),
                       ("embedding", "Embedding"), ("judge", "Judge"), ("perplexity", "Perplexity")):
    METRICS.add(_name, f"studio.evals.metrics:{_target}")


class Options(BaseModel):
    """What a metric can be told; most have nothing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=False)


@dataclass(frozen=True)
class Scored:
    """Metric -> number of one answer (empty: nothing can be said of it), and why in a few words."""

    values: dict[str, float]
    reason: str = ""


class Metric:
    """One way to score answers.

    Attributes:
        title, help, paper: Its words.
        output: ``choice`` (the likeliest of several options), ``text`` (an answer is written) or ``loss`` (the text itself).
        names: What it measures -> which way is better; the first is the main one.
        target: Whether a row must say what is right.
    """

    title: ClassVar[str]
    help: ClassVar[str]
    paper: ClassVar[str] = ""
    output: ClassVar[Literal["choice", "text", "loss"]] = "text"
    names: ClassVar[dict[str, dict[str, Any]]]
    target: ClassVar[bool] = True
    skip: ClassVar[tuple[str, ...]] = ()  # options of the reward of the same name that mean nothing here
    Options: ClassVar[type[BaseModel]] = Options

    def __init__(self, options: Any):
        self.options = options

    def check(self) -> None:
        """Refuse options that cannot work; light.

        Raises:
            StudioError: with the option as its field.
        """

    def open(self) -> None:
        """Load or start what scoring needs."""

    def close(self) -> None:
        """End what was started."""

    def columns(self) -> list[str]:
        """Columns of the data that scoring looks at, beside the right answer."""
        return []

    def models(self) -> list[str]:
        """Models that it asks."""
        return []

    def score(self, answer: str, item: Item) -> Scored:
        """The numbers of one answer.

        Args:
            item: ``{"references": [right answers], "row": {column: value}, "prompt": text}``.
        """
        raise TypeError(f"{type(self).__name__} scores no written answers")


def catalogue() -> list[dict[str, Any]]:
    """Every metric for a form: ``{name, title, help, paper, output, target, names, options}``; options are FieldSpecs."""
    return [{"name": name, "title": kind.title, "help": kind.help, "paper": kind.paper, "output": kind.output, "target": kind.target,
             "names": list(kind.names),
             "options": [asdict(spec) for spec in fields(kind.Options) if spec.name not in ("weight", *kind.skip)]}
            for name, kind in METRICS.items()]


def metric_of(name: str, options: dict[str, Any] | None = None) -> Metric:
    """A metric with its options checked.

    Raises:
        StudioError: there is no such metric (``metric``), or an option is wrong, which is then the field.
    """
    if not isinstance(name, str) or name not in METRICS:
        raise StudioError(f"There is no metric '{name}'.", f"Known: {', '.join(METRICS)}.", "metric")
    kind = METRICS.get(name)
    for given in options or {}:
        if given == "weight" or given in kind.skip:
            raise StudioError(f"{kind.title} has no option '{given}'.", "Leave it out.", "options")
    try:
        return kind(kind.Options.model_validate(options or {}))
    except ValidationError as err:
        raise RecipeError(err, kind.Options) from err


def best(values: Sequence[float]) -> float:
    """Of several right answers the one that is nearest counts."""
    return max(values, default=0.0)


class Choice(Metric):
    title = "Multiple choice"
    help = "Which option the model holds likeliest. Nothing is written, so it is fast and suits small and untuned models."
    paper = "https://arxiv.org/abs/2009.03300"
    output = "choice"
    names = {"acc": SHARE, "acc_norm": SHARE}


class Perplexity(Metric):
    title = "Perplexity"
    help = "How well the model foretells the texts themselves; lower is better. Needs no questions and no answers."
    output = "loss"
    names = {"word_perplexity": LOSS, "byte_perplexity": LOSS, "bits_per_byte": LOSS}
    target = False


class ExactOptions(Options):
    loose: bool = field(False, "Case and punctuation do not matter", "Compares words alone: small letters, without punctuation "
                        "and articles, as SQuAD does.")


class Exact(Metric):
    title = "The same text"
    help = "1 if the answer is a right one, letter by letter but for blanks around it; else 0."
    names = {"exact_match": SHARE}
    Options = ExactOptions

    def score(self, answer: str, item: Item) -> Scored:
        # brackets alone, as in BIG-Bench Hard's Dyck languages, would be nothing without punctuation
        if self.options.loose and any(verify.normalised(text) for text in item["references"]):
            return _verdict("normalised", answer, item, "exact_match")
        right = any(answer.strip() == text.strip() for text in item["references"])
        return Scored({"exact_match": float(right)}, "" if right else _expected(item))


class FuzzyOptions(Options):
    threshold: float = field(0.8, "Counts as right from", "Likeness from which an answer counts as right (fuzzy_match).", gt=0, le=1)


class Fuzzy(Metric):
    """Ratcliff and Obershelp's likeness of the normalised texts, and the F1 over their words as in SQuAD."""

    title = "Nearly the same text"
    help = "How alike answer and right answer are, from 0 to 1, by letters; and the F1 of their words. Case and punctuation do not matter."
    paper = "https://arxiv.org/abs/1606.05250"
    names = {"fuzzy": SHARE, "fuzzy_match": SHARE, "f1": SHARE}
    Options = FuzzyOptions

    def score(self, answer: str, item: Item) -> Scored:
        said = verify.normalised(verify.final(answer))
        right = [verify.normalised(text) for text in item["references"]]
        likeness = best([_alike(said, text) for text in right])
        found = {"fuzzy": likeness, "fuzzy_match": float(likeness >= self.options.threshold),
                 "f1": best([_f1(said.split(), text.split()) for text in right])}
        return Scored(found, f"{likeness:.0%} alike")


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a[:LONGEST], b[:LONGEST], autojunk=False).ratio()


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    common = (Counter(said) & Counter(right)).total()
    return 2 * common / (len(said) + len(right))


def _verdict(check: str, answer: str, item: Item, name: str, **options: Any) -> Scored:
    made = verify.check(check)(answer, {"answer": item["references"]}, **options)
    return Scored({name: made.score}, made.reason)


def _expected(item: Item) -> str:
    return f"expected {item['references'][0].strip()[:200]!r}" if item["references"] else "the row does not say what is expected"


class Number(Metric):
    title = "The same number"
    help = "1 if the last number of the answer (or the one in \\boxed{} or after ####) is the right one; else 0."
    paper = "https://arxiv.org/abs/2110.14168"
    names = {"exact_match": SHARE}
    skip = ("column",)
    Options = NumberOptions

    def score(self, answer: str, item: Item) -> Scored:
        return _verdict("number", answer, item, "exact_match", tolerance=self.options.tolerance)


class Pattern(Metric):
    title = "A pattern"
    help = "1 if a regular expression is found in the answer, e.g. a form that was asked for; else 0."
    names = {"regex_match": SHARE}
    target = False
    Options = PatternOptions

    def check(self) -> None:
        o = self.options
        if not (o.form or o.pattern or o.column):
            raise StudioError("There is no pattern.", "Choose a form, write a pattern, or name the column that holds it.", "pattern")
        if not o.form and o.pattern:
            verify.compiled(o.pattern)

    def columns(self) -> list[str]:
        return [self.options.column] if self.options.column and not (self.options.form or self.options.pattern) else []

    def score(self, answer: str, item: Item) -> Scored:
        o = self.options
        pattern = FORMS[o.form] if o.form else o.pattern
        if not pattern and not item["row"].get(o.column):
            return Scored({}, f"the row has no '{o.column}'")
        made = verify.check("regex")(answer, item["row"], pattern=pattern, column=o.column, ignore_case=o.ignore_case, thinking=True)
        return Scored({"regex_match": made.score}, made.reason)


class JsonSchema(Metric):
    title = "JSON of a shape"
    help = "1 if the answer is JSON that fits a JSON Schema, else 0; and whether it is JSON at all."
    names = {"schema_match": SHARE, "valid_json": SHARE}
    target = False
    Options = JsonSchemaOptions

    def check(self) -> None:
        o = self.options
        if not o.json_schema and not o.column:
            raise StudioError("There is no JSON Schema.", 'Write one, e.g. {"type": "object"}, or name the column that holds it.',
                              "json_schema")
        try:
            if o.json_schema:
                verify.validator_of(o.json_schema)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "json_schema") from err

    def columns(self) -> list[str]:
        return [self.options.column] if self.options.column and not self.options.json_schema else []

    def score(self, answer: str, item: Item) -> Scored:
        o = self.options
        schema = o.json_schema or item["row"].get(o.column)
        if not schema:
            return Scored({}, f"the row has no '{o.column}'")
        made = verify.check("json_schema")(answer, {}, schema=schema)
        return Scored({"schema_match": float(made.ok), "valid_json": float(made.score > 0)}, made.reason)


class UnitTestsMetricOptions(UnitTestsOptions):
    complete: bool = field(False, "The answer continues the question", "The question is the beginning of the code, as in HumanEval; "
                           "it is put before an answer that does not repeat it.")


class UnitTests(Metric):
    title = "Tests pass"
    help = "1 if the answer's Python code passes all tests of the row, each run in the sandbox; and the share it passes."
    paper = "https://arxiv.org/abs/2107.03374"
    names = {"pass@1": SHARE, "tests_passed": SHARE}
    target = False
    skip = ("at_once",)
    Options = UnitTestsMetricOptions

    def check(self) -> None:
        from studio import sandbox

        sandbox.require()

    def columns(self) -> list[str]:
        return [self.options.column, "test_setup_code", "test_imports", "entry_point"]

    def score(self, answer: str, item: Item) -> Scored:
        o, said = self.options, answer
        if not item["row"].get(o.column):
            return Scored({}, f"the row has no '{o.column}'")
        if o.complete:
            code = verify.code_of(verify.final(answer))
            entry = item["row"].get("entry_point")
            said = code if isinstance(entry, str) and f"def {entry}" in code else f"{item['prompt']}{code}"
        made = verify.check("unit_tests")(said, item["row"], column=o.column, seconds=o.seconds, memory=o.memory << 20, packages=o.packages)
        return Scored({"pass@1": float(made.ok), "tests_passed": made.score}, made.reason)


class RougeOptions(Options):
    use_stemmer: bool = field(False, "Stems of words", "Compares English words without their endings: 'walked' is 'walks'.")
    any_script: bool = field(False, "Any script", "Counts words of every script. Without it letters other than a to z are not seen, as in "
                             "rouge-score's own way, and answers in Russian or Chinese score 0.")


class Words:
    """rouge-score's tokenizer for scripts other than Latin: words in small letters; a sign of Chinese or Japanese is a word."""

    _WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

    def tokenize(self, text: str) -> list[str]:
        return self._WORD.findall(text.casefold())


class Rouge(Metric):
    title = "ROUGE"
    help = "How many words, pairs and runs of words of the right answer occur in the answer (F1). For summaries and long answers."
    paper = "https://aclanthology.org/W04-1013"
    names = {"rougeL": SHARE, "rouge1": SHARE, "rouge2": SHARE}
    Options = RougeOptions
    scorer: Any = None

    def open(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        o = self.options
        self.scorer = RougeScorer(list(self.names), use_stemmer=o.use_stemmer, tokenizer=Words() if o.any_script else None)

    def score(self, answer: str, item: Item) -> Scored:
        if self.scorer is None:
            self.open()
        found = self.scorer.score_multi(item["references"], answer.strip())
        return Scored({name: float(found[name].fmeasure) for name in self.names})


class BleuOptions(Options):
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = field(
        "13a", "Words", "How sacrebleu parts a text into words. For Chinese and Japanese, choose one of the two that do not need blanks.",
        choices={"13a": "As in the WMT contests (13a)", "intl": "International punctuation", "char": "Every letter", "zh": "Chinese",
                 "none": "At blanks only"})


class Bleu(Metric):
    title = "BLEU"
    help = "How many runs of one to four words the answers share with right ones, from 0 to 100, over the whole set. For translations."
    paper = "https://arxiv.org/abs/1804.08771"
    names = {"bleu": PERCENT}
    Options = BleuOptions

    def score(self, answer: str, item: Item) -> Scored:
        return Scored({"bleu": sentence_bleu(answer.strip(), item["references"], self.options.tokenize)})

    def corpus(self, answers: list[str], references: list[list[str]]) -> float:
        """Of the whole set, which is no mean of the answers' own."""
        import sacrebleu

        return sacrebleu.corpus_bleu([text.strip() for text in answers], streams(references), tokenize=self.options.tokenize).score


class ChrfOptions(Options):
    word_order: Literal[0, 2] = field(0, "Kind", "chrF++ counts pairs of words as well.", choices={0: "chrF", 2: "chrF++"})


class Chrf(Metric):
    title = "chrF"
    help = "How many runs of one to six letters the answers share with right ones, from 0 to 100. For translations into any language."
    paper = "https://aclanthology.org/W15-3049"
    names = {"chrf": PERCENT}
    Options = ChrfOptions

    def score(self, answer: str, item: Item) -> Scored:
        return Scored({"chrf": sentence_chrf(answer.strip(), item["references"], self.options.word_order)})

    def corpus(self, answers: list[str], references: list[list[str]]) -> float:
        """Of the whole set."""
        import sacrebleu

        return sacrebleu.corpus_chrf([text.strip() for text in answers], streams(references), word_order=self.options.word_order).score


def sentence_bleu(answer: str, references: list[str], tokenize: str = "13a") -> float:
    """sacrebleu's score of one answer, 0 to 100."""
    import sacrebleu

    return float(sacrebleu.sentence_bleu(answer, references, tokenize=tokenize).score)


def sentence_chrf(answer: str, references: list[str], word_order: int = 0) -> float:
    """sacrebleu's score of one answer, 0 to 100."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(answer, references, word_order=word_order).score)


def streams(references: list[list[str]]) -> list[list[str]]:
    """Right answers by answer -> as sacrebleu takes them; where an answer has fewer, its first is said again, which changes no score."""
    most = max(map(len, references), default=1)
    return [[mine[number] if number < len(mine) else mine[0] for mine in references] for number in range(most)]


class EmbeddingOptions(Options):
    model: str = field("", "Embedding model", "Folder of a static embedding model on this disk, as model2vec saves it "
                       "(model.safetensors and tokenizer.json).", max_length=1000, placeholder="models/potion-base-8M")


class Embedding(Metric):
    title = "The same meaning"
    help = "How near answer and right answer lie as vectors of an embedding model (cosine). Sees other words for the same, misses a 'not'."
    paper = "https://arxiv.org/abs/1908.10084"
    names = {"cosine": NUMBER | {"low": -1.0, "high": 1.0}}
    Options = EmbeddingOptions
    model: Any = None

    def check(self) -> None:
        from studio.datasets import embedding

        embedding.check(self._folder())

    def _folder(self) -> Any:
        from studio import settings

        if not self.options.model.strip():
            raise StudioError("No embedding model is chosen.", "Name its folder inside the workspace, e.g. models/potion-base-8M.", "model")
        try:
            return settings.inside_home(self.options.model)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "model") from err

    def open(self) -> None:
        from studio.datasets.embedding import StaticModel

        self.model = StaticModel(self._folder())

    def score(self, answer: str, item: Item) -> Scored:
        if self.model is None:
            self.open()
        vectors = self.model.embed([verify.final(answer), *item["references"]])
        if not vectors[0].any():
            return Scored({"cosine": 0.0}, "the answer has no word that the embedding model knows")
        return Scored({"cosine": float((vectors[1:] @ vectors[0]).max())})


class JudgeOptions(Options):
    judge: str = field("", "Judge", "The model that marks: one of yours, hub:owner/name, or the address of an OpenAI-compatible server, "
                       "http://host:port/v1.", widget="model", max_length=1000)
    judge_model: str = field("", "Model at the address", "Which of that server's models judges. Left empty, the first it serves.",
                             max_length=300, group="advanced")
    rubric: str = field("", "Rubric", "What makes a good answer, in your words. Left empty: correct, complete, to the point, clear.",
                        widget="text", max_length=20_000)
    reference: bool = field(False, "Show the right answer", "The judge is shown the right answer as well, where the row has one.")
    timeout: float = field(120, "Longest wait", "A request without an answer by then is tried again.", group="advanced", unit="s",
                           ge=1, le=3600)


class Judge(Metric):
    title = "A judge"
    help = "The mark from 1 to 10 that another model gives by a rubric. For open questions. Slow, and can be flattered."
    paper = "https://arxiv.org/abs/2306.05685"
    names = {"judge_score": NUMBER | {"low": 1.0, "high": 10.0}}
    target = False
    Options = JudgeOptions
    judge: Any = None

    def _reward(self) -> Any:
        from studio import rewards

        o = self.options
        kind = rewards.REWARDS.get("judge")
        return kind("judge", kind.Options(judge=o.judge, judge_model=o.judge_model, rubric=o.rubric, timeout=o.timeout, concurrency=1,
                                          column="reference" if o.reference else ""))

    def check(self) -> None:
        self._reward().check()

    def models(self) -> list[str]:
        return [self.options.judge] if self.options.judge else []

    def open(self) -> None:
        judge = self._reward()
        judge.open(None, None)
        self.judge = judge

    def score(self, answer: str, item: Item) -> Scored:
        from studio.datasets.judge import HIGH, LOW

        if self.judge is None:
            self.open()
        try:
            made = self.judge.score(answer, {"prompt": item["prompt"], "reference": (item["references"] or [""])[0]})
        except Undecided as err:
            return Scored({}, str(err))
        return Scored({"judge_score": LOW + made.score * (HIGH - LOW)}, made.reason)

    def close(self) -> None:
        if self.judge is not None:
            self.judge.close()
            self.judge = None
