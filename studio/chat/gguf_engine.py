"""The chat engine of a GGUF file: as :mod:`studio.chat.engine`, with llama.cpp in place of torch.

``python -m studio.chat.gguf_engine --base REF [--port N] [--record FILE]``
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from studio.chat import engine

if TYPE_CHECKING:
    from studio.chat.gguf_host import GGUFHost


def load(args: argparse.Namespace) -> GGUFHost:
    """The host of ``--base``.

    Raises:
        StudioError: no GGUF file, or one that cannot be loaded.
    """
    from studio.chat.gguf_host import GGUFHost
    from studio.library.refs import resolve_model

    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question to llama.cpp is nobody's news
    return GGUFHost(resolve_model(args.base).path, engine.threads())


def main(argv: list[str] | None = None) -> int:
    """Load, then serve until stopped or idle. Returns the exit code."""
    return engine.main(argv, load)


if __name__ == "__main__":
    sys.exit(main())
