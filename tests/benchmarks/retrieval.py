"""What a search finds: recall@1, recall@4 and MRR of BM25, vectors, both fused and reranked, on questions about the starter's world.

Documents: one page about each resident, animal, place and thing of the world, written in sentences that are none of the
questions' own, and 300 stories that use the same names and words and answer none of them. A question counts as answered where the chunk that states its fact is
found. Besides as asked, each question is put with a letter wrong in its longest word, as people type. The static embedding model is
the starter's own token table, the only one this machine has; it shows what a poor embedder does, not what a good one would.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

SEED = 3
STORIES = 300


def world() -> tuple[list[str], list[tuple[str, int]]]:
    """Chunks, and (question, chunk that answers it)."""
    from studio.starter import stories
    from studio.starter import world as w

    dice, chunks, asked = random.Random(SEED), [], []

    def add(text: str, *questions: str) -> None:
        chunks.append(text)
        asked.extend((question, len(chunks) - 1) for question in questions)

    for p in w.PEOPLE:
        add(f"{p.name} comes from {p.town}. In the mornings {p.he} works as {w.an(p.job)}.", f"Where does {p.name} live?", f"What is the job of {p.name}?")
        add(f"At home {p.name} keeps {w.an(p.pet)}, and everything that {p.he} owns is painted {p.colour}.", f"Which animal does {p.name} have?",
            f"What is the favourite colour of {p.name}?")
        add(f"For supper {p.name} takes {p.food}, on some days twice.", f"What food does {p.name} like?")
    for animal, (sound, home, food, legs) in w.ANIMALS.items():
        add(f"Of {w.plural(animal)} it is told that they sleep in {home} and fill themselves with {food}.", f"Where does {w.an(animal)} live?", f"What does {w.an(animal)} eat?")
        add(f"“{w.cap(sound)}”, calls the {animal}, standing on {legs or 'no'} legs.", f"What sound does {w.an(animal)} make?", f"How many legs does {w.an(animal)} have?")
    for place, use in w.PLACE_USES.items():
        add(f"People go to the {place} when they want to {use}.", f"What can you do at the {place}?", f"Where can you {use}?")
    for thing, colour in w.THING_COLOURS.items():
        add(f"Whoever paints {thing} takes {colour} from the box.", f"What colour is {thing}?")
    for _ in range(STORIES):
        chunks.append(stories.plain(dice, False))
    order = list(range(len(chunks)))
    dice.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    return [chunks[i] for i in order], [(question, place[i]) for question, i in asked]


def mistyped(question: str, dice: random.Random) -> str:
    """Two neighbouring letters of the longest word turned round."""
    words = question.split()
    at = max(range(len(words)), key=lambda i: len(words[i]))
    word, cut = words[at], dice.randint(1, max(1, len(words[at].rstrip("?")) - 2))
    words[at] = word[:cut] + word[cut:cut + 2][::-1] + word[cut + 2:]
    return " ".join(words)


def token_table(folder: Path) -> Path:
    """A static embedding model made of the starter's token table."""
    from safetensors.numpy import save_file
    from safetensors.torch import load_file

    from studio.settings import STARTER

    folder.mkdir()
    shutil.copy(STARTER / "tokenizer.json", folder)
    table = load_file(STARTER / "model.safetensors")["model.embed_tokens.weight"].float().numpy()
    save_file({"embeddings": table - table.mean(axis=0)}, folder / "model.safetensors")
    return folder


def main(_: list[str] = ()) -> int:
    from studio.retrieval import index, rerank

    chunks, asked = world()
    dice = random.Random(SEED)
    sets = {"as asked": asked, "mistyped": [(mistyped(question, dice), answer) for question, answer in asked]}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        made: dict[str, index.Index] = {}
        for name, embedder in (("pieces", ""), ("token table", str(token_table(root / "embedder")))):
            (root / name).mkdir()
            index.build([{"id": i, "text": text, "flags": []} for i, text in enumerate(chunks)], root / name, embedder)
            made[name] = index.Index(root / name, embedder)
        ways = [("BM25", "pieces", "words", "none"), ("vectors: pieces of words", "pieces", "vectors", "none"),
                ("vectors: token table of the starter", "token table", "vectors", "none"), ("fused: BM25 and pieces", "pieces", "fused", "none"),
                ("fused: BM25 and token table", "token table", "fused", "none"), ("fused, then MMR", "pieces", "fused", "diverse"),
                ("fused, then likelihood by the starter", "pieces", "fused", "likelihood")]
        scored = likely(sets, made["pieces"])
        for title, which, way, second in ways:
            row: dict[str, Any] = {"way": title}
            for name, questions in sets.items():
                ranks, began = [], time.perf_counter()
                for question, answer in questions:
                    hits = made[which].search(question, way, 50)
                    if second == "likelihood":
                        scores = scored[question]
                        head = sorted(range(len(hits[:rerank.POOL])), key=lambda i: -scores[i])
                        hits = [hits[i] for i in head] + hits[rerank.POOL:]
                    elif second != "none":
                        hits = rerank.again(hits, question, made[which], second)
                    order = [hit["chunk"] for hit in hits]
                    ranks.append(order.index(answer) + 1 if answer in order else 0)
                row[name] = {"recall@1": sum(r == 1 for r in ranks) / len(ranks), "recall@4": sum(0 < r <= 4 for r in ranks) / len(ranks),
                             "mrr": sum(1 / r for r in ranks if r) / len(ranks), "ms": 1000 * (time.perf_counter() - began) / len(ranks)}
            rows.append(row)
    print(f"{len(chunks)} chunks, {len(asked)} questions")
    print("| Way | Recall@1 | Recall@4 | MRR | mistyped: Recall@1 | Recall@4 | MRR | ms a question |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        numbers = [f"{row[name][key]:.0%}" if key != "mrr" else f"{row[name][key]:.2f}" for name in sets for key in ("recall@1", "recall@4", "mrr")]
        time_ = "–" if "likelihood" in row["way"] else f"{row['as asked']['ms']:.1f}"
        print(f"| {row['way']} | {' | '.join(numbers)} | {time_} |")
    return 0


def likely(sets: dict[str, list[tuple[str, int]]], made: Any) -> dict[str, list[float]]:
    """Question -> the starter's score of each of its best chunks; the model is loaded once for all."""
    from unittest import mock

    from studio.library import refs
    from studio.retrieval import rerank
    from studio.trainers import load

    net = load.model(refs.resolve_model("starter"), "float32")
    with mock.patch.object(load, "model", lambda *_, **__: net):
        return {question: rerank.likelihood("starter", question, [made.chunks[hit["chunk"]]["text"] for hit in made.search(question, "fused", 50)[:rerank.POOL]])
                for questions in sets.values() for question, _ in questions}


if __name__ == "__main__":
    raise SystemExit(main())
