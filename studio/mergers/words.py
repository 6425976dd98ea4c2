"""Our words for mergekit's methods and parameters: titles, help, papers and the range a control offers. The library's own
descriptions are empty; what is unknown here (a newer mergekit's) gets a general text."""

from __future__ import annotations

from typing import NamedTuple


class MethodWords(NamedTuple):
    """What a person reads about a method; empty ``title`` and ``paper``: what mergekit says."""

    help: str
    title: str = ""
    paper: str = ""


class ParameterWords(NamedTuple):
    """What a person reads about a parameter, and the range of its control. Values outside are told, not refused, except
    where ``hard`` says that they mean nothing."""

    title: str
    help: str
    low: float | None = None
    high: float | None = None
    hard: bool = False


METHODS = {
    "linear": MethodWords("A weighted average of all weights, tensor by tensor. The plain choice for checkpoints of one "
                          "training, or tunes of one base."),
    "slerp": MethodWords("Goes from the base model to the other one along an arc instead of a straight line, so lengths "
                         "are kept. For two models; t can follow a curve over the layers.",
                         paper="https://doi.org/10.1145/325334.325242"),
    "nuslerp": MethodWords("SLERP between two models with a weight for each, and optionally of their differences to a "
                           "base.", paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md"),
    "multislerp": MethodWords("SLERP for more than two models: averages them on a sphere around the base or the "
                              "origin."),
    "karcher": MethodWords("The middle of several models on a sphere, found step by step. Every model counts the same."),
    "task_arithmetic": MethodWords("Adds what each tune changed of the base, times its weight. Skills can be added and, "
                                   "with a negative weight, taken away."),
    "ties": MethodWords("Task arithmetic that first drops small changes and then keeps, weight by weight, only the changes "
                        "that point where most of them point. For several tunes that disturb each other."),
    "dare_ties": MethodWords("Drops changes at random and makes up for it by scaling the rest, then agrees on signs as "
                             "TIES does."),
    "dare_linear": MethodWords("Drops changes at random, scales the rest, and adds them up without agreeing on signs."),
    "breadcrumbs": MethodWords("Drops the smallest and the very largest changes of each tune, and adds the rest."),
    "breadcrumbs_ties": MethodWords("Breadcrumbs, then agreeing on signs as TIES does."),
    "della": MethodWords("Drops changes at random, small ones more likely than large ones, then agrees on signs."),
    "della_linear": MethodWords("DELLA's dropping without agreeing on signs."),
    "sce": MethodWords("Keeps the changes in which the tunes differ most, weighs each tensor by how much it changed, and "
                       "drops changes against the majority's sign."),
    "ram": MethodWords("For models trained by reinforcement: where only one model changed a weight its change is kept "
                       "whole, where several did they are averaged."),
    "ramplus_tl": MethodWords("RAM that strengthens changes which only one model made, more so where models overlap."),
    "model_stock": MethodWords("Finds how far to go from the base towards the average of at least two tunes from the angle "
                               "between them. Nothing to set."),
    "nearswap": MethodWords("Moves the base towards the other model where they are nearly the same, and leaves it where "
                            "they differ much."),
    "arcee_fusion": MethodWords("Takes over only the changes that matter most, found from size and distribution. Nothing "
                                "to set.", paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md"),
    "passthrough": MethodWords("Copies layers as they are. With slices it stacks layers of one or several models into a "
                               "deeper one (frankenmerge), which usually needs training afterwards.",
                               title="Passthrough (frankenmerge)", paper="https://arxiv.org/abs/2312.15166"),
}

PARAMETERS = {
    "weight": ParameterWords("Weight", "How much this model counts. Negative values take away what it learned.", -1, 2),
    "normalize": ParameterWords("Normalise", "Divide by the sum of the weights, so that only their ratio counts."),
    "normalize_weights": ParameterWords("Normalise", "Divide by the sum of the weights, so that only their ratio counts."),
    "t": ParameterWords("Position (t)", "0 is the base model, 1 the other one, 0.5 the middle.", 0, 1),
    "nearswap.t": ParameterWords("Closeness (t)", "Weights that differ by less than this are taken from the other model. "
                                 "Useful values are as small as the weights' differences.", 0, 0.01),
    "density": ParameterWords("Density", "The share of changes that is kept. 1 keeps all; 0.3 to 0.7 is usual.", 0, 1,
                              True),
    "gamma": ParameterWords("Outliers (gamma)", "The share of the largest changes that is dropped as outliers.", 0, 0.2),
    "epsilon": ParameterWords("Smallest value (epsilon)", "Changes smaller than this count as none.", 0, 0.001),
    "della.epsilon": ParameterWords("Spread (epsilon)", "How much more likely large changes are kept than small ones. "
                                    "Density plus and minus it must stay between 0 and 1.", 0, 0.5, True),
    "della_linear.epsilon": ParameterWords("Spread (epsilon)", "How much more likely large changes are kept than small "
                                           "ones. Density plus and minus it must stay between 0 and 1.", 0, 0.5, True),
    "lambda": ParameterWords("Strength (lambda)", "Scales what is added to the base in the end. More than 1 exaggerates.",
                             0, 2),
    "rescale": ParameterWords("Rescale", "Scale the kept changes up so that their sum of sizes stays as before."),
    "int8_mask": ParameterWords("Small masks", "Keep the masks of signs in 8 bits: less memory, same result."),
    "select_topk": ParameterWords("Kept share", "The share of weights in which the models differ most; the rest stays as "
                                  "in the base.", 0, 1),
    "filter_wise": ParameterWords("Row by row", "Find the ratio for each row of a weight instead of the whole weight."),
    "nuslerp_row_wise": ParameterWords("Row by row", "Turn rows instead of columns when weights are not flattened."),
    "nuslerp_flatten": ParameterWords("Flatten", "Treat a whole weight as one long vector; off: column by column."),
    "max_iter": ParameterWords("Rounds", "At most this many steps towards the middle.", 1, 1000, True),
    "tol": ParameterWords("Tolerance", "Stop when a step is smaller than this.", 1e-12, 0.1),
    "eps": ParameterWords("Smallest length (eps)", "Keeps divisions by a length from failing.", 1e-12, 0.001),
    "r": ParameterWords("Strengthening (r)", "How much changes that one model alone made are strengthened.", 0, 2),
    "alpha": ParameterWords("Most strengthening (alpha)", "Upper limit of the overlap that counts for strengthening.", 0, 2),
    "scale": ParameterWords("Scale", "Multiplies the copied weights; left empty they are copied exactly.", 0, 2),
}


def of_method(name: str, pretty: str | None, reference: str | None) -> dict[str, str]:
    """``{title, paper, help}`` of a method."""
    known = METHODS.get(name, MethodWords("A method of mergekit that this studio has no description of. Its page tells "
                                          "more."))
    return {"title": known.title or pretty or name, "paper": known.paper or reference or "", "help": known.help}


def of_parameter(method: str, name: str, kind: str) -> ParameterWords:
    """The words for a parameter of a method; a general text for an unknown one."""
    found = PARAMETERS.get(f"{method}.{name}") or PARAMETERS.get(name)
    return found or ParameterWords(name.replace("_", " ").capitalize(),
                                   f"A parameter of mergekit ({kind}); see the page of the method.")
