"""Small conversions whose source is copied into exported scripts. Each stands alone."""


def as_it_is(row):
    return {k: row[k] for k in ("messages", "tools", "prompt", "completion", "text") if row.get(k)}


def from_alpaca(row):
    question = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
    head = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": head + [{"role": "user", "content": question},
                                {"role": "assistant", "content": row["output"]}]}


def from_alpaca_pair(row):
    return {"prompt": row["instruction"] + ("\n\n" + row["input"] if row.get("input") else ""),
            "completion": row["output"]}


def from_sharegpt(row):
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
             "tool": "tool"}
    return {"messages": [{"role": roles[m["from"]], "content": m["value"]} for m in row["conversations"]]}


CONVERSIONS = (as_it_is, from_alpaca, from_alpaca_pair, from_sharegpt)


def answer_mask(tokenizer, messages, tools=None):
    """Tokens of a conversation, and 1 for each that the assistant says, found by rendering up to each answer."""
    def render(part, prompt):
        return tokenizer.apply_chat_template(part, tools=tools or None, tokenize=False, add_generation_prompt=prompt)

    text, spans = render(messages, False), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, after = render(messages[:i], True), render(messages[: i + 1], False)
            if not (text.startswith(before) and text.startswith(after)):
                raise ValueError("in this chat template the answers cannot be told from the questions")
            spans.append((len(before), len(after)))
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return out["input_ids"], [int(any(a < end and b > start for start, end in spans)) for a,
                              b in out["offset_mapping"]]


def stretch(config, kind, factor):
    """Lets a model read ``factor`` times as many tokens, by turning its positions (RoPE) slower."""
    text = config.get_text_config()
    old, longest = dict(text.rope_parameters), text.max_position_embeddings
    text.rope_parameters = old | {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        text.rope_parameters["original_max_position_embeddings"] = longest
    if kind != "dynamic":  # which begins to turn slower behind the length that the config names
        text.max_position_embeddings = int(longest * factor)


def forget_lengths(model):
    """Dynamic RoPE remembers the longest text it has met; forgetting it makes a step depend on its own texts alone."""
    for part in model.modules():
        if hasattr(part, "max_seq_len_cached"):
            part.register_forward_pre_hook(lambda part, inputs: setattr(part, "max_seq_len_cached", 0))


def frozen(names, what, last):
    """Those of a model's weights that stay as they are: embeddings and first layers."""
    import re

    layer = {name: int(found[1]) if (found := re.search(r"\.(\d+)\.", name)) else -1 for name in names}
    layers = 1 + max(layer.values())
    first = {"embeddings": 0, "half": layers // 2, "all_but_last": max(0, layers - last)}[what]
    return [name for name in names if layer[name] < first
            and (layer[name] >= 0 or any(word in name for word in ("embed", "wte", "wpe")))]


def lora_plus():
    """Makes an optimizer in which the matrices B of LoRA learn faster than A (arXiv 2402.12354)."""
    def make(model, args, ratio):
        from peft.optimizers import create_loraplus_optimizer
        from transformers import Trainer

        cls, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return create_loraplus_optimizer(model, cls, loraplus_lr_ratio=ratio, loraplus_weight_decay=args.weight_decay,
                                         **options)

    return make


def muon():
    """Makes an optimizer of two: Muon for the matrices of the layers, AdamW for all else (embeddings, head, norms)."""
    def make(model, args):
        import re

        import torch

        class Both(torch.optim.Optimizer):
            def __init__(self, *parts):
                self.parts = parts
                super().__init__([group for part in parts for group in part.param_groups], {})

            def step(self, closure=None):
                for part in self.parts:
                    part.step()

            def state_dict(self):
                return {"parts": [part.state_dict() for part in self.parts]}

            def load_state_dict(self, state):
                for part, kept in zip(self.parts, state["parts"]):
                    part.load_state_dict(kept)
                self.param_groups = [group for part in self.parts for group in part.param_groups]

        learned = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        inside = [weight for name, weight in learned if weight.ndim == 2 and re.search(r"\.\d+\.", name)]
        ids = {id(weight) for weight in inside}
        rest = [weight for _, weight in learned if id(weight) not in ids]
        return Both(*([torch.optim.Muon(inside, lr=args.learning_rate, weight_decay=args.weight_decay,
                                        adjust_lr_fn="match_rms_adamw")] if inside else []),
                    *([torch.optim.AdamW(rest, lr=args.learning_rate, betas=(args.adam_beta1, args.adam_beta2),
                                         eps=args.adam_epsilon, weight_decay=args.weight_decay)] if rest else []))

    return make


def adalora(trainer):
    """A trainer of TRL in which AdaLoRA's ranks move, and its matrices are kept near orthogonal.

    PEFT adds that term to the loss of the model's own forward; TRL's loss is another, so it is added here.
    """
    import torch
    from transformers import TrainerCallback

    class Allocate(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            model.base_model.update_and_allocate(state.global_step + 1)

    class AdaLoraTrainer(trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(Allocate())

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            made = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if not self.model.training:
                return made
            base = self.model.base_model
            name = base.trainable_adapter_name
            matrices = [weight if "lora_A" in key else weight.T for key, weight in base.model.named_parameters()
                        if key.endswith((f"lora_A.{name}", f"lora_B.{name}"))]
            gaps = [torch.norm(one @ one.T - torch.eye(len(one), dtype=one.dtype, device=one.device)) for one in matrices]
            gap = base.peft_config[name].orth_reg_weight * sum(gaps) / len(gaps)
            self._metrics["train"]["orthogonality"].append(gap.item())
            if num_items_in_batch is not None:  # the parts of a step are then summed, not averaged
                gap = gap / self.current_gradient_accumulation_steps
            return (made[0] + gap, made[1]) if return_outputs else made + gap

    return AdaLoraTrainer
