"""EXL3, the format of ExLlamaV3: trellis-coded weights (QTIP, Tseng et al. 2024) of any number of bits, for NVIDIA GPUs.

The package's own converter does the work, as a process of its own: https://github.com/turboderp-org/exllamav3 (doc/convert.md).
It brings the texts it calibrates on.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from studio import extras, hardware
from studio.errors import StudioError
from studio.library import refs
from studio.quantizers import compressed
from studio.quantizers.base import QuantizeMethod, QuantizeRecipe, Stopped
from studio.recipe import field

TYPES = {"2.0": "2 bits", "2.5": "2.5 bits", "3.0": "3 bits", "3.5": "3.5 bits", "4.0": "4 bits (usual)", "5.0": "5 bits",
         "6.0": "6 bits", "8.0": "8 bits"}
MODULE = "exllamav3.conversion.convert_model"
MIND = "Runs with ExLlamaV3 (TabbyAPI) on NVIDIA GPUs only; neither the Chat tab nor transformers reads it."
_LAYER = re.compile(r"-- (?:Quantized|Captured): \S*?layers\.(\d+)\.")
_POLL = 0.3  # seconds between looks at the stop


class Exl3Recipe(QuantizeRecipe):
    """Fields of an EXL3 run."""

    method: ClassVar[str] = "exl3"

    types: list[Literal["2.0", "2.5", "3.0", "3.5", "4.0", "5.0", "6.0", "8.0"]] = field(
        ["4.0"], "Variants", "Bits of a weight, on average. Each becomes a model of its own.", widget="lines", choices=TYPES,
        max_length=len(TYPES))
    head_bits: int = field(6, "Bits of the output layer", "The layer that chooses the word bears fewer bits badly.",
                           group="method", ge=1, le=8)
    prove: bool = field(False, "Prove each variant", "Only ExLlamaV3 runs these files, which the proof does not know.",
                        widget="hidden")


class Exl3(QuantizeMethod):
    """ExLlamaV3's converter."""

    title = "EXL3"
    summary = "Very good 2 to 6 bits for one's own NVIDIA GPU, run by ExLlamaV3. Needs such a GPU here."
    paper = "https://arxiv.org/abs/2406.11235"
    Recipe = Exl3Recipe
    needs_gpu = True
    scratch = 2.0

    @classmethod
    def variants(cls, recipe: Exl3Recipe) -> list[str]:
        return list(recipe.types)

    @classmethod
    def bits(cls, recipe: Exl3Recipe, variant: str) -> float:
        return float(variant)

    @classmethod
    def check(cls, recipe: Exl3Recipe) -> None:
        if not hardware.gpus():
            raise StudioError("EXL3 is made and run on NVIDIA GPUs only, and this machine has none.",
                              "GGUF, AWQ and GPTQ are made without one.", "method")
        extras.require("exllamav3", "method")
        super().check(recipe)

    @classmethod
    def make(cls, recipe: Exl3Recipe, ctx: Any, source: refs.ModelRef, variant: str, folder: Path) -> dict[str, Any]:
        work = ctx.run_dir / "exl3"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            code, last = _convert(command(recipe, source, variant, work, folder), work / "log.txt", ctx,
                                  source.meta.get("layers") or 1)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if ctx.stop_requested:
            raise Stopped
        if code or not list(folder.glob("*.safetensors")):
            raise StudioError(f"ExLlamaV3 could not convert {source.label}: {last or 'it gave no reason'}.",
                              "The log of the run says more. Its first start compiles for the GPU, which needs the CUDA "
                              "toolkit.")
        return {"format": "exl3", "quantization": f"{variant} bits", "bits": compressed.measured_bits(folder, source),
                "notes": [MIND]}


def command(recipe: Exl3Recipe, source: refs.ModelRef, variant: str, work: Path, folder: Path) -> list[str]:
    """The converter's command line."""
    return [sys.executable, "-m", MODULE, "-i", str(source.path), "-o", str(folder), "-w", str(work / "parts"),
            "-b", variant, "-hb", str(recipe.head_bits)]


def _convert(words: list[str], log: Path, ctx: Any, layers: int) -> tuple[int, str]:
    """Runs the converter; (its exit code, its last word). A stop ends it with all it started."""
    read = 0
    with log.open("w+", encoding="utf-8", errors="replace") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True)
        while process.poll() is None:
            if ctx.stop_requested:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                break
            time.sleep(_POLL)
            read = _tell(log, read, ctx, layers)
        _tell(log, read, ctx, layers)
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    print("\n".join(lines[-200:]), flush=True)  # into the log of the run
    return process.returncode, (lines[-1] if lines else "").removeprefix("!! Error: ").rstrip(".")


def _tell(log: Path, read: int, ctx: Any, layers: int) -> int:
    """Progress from the layers named since byte ``read``; where to read on."""
    with log.open("rb") as file:
        file.seek(read)
        new = file.read()
    whole = new[:new.rfind(b"\n") + 1]
    if found := _LAYER.findall(whole.decode("utf-8", "replace")):
        ctx.progress(min(int(found[-1]) + 1, layers), layers)
    return read + len(whole)
