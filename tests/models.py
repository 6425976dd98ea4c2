"""Small real model folders for tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def tensor_file(path: Path, shape: tuple[int, ...] = (2, 3), dtype: str = "F32", width: int = 4) -> None:
    """A real safetensors file with one tensor of zeros."""
    size = width
    for side in shape:
        size *= side
    header = json.dumps({"w": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def make_model(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                                                    "max_position_embeddings": 128} | config))
    (folder / "tokenizer.json").write_text("{}")
    tensor_file(folder / "model.safetensors")
    return folder


def make_adapter(folder: Path, base: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "base_model_name_or_path": base}))
    tensor_file(folder / "adapter_model.safetensors")
    return folder
