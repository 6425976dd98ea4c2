"""Exceptions in a person's words."""

from __future__ import annotations

import errno
import re
import sys

import pytest

from studio.errors import StudioError
from studio.jobs.explain import died, disk_full, explain


def _named(name: str, text: str) -> Exception:
    """An exception of a library that need not be installed here."""
    return type(name, (Exception,), {})(text)


@pytest.mark.parametrize("err, reason, hint, field", [
    (StudioError("Bad.", "Do.", "model"), "Bad.", "Do.", "model"),
    (_named("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB"), "GPU ran out of memory", "batch size",
     "per_device_train_batch_size"),
    (MemoryError(), "machine ran out of memory", "batch size", "per_device_train_batch_size"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
     "machine ran out of memory", "batch size", "per_device_train_batch_size"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk is full", "Resume", None),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk is full", "Resume", None),
    (_named("SafetensorError", "Error while serializing: I/O error: No space left on device (os error 28)"),
     "disk is full", "Resume", None),
    (ModuleNotFoundError("No module named 'wandb'", name="wandb"), "missing: wandb", "Weights & Biases", None),
    (ModuleNotFoundError("No module named 'a.b'", name="a.b"), "missing: a.", re.escape(sys.prefix), None),
    (_named("GatedRepoError", "403"), "gated", "accept", "model"),
    (_named("RepositoryNotFoundError", "404"), "no such repository", "spelling", "model"),
    (ConnectionRefusedError(), "network", "local models", None),
    (_named("OfflineModeIsEnabled", "offline"), "network", "local models", None),
    (ValueError("Cannot use chat template functions because tokenizer.chat_template is not set"), "no chat template",
     "instruct", "model"),
    (KeyError("chat_template"), "no chat template", "instruct", "model"),
    (ValueError("loss is nan at step 3"), "stopped being a number", "learning rate", "learning_rate"),
    (FloatingPointError(), "stopped being a number", "learning rate", "learning_rate"),
    (_named("SafetensorError", "Error while deserializing header: HeaderTooLarge"), "damaged", "again", "model"),
    (PermissionError(13, "Permission denied", "/root/x"), "No right to use /root/x", "folder", None),
    (RuntimeError("boom"), "RuntimeError: boom", "log", None),
    (RuntimeError(), "RuntimeError", "log", None),
])
def test_known_failures(err, reason, hint, field):
    said = explain(err)
    assert reason in said.reason and re.search(hint, said.hint) and said.field == field


def test_the_cause_counts_not_its_wrapper():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as err:
            raise RuntimeError("cannot save") from err
    except RuntimeError as wrapper:
        assert disk_full(wrapper) and "disk is full" in explain(wrapper).reason
    assert not disk_full(OSError(errno.EACCES, "Permission denied"))


def test_an_innocent_info_word_is_no_nan_loss():
    assert explain(ValueError("the info about loss functions is missing")).reason.startswith("ValueError")


def test_a_cycle_of_causes_ends():
    a, b = RuntimeError("a"), RuntimeError("b")
    a.__cause__, b.__cause__ = b, a
    assert explain(a).reason == "RuntimeError: a"


def test_signals_are_named():
    assert "signal 9 (SIGKILL)" in died(None, 9).reason and "memory" in died(None, 9).hint
    assert "signal 11 (SIGSEGV)" in died(None, 11).reason
    said = died(3, None, "ImportError: x").reason
    assert "exit code 3" in said and "ImportError: x" in said
