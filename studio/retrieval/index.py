"""The index of a collection: words (BM25) and vectors, searched alone or fused.

BM25 is bm25s' (Lù 2024, arXiv 2407.03618; Robertson & Zaragoza 2009). Vectors come from a static embedding model on this
disk where one is given; without one they are made of pieces of words (TF-IDF of three to five letters), which finds other
forms and misspellings of a word, but not other words for the same thing. Rankings are fused by reciprocal rank (Cormack,
Clarke & Büttcher, SIGIR 2009). Nothing here is pickled.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from studio.errors import StudioError

WAYS = ("fused", "words", "vectors")
RRF = 60  # the constant of the paper
FEATURES = 1 << 18
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Words of a question that say nothing about its subject; in a chunk they are kept, so that nothing is lost.
_STOP = frozenset("a an and are as at be by do does for from has have how in is it me of on or tell that the this to was what when where which "
                  "who why will with you your can about".split())


def terms(text: str, question: bool = False) -> list[str]:
    """Lower-case words; of Chinese, Japanese and Korean text pairs of characters."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if _CJK.search(word):
            found += [word[i:i + 2] for i in range(max(1, len(word) - 1))]
        elif len(word) > 2 and word.endswith("s") and not word.endswith("ss"):
            found.append(word[:-1])  # a plural finds its singular
        else:
            found.append(word)
    kept = [word for word in found if word not in _STOP] if question else found
    return kept or found


def build(chunks: list[dict[str, Any]], folder: Path, embedder: str = "") -> dict[str, Any]:
    """Write the index of ``chunks`` into an empty folder; facts about it.

    Args:
        embedder: Folder of a static embedding model; empty for pieces of words.

    Raises:
        StudioError: the folder is no such model.
    """
    import bm25s

    texts = [chunk["text"] for chunk in chunks]
    with (folder / "chunks.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(chunk, ensure_ascii=False) + "\n" for chunk in chunks)
    words = bm25s.BM25()
    words.index([terms(text) or ["(empty)"] for text in texts], show_progress=False)
    words.save(folder / "bm25", show_progress=False)
    if embedder:
        np.save(folder / "vectors.npy", _static(embedder).embed(texts), allow_pickle=False)
        return {"vectors": "static", "embedder": embedder}
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = _pieces().transform(texts)
    idf = TfidfTransformer(sublinear_tf=True).fit(counts)
    sparse.save_npz(folder / "pieces.npz", idf.transform(counts).astype(np.float32))
    np.save(folder / "idf.npy", idf.idf_.astype(np.float32), allow_pickle=False)
    return {"vectors": "pieces", "embedder": ""}


@lru_cache(maxsize=2)
def _static(folder: str) -> Any:
    from studio.datasets.embedding import StaticModel

    return StaticModel(Path(folder))


def _pieces() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=FEATURES, norm=None, alternate_sign=False)


class Index:
    """An index, opened for searching.

    Raises:
        StudioError: it is damaged.
    """

    def __init__(self, folder: Path, embedder: str = ""):
        import bm25s

        try:
            self.chunks = [json.loads(line) for line in (folder / "chunks.jsonl").open(encoding="utf-8")]
            self.words = bm25s.BM25.load(folder / "bm25", show_progress=False, verbosity=0)
            if embedder:
                self.vectors: Any = np.load(folder / "vectors.npy", allow_pickle=False)
                self.idf = None
            else:
                from scipy import sparse

                self.vectors = sparse.load_npz(folder / "pieces.npz")
                self.idf = np.load(folder / "idf.npy", allow_pickle=False)
        except (OSError, ValueError, KeyError) as err:
            raise StudioError("The index of this collection is damaged.", "Build it again.") from err
        self.embedder = embedder

    def by_words(self, question: str) -> np.ndarray:
        """BM25 of every chunk."""
        known = [term for term in terms(question, question=True) if term in self.words.vocab_dict]
        return self.words.get_scores(known) if known else np.zeros(len(self.chunks), np.float32)

    def by_vectors(self, question: str) -> np.ndarray:
        """Cosine of every chunk with the question."""
        if self.embedder:
            return self.vectors @ _static(self.embedder).embed([question])[0]
        asked = _pieces().transform([" ".join(terms(question, question=True))])
        asked.data = (1 + np.log(asked.data)) * self.idf[asked.indices]
        length = np.sqrt(asked.multiply(asked).sum()) or 1.0
        return np.asarray((self.vectors @ (asked / length).T).todense()).ravel()

    def search(self, question: str, way: str = "fused", most: int = 50) -> list[dict[str, Any]]:
        """The best chunks, the best first: ``{chunk, score, words, vectors}``, the last two being its ranks (from 1) in each
        of the two orders, ``None`` where it has nothing of the question."""
        scores = {name: fn(question) for name, fn in (("words", self.by_words), ("vectors", self.by_vectors))
                  if way in ("fused", name)}
        orders = {name: [int(i) for i in np.argsort(-values, kind="stable")[:4 * most] if values[i] > 1e-6]
                  for name, values in scores.items()}
        ranks = {name: {chunk: rank for rank, chunk in enumerate(order, 1)} for name, order in orders.items()}
        total: dict[int, float] = {}
        for name, order in orders.items():
            for rank, chunk in enumerate(order, 1):
                total[chunk] = total.get(chunk, 0.0) + (1 / (RRF + rank) if way == "fused" else float(scores[name][chunk]))
        best = sorted(total, key=lambda chunk: (-total[chunk], chunk))[:most]
        return [{"chunk": chunk, "score": total[chunk], "words": ranks.get("words", {}).get(chunk),
                 "vectors": ranks.get("vectors", {}).get(chunk)} for chunk in best]

    def alike(self, chunks: list[int]) -> np.ndarray:
        """Cosines between chunks, [n, n]."""
        part = self.vectors[chunks]
        made = part @ part.T
        return np.asarray(made.todense() if self.idf is not None else made)
