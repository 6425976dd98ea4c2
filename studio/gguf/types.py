"""The types a GGUF file can be written in: how large, and for what. Plain data; nothing is imported that a page lacks.

A *variant* (``Q4_K_M``) is a mix: most tensors in its base type, some that suffer more from rounding in a larger one; the
mixes are in :mod:`studio.gguf.recipes`. Names are those of llama.cpp's ``llama-quantize``.
"""

from __future__ import annotations

from typing import NamedTuple

from studio.gguf.read import FILE_TYPES


class Type(NamedTuple):
    """One variant.

    Attributes:
        base: Type of most tensors.
        bits: Bits a weight, over all, of Llama 3 8B in this variant; small models, whose embeddings weigh more, take more.
            :func:`studio.gguf.recipes.size` gives the exact size for a model.
        needs_imatrix: Without an importance matrix the result is noise, so it is refused.
        kind: ``float`` | ``legacy`` | ``k`` (K-quants) | ``i`` (I-quants) | ``ternary``.
        about: When to use it, one sentence.
    """

    base: str
    bits: float
    needs_imatrix: bool
    kind: str
    about: str


TYPES: dict[str, Type] = {
    "F32": Type("F32", 32.0, False, "float", "Every weight as it was computed; only for comparing, no use in daily life."),
    "F16": Type("F16", 16.0, False, "float", "Half the size of F32 and as good for most models; runs everywhere."),
    "BF16": Type("BF16", 16.0, False, "float", "As most models are published: nothing is lost, but some GPUs are slow at it."),
    "Q8_0": Type("Q8_0", 8.5, False, "legacy", "Half of F16 with no difference that one could notice: the careful choice."),
    "Q6_K": Type("Q6_K", 6.56, False, "k", "Close to Q8_0 in quality and a quarter smaller."),
    "Q5_K_M": Type("Q5_K", 5.7, False, "k", "Hardly worse than Q6_K, for a memory that is just too small for it."),
    "Q5_K_S": Type("Q5_K", 5.57, False, "k", "A little smaller than Q5_K_M and a little worse."),
    "Q5_1": Type("Q5_1", 6.04, False, "legacy", "Older than Q5_K_M and larger; for programs that lack K-quants."),
    "Q5_0": Type("Q5_0", 5.57, False, "legacy", "Older than Q5_K_S; for programs that lack K-quants."),
    "Q4_K_M": Type("Q4_K", 4.89, False, "k", "The usual choice: under a third of F16, with a loss that is seldom noticed."),
    "Q4_K_S": Type("Q4_K", 4.67, False, "k", "A little smaller than Q4_K_M, when that just does not fit."),
    "Q4_1": Type("Q4_1", 5.1, False, "legacy", "Older than Q4_K_M and larger; for programs that lack K-quants."),
    "Q4_0": Type("Q4_0", 4.63, False, "legacy", "Older than Q4_K_S and worse, but quick on ARM processors."),
    "IQ4_NL": Type("IQ4_NL", 4.68, False, "i", "As large as Q4_K_S; its rows need only 32 weights, so odd shapes keep four bits."),
    "IQ4_XS": Type("IQ4_XS", 4.46, False, "i", "The smallest four-bit type that is still good, slower to compute than K-quants."),
    "Q3_K_L": Type("Q3_K", 4.3, False, "k", "Between three and four bits: a visible loss, for when Q4_K_S does not fit."),
    "Q3_K_M": Type("Q3_K", 4.0, False, "k", "Three bits with the important parts in more; answers get worse noticeably."),
    "Q3_K_S": Type("Q3_K", 3.64, False, "k", "Three bits throughout; an I-quant of this size is better."),
    "IQ3_M": Type("IQ3_S", 3.76, False, "i", "About three and a half bits, better than Q3_K_M at less; slower on processors."),
    "IQ3_S": Type("IQ3_S", 3.66, False, "i", "Three bits, better than Q3_K_S at the same size; slower on processors."),
    "IQ3_XS": Type("IQ3_S", 3.5, True, "i", "Three bits for tight memory; needs an importance matrix."),
    "IQ3_XXS": Type("IQ3_XXS", 3.25, True, "i", "The smallest three-bit type; needs an importance matrix."),
    "Q2_K": Type("Q2_K", 3.16, False, "k", "The smallest K-quant: large models stay usable, small ones do not."),
    "Q2_K_S": Type("Q2_K", 2.97, True, "k", "Smaller than Q2_K and only sensible with an importance matrix."),
    "IQ2_M": Type("IQ2_S", 2.93, True, "i", "Under three bits, for large models that must fit; needs an importance matrix."),
    "IQ2_S": Type("IQ2_XS", 2.74, True, "i", "A little smaller and worse than IQ2_M; needs an importance matrix."),
    "IQ2_XS": Type("IQ2_XS", 2.59, True, "i", "About two and a half bits; only for very large models."),
    "IQ2_XXS": Type("IQ2_XXS", 2.38, True, "i", "About two bits; only for very large models, with a loss anyone sees."),
    "IQ1_M": Type("IQ1_M", 2.15, True, "i", "Under two bits in most weights; a curiosity unless the model is huge."),
    "IQ1_S": Type("IQ1_S", 2.0, True, "i", "The smallest there is; a curiosity unless the model is huge."),
    "TQ2_0": Type("TQ2_0", 2.52, False, "ternary", "Only for models trained with weights of -1, 0 and 1; ruins any other."),
    "TQ1_0": Type("TQ1_0", 2.19, False, "ternary", "As TQ2_0, smaller and slower; only for models trained with three values."),
}
FILE_TYPE = {name: number for number, name in FILE_TYPES.items()}  # variant -> general.file_type
