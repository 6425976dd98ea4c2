"""A model that sees: :class:`studio.chat.host.Host` over ``AutoModelForImageTextToText`` and the model's own processor.

Answers take turns, because each family places its pictures' tokens in its own way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.chat.host import Host
from studio.chat.pictures import opened
from studio.errors import StudioError


def sees(path: str, revision: str | None = None) -> bool:
    """Whether a model has eyes and the files of a processor for them."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError):
        return False  # whoever loads it says why
    files = ("processor_config.json", "preprocessor_config.json")
    return getattr(config, "vision_config", None) is not None and (
        not Path(path).is_dir() or any((Path(path) / name).is_file() for name in files))


class _Seen(list):
    """Token ids of a prompt, with what the model needs to see its pictures."""

    inputs: dict[str, Any]


class VisionHost(Host):
    auto = "AutoModelForImageTextToText"
    sees = True

    def __init__(self, path: str, revision: str | None = None, **more: Any):
        super().__init__(path, revision, **more)
        from transformers import AutoProcessor

        try:
            self.processor = AutoProcessor.from_pretrained(path, revision=revision)
        except (ImportError, OSError, ValueError) as err:
            first = (str(err).strip().splitlines() or [type(err).__name__])[0]
            raise StudioError(f"The processor of {Path(path).name} cannot be loaded: {first}",
                              "Some need torchvision; install it, or choose a model that reads text.", "model") from err
        self._batcher = None

    @property
    def templated(self) -> bool:
        return bool(getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template)

    def encode(self, messages: list[dict[str, Any]], name: str | None = None,
               tools: list[dict[str, Any]] | None = None) -> tuple[list[int], str]:
        """As :meth:`Host.encode`, with pictures.

        Raises:
            StudioError: a picture that cannot be read, a template that refuses the conversation, or one that is too long.
        """
        template = getattr(self.processor, "chat_template", None)
        if not template or not any(isinstance(message["content"], list) for message in messages):
            if template and not self.tokenizer.chat_template:
                self.tokenizer.chat_template = template
            return super().encode(messages, name, tools)
        made = opened(messages)
        try:
            inputs = self.processor.apply_chat_template(made, tools=tools or None, add_generation_prompt=True, tokenize=True,
                                                        return_dict=True, return_tensors="pt")
        except Exception as err:
            raise StudioError(f"The model's chat template refuses this conversation: {err}",
                              "Messages must alternate between user and assistant.", "messages") from err
        ids = _Seen(inputs["input_ids"][0].tolist())
        if self.context and len(ids) >= self.context:
            raise StudioError(f"The conversation is {len(ids)} tokens long with its pictures; this model can read {self.context}.",
                              "Send fewer or smaller pictures, or start a new chat.", "messages")
        ids.inputs = {key: self._placed(value) for key, value in inputs.items()}
        return ids, ""

    def _placed(self, value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)

    def _inputs(self, ids: list[int]) -> dict[str, Any]:
        return ids.inputs if isinstance(ids, _Seen) else super()._inputs(ids)
