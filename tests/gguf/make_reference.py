"""Makes ``reference.json``: what llama-quantize does, so that tests can compare without compiling llama.cpp.

    python -m venv /tmp/reference && /tmp/reference/bin/pip install gguf==0.19.0 llama-cpp-python==0.3.36   # compiles, 5 min
    /tmp/reference/bin/python tests/gguf/make_reference.py

``llama_model_quantize`` is the function behind ``llama-quantize``. Of the small model the hash of every written file is kept
(and of every tensor, so that a difference can be found); of the others, by a dry run, which tensor got which type.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import llama_cpp.llama_cpp as llama  # not installed in the project's environment, see above
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import cases  # noqa: E402
from gguf import GGUFReader  # noqa: E402

VARIANTS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
            "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20,
            "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28,
            "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37}
OPTIONS = {"Q4_K_M pure": ("Q4_K_M", {"pure": True}), "Q4_K_M output Q8_0": ("Q4_K_M", {"output_tensor_type": 8}),
           "Q4_K_M embedding Q6_K": ("Q4_K_M", {"token_embedding_type": 14}),
           "Q4_K_M leave output": ("Q4_K_M", {"quantize_output_tensor": False})}
DATASET, CHUNKS = "cases", 3
SAID: list[str] = []  # what llama.cpp prints


def run(source: Path, out: Path, ftype: int, importance: dict[str, np.ndarray] | None, **options: object) -> bool:
    """llama-quantize on one file, told of the importance matrix as its command line tells it."""
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 2
    for name, value in options.items():
        setattr(params, name, value)
    if importance:
        entries = (llama.llama_model_imatrix_data * (len(importance) + 1))()
        kept = []
        for at, (name, values) in enumerate(importance.items()):
            flat = np.ascontiguousarray(values).reshape(-1)
            kept.append(flat)
            entries[at].name, entries[at].size = name.encode(), flat.size
            entries[at].data = flat.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = entries
        told = [("quantize.imatrix.file", "imatrix"), ("quantize.imatrix.dataset", DATASET),
                ("quantize.imatrix.entries_count", len(importance)), ("quantize.imatrix.chunks_count", CHUNKS)]
        overrides = (llama.llama_model_kv_override * (len(told) + 1))()
        for at, (key, value) in enumerate(told):
            overrides[at].key = key.encode()
            overrides[at].tag = 0 if isinstance(value, int) else 3
            if isinstance(value, int):
                overrides[at].value.val_i64 = value
            else:
                overrides[at].value.val_str = value.encode()
        params.kv_overrides = overrides
    return llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0


def types(said: str) -> dict[str, str]:
    """Tensor -> type, from the lines of a dry run: ``[1/38] name - [shape], type = f32, size = 1 MiB -> 1 MiB (q4_K)``."""
    found = {}
    for line in said.splitlines():
        if match := re.match(r"\[ *\d+/ *\d+\] +(\S+) +- .*type = +(\w+), size = .*?(?:\((\w+)\))?$", line.strip()):
            found[match[1]] = (match[3] or match[2]).upper()
    return found


def hashes(path: Path) -> dict[str, object]:
    tensors = {tensor.name: hashlib.sha256(tensor.data.tobytes()).hexdigest()[:16] for tensor in GGUFReader(path).tensors}
    return {"file": hashlib.sha256(path.read_bytes()).hexdigest(), "tensors": tensors}


def main() -> None:
    made: dict[str, dict] = {"llama-cpp-python": "0.3.36", "weights": {}, "mixes": {}}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source.gguf", Path(folder) / "out.gguf"
        importance = cases.write(cases.WEIGHTS, source)
        for variant, ftype in VARIANTS.items():
            for word, matrix in (("", None), (" imatrix", importance)):
                ok = run(source, out, ftype, matrix)
                made["weights"][variant + word] = hashes(out) if ok else None
        for word, (variant, options) in OPTIONS.items():
            made["weights"][word] = hashes(out) if run(source, out, VARIANTS[variant], None, **options) else None
        for name, case in cases.MIXES.items():
            importance = cases.write(case, source)
            found = made["mixes"].setdefault(name, {})
            for variant, ftype in VARIANTS.items():
                for word, matrix in (("", None), (" imatrix", importance)):
                    SAID.clear()
                    assert run(source, out, ftype, matrix, dry_run=True)
                    kinds = types("".join(SAID))
                    assert len(kinds) == len(cases.shapes(case)), (name, variant)
                    found[variant + word] = brief(kinds)
    Path(__file__).with_name("reference.json").write_text(json.dumps(made, indent=0, sort_keys=True) + "\n")


def brief(found: dict[str, str]) -> str:
    """Types as one hash: the tests make the same of ours, and the mixes of eleven models would take a megabyte."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    listen = llama.llama_log_callback(lambda level, text, data: SAID.append(text.decode()))  # lives as long as it is used
    llama.llama_log_set(listen, ctypes.c_void_p(0))
    main()
