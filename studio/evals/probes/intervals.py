"""How sure a share is that was counted on few questions."""

from __future__ import annotations

import math

Z = 1.959963984540054  # 95 %


def wilson(count: float, of: int, z: float = Z) -> tuple[float, float]:
    """The interval of a share by Wilson (1927): it stays between 0 and 1 and says something at 0 of 10 too.

    Args:
        count: How many of ``of`` were counted; with ``of`` = 0 nothing is known.
    """
    if of <= 0:
        return 0.0, 1.0
    share, square = count / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    return low, 1.0 if count == of else min(1.0, middle + half)


def rate(values: list[float]) -> dict[str, float | int]:
    """``{"k", "n", "value", "low", "high"}`` of answers that are 1 or 0 each."""
    low, high = wilson(sum(values), len(values))
    return {"k": round(sum(values)), "n": len(values), "value": sum(values) / len(values) if values else 0.0, "low": low, "high": high}
