"""What a merge will do before it starts: is it possible, which weights are copied, merged or dropped, what it takes.

Follows ``mergekit.plan.MergePlanner`` on the headers of the files; a test holds the two against each other. No torch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from studio.mergers import architecture, config, licences, parameters, shards, spec
from studio.mergers.parameters import Problem, error, note, warning
from studio.mergers.parents import Parent, compatible, find, text_config

_SIZES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
_TOLD = 5  # problems of one kind that are shown
_START = 700_000_000  # bytes: Python with torch, transformers and mergekit
# nanoseconds of one thread a value and model, measured on two tunes of a Llama of 63 M in 16 bits
_RATES = {"passthrough": 2.5, "linear": 3, "slerp": 5, "nuslerp": 5, "multislerp": 12, "karcher": 39, "nearswap": 6,
          "arcee_fusion": 48, "model_stock": 4, "task_arithmetic": 3, "sce": 72, "ram": 13, "ramplus_tl": 18, "ties": 57,
          "dare_ties": 19, "dare_linear": 14, "breadcrumbs": 50, "breadcrumbs_ties": 56, "della": 81, "della_linear": 75}
_SORTING = ("ties", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear", "sce", "arcee_fusion")  # hold indices too


@dataclass
class Plan:
    """A merge as it would go.

    Attributes:
        tensors: name -> (``merged`` | ``copied``, number of values) of every weight of the result.
        dropped: (label of the model, name) of weights that nothing is made of.
        layers: Layers of the result; ``None`` while a model is not on this disk.
    """

    parents: dict[str, Parent] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    tensors: dict[str, tuple[str, int]] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    layers: int | None = None
    method: dict[str, Any] = field(default_factory=dict)
    output: int = 0  # bytes of the result
    largest: int = 0  # values of its largest weight
    inputs: int = 0  # models that are read for one weight, at most

    @property
    def complete(self) -> bool:
        return bool(self.parents) and all(one.folder is not None for one in self.parents.values())

    def errors(self) -> list[Problem]:
        return [one for one in self.problems if one.level == "error"]


def make(values: dict[str, Any], options: dict[str, Any] | None = None) -> Plan:
    """The plan of a configuration with studio references. ``options`` are fields of mergekit's MergeOptions."""
    options = options or {}
    plan = Plan(problems=config.problems(values))
    if plan.errors():
        return plan
    plan.method = spec.methods()[values["merge_method"]]
    plan.parents, found = find(values)
    plan.problems += found
    if plan.errors():
        return plan
    plan.problems += compatible(values, plan.parents, options)
    if plan.complete and not plan.errors():
        _tensors(plan, values, options)
    scaled = any("scale" in source.parameters for one in config.slices(values) for source in one.sources)
    if values["merge_method"] == "passthrough" and len(values.get("slices") or []) > 1 and not scaled:
        plan.problems.append(note("A stack of layers usually answers worse than its parents until it is trained again.",
                                  "Fine-tune the result, or keep the stack short.", "slices"))
    plan.problems += _templates(plan, values)
    plan.problems += licences.told([(one.label, one.licence) for one in plan.parents.values() if one.model])
    plan.problems = list(dict.fromkeys(plan.problems))
    return plan


def _list_of(plan: Plan, values: dict[str, Any]) -> architecture.Architecture:
    """The weights to merge: mergekit's list, or one made of the files."""
    parents = list(plan.parents.values())
    if all(one.arch is not None for one in parents):
        return parents[0].arch
    names = [set(one.tensors) for one in parents]
    base = next((plan.parents[one.base] for one in config.slices(values) if one.base), parents[0])
    made = architecture.of_names(names[parents.index(base)], set.intersection(*names),
                                 text_config(base.config).get("vocab_size"),
                                 {name: one.shape for name, one in base.tensors.items()})
    for one in parents:
        one.arch = one.arch or made
    what = (base.config.get("architectures") or ["this architecture"])[0]
    plan.problems.append(note(f"mergekit has no list of the weights of {what} and goes by the names in the files.",
                              "Look through the list of weights.", ""))
    return made


def _tensors(plan: Plan, values: dict[str, Any], options: dict[str, Any]) -> None:
    arch = _list_of(plan, values)
    parts = dict(config.parts(values)) if values.get("modules") else {"": values}
    if values.get("slices") and len(arch.modules) != 1:
        plan.problems.append(error("These models have several parts, e.g. for pictures and text.",
                                   f"Write modules: with {', '.join(arch.modules)} in place of slices.", "slices"))
        return
    used: set[tuple[str, str]] = set()
    plan.layers = 0
    for name, module in arch.modules.items():
        if values.get("modules") and f"modules.{name}" not in parts:
            plan.problems.append(warning(f"The part '{name}' of the models is left out.", "Add it, or the result lacks it.",
                                         "modules"))
            continue
        slices = [one for one in config.slices(values) if not values.get("modules")
                  or one.path.startswith(f"modules.{name}.")]
        _module(plan, module, slices, values, options, used)
    if values.get("modules"):
        for key in values["modules"]:
            if key not in arch.modules:
                plan.problems.append(error(f"The models have no part '{key}'.", f"They have {', '.join(arch.modules)}.",
                                           f"modules.{key}"))
    for parent in plan.parents.values():
        plan.dropped += [(parent.label, name) for name in parent.tensors if (parent.pair, name) not in used]
    _filters(plan, values)


def _module(plan: Plan, module: architecture.Module, slices: list[config.Slice], values: dict[str, Any],
            options: dict[str, Any], used: set[tuple[str, str]]) -> None:
    counts = {pair: module.count(one.config) for pair, one in plan.parents.items()}
    spans = []
    for one in slices:
        ranges = [source.layers or (0, counts[source.pair]) for source in one.sources]
        for source, span in zip(one.sources, ranges, strict=True):
            if span[1] > counts[source.pair]:
                plan.problems.append(error(f"{plan.parents[source.pair].label} has {counts[source.pair]} layers; the range "
                                           f"{list(span)} goes beyond them.", f"Its last layer is {counts[source.pair] - 1},"
                                           f" so the range ends at most at {counts[source.pair]}.",
                                           f"{source.path}.layer_range"))
        spans.append(ranges)
    if plan.errors():
        return
    total = sum(ranges[0][1] - ranges[0][0] for ranges in spans)
    shapes: dict[str, tuple[int, ...]] = {}
    state = _State(plan, values, options, used, shapes)
    for weight in module.before:
        state.add(slices[0], weight, 0, [0] * len(slices[0].sources), total, counts, 0.0)
    out = 0
    for one, ranges in zip(slices, spans, strict=True):
        length = ranges[0][1] - ranges[0][0]
        for i in range(length):
            for weight in module.layer:
                state.add(one, weight, out, [span[0] + i for span in ranges], total, counts,
                          i / (length - 1) if length > 1 else 1.0)
            out += 1
    for weight in module.after:
        state.add(slices[-1], weight, 0, [0] * len(slices[-1].sources), total, counts, 0.0)
    plan.layers = max(plan.layers or 0, out)
    plan.problems += state.told()


class _State:
    """Collects what is found weight by weight, so that a hundred like faults are told as one."""

    def __init__(self, plan: Plan, values: dict[str, Any], options: dict[str, Any], used: set, shapes: dict):
        self.plan, self.values, self.options, self.used, self.shapes = plan, values, options, used, shapes
        self.aligned = bool(values.get("tokenizer") or values.get("tokenizer_source")
                            or options.get("unsafe_truncate_embeddings"))
        self.rows = _rows(plan, values)
        self.found: dict[tuple, list[Problem]] = {}

    def add(self, one: config.Slice, weight: architecture.Weight, out: int, layers: list[int], total: int,
            counts: dict[str, int], t: float) -> None:
        """Plan one weight of the result."""
        made = weight.at(out, total)
        inputs: dict[str, str] = {}
        held: dict[str, tuple[int, ...]] = {}
        dtypes = []
        named = False
        for source, layer in zip(one.sources, layers, strict=True):
            parent = self.plan.parents[source.pair]
            wanted = weight.at(layer, counts[source.pair])
            own = (wanted.name, *wanted.others)
            named = named or any(name in parent.tensors for name in own)
            name = next((name for name in (*own, *wanted.tied) if name in parent.tensors), None)
            joined = [name] if name else _joined(parent, wanted.name)
            if not joined:
                if not weight.optional:
                    self.say("missing", parent.pair, error(
                        f"{parent.label} lacks the weight {wanted.name}.",
                        "Its files are not complete, or it is another kind of model.", source.path))
                continue
            inputs[source.pair] = wanted.name
            found = [parent.tensors[one] for one in joined]
            held[source.pair] = found[0].shape if len(found) == 1 else (sum(one.values for one in found),)
            dtypes.append(found[0].dtype)
            self.used.update((source.pair, one) for one in joined)
        if weight.optional and not named:
            for source in one.sources:
                self.used.discard((source.pair, made.name))
            return
        base = one.base if self.plan.method["base"] != "ignored" else None
        for problem in parameters.at_tensor(one, made.name, inputs, t, self.plan.method, base):
            self.say("parameter", (problem.path, problem.hint), problem)
        self.shape(made, weight, held, one)
        if not held:
            return
        kind = "merged" if len(held) > 1 else "copied"
        if self.plan.method["name"] == "passthrough":
            source = one.sources[0]
            given, scale = parameters.value_for("scale", [source.parameters, *one.scopes], made.name, t)
            kind = "merged" if given and parameters.number(scale) != 1 else "copied"
        shape = next(iter(held.values()))
        if weight.words and self.rows:
            shape = (self.rows, *shape[1:])
        count = math.prod(shape)
        self.plan.tensors[made.name] = (kind, count)
        self.plan.largest = max(self.plan.largest, count)
        self.plan.inputs = max(self.plan.inputs, len(held))
        word = str(self.values.get("out_dtype") or self.values.get("dtype") or "").removeprefix("torch.")
        self.plan.output += count * (_SIZES.get(word) or max(2 if d in ("BF16", "F16") else 8 if d == "F64" else 4
                                                              for d in dtypes))

    def shape(self, made: architecture.Weight, weight: architecture.Weight, held: dict[str, tuple[int, ...]],
              one: config.Slice) -> None:
        """Weights that meet must have one shape, and so must the same weight of all layers of the result."""
        shapes = dict(held)
        if weight.words and self.aligned:
            shapes = {pair: shape[1:] for pair, shape in held.items()}
        first = next(iter(shapes), None)
        for pair, shape in shapes.items():
            if shape != shapes[first]:
                a, b = self.plan.parents[first], self.plan.parents[pair]
                hint = ("Set the tokenizer to union or base." if weight.words else
                        "Merge models of one size, best tunes of one base.")
                self.say("shape", (first, pair), error(f"{made.name} is {_size(held[first])} in {a.label} and "
                                                       f"{_size(held[pair])} in {b.label}.", hint, one.path))
                return
        if first is not None and "${layer_index}" in weight.name:
            known = self.shapes.setdefault(weight.name, shapes[first])
            if known != shapes[first]:
                self.say("stack", weight.name, error(
                    f"The layers of the result would not fit each other: {made.name} is {_size(shapes[first])}, in a layer "
                    f"before {_size(known)}.", "Stack layers of models of one size.", one.path))

    def say(self, kind: str, what: Any, problem: Problem) -> None:
        self.found.setdefault((kind, what), []).append(problem)

    def told(self) -> list[Problem]:
        made = []
        for (kind, _), same in self.found.items():
            first = same[0]
            more = f" So do {len(same) - 1} more weights." if kind == "shape" and len(same) > 1 else \
                f" {len(same) - 1} more weights have the same fault." if len(same) > 1 else ""
            made.append(first._replace(message=first.message + more))
        rest = len(made) - _TOLD
        return made[:_TOLD] + ([error(f"And {rest} more faults of this kind.", "Mend the first ones.", "")] if rest > 0
                               else [])


def _rows(plan: Plan, values: dict[str, Any]) -> int | None:
    """Words of the result's tokenizer where the configuration makes one; ``None`` where it does not or nothing tells."""
    from studio.library import refs

    told = values.get("tokenizer") if isinstance(values.get("tokenizer"), dict) else {}
    source = told.get("source", "union") if values.get("tokenizer") else values.get("tokenizer_source")
    if not source:
        return None
    pairs = list(plan.parents.values())
    if source in ("union", "base"):
        base = plan.parents.get(config.pair_of(values.get("base_model"))) or pairs[0]
        words: set[str] = set()
        for one in pairs if source == "union" else [base]:
            held, rows = shards.vocabulary(one.folder), text_config(one.config).get("vocab_size")
            if held is None:
                return None
            words |= {word for word, number in held.items() if not rows or number < rows}
    else:
        held = shards.vocabulary(refs.resolve_model(config.pair_of(source)).path) \
            if refs.resolve_model(config.pair_of(source)).path else None
        if held is None:
            return None
        words = set(held)
    count = len(words | set(told.get("tokens") or ()))
    multiple = told.get("pad_to_multiple_of") or 1
    return -(-count // multiple) * multiple


def _joined(parent: Parent, name: str) -> list[str]:
    """Weights of a file that mergekit joins to the one of this name: experts that are stored one by one."""
    lead = re.match(r".*?\.\d+\.", name)
    ends = (("gate_proj.weight", "up_proj.weight", "w1.weight", "w3.weight") if name.endswith("experts.gate_up_proj") else
            ("down_proj.weight", "w2.weight") if name.endswith("experts.down_proj") else
            (".gate.weight",) if name.endswith(".gate.weight") else ())
    if not lead or not ends:
        return []
    experts = "experts" in name
    return [one for one in parent.tensors if one.startswith(lead[0]) and one.endswith(ends) and experts == (".experts." in one)]


def _filters(plan: Plan, values: dict[str, Any]) -> None:
    """Filters that match no weight: a typing error mergekit does not tell."""
    names = list(plan.tensors)

    def look(settings: Any, path: str) -> None:
        for name, value in (settings or {}).items():
            for i, one in enumerate(value if isinstance(value, list) else [value]):
                wanted = one.get("filter") if isinstance(one, dict) else None
                if wanted not in (None, "*") and not any(wanted in tensor for tensor in names):
                    plan.problems.append(warning(f"No weight has '{wanted}' in its name, so this value is never used.",
                                                 "Filters are parts of names, such as self_attn, mlp or embed_tokens.",
                                                 f"{path}.{name}[{i}].filter"))

    look(values.get("parameters"), "parameters")
    for _, part in config.parts(values):
        if part is not values:
            look(part.get("parameters"), "modules.parameters")
    for one in config.slices(values):
        for source in one.sources:
            look(source.parameters, f"{source.path}.parameters")
    for i, one in enumerate(values.get("slices") or []):
        look(one.get("parameters"), f"slices[{i}].parameters")


def _templates(plan: Plan, values: dict[str, Any]) -> list[Problem]:
    """Chat templates of the parents, where the configuration chooses none."""
    if values.get("chat_template"):
        return []
    found = {}
    for one in plan.parents.values():
        if one.folder is not None and one.model is not None:
            text = (shards.template(one.adapter.path) if one.adapter else None) or shards.template(one.folder)
            if text:
                found[one.label] = text
    if len(set(found.values())) > 1:
        return [warning(f"{' and '.join(found)} write conversations in different ways; the merged model gets the template "
                        "of the base, or of the first model.", "Choose a chat template, or 'auto' for the most frequent.",
                        "chat_template")]
    return []


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one value"


def estimate(plan: Plan, values: dict[str, Any], shard: int = 1_000_000_000) -> dict[str, int | float | None]:
    """``{ram, disk, seconds}`` of a merge: bytes of memory at the peak, bytes written (folded adapters among them), time.

    Measured on one thread of a shared x86_64 machine (peak of a 63 M Llama: linear 931 MB, TIES 1,111 MB). ``None`` where a
    model is not on this disk yet.
    """
    if not plan.complete or not plan.tensors:
        return {"ram": None, "disk": None, "seconds": None}
    folded = [one for one in plan.parents.values() if one.adapter is not None]
    kept = sum(one.model.meta.get("size") or 0 for one in folded)
    working = plan.largest * (4 * (plan.inputs + 3) + (24 if plan.method["name"] in _SORTING else 0))
    most = max((one.model.meta.get("size") or 0 for one in folded), default=0)
    ram = _START + max(min(shard, plan.output) + working, most)
    total = sum(count for _, count in plan.tensors.values())
    seconds = 3.0 + total * max(1, plan.inputs) * _RATES.get(plan.method["name"], 20) * 1e-9 + 2 * plan.output / 400e6 \
        + len(folded) * 3.0
    return {"ram": int(ram), "disk": int(plan.output + kept + 20_000_000), "seconds": round(seconds, 1)}


def table(plan: Plan) -> dict[str, Any]:
    """Counts and names of what happens to each weight."""
    kinds = [kind for kind, _ in plan.tensors.values()]
    rows = [{"name": name, "action": kind} for name, (kind, _) in plan.tensors.items()]
    rows += [{"name": name, "action": "dropped", "model": label} for label, name in plan.dropped]
    return {"copied": kinds.count("copied"), "merged": kinds.count("merged"), "dropped": len(plan.dropped), "list": rows}
