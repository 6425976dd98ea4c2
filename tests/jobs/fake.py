"""Methods for the job tests, added from outside: one class, one line in :func:`register`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from studio.errors import StudioError
from studio.jobs.context import Context, mark_complete
from studio.method import Estimate, Method
from studio.recipe import Recipe, field


class FakeRecipe(Recipe):
    kind, method = "sft", "fake"

    mode: str = field("emit", "Mode", "What to do.")
    steps: int = field(5, "Steps", "How often.", ge=0)
    pause: float = field(0.0, "Pause", "Seconds between steps.", ge=0)
    save_every: int = field(0, "Save every", "Steps between checkpoints; 0 for none.", ge=0)
    level: float = field(0.0, "Level", "What the loss falls to.", ge=-100, le=100)
    memory: int = field(0, "Memory", "Bytes it says it needs; 0 for unknown.", ge=0)


class Fake(Method):
    title, summary = "Fake", "Does what a test wants."
    Recipe = FakeRecipe

    @classmethod
    def estimate(cls, recipe: FakeRecipe) -> Estimate:
        return Estimate(memory=recipe.memory or None)

    @classmethod
    def run(cls, recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        print("the worker speaks", flush=True)
        return getattr(cls, f"_{recipe.mode}")(recipe, ctx)

    @staticmethod
    def _emit(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        first = int(ctx.resume_from.name.split("-")[1]) if ctx.resume_from else 0
        step = first
        for step in range(first + 1, recipe.steps + 1):
            ctx.metric(step, loss=recipe.level + 1.0 / step)
            ctx.progress(step, recipe.steps)
            if recipe.save_every and step % recipe.save_every == 0:
                _save(ctx, step)
            time.sleep(recipe.pause)
            if ctx.stop_requested:
                _save(ctx, step)
                return {"step": step}
        (ctx.output / "weights.txt").write_text(str(step))
        ctx.artifact("file", ctx.output / "weights.txt", "weights", {"step": step}, [("starter", "base")])
        return {"step": step, "first": first, "threads": ctx.threads, "nan": float("nan")}

    @staticmethod
    def _half(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        """Fails where the level is low: a sweep meets bad settings too."""
        if recipe.level < 1:
            raise StudioError("The loss stopped being a number.", "Lower the learning rate.", "learning_rate")
        return Fake._emit(recipe, ctx)

    @staticmethod
    def _wait(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        while not ctx.stop_requested:
            time.sleep(0.02)
        return {}

    @staticmethod
    def _fail(recipe: FakeRecipe, ctx: Context) -> None:
        raise StudioError("The data is bad.", "Use better data.", "dataset")

    @staticmethod
    def _bug(recipe: FakeRecipe, ctx: Context) -> None:
        raise RuntimeError("something odd")

    @staticmethod
    def _leave(recipe: FakeRecipe, ctx: Context) -> None:
        os._exit(7)

    @staticmethod
    def _stubborn(recipe: FakeRecipe, ctx: Context) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        ctx.log(f"child {child.pid}")
        while True:
            time.sleep(0.1)

    @staticmethod
    def _child(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        return {"child": child.pid}

    @staticmethod
    def _suicide(recipe: FakeRecipe, ctx: Context) -> None:
        ctx.metric(1, loss=1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _flood(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        for step in range(recipe.steps):
            ctx.metric(step, loss=1.0)
        return {}

    @staticmethod
    def _shout(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        """Prints 26 MB, waits until somebody has cut them, and prints on."""
        for number in range(260_000):
            print(f"{number:099d}")
        sys.stdout.flush()
        log, deadline = ctx.run_dir / "worker.log", time.monotonic() + 30
        while log.stat().st_size > 20_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        print("the last word", flush=True)
        return {"size": log.stat().st_size}

    @staticmethod
    def _torch(recipe: FakeRecipe, ctx: Context) -> dict[str, Any]:
        """Forward and backward on threads of this process; they hang if the parent used its own before the fork."""
        imported = "torch" in sys.modules
        import torch

        a = torch.ones(512, 512, requires_grad=True)
        total = (a @ torch.ones(512, 512)).sum()
        total.backward()
        return {"imported": imported, "threads": torch.get_num_threads(), "sum": float(total),
                "grad": float(a.grad[0, 0])}

    @staticmethod
    def _full(recipe: FakeRecipe, ctx: Context) -> None:
        """A disk that is full from the second checkpoint on, as the kernel says it to this process."""
        import resource

        _save(ctx, 1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        _save(ctx, 2, size=1 << 20)

    @staticmethod
    def _dead_full(recipe: FakeRecipe, ctx: Context) -> None:
        """Not even the result can be written."""
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _save(ctx, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        _save(ctx, 2, size=1 << 20)


def _save(ctx: Context, step: int, size: int = 10) -> None:
    folder = ctx.checkpoints / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(b"x" * size)
    mark_complete(folder)


class Light(Fake):
    class Recipe(FakeRecipe):
        kind, method = "setup", "fake"


def register(families: dict[str, Any]) -> None:
    families["sft"].add("fake", "tests.jobs.fake:Fake")
    families["setup"].add("fake", "tests.jobs.fake:Light")


def double(value: int) -> dict[str, int]:
    print("noise on standard output")
    return {"value": value * 2, "pid": os.getpid()}


def refuse() -> None:
    raise StudioError("No.", "Ask nicely.", "model")


def crash() -> None:
    os._exit(9)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def echo(text: str) -> str:
    return text
