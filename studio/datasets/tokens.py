"""Lengths in tokens, counted by a model's own fast tokenizer file; no torch, no transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from studio.errors import StudioError


def check(ref: str, field: str = "tokenizer") -> None:
    """Refuse a model whose tokenizer cannot be read here.

    Raises:
        StudioError: with ``field``: unknown model, on the Hub only, or without ``tokenizer.json``.
    """
    _file(ref, field)


def counter(ref: str, field: str = "tokenizer") -> Callable[[Iterable[str]], list[int]]:
    """A function that says how many tokens each of some texts has, without special tokens.

    Raises:
        StudioError: as :func:`check`, or the file is broken.
    """
    from tokenizers import Tokenizer

    path = _file(ref, field)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as err:  # the library raises bare exceptions
        raise StudioError(f"{path.name} of {ref} cannot be read: {err}.", "Choose another model.", field) from err
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Iterable[str]) -> list[int]:
        return [len(made) for made in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return count


def _file(ref: str, field: str):
    from studio.library import refs

    try:
        model = refs.resolve_model(ref)
        while model.is_adapter and not (model.path and (model.path / "tokenizer.json").is_file()) and model.base:
            model = refs.resolve_model(model.base)
    except StudioError as err:
        raise StudioError(err.message, err.hint, field) from err
    if model.path is None:
        raise StudioError(f"{model.label} is on the Hub; its tokenizer is not on this disk.",
                          "Choose a model that is on this disk, or count characters instead.", field)
    path = model.path / "tokenizer.json"
    if not path.is_file():
        raise StudioError(f"{model.label} has no tokenizer.json.", "Choose another model.", field)
    return path
