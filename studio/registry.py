"""Registries: a name points at ``"module:attribute"`` and nothing is imported until somebody asks for it."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterator
from typing import Generic, TypeVar

from studio.errors import StudioError

T = TypeVar("T")


class Registry(Generic[T]):
    """One family of methods.

    Args:
        name: The recipe's ``kind``, e.g. ``sft``.
        title: What a person calls it.
        made: What its jobs make, one phrase for help texts.
    """

    def __init__(self, name: str, title: str, made: str):
        self.name, self.title, self.made = name, title, made
        self._targets: dict[str, str] = {}
        self._loaded: dict[str, T] = {}

    def add(self, name: str, target: str) -> None:
        """Register ``target`` (``"module:attribute"``) as ``name``.

        Raises:
            ValueError: if the name is taken by another target.
        """
        if self._targets.get(name, target) != target:
            raise ValueError(f"{self.name}/{name} is already {self._targets[name]}, cannot also be {target}")
        self._targets[name] = target

    def remove(self, name: str) -> None:
        self._targets.pop(name, None)
        self._loaded.pop(name, None)

    def get(self, name: str) -> T:
        """The object registered as ``name``, imported on first use.

        Raises:
            StudioError: if there is none; the hint names the nearest.
        """
        if name not in self._targets:
            near = difflib.get_close_matches(str(name), self._targets, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(self._targets) or 'none'}."
            raise StudioError(f"There is no {self.title.lower()} method '{name}'.", hint, "method")
        if name not in self._loaded:
            module, _, attribute = self._targets[name].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def items(self) -> Iterator[tuple[str, T]]:
        for name in self._targets:
            yield name, self.get(name)


def _families() -> dict[str, Registry]:
    pretrain = Registry("pretrain", "Pretrain", "a base model")
    pretrain.add("scratch", "studio.trainers.scratch:Scratch")
    pretrain.add("continued", "studio.trainers.continued:Continued")

    sft = Registry("sft", "Fine-tune", "a fine-tuned model or adapter")
    sft.add("lora", "studio.trainers.sft_lora:Lora")
    sft.add("full", "studio.trainers.sft_full:Full")
    sft.add("qlora", "studio.trainers.sft_qlora:Qlora")
    sft.add("loha", "studio.trainers.sft_loha:Loha")
    sft.add("lokr", "studio.trainers.sft_lokr:Lokr")
    sft.add("adalora", "studio.trainers.sft_adalora:AdaLora")
    sft.add("vera", "studio.trainers.sft_vera:Vera")
    sft.add("oft", "studio.trainers.sft_oft:Oft")
    sft.add("ia3", "studio.trainers.sft_ia3:Ia3")
    sft.add("prefix_tuning", "studio.trainers.sft_prefix_tuning:PrefixTuning")
    sft.add("p_tuning", "studio.trainers.sft_p_tuning:PTuning")
    sft.add("prompt_tuning", "studio.trainers.sft_prompt_tuning:PromptTuning")

    align = Registry("align", "Align", "an aligned model or adapter")
    align.add("dpo", "studio.aligners.dpo:Dpo")
    align.add("kto", "studio.aligners.kto:Kto")
    align.add("orpo", "studio.aligners.orpo:Orpo")
    align.add("cpo", "studio.aligners.cpo:Cpo")
    align.add("simpo", "studio.aligners.simpo:Simpo")
    align.add("reward", "studio.aligners.reward:Reward")

    align.add("grpo", "studio.aligners.grpo:Grpo")
    align.add("rloo", "studio.aligners.rloo:Rloo")
    align.add("online_dpo", "studio.aligners.online_dpo:OnlineDpo")
    align.add("gkd", "studio.aligners.gkd:Gkd")
    align.add("gold", "studio.aligners.gold:Gold")
    align.add("rejection_sampling", "studio.aligners.rejection_sampling:RejectionSampling")
    align.add("ppo", "studio.aligners.ppo:Ppo")
    align.add("prm", "studio.aligners.prm:Prm")

    data = Registry("data", "Dataset", "a dataset")
    data.add("pipeline", "studio.datasets.pipeline:Pipeline")
    data.add("import", "studio.datasets.steps.bring_in:BringIn")
    data.add("export", "studio.datasets.steps.export:Export")
    data.add("filter", "studio.datasets.steps.filter:Filter")
    data.add("dedup", "studio.datasets.steps.dedup:Dedup")
    data.add("near_dedup", "studio.datasets.steps.near_dedup:NearDedup")
    data.add("embedding_dedup", "studio.datasets.steps.embedding_dedup:EmbeddingDedup")
    data.add("decontaminate", "studio.datasets.steps.decontaminate:Decontaminate")
    data.add("repair", "studio.datasets.steps.repair:Repair")
    data.add("redact", "studio.datasets.steps.redact:Redact")
    data.add("mix", "studio.datasets.steps.mix:Mix")
    data.add("split", "studio.datasets.steps.split:Split")
    data.add("sample", "studio.datasets.steps.sample:Sample")
    data.add("reshape", "studio.datasets.steps.reshape:Reshape")
    data.add("doctor", "studio.datasets.steps.doctor:Doctor")
    data.add("edits", "studio.datasets.steps.edits:ApplyEdits")
    data.add("statistics", "studio.datasets.steps.statistics:Statistics")
    data.add("verified", "studio.datasets.steps.verified:Verified")
    data.add("distill_prompt", "studio.datasets.steps.distill_prompt:DistillPrompt")
    data.add("prompt_check", "studio.datasets.steps.prompt_check:PromptCheck")
    data.add("pairs", "studio.datasets.steps.pairs:Pairs")
    data.add("score", "studio.datasets.steps.score:Score")
    data.add("idea", "studio.datasets.steps.idea:Idea")
    data.add("generate_from_documents", "studio.datasets.steps.documents:Documents")
    data.add("self_instruct", "studio.datasets.steps.self_instruct:SelfInstruct")
    data.add("evolve", "studio.datasets.steps.evolve:Evolve")
    data.add("personas", "studio.datasets.steps.personas:Personas")
    data.add("chain_of_thought", "studio.datasets.steps.chain_of_thought:ChainOfThought")
    data.add("branch_solve_merge", "studio.datasets.steps.branch_solve_merge:BranchSolveMerge")
    data.add("backtranslate", "studio.datasets.steps.backtranslate:Backtranslate")

    merge = Registry("merge", "Merge", "a merged model")
    merge.add("mergekit", "studio.mergers.mergekit:Mergekit")
    merge.add("adapter", "studio.mergers.adapter:MergeAdapter")
    merge.add("adapters", "studio.mergers.adapters:MergeAdapters")
    merge.add("moe", "studio.mergers.moe:Moe")
    merge.add("extract_lora", "studio.mergers.extract_lora:ExtractLora")
    merge.add("tokensurgeon", "studio.mergers.tokensurgeon:TokenSurgeon")
    merge.add("evolve", "studio.mergers.evolve:Evolve")

    quantize = Registry("quantize", "Quantize", "smaller variants of a model")
    quantize.add("gguf", "studio.quantizers.gguf:Gguf")
    quantize.add("bitsandbytes", "studio.quantizers.bitsandbytes:BitsAndBytes")
    quantize.add("gptq", "studio.quantizers.gptq:Gptq")
    quantize.add("awq", "studio.quantizers.awq:Awq")
    quantize.add("smoothquant", "studio.quantizers.smoothquant:SmoothQuant")
    quantize.add("fp8", "studio.quantizers.fp8:Fp8")
    quantize.add("int", "studio.quantizers.integers:Int")
    quantize.add("hqq", "studio.quantizers.hqq:Hqq")
    quantize.add("exl3", "studio.quantizers.exl3:Exl3")
    quantize.add("learn", "studio.quantizers.learn:Learn")

    evaluate = Registry("eval", "Evaluate", "scores")
    evaluate.add("harness", "studio.evals.harness:Harness")
    evaluate.add("compare", "studio.evals.compare:Compare")
    evaluate.add("judge", "studio.evals.judge:Judge")
    evaluate.add("budget", "studio.evals.budget:Budget")
    evaluate.add("analyse", "studio.evals.analysis:Analyse")
    evaluate.add("report", "studio.evals.report:Report")
    evaluate.add("safety", "studio.evals.safety:Safety")
    evaluate.add("robustness", "studio.evals.robustness:Robustness")
    evaluate.add("hallucination", "studio.evals.hallucination:Hallucination")
    evaluate.add("prompt_following", "studio.evals.prompt_following:PromptFollowing")
    evaluate.add("speed", "studio.evals.speed:Speed")

    look = Registry("look", "Look inside", "a view of what a model does inside")
    look.add("lens", "studio.look.lens:Lens")
    look.add("attention", "studio.look.attention:Attention")
    look.add("abliterate", "studio.look.abliterate:Abliterate")
    look.add("landscape", "studio.look.landscape:Landscape")

    flow = Registry("flow", "Pipeline", "what its last step makes")
    flow.add("chain", "studio.flows.chain:Chain")

    publish = Registry("publish", "Publish", "a repository on the Hub")
    publish.add("hub", "studio.publishers.hub:PushToHub")
    publish.add("dataset", "studio.publishers.dataset:PushDataset")
    publish.add("variants", "studio.publishers.variants:PushVariants")

    sweep = Registry("sweep", "Sweep", "the best of several runs with different settings")
    sweep.add("grid", "studio.sweeps.grid:Grid")
    sweep.add("random", "studio.sweeps.random:Random")
    sweep.add("bayes", "studio.sweeps.bayes:Bayes")

    setup = Registry("setup", "Install", "an optional part of the studio")
    setup.add("extra", "studio.setup_jobs.extra:InstallExtra")
    return {family.name: family for family in (pretrain, sft, align, sweep, data, merge, quantize, evaluate, look, flow, publish,
                                           setup)}


FAMILIES: dict[str, Registry] = _families()


def load_plugins() -> None:
    """Call every ``module:function`` of ``ATELIER_PLUGINS`` (comma separated) with ``FAMILIES``.

    This is how a method outside the project is added without touching it: the function calls
    ``families["sft"].add(...)``.
    Calling it again changes nothing.

    Raises:
        StudioError: if a plugin cannot be imported or fails.
    """
    for target in filter(None, (part.strip() for part in os.environ.get("ATELIER_PLUGINS", "").split(","))):
        module, _, attribute = target.partition(":")
        try:
            getattr(importlib.import_module(module), attribute)(FAMILIES)
        except Exception as err:
            raise StudioError(f"The plugin {target} cannot be loaded: {type(err).__name__}: {err}",
                              "Correct ATELIER_PLUGINS, or install the package it names.") from err


def family(kind: str) -> Registry:
    """The registry of a recipe kind.

    Raises:
        StudioError: if there is none.
    """
    if kind not in FAMILIES:
        near = difflib.get_close_matches(str(kind), FAMILIES, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known kinds: {', '.join(FAMILIES)}."
        raise StudioError(f"There is no recipe kind '{kind}'.", hint, "kind")
    return FAMILIES[kind]


def method(kind: str, name: str):
    """The Method class for a kind and a name.

    Raises:
        StudioError: naming the nearest known kind or method.
    """
    return family(kind).get(name)


load_plugins()
