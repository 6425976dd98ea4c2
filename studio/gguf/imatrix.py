"""An importance matrix: which inputs of each matrix are large on real texts, so that rounding spares what meets them.

llama.cpp weighs the error of each weight by the mean square of its input. Its own tool gathers that from a GGUF file; here it
is gathered from the model in transformers by hooks, which sees the same inputs. The matrix of the output layer is left
out, as llama.cpp does. Discussion and measurements: https://github.com/ggml-org/llama.cpp/pull/4861.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.gguf import archs, read
from studio.gguf.convert import Stopped
from studio.gguf.quantize import Importance
from studio.library import modelinfo

SUMS, COUNTS = ".in_sum2", ".counts"  # llama.cpp's names within its own file of importance


def collect(model: Any, folder: Path, sequences: list[list[int]], dataset: str = "", *,
            progress: Callable[[int, int], None] | None = None, stop: Callable[[], bool] | None = None) -> Importance:
    """Mean of the squares of every input of every linear layer, over the tokens of some texts.

    Memory beyond the model's: one number an input, and the activations of one text.

    Args:
        model: A causal language model of transformers.
        folder: Where its config.json is.
        sequences: Token ids, one list a text.
        dataset: What the texts are, written into files made with this.
        progress: Called with texts read and texts in all.

    Raises:
        StudioError: no layer of it has a place in a GGUF file, or what it computed is not a number.
        Stopped: ``stop`` said so.
    """
    import torch

    seen = _Seen(names(model, folder))
    hooks = [module.register_forward_pre_hook(seen.hook(name)) for name, module in model.named_modules()
             if name in seen.names]
    try:
        device = next(model.parameters()).device
        with torch.inference_mode():
            for number, ids in enumerate(sequences):
                if stop and stop():
                    raise Stopped
                model(input_ids=torch.tensor([ids], device=device), use_cache=False)
                seen.last = None
                if progress:
                    progress(number + 1, len(sequences))
    finally:
        for hook in hooks:
            hook.remove()
    values = {}
    for name, total in seen.sums.items():
        mean = (total / seen.counts[name]).cpu().numpy()
        if not (mean == mean).all() or abs(mean).max() == float("inf"):
            raise StudioError(f"The model computes values that are no numbers ({name}), so nothing can be weighed by them.",
                              "The model is broken, as after a training that diverged. Choose an earlier checkpoint.",
                              "model")
        values[name] = mean
    return Importance(values, dataset, len(sequences))


def names(model: Any, folder: Path) -> dict[str, str]:
    """Module of the model -> tensor of the GGUF file, for every linear layer but the output.

    Raises:
        StudioError: there is none.
    """
    import gguf
    import torch

    config = modelinfo._json(folder / "config.json")
    kind = archs.of(config, folder.name)
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == kind.name)
    known = gguf.get_tensor_name_map(number, archs.flat(config)["num_hidden_layers"])
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            plain = name.replace("language_model.", "")
            new = known.get_name(plain if plain.startswith(("model.", "lm_head")) else f"model.{plain}")
            if new and new != "output":
                found[name] = f"{new}.weight"
    if not found:
        raise StudioError("The model has no layers that an importance matrix could be made for.",
                          "Turn the importance matrix off.", "imatrix")
    return found


class _Seen:
    """Sums of squares by tensor. Queries, keys and values read the same input, which is squared once."""

    def __init__(self, names_: dict[str, str]):
        self.names = names_
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.last: tuple[Any, Any, int] | None = None

    def hook(self, module: str) -> Callable[[Any, tuple], None]:
        import torch

        name = self.names[module]

        def count(_module: Any, args: tuple) -> None:
            if self.last is None or self.last[0] is not args[0]:
                rows = args[0].detach().reshape(-1, args[0].shape[-1]).to(torch.float32)
                self.last = (args[0], (rows * rows).sum(0), rows.shape[0])
            _, total, tokens = self.last
            self.sums[name] = total.clone() if name not in self.sums else self.sums[name].add_(total)
            self.counts[name] = self.counts.get(name, 0) + tokens

        return count


def save(importance: Importance, path: Path, tokens: int) -> None:
    """Write it in llama.cpp's own format, which ``llama-quantize --imatrix`` reads.

    Args:
        tokens: Length of a text, at most.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [importance.dataset or "unknown"])
    writer.add_uint32("imatrix.chunk_count", importance.chunks)
    writer.add_uint32("imatrix.chunk_size", tokens)
    for name, values in importance.values.items():
        writer.add_tensor(name + SUMS, np.ascontiguousarray(values, np.float32).reshape(-1, values.shape[-1]))
        writer.add_tensor(name + COUNTS, np.ones((values.size // values.shape[-1], 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(path: Path) -> Importance:
    """An importance matrix that :func:`save` or llama.cpp's ``llama-imatrix`` wrote.

    Raises:
        StudioError: it is another file, or broken.
    """
    import numpy as np

    file = read.read(path)
    if file.values.get("general.type") != "imatrix":
        raise StudioError(f"{path.name} is no importance matrix.", "Choose a file that llama-imatrix wrote.", "imatrix")
    values = {}
    for name, tensor in file.tensors.items():
        counts = file.tensors.get(name.removesuffix(SUMS) + COUNTS)
        if not name.endswith(SUMS):
            continue
        if tensor.type != "F32" or counts is None or counts.type != "F32" or tensor.values % counts.values:
            raise StudioError(f"{path.name} is broken: the sums of {name[:60]} have no counts.", "Make it again.", "imatrix")
        sums = np.fromfile(path, np.float32, tensor.values, offset=tensor.offset).reshape(counts.values, -1)
        times = np.fromfile(path, np.float32, counts.values, offset=counts.offset)[:, None]
        mean = np.where(times > 0, sums / np.maximum(times, 1), np.float32(1)).astype(np.float32)
        values[name.removesuffix(SUMS)] = mean[0] if len(mean) == 1 else mean
    datasets = file.items("imatrix.datasets")
    return Importance(values, datasets[0].decode("utf-8", "replace") if datasets else "",
                      int(file.values.get("imatrix.chunk_count") or 0), path.name)
