"""Merging as the page sees it: methods, what a configuration would do, how near its models are, YAML in and out."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope
from studio.errors import StudioError

_LOOK = 300  # seconds that comparing weights may take


def merge_methods() -> list[dict[str, Any]]:
    """Every merge method of the installed mergekit: ``{name, title, paper, help, base, min_models, max_models,
    min_non_base, max_non_base, parameters}``.

    ``base`` is ``required`` | ``optional`` | ``ignored`` | ``forbidden``; the counts of models hold the base, ``None`` is no
    limit. ``parameters`` are ``{name, title, type, scope, required, default, help, low, high, hard}``; ``scope`` is
    ``shared`` (one value for the merge), ``input`` (each model) or ``non_base`` (each model but the base); ``low`` and
    ``high`` are the range of the control, which ``hard`` makes a limit.
    """
    from studio.mergers import spec

    return list(spec.methods().values())


def merge_check(config: dict[str, Any], owner: str | None = None, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a merge would do, from the small files of its models. Starts nothing.

    Args:
        options: The other fields of the recipe (``allow_crimes``, ...), where they differ from the defaults.

    Returns:
        ``problems`` [{message, hint, path, level}] (``error`` | ``warning`` | ``note``), ``models`` [{ref, label,
        architecture, layers, hidden, vocab, dtype, size, parameters, chat_template, license, license_of, adapter, local}],
        ``layers`` of the result, ``estimate`` {ram, disk, seconds} (bytes, seconds; ``None`` unknown) and ``tensors``
        {copied, merged, dropped, list: [{name, action, model?}]}.
    """
    from studio.mergers import config as configs
    from studio.mergers import plan as plans
    from studio.mergers.mergekit import MergekitRecipe

    _own(config, owner)
    options = {key: value for key, value in (options or {}).items() if key in MergekitRecipe.model_fields}
    made = plans.make(config, options)
    models = [one.facts() for one in made.parents.values()]
    if not models and isinstance(config, dict):
        models = [{"ref": ref, "label": label} for ref, label in _labels(configs.references(config))]
    from studio.mergers.mergekit import shard_size

    return {"problems": [one._asdict() for one in made.problems], "models": models, "layers": made.layers,
            "estimate": plans.estimate(made, config, shard_size(options.get("out_shard_size"))),
            "tensors": plans.table(made)}


def merge_look(config: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """How near the models of a merge are, layer by layer; may take a minute, and is kept for the next time.

    Returns:
        ``layers`` [names], ``models`` [labels], ``base`` (label or ``None``), ``similarity`` and ``conflict``
        [[label of a pair, [one number a layer]]], ``sampled`` (share of the values that were read). Similarity is the
        cosine of the weights; conflict the share of weights that both changed of the base, one up and one down (only
        where there is a base; ``None`` where a layer has no such weight).

    Raises:
        StudioError: a configuration with errors, or a model that is not on this disk yet.
    """
    from studio.jobs import probe

    _own(config, owner)
    return probe.call("studio.mergers.look:look", {"values": config}, timeout=_LOOK)


def merge_export(config: dict[str, Any], owner: str | None = None) -> str:
    """The configuration as YAML for mergekit's own command line: folders of this disk and ids of the Hub.

    Raises:
        StudioError: a model is not there, or an earlier step is still to make it.
    """
    from studio.mergers import config as configs
    from studio.recipe import write_yaml

    _own(config, owner)
    return write_yaml(configs.exported(config))


def merge_import(text: str, owner: str | None = None) -> dict[str, Any]:
    """A configuration of mergekit (YAML) with references of the studio; a recipe of the studio is read too.

    Raises:
        StudioError: not YAML, no merge, or models that the person may not use.
    """
    from studio.mergers import config as configs
    from studio.recipe import read_yaml

    values = read_yaml(text)
    if isinstance(values, dict) and (values.get("kind"), values.get("method")) == ("merge", "mergekit"):
        values = values.get("config")
    elif not configs.is_mergekit(values):
        raise StudioError("This is no merge configuration of mergekit.", "It names a merge_method and models or slices.",
                          "config")
    made = configs.imported(values)
    _own(made, owner)
    return made


def _own(config: Any, owner: str | None) -> None:
    from studio.library.refs import check_owner
    from studio.mergers import config as configs

    if (who := scope(owner)) is not None:
        for _, ref in configs.references(config):
            if not ref.startswith("step:"):
                check_owner(ref, who, "config")


def _labels(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    from studio.library import refs

    labels = {}
    for _, ref in found:
        try:
            labels[ref] = refs.resolve_model(ref).label
        except StudioError:
            labels.setdefault(ref, ref)
    return list(labels.items())
