"""Variants of two bits and less, as in ``test_quantize.py``. Their tables take half a minute to compute, once a process."""

from __future__ import annotations

import pytest

from tests.gguf.test_quantize import SLOW, compare, source  # noqa: F401


@pytest.mark.parametrize("variant", SLOW)
def test_the_file_is_llama_quantizes_byte_for_byte(source, tmp_path, variant):  # noqa: F811
    compare(source, tmp_path / "a.gguf", variant, "")
    compare(source, tmp_path / "b.gguf", variant, " imatrix")
