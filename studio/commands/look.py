"""``studio ls``, ``show``, ``models``, ``datasets``, ``methods``, ``schema``, ``validate``, ``script``, ``inspect``: looking only."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from studio.commands import common
from studio.errors import StudioError

_RUN = ("id", "kind", "method", "name", "label", "state", "created", "started", "ended", "attempt", "reason", "hint", "field",
        "exit_code", "signal", "summary")


def add(words: Any) -> None:
    """The parsers of this group."""

    def word(name: str, call: Any, help: str, json: bool = True, **arguments: dict) -> argparse.ArgumentParser:
        parser = words.add_parser(name, help=help)
        for argument, options in arguments.items():
            parser.add_argument(argument, **options)
        if json:
            parser.add_argument("--json", action="store_true", help="answer as JSON (see docs/cli.md)")
        parser.set_defaults(call=call)
        return parser

    ls = word("ls", ls_command, "list the runs, the newest first")
    ls.add_argument("--kind", help="only this family, e.g. sft")
    ls.add_argument("--state", help="only this state, e.g. running")
    ls.add_argument("-n", "--limit", type=int, default=50, help="how many at most (default 50)")
    word("show", show_command, "show one run", id={"metavar": "ID"})
    word("models", models_command, "list the models at hand")
    word("datasets", datasets_command, "list the datasets at hand")
    word("methods", methods_command, "list everything the studio can do, with the papers")
    word("schema", schema_command, "JSON schema of a recipe", json=False, target={"metavar": "KIND[/METHOD]"})
    validate = word("validate", validate_command, "check a recipe file and estimate the run; starts nothing",
                    file={"metavar": "FILE"})
    script = word("script", script_command, "print a plain Python script that does what a recipe does", json=False,
                  file={"metavar": "FILE"})
    for parser in (validate, script):
        parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change one field")
    word("inspect", inspect_command, "say what a dataset holds: format, roles, rows, findings", file={"metavar": "FILE"})


def ls_command(args: argparse.Namespace) -> int:
    """``studio ls``."""
    from studio import api

    found = [run for run in api.runs(kind=args.kind, limit=max(args.limit, 1) if not args.state else 100_000)
             if not args.state or run["state"] == args.state][: max(args.limit, 1)]
    if args.json:
        common.out_json({"runs": [{key: run[key] for key in _RUN} for run in found]})
    elif not found:
        print("No runs. Start one: studio run sft/lora --dataset shipped:polite")
    else:
        common.table([[run["id"], run["state"], f"{run['kind']}/{run['method']}", common.ago(run["created"]),
                       _loss(run["summary"]), run["label"]] for run in found],
                     ["ID", "STATE", "METHOD", "MADE", "LOSS", "NAME"])
    return common.OK


def _loss(summary: dict[str, Any]) -> str:
    loss = summary.get("eval_loss", summary.get("train_loss"))
    return f"{loss:.4f}" if isinstance(loss, float) else ""


def show_command(args: argparse.Namespace) -> int:
    """``studio show ID``."""
    from studio import api

    run = api.run(common.find_run(args.id)["id"], details=True)
    news = api.poll(run["id"])
    latest = {name: points[-1] for name, points in news["series"].items() if points}
    if args.json:
        common.out_json({key: run[key] for key in _RUN} | {
            "recipe": run["recipe"], "dir": run["dir"], "progress": news["progress"],
            "metrics": {name: {"step": point[0], "value": point[1]} for name, point in latest.items()},
            "warnings": news["warnings"],
            "checkpoints": [{k: c[k] for k in ("ref", "step", "path", "size", "eval_loss", "best")} for c in run["checkpoints"]],
            "artifacts": [{k: a[k] for k in ("id", "ref", "kind", "name", "path", "size")} for a in run["artifacts"]]})
        return common.OK
    show = common.plain
    print(f"{run['id']}  {run['state']}  {run['kind']}/{run['method']}  {show(run['label'])}")
    took = common.span((run["ended"] or common.time.time()) - run["started"]) if run["started"] else ""
    for name, value in (("made", common.ago(run["created"])), ("took", took), ("folder", run["dir"]),
                        ("reason", run["reason"]), ("what to do", run["hint"])):
        if value:
            print(f"  {name}: {show(value)}")
    if progress := news["progress"]:
        print(f"  progress: {progress['done']:g}/{progress['total']:g}"
              + (f", {common.span(progress['eta'])} left" if progress["eta"] and run["state"] == "running" else ""))
    for title, found in (("latest", [f"{n}: {v[1]} (step {v[0]})" for n, v in latest.items()]),
                         ("result", [f"{n}: {v}" for n, v in run["summary"].items() if isinstance(v, int | float | str)]),
                         ("warnings", [f"{w['message']} {w['hint']}".strip() for w in news["warnings"]]),
                         ("made", [f"{a['kind']} {a['name']}  {a['ref']}" for a in run["artifacts"]]),
                         ("checkpoints", [_point(c) for c in run["checkpoints"]])):
        if found:
            print(f"{title}:")
            print("\n".join(f"  {show(line)}" for line in found))
    if run["state"] in ("failed", "lost") and run["log"]:
        print("end of the log:")
        print("\n".join(f"  {show(line)}" for line in run["log"].splitlines()[-12:]))
    return common.OK


def _point(point: dict[str, Any]) -> str:
    loss = f"  eval loss {point['eval_loss']:.4f}" if point["eval_loss"] is not None else ""
    return point["ref"] + loss + ("  (best)" if point["best"] else "")


def models_command(args: argparse.Namespace) -> int:
    """``studio models``."""
    from studio import api
    from studio.hardware import size

    found = api.models()
    if args.json:
        common.out_json({"models": [{k: m[k] for k in ("ref", "label", "kind", "detail", "id", "run_id", "created", "size")}
                                    for m in found]})
    else:
        common.table([[m["ref"], m["kind"], size(m["size"]) if m["size"] else "", m["label"], m["detail"]] for m in found],
                     ["REFERENCE", "KIND", "SIZE", "NAME", ""])
    return common.OK


def datasets_command(args: argparse.Namespace) -> int:
    """``studio datasets``."""
    from studio import api

    found = api.datasets()
    if args.json:
        keys = ("ref", "label", "kind", "detail", "format", "rows", "id", "created", "size")
        common.out_json({"datasets": [{k: d[k] for k in keys} for d in found]})
    else:
        rows = [sum(d["rows"].values()) if isinstance(d["rows"], dict) else d["rows"] for d in found]  # a version has splits
        common.table([[d["ref"], d["format"], n, d["label"], d["detail"]] for d, n in zip(found, rows, strict=True)],
                     ["REFERENCE", "FORMAT", "ROWS", "NAME", ""])
    return common.OK


def methods_command(args: argparse.Namespace) -> int:
    """``studio methods``."""
    from studio import api

    found = api.methods()
    if args.json:
        families: dict[str, list] = {}
        for m in found:
            families.setdefault(m["family"], []).append({k: m[k] for k in ("name", "title", "paper", "summary")})
        common.out_json(families)
    else:
        common.table([[f"{m['family']}/{m['name']}", m["title"], m["paper"], m["summary"]] for m in found],
                     ["METHOD", "TITLE", "PAPER", ""])
    return common.OK


def schema_command(args: argparse.Namespace) -> int:
    """``studio schema KIND[/METHOD]``."""
    from studio.registry import family, method

    kind, slash, name = args.target.partition("/")
    if slash:
        common.out_json(schema(method(kind, name).Recipe))
    else:
        common.out_json({"$schema": "https://json-schema.org/draft/2020-12/schema",
                         "oneOf": [schema(found.Recipe) for _, found in family(kind).items()]})
    return common.OK


def schema(cls: Any) -> dict[str, Any]:
    """JSON schema of a recipe file of one method."""
    from studio.recipe import SCHEMA_VERSION

    made = cls.model_json_schema()
    head = {"schema_version": {"type": "integer", "minimum": 1, "maximum": SCHEMA_VERSION, "default": SCHEMA_VERSION},
            "kind": {"const": cls.kind}, "method": {"const": cls.method}}
    made["properties"] = head | made.get("properties", {})
    made["required"] = ["kind", "method", *made.get("required", [])]
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = f"{cls.kind}/{cls.method}"
    return made


def validate_command(args: argparse.Namespace) -> int:
    """``studio validate FILE``: 0 if the recipe may start, 2 if not."""
    from studio import api
    from studio.hardware import size

    try:
        answer = api.validate(common.read_recipe(args.file, args.set))
    except StudioError as err:
        if not args.json:
            raise
        answer = {"ok": False, "errors": {err.field or "recipe": f"{err.message} {err.hint}".strip()}, "estimate": None}
    if args.json:
        common.out_json(answer)
    elif not answer["ok"]:
        for name, message in answer["errors"].items():
            print(common.plain(f"{name}: {message}" if name != "recipe" else message), file=sys.stderr)
    else:
        told = answer["estimate"]
        parts = [f"{told['steps']} steps" if told["steps"] else "",
                 f"about {common.span(told['seconds'])}" if told["seconds"] else "",
                 f"{size(told['memory'])} of {'memory' if told['device'] == 'cpu' else told['device'] + ' memory'}"
                 if told["memory"] else "", f"{size(told['disk'])} of disk" if told["disk"] else ""]
        print("Good." + (f" {', '.join(p for p in parts if p)}." if any(parts) else ""))
        for note in told["notes"]:
            print(f"  {common.plain(note)}")
    return common.OK if answer["ok"] else common.REFUSED


def script_command(args: argparse.Namespace) -> int:
    """``studio script FILE``."""
    from studio import api

    print(api.script(common.read_recipe(args.file, args.set)), end="")
    return common.OK


def inspect_command(args: argparse.Namespace) -> int:
    """``studio inspect FILE``."""
    from studio import api

    found = api.inspect(common.local(args.file))
    if args.json:
        common.out_json(found)
        return common.OK
    show = common.plain
    for key in ("label", "format", "rows"):
        if found.get(key) is not None:
            print(f"{key}: {show(found[key])}")
    for role, column in (found.get("roles") or {}).items():
        print(f"  {show(role)}: {show(column)}")
    for finding in found.get("findings") or []:
        told = " ".join(str(finding.get(k) or "") for k in ("message", "hint")) if isinstance(finding, dict) else finding
        print(f"- {show(told).strip()}")
    return common.OK
