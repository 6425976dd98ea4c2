"""Logits of a GGUF file for every token of a text, from llama.cpp's own functions by ctypes.

xllamacpp's server tells the likeliest tokens of an answer only; its shared library exports llama.cpp's C functions
(https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h), and these give all of them. Nobody promises that the
layout of its structs stays, so a few numbers that are known are looked at before anything is written into one, and whoever
reads the logits holds them against the tokens that the server chose.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from studio.errors import StudioError

ROOM = 4096  # bytes for a struct that comes and goes by value; the true ones are a few hundred long
DEFAULTS = (512, 2048, 512, 1)  # n_ctx, n_batch, n_ubatch, n_seq_max: the first fields of llama_context_params
_int, _handle = ctypes.c_int32, ctypes.c_void_p


class _Params(ctypes.Structure):
    """llama_model_params or llama_context_params: passed by value on the stack (or by its address), so more room than it
    needs does no harm."""

    _fields_ = [("room", ctypes.c_char * ROOM)]


class _Batch(ctypes.Structure):
    _fields_ = [("n_tokens", _int), ("token", ctypes.POINTER(_int)), ("embd", _handle), ("pos", ctypes.POINTER(_int)),
                ("n_seq_id", ctypes.POINTER(_int)), ("seq_id", ctypes.POINTER(ctypes.POINTER(_int))),
                ("logits", ctypes.POINTER(ctypes.c_int8))]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []), "llama_model_default_params": (_Params, []),
    "llama_context_default_params": (_Params, []), "llama_model_load_from_file": (_handle, [ctypes.c_char_p, _Params]),
    "llama_init_from_model": (_handle, [_handle, _Params]), "llama_model_get_vocab": (_handle, [_handle]),
    "llama_vocab_n_tokens": (_int, [_handle]), "llama_vocab_is_eog": (ctypes.c_bool, [_handle, _int]),
    "llama_n_ctx": (ctypes.c_uint32, [_handle]), "llama_set_n_threads": (None, [_handle, _int, _int]),
    "llama_batch_init": (_Batch, [_int, _int, _int]), "llama_batch_free": (None, [_Batch]),
    "llama_decode": (_int, [_handle, _Batch]), "llama_get_memory": (_handle, [_handle]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [_handle, _int]),
    "llama_memory_clear": (None, [_handle, ctypes.c_bool]), "llama_free": (None, [_handle]),
    "llama_model_free": (None, [_handle])}


class Logits:
    """A file loaded for reading logits.

    Args:
        longest: Tokens of the longest text.

    Raises:
        StudioError: this build of llama.cpp is not the one these functions were written for, or refuses the file.
    """

    def __init__(self, file: Path, longest: int, threads: int):
        self._lib = _library()
        self._model = self._context = None
        self.longest = longest
        params = self._lib.llama_context_default_params()
        at = ctypes.addressof(params)
        if tuple((ctypes.c_uint32 * 4).from_address(at)) != DEFAULTS:
            raise StudioError("This build of llama.cpp lays its settings out in a way that is not known here.",
                              "Install the version of xllamacpp that requirements.txt names.")
        for place, value in enumerate((longest, longest, min(512, longest))):
            ctypes.c_uint32.from_address(at + 4 * place).value = value
        self._lib.llama_backend_init()
        self._model = self._lib.llama_model_load_from_file(str(file).encode(), self._lib.llama_model_default_params())
        if not self._model:
            raise StudioError(f"llama.cpp cannot load {file.name}.", "Make the file again.")
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context or self._lib.llama_n_ctx(self._context) < longest:
            raise StudioError(f"llama.cpp has no room for texts of {longest} tokens.", "Choose a smaller length of a text.")
        self._lib.llama_set_n_threads(self._context, threads, threads)
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.words = self._lib.llama_vocab_n_tokens(self._vocab)

    def ends(self, token: int) -> bool:
        """Whether an answer ends with this token."""
        return 0 <= token < self.words and self._lib.llama_vocab_is_eog(self._vocab, token)

    def of(self, ids: list[int], start: int = 0) -> Any:
        """Array (tokens, words) of float32.

        Args:
            start: Place of the first token whose logits are wanted.

        Raises:
            StudioError: llama.cpp fails at it.
        """
        import numpy as np

        if not 0 < len(ids) <= self.longest or not all(0 <= i < self.words for i in ids):
            raise StudioError("The file lacks tokens of the model's vocabulary.", "Make the file again.")
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        batch = lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, token in enumerate(ids):
                batch.token[place], batch.pos[place], batch.n_seq_id[place], batch.logits[place] = token, place, 1, place >= start
                batch.seq_id[place][0] = 0
            if (failed := lib.llama_decode(self._context, batch)) != 0:
                raise StudioError(f"llama.cpp failed on a text (code {failed}).", "Try with shorter texts.")
            found = np.empty((len(ids) - start, self.words), np.float32)
            for place in range(start, len(ids)):
                found[place - start] = np.ctypeslib.as_array(lib.llama_get_logits_ith(self._context, place), (self.words,))
            return found
        finally:
            lib.llama_batch_free(batch)

    def close(self) -> None:
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._context = self._model = None


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _silent(level: int, text: bytes, data: Any) -> None:
    """llama.cpp tells its whole plan of the model; only errors are kept."""
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        import sys

        sys.stderr.write(text.decode("utf-8", "replace"))


def _library() -> Any:
    """The shared library with the functions declared.

    Raises:
        StudioError: it does not export them.
    """
    import xllamacpp

    try:
        lib = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        lib.llama_log_set.argtypes = [type(_silent), ctypes.c_void_p]
        lib.llama_log_set(_silent, None)
    except (StopIteration, OSError, AttributeError) as err:
        raise StudioError("This build of xllamacpp does not export llama.cpp's functions.",
                          "Install the version that requirements.txt names.") from err
    return lib
