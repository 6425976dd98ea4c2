"""One of the processes of a training that is spread over several; started by torchrun, see :mod:`studio.trainers.spread`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from studio import registry
from studio.errors import StudioError
from studio.jobs.context import Context
from studio.jobs.explain import explain
from studio.jobs.files import write_json
from studio.recipe import load
from studio.trainers import spread


class Silent(Context):
    """The context of a rank that does not speak: rank 0 says it for all."""

    def emit(self, e: str, **data: Any) -> None:
        return


def main() -> int:
    folder, number = Path(os.environ["ATELIER_RUN_DIR"]), int(os.environ["RANK"])
    registry.load_plugins()
    ctx = (Context if number == 0 else Silent)(folder, threads=int(os.environ["ATELIER_WORKER_THREADS"]))
    ctx.resume_from = Path(os.environ["ATELIER_RESUME_FROM"]) if os.environ["ATELIER_RESUME_FROM"] else None
    signal.signal(signal.SIGTERM, lambda *_: ctx.request_stop())
    _load_to_any_cpu()
    try:
        recipe = load(folder / "recipe.yaml")
        summary = registry.method(recipe.kind, recipe.method).run(recipe, ctx)
        _all_there(recipe)
        if number == 0:
            write_json(folder / spread.RESULT, {"summary": summary or {}, "artifacts": ctx.artifacts})
        return 0
    except BaseException as err:
        traceback.print_exc()
        if not _peer_is_gone(err):
            spread.tell_fault(folder, *explain(err))
        return 1
    finally:
        _leave_group()


def _peer_is_gone(err: BaseException) -> bool:
    """Another rank died, and this one only noticed."""
    return any(word in str(err) for word in ("gloo", "NCCL", "onnection closed by peer", "onnection reset by peer"))


def _load_to_any_cpu() -> None:
    """A rank on a CPU is on "cpu:0" or "cpu:1" to accelerate; torch only knows how to load to "cpu"."""
    import torch

    torch.serialization.register_package(5, lambda storage: None,
                                         lambda storage, place: storage if place.startswith("cpu:") else None)


def _all_there(recipe: Any) -> None:
    """Some launchers start fewer processes than asked for and say nothing.

    Raises:
        StudioError: it happened.
    """
    import torch.distributed as dist

    here = dist.get_world_size() if dist.is_initialized() else 1
    if here != recipe.num_processes:
        raise StudioError(f"{here} of {recipe.num_processes} processes took part.", "This is a fault of the launcher; see "
                          "the log.", "num_processes")


def _leave_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
