"""Calls that need the heavy libraries but are no jobs (a token preview, say), in a process of their own.

The studio's page process never imports torch; it asks here. Forked from the warm process when there is one, else a
fresh ``python -m studio.jobs.probe``. Arguments and result are JSON.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import traceback
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.jobs import zygote
from studio.jobs.explain import disk_full, explain

_log = logging.getLogger(__name__)


def call(target: str, kwargs: dict[str, Any] | None = None, timeout: float = 60) -> Any:
    """The JSON value that ``module:function`` returns for ``kwargs``, computed in another process.

    Raises:
        StudioError: the function's own; or that it failed otherwise or took longer than ``timeout`` seconds.
    """
    env = dict(os.environ) | {"STUDIO_HOME": str(settings.home()), "OMP_NUM_THREADS": "1"}
    message = {"op": "probe", "target": target, "kwargs": kwargs or {}, "timeout": timeout, "env": env}
    try:
        answer = zygote.request(message, env, timeout)
        if answer is None:
            answer = _cold(message, env, timeout)
    except TimeoutError as err:
        raise StudioError(f"This took longer than {timeout:.0f} s and was ended.",
                          "Try a smaller file or model, or try again when the machine is less busy.") from err
    if "error" in answer:
        raise StudioError(**answer["error"])
    if "value" not in answer:
        raise StudioError("The helper process ended without an answer.",
                          "Often memory is short: close other programs and try again.")
    return answer["value"]


def answer(target: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Call ``target`` in this process; ``{"value": ...}`` or ``{"error": {message, hint, field}}``, always JSON."""
    try:
        from studio import registry

        registry.load_plugins()
        module, _, name = target.partition(":")
        value = getattr(importlib.import_module(module), name)(**kwargs)
        json.dumps(value)
        return {"value": value}
    except StudioError as err:
        return {"error": err.to_dict()}
    except BaseException as err:
        traceback.print_exc()
        said = explain(err)
        hint = said.hint if said.field or disk_full(err) else "The studio's log has the details."
        return {"error": {"message": said.reason, "hint": hint, "field": said.field}}


def _cold(message: dict[str, Any], env: dict[str, str], timeout: float) -> dict[str, Any]:
    env["PYTHONPATH"] = os.pathsep.join([str(settings.ROOT), os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run([sys.executable, "-m", "studio.jobs.probe"], input=json.dumps(message).encode(), env=env,
                              capture_output=True, timeout=timeout, cwd=settings.home())
        if done.stderr:
            _log.info("%s: %s", message["target"], done.stderr.decode("utf-8", "replace")[-4000:])
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired as err:
        raise TimeoutError from err
    except ValueError:
        return {}


def main() -> int:
    """Read one request from standard input, answer on standard output; everything printed goes to standard error."""
    out = os.dup(1)
    os.dup2(2, 1)
    message = json.load(sys.stdin)
    with os.fdopen(out, "w") as stream:
        json.dump(answer(message["target"], message["kwargs"]), stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
