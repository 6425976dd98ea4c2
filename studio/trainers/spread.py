"""One training on several processes of this machine: torchrun starts them, each is a rank, rank 0 speaks for all.

The worker stays the run's worker: it starts torchrun, passes a stop on, and returns what rank 0 made. No torch here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from studio.errors import StudioError
from studio.jobs.files import read_json

RESULT, FAULT = "ranks.json", "ranks-fault.json"  # in the run's folder: what rank 0 made; what the first rank died of
GRACE = 60.0  # seconds that ranks have to end by themselves once they were asked to


def inside() -> bool:
    """This process is one of the ranks."""
    return "ATELIER_RANK" in os.environ


def wanted(recipe: Any) -> bool:
    """The recipe asks for several processes, or for what only torchrun can start, and this is none of its ranks."""
    return (recipe.num_processes > 1 or recipe.strategy != "ddp") and not inside()


def check(recipe: Any) -> None:
    """Refuse what this machine cannot do.

    Raises:
        StudioError: in ``num_processes`` or ``strategy``.
    """
    from studio import extras
    from studio.hardware import cores, gpus

    count, cards = recipe.num_processes, len(gpus())
    if count == 1 and recipe.strategy == "ddp":
        return
    if cards and count > cards:
        raise StudioError(f"There are {cards} GPUs for {count} processes.", f"Use {cards} or fewer.", "num_processes")
    if not cards and count > cores():
        raise StudioError(f"There are {cores()} cores for {count} processes.", f"Use {cores()} or fewer.",
                          "num_processes")
    if recipe.strategy != "ddp" and not cards:
        raise StudioError("Sharding needs GPUs: on a CPU the library would quietly do something else.",
                          "Choose copies of the model (DDP).", "strategy")
    if recipe.strategy == "fsdp" and count == 1:
        raise StudioError("There is nothing to share with one process.", "Use one process a GPU.", "num_processes")
    if recipe.strategy.startswith("zero"):
        extras.require("deepspeed", "strategy")


def arguments(recipe: Any) -> dict[str, Any]:
    """What the strategy adds to ``TrainingArguments``.

    Offload keeps what is sharded in the machine's memory: optimiser states with ZeRO 1 and 2, weights too with ZeRO 3
    and FSDP. Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054.
    """
    strategy = recipe.strategy
    if strategy == "fsdp":
        return {"fsdp": True, "fsdp_config": {"version": 2, "cpu_offload": recipe.offload, "reshard_after_forward": True,
                                              "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                                              "state_dict_type": "FULL_STATE_DICT"}}
    if not strategy.startswith("zero"):
        return {}
    stage = int(strategy[-1])
    zero: dict[str, Any] = {"stage": stage}
    if recipe.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    config = {"zero_optimization": zero, "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto",
              "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "bf16": {"enabled": "auto"}, "zero_allow_untested_optimizer": True,
              "zero_force_ds_cpu_optimizer": False}
    return {"deepspeed": config}


def run(recipe: Any, ctx: Any) -> dict[str, Any]:
    """Train on ``recipe.num_processes`` processes and return rank 0's summary; its artifacts become this run's.

    Raises:
        StudioError: a rank refused, or died.
    """
    for name in (RESULT, FAULT):
        (ctx.run_dir / name).unlink(missing_ok=True)
    count = recipe.num_processes
    threads = str(max(1, ctx.threads // count))
    env = os.environ | {"ATELIER_RUN_DIR": str(ctx.run_dir), "ATELIER_RANK": "1", "OMP_NUM_THREADS": threads,
                        "ATELIER_WORKER_THREADS": threads, "ATELIER_RESUME_FROM": str(ctx.resume_from or ""),
                        "TORCHELASTIC_ERROR_FILE": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", "--max-restarts", "0",
               "--nproc-per-node", str(count), "-m", "studio.trainers.rank"]
    ctx.log(f"Starting {count} processes.")
    launcher = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
    try:
        _wait(launcher, ctx)
    finally:
        if launcher.poll() is None:
            launcher.kill()
            launcher.wait()
    if launcher.returncode == 0 and (made := read_json(ctx.run_dir / RESULT)):
        ctx.artifacts.extend(made["artifacts"])
        return made["summary"]
    if fault := read_json(ctx.run_dir / FAULT):
        raise StudioError(fault["message"], fault["hint"], fault["field"])
    raise StudioError(f"One of the {count} processes was killed or lost, so the others were ended too.",
                      "Often memory is short: each process holds a whole copy. Resume goes on from the last checkpoint.",
                      "num_processes")


def _wait(launcher: subprocess.Popen, ctx: Any) -> None:
    asked: float | None = None
    while launcher.poll() is None:
        if ctx.stop_requested and asked is None:
            asked = time.monotonic()
            (ctx.run_dir / "stop").touch()  # every rank looks at it
        if asked is not None and time.monotonic() - asked > GRACE:
            launcher.send_signal(signal.SIGTERM)
        time.sleep(0.1)


def tell_fault(folder: Any, message: str, hint: str, field: str | None) -> None:
    """Leave word of why a rank ends; the first of several is the cause."""
    try:
        with open(folder / FAULT, "x", encoding="utf-8") as file:
            json.dump({"message": message, "hint": hint, "field": field}, file)
    except FileExistsError:
        return
