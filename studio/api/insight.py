"""What evaluations say together: differences of two models, groups of failures, ablations, the leaderboard."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope


def eval_pairs(a: dict[str, Any], b: dict[str, Any], owner: str | None = None) -> list[dict[str, Any]]:
    """Two models on the questions that both were asked.

    Args:
        a, b: ``{"run": id, "model": its place in the run or its reference}``; the runs may be two.

    Returns:
        A line for each task and metric: ``{task, title, metric, main, a, b, delta, low, high, p, n, sure, worse, better_answers,
        worse_answers, same, left_out, higher_is_better, low_bound, high_bound, flips: [{id, kind, prompt, target, a, b, a_score, b_score, tags}]}``.
        ``delta`` is b minus a, ``low`` to ``high`` its 95 % paired bootstrap interval; ``sure`` where that does not hold 0,
        ``worse`` where b is worse. Both are ``None`` where the figure is no mean over answers.

    Raises:
        StudioError: a run without results, or a model that it did not ask.
    """
    from studio.evals import finished, paired

    sides = [finished.opened(str(side.get("run") or ""), scope(owner)) for side in (a, b)]
    return paired.pairs(sides[0], sides[0].number(a.get("model", 0)), sides[1], sides[1].number(b.get("model", 0)))
