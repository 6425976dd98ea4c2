"""Recipe fields that every training method shares. Names are those of TRL, transformers and PEFT."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from studio.recipe import Recipe, field
from studio.trainers import optimizers

SFT = "trl.SFTConfig"
SCHEDULES = {"linear": "Linear: falls evenly to zero", "cosine": "Cosine: falls gently at first",
             "constant": "Constant", "constant_with_warmup": "Constant after the warm-up",
             "cosine_with_restarts": "Cosine with restarts", "polynomial": "Polynomial",
             "inverse_sqrt": "Inverse square root"}


class ModelFields(Recipe):
    """Which model to start from."""

    model: str = field("starter", "Model", "The model to start from: the starter, one you made, a folder, or "
                       "hub:owner/name.", widget="model", max_length=1000)


class DataFields(Recipe):
    """Which data."""

    dataset: str = field("", "Dataset", "The examples to learn from: a shipped set, a file (JSONL, JSON, CSV, "
                         "Parquet, text) or hub:owner/name.", widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column plays which role, e.g. prompt: question. Left empty, "
                                    "the studio detects it and shows what it found.", widget="table")
    eval_share: float = field(0.1, "Share kept for validation", "This part of the data is not trained on; the "
                              "validation loss on it shows real learning. More gives a steadier figure, less "
                              "leaves more to learn from; 0 = none.", ge=0.0, le=0.5)
    eval_dataset: str = field("", "Validation dataset", "A separate dataset to validate on, instead of a share of the "
                              "first.", widget="dataset", max_length=1000)
    @model_validator(mode="after")
    def _validation_is_elsewhere(self) -> DataFields:
        if self.eval_dataset and self.eval_dataset == self.dataset:
            raise ValueError("the validation dataset is the training dataset itself; leave it empty to keep a share "
                             "of it")
        return self

    @field_validator("columns", mode="after")
    @classmethod
    def _drop_empty_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return {role: column for role, column in value.items() if str(column).strip()}


class LengthFields(Recipe):
    """Where samples are cut."""

    max_length: int = field(512, "Longest sample", "Samples are cut after this many tokens. Longer costs memory and "
                            "time; set it so that few samples are cut.", library=SFT, unit="tokens", ge=8,
                            le=131072)


class ChatFields(Recipe):
    """How conversations are written for the model."""

    assistant_only_loss: bool = field(True, "Learn from the answers only", "On: only the assistant's words, or the completion "
                                      "after a prompt, are trained on. Off: the model also learns to write the questions.",
                                      library=SFT)
    chat_template: Literal["auto", "keep", "chatml", "none"] = field(
        "auto", "Chat template", "How roles are marked in the text. Keep automatic unless you know that the model "
        "needs another.",
        choices={"auto": "Automatic: the model's own, ChatML for a base without one", "keep": "The model's own",
                 "chatml": "ChatML", "none": "None: prompt and completion as plain text"}, group="training")


class PackFields(Recipe):
    """How samples are put together."""

    packing: bool = field(False, "Packing", "Puts several short samples into one sequence of the longest length, so "
                          "that no time goes to padding. Good for many short samples.", group="training",
                          library=SFT)


class LearnFields(Recipe):
    """How it learns."""

    num_train_epochs: float = field(3.0, "Epochs", "How often each example is seen. More learns the examples better, "
                                    "and at some point by heart: stop when the validation loss rises.",
                                    group="training", library=SFT, gt=0, le=1000)
    max_steps: int = field(-1, "Most steps", "Stop after this many steps, whatever the epochs say. Left empty, the "
                           "epochs decide.", group="training", library=SFT, placeholder="as the epochs say", ge=-1,
                           le=10_000_000)
    learning_rate: float = field(2e-4, "Learning rate", "How large each step is. Too high: the loss jumps or becomes "
                                 "NaN. Too low: it hardly falls.", group="training", widget="log", library=SFT,
                                 gt=0, le=1.0)
    lr_scheduler_type: str = field("cosine", "Learning rate schedule", "How the learning rate changes during the run.",
                                   group="training", choices=SCHEDULES, library=SFT, max_length=40)
    warmup_steps: float = field(0.03, "Warm-up", "Steps in which the learning rate rises from zero; below 1 it is a "
                                "share of the run. More calms a start that jumps.", group="training", library=SFT,
                                ge=0, le=100_000)
    per_device_train_batch_size: int = field(4, "Batch size", "Examples a step looks at together. More is steadier "
                                             "and needs more memory; halve it when memory runs out.",
                                             group="training", library=SFT, ge=1, le=4096)
    gradient_accumulation_steps: int = field(1, "Gradient accumulation", "Adds up this many batches before a step: a "
                                             "larger batch without more memory, but slower.", group="training",
                                             library=SFT, ge=1, le=4096)
    weight_decay: float = field(0.0, "Weight decay", "Pulls weights towards zero. A little (0.01 to 0.1) helps "
                                "against learning by heart.", group="training", library=SFT, ge=0, le=1)
    max_grad_norm: float = field(1.0, "Gradient clipping", "Longest step direction allowed. Lower calms a loss that "
                                 "jumps; 0 = off.", group="training", library=SFT, ge=0, le=1000)
    neftune_noise_alpha: float = field(0.0, "NEFTune noise", "Noise on the embeddings (arXiv 2310.05914); 5 often "
                                       "makes answers of chat models fuller. 0 = off.", group="training",
                                       library=SFT, ge=0, le=100)
    optim: str = field("adamw_torch_fused", "Optimizer", "AdamW suits nearly all; the 8-bit ones, Adafactor, Lion, GaLore "
                       "and APOLLO save memory.", group="training", choices=optimizers.OPTIMS, library=SFT, max_length=60)
    optim_target_modules: str = field("all-linear", "Projected layers", "Layers whose gradients are projected: all-linear, or "
                                      "names with commas between them. Fewer layers save less memory.", group="training",
                                      library=SFT, max_length=400, when={"optim": list(optimizers.LOW_RANK)})
    optim_args: str = field("", "Projection", "Rank and the like, as the library writes them. A higher rank is nearer to "
                            "AdamW and needs more memory.", group="training", library=SFT, max_length=400,
                            placeholder="rank=128, update_proj_gap=200, scale=0.25",
                            when={"optim": list(optimizers.LOW_RANK)})
    bf16: Literal["auto", "on", "off"] = field("auto", "bfloat16", "Computes in 16 bits: faster and smaller on "
                                               "hardware made for it. Automatic uses it where it is faster.",
                                               group="training", choices={"auto": "Automatic", "on": "On",
                                                                          "off": "Off"}, library=SFT)
    gradient_checkpointing: bool = field(False, "Gradient checkpointing", "Saves memory by computing parts twice; "
                                         "about a third slower. Turn on when memory runs out.", group="training",
                                         library=SFT)
    seed: int = field(42, "Seed", "The same seed on the same machine gives the same run.", group="training",
                      library=SFT, ge=0, le=2**32 - 1)

    @field_validator("optim", "lr_scheduler_type")
    @classmethod
    def _known_word(cls, value: str, info: Any) -> str:
        from studio.trainers import extras

        if value not in optimizers.OWN and (why := extras.unknown(info.field_name, value)):
            raise ValueError(f"'{value}' {why}")
        return value

    @field_validator("warmup_steps")
    @classmethod
    def _whole_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("at 1 or more it is a number of steps, so it must be whole")
        return value


class FineFields(Recipe):
    """Finer points of supervised fine-tuning."""

    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = field(
        "bfd", "How they are packed", "Best fit wastes little and keeps samples whole; splitting loses no token of the long "
        "ones. End to end is fastest, and samples then see their neighbours.", group="advanced", library=SFT,
        when={"packing": [True]}, choices={"bfd": "Best fit, long samples are cut",
                                           "bfd_split": "Best fit, long samples are split",
                                           "wrapped": "End to end, cut anywhere"})
    padding_free: bool = field(False, "Padding-free", "Lays the samples of a batch end to end instead of padding them: no work "
                               "for nothing where lengths differ. The losses stay the same; needs no packing.",
                               group="advanced", library=SFT, when={"packing": [False]})
    loss_type: Literal["nll", "dft"] = field(
        "nll", "Loss", "The usual loss, or dynamic fine-tuning (arXiv 2508.05629), which weighs each token by how likely the "
        "model finds it: learns less from odd examples.", group="advanced", library=SFT,
        choices={"nll": "Likelihood", "dft": "Dynamic fine-tuning (DFT)"})
    kernels: Literal["none", "liger"] = field(
        "none", "Faster kernels", "Liger fuses the steps of a layer on a GPU: less memory, a little faster, the same losses up "
        "to rounding. Leave off when a model is not known to it.", group="advanced", shown="studio.trainers.kernels:any_here",
        choices={"none": "The library's own", "liger": "Liger"})


class RopeFields(Recipe):
    """Longer texts than the model was made for."""

    rope_scaling: Literal["none", "linear", "dynamic", "yarn"] = field(
        "none", "Longer context (RoPE)", "Lets the model read longer texts than it was made for, once it is trained on some. "
        "YaRN needs the fewest, linear is simplest, dynamic changes nothing for short texts.", group="advanced",
        choices={"none": "As it is", "linear": "Linear", "dynamic": "Dynamic NTK", "yarn": "YaRN"})
    rope_factor: float = field(2.0, "How many times longer", "The context grows by this factor. More needs more training and "
                               "memory; 2 to 4 is usual.", group="advanced",
                               when={"rope_scaling": ["linear", "dynamic", "yarn"]}, ge=1, le=64)


class SpreadFields(Recipe):
    """On how many processes it runs, and what they share. Shown where the hardware has something to share."""

    num_processes: int = field(1, "Processes", "Copies of the training that share each step, one a GPU. The batch size counts "
                               "for each of them, so two processes look at twice as many examples a step.",
                               group="training", shown="studio.hardware:several_gpus", ge=1, le=64)
    strategy: Literal["ddp", "fsdp", "zero1", "zero2", "zero3"] = field(
        "ddp", "How they share", "Copies are fastest. Sharding spreads the optimizer (ZeRO 1), the gradients too (ZeRO 2), or "
        "the weights as well (ZeRO 3, FSDP), for models that do not fit into one GPU.", group="training",
        shown="studio.hardware:some_gpu",
        choices={"ddp": "A copy each (DDP)", "fsdp": "Weights in shards (FSDP)", "zero1": "DeepSpeed ZeRO 1",
                 "zero2": "DeepSpeed ZeRO 2", "zero3": "DeepSpeed ZeRO 3"})
    offload: bool = field(False, "Offload to memory", "Keeps what is sharded in the machine's memory: fits more, and is much "
                          "slower.", group="training", shown="studio.hardware:some_gpu",
                          when={"strategy": ["fsdp", "zero1", "zero2", "zero3"]})


class WatchFields(Recipe):
    """Watching and saving."""

    logging_steps: int = field(5, "Log every", "A point on the charts after this many steps.", group="watch",
                               library=SFT, unit="steps", ge=1, le=100_000)
    eval_steps: int = field(0, "Validate every", "Validation, and the answers to the prompts below, after this many "
                            "steps; 0 = ten times in a run.", group="watch", library=SFT, unit="steps", ge=0,
                            le=10_000_000)
    save_steps: int = field(0, "Checkpoint every", "A checkpoint, from which the run can be resumed, after this many "
                            "steps; 0 = with every validation.", group="watch", library=SFT, unit="steps", ge=0,
                            le=10_000_000)
    save_total_limit: int = field(3, "Checkpoints kept", "Older ones are deleted; the best and the newest always "
                                  "stay.", group="watch", library=SFT, ge=1, le=1000)
    load_best_model_at_end: bool = field(True, "Keep the best", "On: the checkpoint with the lowest validation loss "
                                         "becomes the result. Off: the last one.", group="watch", library=SFT)
    early_stopping_patience: int = field(0, "Stop early after", "Ends the run when this many validations in a row "
                                         "brought nothing better; 0 = never.", group="watch",
                                         library="transformers.EarlyStoppingCallback", unit="validations", ge=0,
                                         le=1000)
    auto_stop: bool = field(False, "Stop when the training runs away", "On: a run whose loss, KL or entropy is past saving ends by "
                            "itself and keeps what it had. Off: it only warns.", group="watch")
    on_out_of_memory: Literal["stop", "repair"] = field(
        "stop", "When memory runs out", "Stopping offers a smaller batch of which as many more are added up. Repairing takes it at "
        "once and goes on from the last checkpoint; it learns the same, only slower.", group="watch",
        choices={"stop": "Stop, and offer a smaller batch", "repair": "Go on with a smaller batch"})
    sample_prompts: list[str] = field([], "Prompts to watch", "Each is answered at every validation, so that you see "
                                      "the answers change. One a line, at most eight.", group="watch",
                                      widget="lines", max_length=8)
    report_to: Literal["none", "tensorboard", "trackio", "wandb", "mlflow"] = field(
        "none", "Also report to", "An experiment tracker that keeps the curves as well. Its login comes from the "
        "environment.", group="watch", library=SFT,
        choices={"none": "Nowhere else", "tensorboard": "TensorBoard", "trackio": "Trackio",
                 "wandb": "Weights & Biases", "mlflow": "MLflow"})

    @field_validator("sample_prompts")
    @classmethod
    def _real_prompts(cls, value: list[str]) -> list[str]:
        prompts = [p.strip() for p in value if isinstance(p, str) and p.strip()]
        if any(len(p) > 4000 for p in prompts):
            raise ValueError("a prompt to watch is at most 4000 characters")
        return prompts


class ExtraFields(Recipe):
    """The rest of the library's config, and the one dangerous switch."""

    config: ClassVar[str] = SFT  # the config class that takes the settings, as module.Class

    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced", library=SFT)
    extra: dict[str, Any] = field({}, "More settings", "Any other field of TRL's config, by its name; checked "
                                  "before the start.", group="advanced", widget="table")

    @field_validator("extra")
    @classmethod
    def _known_extras(cls, value: dict[str, Any]) -> dict[str, Any]:
        from studio.trainers import extras

        if problem := extras.problem(value, cls):
            raise ValueError(problem)
        return value


class SFTRecipe(ExtraFields, RopeFields, FineFields, WatchFields, SpreadFields, PackFields, LearnFields, ChatFields,
                LengthFields, DataFields, ModelFields):
    """Everything supervised fine-tuning shares."""

    kind: ClassVar[str] = "sft"


class LoraFields(Recipe):
    """The adapter. Paper: LoRA, https://arxiv.org/abs/2106.09685."""

    _LIB: ClassVar[str] = "peft.LoraConfig"

    r: int = field(16, "Rank (r)", "Size of the adapter. Higher can learn more and needs more memory; 8 to 64 is "
                   "usual.", group="adapter", library=_LIB, ge=1, le=1024)
    lora_alpha: int = field(32, "Alpha", "Strength of the adapter. Usually once or twice the rank; higher acts like a "
                            "higher learning rate.", group="adapter", library=_LIB, ge=1, le=4096)
    lora_dropout: float = field(0.0, "Dropout", "Turns off this share of the adapter at random while training; 0.05 "
                                "to 0.1 helps on small datasets.", group="adapter", library=_LIB, ge=0, lt=1)
    target_modules: str = field("all-linear", "Where", "Layers that get an adapter: all-linear, or names with commas "
                                "between them. Fewer layers is smaller and learns less.", group="adapter",
                                library=_LIB, max_length=400,
                                choices={"all-linear": "All linear layers",
                                         "q_proj,v_proj": "Attention: query and value",
                                         "q_proj,k_proj,v_proj,o_proj": "Attention: all four"})
    use_rslora: bool = field(False, "Rank-stabilised (rsLoRA)", "Scales with the root of the rank (arXiv 2312.03732): "
                             "steadier at ranks above 32.", group="adapter", library=_LIB)
    use_dora: bool = field(False, "DoRA", "Learns size and direction apart (arXiv 2402.09353): a little better at "
                           "small ranks, slower.", group="adapter", library=_LIB)


class DeeperLoraFields(LoraFields):
    """What of the adapter few need."""

    _LIB: ClassVar[str] = "peft.LoraConfig"

    loraplus_lr_ratio: float = field(1.0, "LoRA+", "How many times faster one of the two matrices learns (arXiv 2402.12354). 1 "
                                     "= both alike; 4 to 16 learns hard tasks sooner, with a lower learning rate.",
                                     group="advanced", ge=1, le=64)
    layers_to_transform: str = field("", "Only these layers", "Numbers of the layers that get an adapter, from 0, as in 0-3, 7. "
                                     "Left empty: all. Name the parts under 'Where' then.", group="advanced", library=_LIB,
                                     max_length=400, placeholder="all layers")
    modules_to_save: str = field("", "Also train fully", "Parts trained whole beside the adapter, with commas between them, "
                                 "e.g. embed_tokens for new words. Each makes the adapter much larger.", group="advanced",
                                 library=_LIB, max_length=400, placeholder="nothing else")
    bias: Literal["none", "all", "lora_only"] = field(
        "none", "Biases", "Also train the biases of the model. They change the model even while the adapter is off; most "
        "models have none.", group="advanced", library=_LIB,
        choices={"none": "Frozen", "all": "All of them", "lora_only": "Of the layers with an adapter"})

    unsloth: bool = field(False, "Unsloth", "Loads the model and adds the adapter by Unsloth, whose kernels need less time and "
                          "memory on an NVIDIA GPU. The numbers differ a little from the library's own.", group="advanced",
                          shown="studio.trainers.unsloth:here")

    @field_validator("layers_to_transform")
    @classmethod
    def _real_layers(cls, value: str) -> str:
        numbers(value)
        return value

    @model_validator(mode="after")
    def _layers_need_names(self) -> DeeperLoraFields:
        if self.layers_to_transform and self.target_modules.strip() in ("", "all-linear"):
            raise ValueError("to choose layers, also name the parts under 'Where', e.g. q_proj,v_proj")
        return self


def numbers(text: str) -> list[int]:
    """``"0-2, 7"`` -> ``[0, 1, 2, 7]``.

    Raises:
        ValueError: it is something else.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        if not (first.strip().isdigit() and (last or first).strip().isdigit()) or len(part) > 9:
            raise ValueError("write numbers and ranges with commas between them, e.g. 0-3, 7")
        found.update(range(int(first), min(int(last or first), 9999) + 1))
    return sorted(found)
