"""Known failures in plain words: what happened, and what to do about it."""

from __future__ import annotations

import errno
import re
import signal
import sys
from typing import NamedTuple

from studio.errors import StudioError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NETWORK = {"ConnectionError", "ConnectTimeout", "ReadTimeout", "ConnectError", "MaxRetryError", "SSLError",
            "OfflineModeIsEnabled", "LocalEntryNotFoundError", "gaierror", "NewConnectionError"}


class Explanation(NamedTuple):
    """What a person reads: the reason, what to do next, and the recipe field it belongs to."""

    reason: str
    hint: str
    field: str | None = None


def disk_full(err: BaseException) -> bool:
    """True if this exception, or one that caused it, says that nothing more can be written."""
    return any(isinstance(e, OSError) and e.errno in _FULL or _says_full(e) for e in _chain(err))


def out_of_memory(err: BaseException) -> bool:
    """True if this exception, or one that caused it, says that memory ran out, the machine's or a GPU's."""
    return any(_says_memory(e) for e in _chain(err))


def explain(err: BaseException) -> Explanation:
    """Reason, hint and field for any exception. An unknown one is named, and the hint points at the log."""
    if isinstance(err, StudioError):
        return Explanation(err.message, err.hint, err.field)
    if disk_full(err):
        return Explanation("The disk is full: a file could not be written.",
                           "Free some space, then press Resume. Checkpoints made before are whole.")
    for cause in _chain(err):
        if found := _known(cause):
            return found
    text = " ".join(str(err).split())[:300]
    return Explanation(f"{type(err).__name__}: {text}" if text else type(err).__name__,
                       "See the log of the run for where it happened.")


def died(code: int | None, number: int | None, last_line: str = "", memory: bool = False) -> Explanation:
    """Reason and hint for a worker that ended without saying why.

    Args:
        code: Its exit code, or ``None``.
        number: The signal that ended it, or ``None``.
        last_line: Last line of its log.
        memory: The kernel ended a process for want of memory at that time.
    """
    if number == signal.SIGKILL and memory:
        return Explanation("The machine ran out of memory, and the worker was killed (SIGKILL).",
                           "Use a smaller batch, a shorter length or a smaller model, and go on from the last checkpoint.",
                           "per_device_train_batch_size")
    if number is not None:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        hint = {signal.SIGKILL: "Often the machine ran out of memory: use a smaller batch, a shorter length or a "
                                "smaller model. Press Resume to go on from the last checkpoint.",
                signal.SIGBUS: "Often a full disk or a truncated model file. Free some space, then press Resume.",
                signal.SIGILL: "A library uses instructions that this processor does not have."}.get(
                    number, "A library crashed. See the log of the run; Resume goes on from the last checkpoint.")
        return Explanation(f"The worker was killed by signal {number} ({name}).", hint)
    said = f" Its last words: {last_line[:200]}" if last_line else ""
    return Explanation(f"The worker ended with exit code {code} and left no result.{said}", "See the log of the run.")


def _chain(err: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    here: BaseException | None = err
    while here is not None and here not in found and len(found) < 10:
        found.append(here)
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)
    return found


def _says_full(err: BaseException) -> bool:
    """Rust and C++ writers (safetensors, torch.save) put the operating system's words into their own exceptions."""
    text = str(err)
    return "No space left on device" in text or "os error 28" in text or "File too large" in text


def _says_memory(err: BaseException) -> bool:
    low = str(err).lower()
    return isinstance(err, MemoryError) or _says_gpu_memory(err) or any(
        words in low for words in ("can't allocate memory", "cannot allocate memory", "defaultcpuallocator",
                                   "ran out of memory"))


def _says_gpu_memory(err: BaseException) -> bool:
    low = str(err).lower()
    return (type(err).__name__ == "OutOfMemoryError" or "cuda out of memory" in low
            or "cublas_status_alloc_failed" in low)


def _known(err: BaseException) -> Explanation | None:
    name, text = type(err).__name__, str(err)
    low = text.lower()
    if _says_gpu_memory(err):
        return Explanation("The GPU ran out of memory.",
                           "Lower the batch size and raise gradient accumulation by as much, shorten the maximum "
                           "length, or use LoRA.", "per_device_train_batch_size")
    if _says_memory(err):
        return Explanation("The machine ran out of memory.",
                           "Lower the batch size, shorten the maximum length, or use a smaller model.",
                           "per_device_train_batch_size")
    if isinstance(err, ModuleNotFoundError):
        return _missing(err.name or text)
    if name == "GatedRepoError" or "gated repo" in low or "awaiting a review" in low:
        return Explanation("This model or dataset is gated: its owner asks you to accept the terms first.",
                           "Open its page on the Hub, accept, then log in here with a token of that account.", "model")
    if name == "RepositoryNotFoundError":
        return Explanation("The Hub has no such repository, or it is private.",
                           "Check the spelling; for a private one log in first.", "model")
    if name in _NETWORK or isinstance(err, ConnectionError | TimeoutError):
        return Explanation("The network did not answer.",
                           "Check the connection and try again; local models and datasets work without it.")
    if "chat_template" in low or "chat template" in low:
        return Explanation("The model's tokenizer has no chat template, so conversations cannot be written out.",
                           "Choose an instruct model, or set a chat template in the recipe.", "model")
    if isinstance(err, FloatingPointError) or re.search(r"\b(nan|inf)\b.*\bloss\b|\bloss\b.*\b(nan|inf)\b", low):
        return Explanation("The loss stopped being a number.",
                           "Lower the learning rate, or check the data for empty answers.", "learning_rate")
    if isinstance(err, PermissionError):
        return Explanation(f"No right to use {err.filename or 'a file'}.", "Choose a folder that you own.")
    if "headertoolarge" in low.replace(" ", "") or "invalidheader" in low.replace(" ", "") \
            or "incompletemetadata" in low.replace(" ", ""):
        return Explanation("A weight file is damaged or was only half downloaded.",
                           "Download or copy the model again.", "model")
    return None


def _missing(module: str) -> Explanation:
    """For an optional part of the studio, which; for anything else, how to install it by hand."""
    from studio.extras import EXTRAS

    package = module.partition(".")[0]
    reason = f"A Python package is missing: {package}."
    if package in EXTRAS:
        return Explanation(reason, f"Install the optional part {EXTRAS[package].title} from the page, "
                                   "then press Resume.")
    return Explanation(reason, f"Install it into the studio's environment ({sys.prefix}), then press Resume.")
