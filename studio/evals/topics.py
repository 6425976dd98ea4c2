"""Questions by topic: clusters of their vectors, named by the words that set each apart. Needs scikit-learn; worker side.

With a static embedding model on the disk questions of one meaning come together; without one the words decide (TF-IDF,
made short by a singular value decomposition, as Deerwester et al. 1990). The number of topics is the one of the best mean
silhouette (Rousseeuw 1987). Names are class-based TF-IDF (Grootendorst 2022, https://arxiv.org/abs/2203.05794).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

MOST = 10  # topics that are looked for by themselves
FEWEST = 16  # questions below which there are no topics
COMMON = 0.6  # share of the questions that may have a word which tells topics apart
_SAMPLE = 2000  # rows that the silhouette is taken of
_WIDTH = 48
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_WORD = re.compile(r"[^\W\d_]{2,}")


def found(texts: list[str], count: int | None = None, model: Path | None = None, seed: int = 0) -> dict[str, Any] | None:
    """Topics of some questions, or ``None`` where there are too few.

    Args:
        count: How many topics; ``None``: as many as fit best.
        model: Folder of a static embedding model; without one the words decide.

    Returns:
        ``{"labels": topic of each text, "names": a name each, "by": "embedding" | "words", "silhouette": -1 to 1}``.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if len(texts) < FEWEST or count == 1:
        return None
    vectors = _vectors(texts, model, seed)
    different = len(np.unique(vectors.round(6), axis=0))
    if different < 2:
        return None
    rows = np.sort(np.random.default_rng(seed).permutation(len(texts))[:_SAMPLE])
    tried = [min(count, different)] if count else range(2, min(MOST, len(texts) // 6, different) + 1)
    best: tuple[float, Any] | None = None
    for k in tried:
        labels = KMeans(k, n_init=4, random_state=seed).fit_predict(vectors)
        if not 1 < len(set(labels[rows])) < len(rows):
            continue
        score = float(silhouette_score(vectors[rows], labels[rows]))
        if best is None or score > best[0]:
            best = score, labels
    if best is None:
        return None
    return {"labels": best[1].tolist(), "names": names(texts, best[1].tolist()), "by": "embedding" if model else "words",
            "silhouette": round(best[0], 4)}


def _vectors(texts: list[str], model: Path | None, seed: int) -> Any:
    if model is not None:
        from studio.datasets.embedding import StaticModel

        return StaticModel(model).embed(texts)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        table = TfidfVectorizer(tokenizer=terms, token_pattern=None, lowercase=False, sublinear_tf=True, max_df=COMMON,
                                min_df=2 if len(texts) > 40 else 1).fit_transform(texts)
    except ValueError:  # no word is left: all questions have the same, or none
        return np.zeros((len(texts), 1))
    wide = min(_WIDTH, min(table.shape) - 1)
    made = TruncatedSVD(wide, random_state=seed).fit_transform(table) if wide >= 2 else table.toarray()
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)


def names(texts: list[str], labels: list[int], most: int = 3) -> list[str]:
    """A name for each cluster: the words that are frequent in it and rare in the others; no two alike."""
    counts = [Counter() for _ in range(max(labels) + 1)]
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(set(terms(text)))
    sizes = Counter(labels)
    everywhere = sum(counts, Counter())
    common = {word for word, n in everywhere.items() if n > COMMON * len(texts)}
    mean = sum(everywhere.values()) / len(counts)
    made: list[str] = []
    for label, own in enumerate(counts):
        weight = {word: n / max(1, sizes[label]) * math.log(1 + mean / everywhere[word]) for word, n in own.items()
                  if (n >= 2 or sizes[label] < 4) and word not in common}
        chosen = sorted(weight, key=lambda word: (-weight[word], word))[:most]
        name = ", ".join(chosen) or f"topic {label + 1}"
        made.append(name if name not in made else f"{name} ({label + 1})")
    return made


def terms(text: str) -> list[str]:
    """Words without the commonest of English and Russian; pairs of signs where a script has no spaces."""
    text = text.lower()
    pairs = [run[i:i + 2] for run in _CJK.findall(text) for i in range(max(1, len(run) - 1))]
    return [word for word in _WORD.findall(_CJK.sub(" ", text)) if word not in _COMMON] + pairs


_COMMON = frozenset("""a about after all also am an and any are as at be been but by can did do does for from give had has have he her here him
his how i if in into is it its just like make many me more most much my no not of on one only or other our out over please say
she should so some such tell than that the their them then there these they this those to up us use very was we were what when
where which who why will with would you your question answer user system assistant
а без бы был была были было в вам вас во вот все всё вы где да для до его ее её если есть же за и из или им их к как когда
которые который кто ли мне мы на над не него нет но о об он она они от по при с со так там то только ты у уже что чтобы эта
эти это этот я""".split())
