"""Rewards: small functions that score an answer, chosen and weighted in a recipe.

    rewards = [{"name": "number", "weight": 2.0}, {"name": "length", "most": 40, "unit": "words"}]
    check(rewards)
    functions = build(rewards, ctx, recipe)          # for trl.GRPOTrainer(reward_funcs=functions, ...)
    GRPOConfig(..., reward_weights=weights(rewards))
    ...
    close(functions)

A reward is one file with one class (:mod:`studio.rewards.base`) and one line below. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.recipe import RecipeError, fields
from studio.registry import Registry

if TYPE_CHECKING:
    from studio.rewards.base import Reward

MOST = 20  # rewards of one recipe

REWARDS: Registry = Registry("reward", "Reward", "a score for each answer")
REWARDS.add("exact", "studio.rewards.exact:Exact")
REWARDS.add("normalised", "studio.rewards.normalised:Normalised")
REWARDS.add("contains", "studio.rewards.contains:Contains")
REWARDS.add("number", "studio.rewards.number:Number")
REWARDS.add("regex", "studio.rewards.regex:Pattern")
REWARDS.add("json_schema", "studio.rewards.json_schema:JsonSchema")
REWARDS.add("length", "studio.rewards.length:Length")
REWARDS.add("language", "studio.rewards.language:Language")
REWARDS.add("repetition", "studio.rewards.repetition:Repetition")
REWARDS.add("unit_tests", "studio.rewards.unit_tests:UnitTests")
REWARDS.add("judge", "studio.rewards.judge:Judge")
REWARDS.add("reward_model", "studio.rewards.reward_model:RewardModel")
REWARDS.add("python", "studio.rewards.python:OwnPython")


class RewardError(StudioError):
    """A refusal of one reward of a list.

    Attributes:
        number: Its place in the list, from 0; ``None`` for the list itself.
        option: The option that is wrong, if it is one.
        plain: What is wrong, without the reward's place and title.
    """

    def __init__(self, message: str, hint: str = "", number: int | None = None, option: str = "", where: str = ""):
        super().__init__(f"{where}: {message}" if where else message, hint, "rewards")
        self.number, self.option, self.plain = number, option, message


def catalogue() -> list[dict[str, Any]]:
    """Every reward for a form: ``{name, title, help, paper, options}``; options are FieldSpecs as dicts."""
    return [{"name": name, "title": reward.title, "help": reward.help, "paper": reward.paper,
             "options": [asdict(spec) for spec in fields(reward.Options)]} for name, reward in REWARDS.items()]


def check(rewards: Any) -> None:
    """Refuse rewards that cannot work, before anything starts. Quick, and without torch.

    Raises:
        RewardError: with ``field="rewards"``; the first thing that is wrong.
    """
    if found := errors(rewards):
        raise found[0]


def errors(rewards: Any) -> list[RewardError]:
    """What :func:`check` refuses, all of it: one error a reward."""
    if not isinstance(rewards, list) or not all(isinstance(one, dict) for one in rewards):
        return [RewardError("Rewards are a list, each with a name.", "For example [{name: exact, weight: 1}].")]
    if not rewards:
        return [RewardError("No reward is chosen, so there is nothing to learn from.",
                            "Add one: 'The same number' for sums, 'A judge' where nothing can be computed.")]
    if len(rewards) > MOST:
        return [RewardError(f"{len(rewards)} rewards are more than the {MOST} that one recipe takes.",
                            "Leave some out.")]
    found: list[RewardError] = []
    for number, values in enumerate(rewards):
        try:
            _opened(number, values).check()
        except RewardError as err:
            found.append(err)
        except StudioError as err:
            kind = REWARDS.get(values["name"])
            option = err.field if err.field in kind.Options.model_fields else ""
            found.append(RewardError(err.message, err.hint, number, option or "", _where(number, kind)))
    if not found and not any(weights(rewards)):
        found.append(RewardError("Every weight is 0, so no answer is better than another.", "Give one a weight.", 0,
                                 "weight"))
    return found


def _where(number: int, kind: type[Reward]) -> str:
    return f"Reward {number + 1} ({kind.title})"


def _opened(number: int, values: dict[str, Any]) -> Reward:
    """A reward with its options checked."""
    from pydantic import ValidationError

    name, options = values.get("name"), {key: value for key, value in values.items() if key != "name"}
    if not isinstance(name, str) or name not in REWARDS:
        try:
            REWARDS.get(str(name))
        except StudioError as err:
            raise RewardError(f"There is no reward '{name}'.", err.hint, number, "name",
                              f"Reward {number + 1}") from err
    kind = REWARDS.get(name)
    try:
        return kind(name, kind.Options.model_validate(options))
    except ValidationError as err:
        option, message = next(iter(RecipeError(err, kind.Options).fields.items()))
        title = kind.Options.model_fields[option].title if option in kind.Options.model_fields else option
        raise RewardError(message, "", number, option, f"{_where(number, kind)}, {title}") from err


def build(rewards: list[dict[str, Any]], ctx: Any, recipe: Any) -> list[Callable[..., list[float | None]]]:
    """Reward functions as ``trl.GRPOTrainer`` calls them, ready to score: models loaded, servers asked, code started.

    Each is ``f(prompts, completions, completion_ids=None, **columns) -> list[float | None]``: prompts and completions
    are texts or lists of messages, columns those of the dataset, one value a completion (``answer``, ``tests``,
    ``tags``, ...). ``None`` means that this reward has nothing to say of that answer. ``__name__`` is unique;
    ``reasons`` holds why the answers of the last call were scored so; ``missing`` counts all answers without a score.
    To be ended by :func:`close`.

    Args:
        ctx: The run's context, for warnings; ``None`` for nobody to hear them.
        recipe: Its ``model`` tells the tokenizer in whose tokens lengths are counted.

    Raises:
        RewardError: what :func:`check` refuses, or a model or server that is not there.
    """
    from studio.rewards.base import Function

    check(rewards)
    names, counts = [values["name"] for values in rewards], Counter()
    functions: list[Function] = []
    for number, values in enumerate(rewards):
        name = values["name"]
        counts[name] += 1
        shown = f"{name}_{counts[name]}" if names.count(name) > 1 else name
        reward = _opened(number, values)
        try:
            reward.open(ctx, recipe)
        except StudioError as err:
            close(functions)
            raise RewardError(err.message, err.hint, number, "", _where(number, type(reward))) from err
        except BaseException:
            close(functions)
            raise
        functions.append(Function(reward, shown, ctx))
    return functions


def close(functions: list[Callable[..., Any]]) -> None:
    """End what :func:`build` started: sandboxes, connections, engines. Others in the list are left alone."""
    for function in functions:
        if ending := getattr(function, "close", None):
            ending()


def weights(rewards: list[dict[str, Any]]) -> list[float]:
    """The weight of each reward, for ``GRPOConfig.reward_weights``."""
    return [float(values.get("weight", 1.0)) for values in rewards]


def references(rewards: Any) -> list[str]:
    """Models that rewards name, to be checked for their owner."""
    found = []
    for values in rewards if isinstance(rewards, list) else []:
        if isinstance(values, dict) and isinstance(name := values.get("name"), str) and name in REWARDS:
            specs = fields(REWARDS.get(name).Options)
            found += [values[spec.name] for spec in specs
                      if spec.widget == "model" and isinstance(values.get(spec.name), str) and values[spec.name]]
    return found
