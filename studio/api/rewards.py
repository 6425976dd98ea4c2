"""Rewards for a form: what there is, what is wrong with those chosen, and how they score."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in
from studio.errors import StudioError

SECONDS, SECONDS_WITH_MODELS = 60, 300
_SLOW = ("judge", "reward_model")


def rewards_catalogue() -> list[dict[str, Any]]:
    """Every reward: ``{name, title, help, paper, options}``, options as those of :func:`methods`."""
    from studio import rewards

    return rewards.catalogue()


def rewards_check(rewards: list[dict[str, Any]], owner: str | None = None) -> list[dict[str, Any]]:
    """What is wrong with a recipe's rewards, one entry each: ``{number, option, message, hint}``; nothing is run.

    ``number`` counts from 0 and is ``None`` where the list itself is wrong, ``option`` is empty where no single one is.
    """
    from studio import rewards as known

    found = known.errors(rewards)
    if not found:
        try:
            rewards_own(rewards, scope(owner))
        except StudioError as err:
            return [{"number": None, "option": "", "message": err.message, "hint": err.hint}]
    return [{"number": err.number, "option": err.option, "message": err.plain, "hint": err.hint} for err in found]


def rewards_own(rewards: list[dict[str, Any]], owner: str | None) -> None:
    """Refuse rewards that ask another person's model.

    Raises:
        StudioError: with ``field="rewards"``.
    """
    from studio import rewards as known
    from studio.chat.address import is_address
    from studio.library.refs import check_owner

    for ref in known.references(rewards):
        if not is_address(ref):
            check_owner(ref, owner, "rewards")


def rewards_try(values: dict[str, Any], owner: str | None = None, text: str | None = None, row: int = 0,
                generate: bool = False) -> dict[str, Any]:
    """Score a few samples of a recipe's data with its rewards; see :func:`studio.rewards.bench.tried`.

    Args:
        text: An answer that a person typed to row number ``row``; else each row's own and a damaged one are scored.
        generate: Let the model answer too; slower.

    Raises:
        StudioError: a bad recipe, rewards or data; code of one's own where it may not run.
    """
    from studio.api.recipes import own
    from studio.jobs import probe
    from studio.recipe import parse
    from studio.rewards import bench

    recipe = parse(values)
    signed_in(owner)
    own(recipe, scope(owner))
    bench.check(recipe)
    slow = generate or any(one["name"] in _SLOW for one in recipe.rewards)
    given = {"values": recipe.to_dict(), "text": text, "row": row, "generate": generate}
    return probe.call("studio.rewards.bench:tried", given, SECONDS_WITH_MODELS if slow else SECONDS)


def rewards_score(model: str, prompt: str, answers: list[str], owner: str | None = None) -> dict[str, Any]:
    """What a reward model gives to answers that a person typed: ``{"scores": [number, …]}``, higher is better.

    Raises:
        StudioError: no reward model, another person's, or nothing to score.
    """
    from studio.datasets.rewards import check
    from studio.jobs import probe
    from studio.library.refs import check_owner

    signed_in(owner)
    check_owner(model, scope(owner), "reward_model")
    check(model)
    if not prompt.strip() or not answers or not all(answer.strip() for answer in answers):
        raise StudioError("Something is missing.", "Type a question and both answers.", "prompt")
    return probe.call("studio.rewards.ask:scored", {"model": model, "prompt": prompt, "answers": answers[:8]},
                      SECONDS_WITH_MODELS)
