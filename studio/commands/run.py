"""``studio run``, ``resume``, ``stop``: start a run and watch it in the terminal."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.commands import common
from studio.errors import StudioError
from studio.recipe import FieldSpec, fields

_FINAL = ("succeeded", "failed", "stopped", "lost")
_LOOK = 0.25  # seconds between two looks at a run
_SAY = 5.0  # seconds between two lines where there is no terminal


def add(words: Any) -> None:
    """The parsers of this group."""
    run = words.add_parser("run", help="start a recipe file, or a method with its fields as flags, and watch it",
                           add_help=False)
    run.add_argument("target", nargs="?", metavar="FILE|KIND/METHOD")
    run.set_defaults(call=run_command, loose=True)
    stop = words.add_parser("stop", help="ask a run to save a checkpoint and stop")
    stop.add_argument("id", metavar="ID")
    stop.set_defaults(call=stop_command)
    resume = words.add_parser("resume", help="go on with a stopped, failed or lost run")
    resume.add_argument("id", metavar="ID")
    resume.add_argument("--detach", action="store_true", help="return at once; the run goes on by itself")
    resume.set_defaults(call=resume_command)


def run_command(args: argparse.Namespace) -> int:
    """``studio run FILE [--set k=v ...]`` or ``studio run sft/lora --dataset ...``."""
    from studio import api

    method = None if args.target is None or Path(args.target).is_file() else _method(args.target)
    parser = _parser(args.target, method)
    given = parser.parse_args(args.rest)
    if args.target is None:
        parser.print_help()
        return common.REFUSED
    if method:
        kind, name = args.target.split("/", 1)
        values = {"kind": kind, "method": name} | _from_flags(given, method.Recipe)
        values = common.with_paths(values | common.parse_changes(given.set, values, method.Recipe), method.Recipe)
    else:
        values = common.read_recipe(args.target, given.set, given.name)
    made = api.submit(values)
    if given.detach:
        print(f"{made['id']}  {made['state']}. Watch it: studio show {made['id']}")
        return common.OK
    return watch(made["id"])


def _method(target: str) -> Any:
    from studio.registry import method

    kind, slash, name = target.partition("/")
    if not slash or target.endswith((".yaml", ".yml", ".json")) or target.startswith((".", "/", "~")):
        raise StudioError(f"There is no recipe file {target}.", "Give a file, or a method such as sft/lora.")
    return method(kind, name)


def _parser(target: str | None, method: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"studio run {target or 'FILE'}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        description=f"{method.title}. {method.summary}" if method else "Start a recipe file and watch it. For a method's own "
        "flags: studio run sft/lora --help")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change one field; may be repeated")
    parser.add_argument("--detach", action="store_true", help="return at once; the run goes on by itself")
    if not method:
        parser.add_argument("--name", help="what to call the result")
        return parser
    for spec in fields(method.Recipe):
        names = list(dict.fromkeys((f"--{spec.name}", f"--{spec.name.replace('_', '-')}")))
        more: dict[str, Any] = {"dest": f"field_{spec.name}", "default": None, "help": _help(spec)}
        if spec.type == "bool":
            parser.add_argument(*names, nargs="?", const="true", metavar="true|false", **more)
            parser.add_argument(*(n.replace("--", "--no-", 1) for n in names), action="store_const", const="false",
                                dest=more["dest"], help=argparse.SUPPRESS)
        elif spec.type == "list":
            parser.add_argument(*names, action="append", metavar="TEXT", **more)
        elif spec.type == "dict":
            parser.add_argument(*names, action="append", metavar="KEY=VALUE", **more)
        else:
            parser.add_argument(*names, metavar=spec.type.upper(), **more)
    return parser


def _help(spec: FieldSpec) -> str:
    words = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = ", ".join(f"{words[k]} {v:g}" for k, v in spec.bounds.items() if k in words)
    choices = ", ".join(str(value) for value, _ in spec.choices)
    extra = "; ".join(filter(None, [f"default {spec.default}" if spec.default not in ("", None, [], {}) else "", bounds,
                                    f"one of {choices}" if choices else "", spec.unit]))
    return (spec.help + (f" ({extra})" if extra else "")).replace("%", "%%")


def _from_flags(given: argparse.Namespace, cls: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spec in fields(cls):
        value = getattr(given, f"field_{spec.name}")
        if value is None:
            continue
        if spec.type == "dict":
            rows = [f"{spec.name}.{row}" for row in value if not row.lstrip().startswith("{")]
            whole = [row for row in value if row.lstrip().startswith("{")]
            values |= {spec.name: common.typed(whole[-1], spec)} if whole else {}
            values |= common.parse_changes(rows, values, cls)
        elif spec.type == "list":
            values[spec.name] = [item for text in value for item in common.typed(text, spec)]
        else:
            values[spec.name] = common.typed(value, spec)
    return values


def stop_command(args: argparse.Namespace) -> int:
    """``studio stop ID``."""
    from studio import api

    found = common.find_run(args.id)
    if found["state"] in _FINAL:
        print(f"{found['id']} is already over: {found['state']}.")
        return common.OK
    now = api.stop(found["id"])
    print(f"{now['id']}  {now['state']}." + (" It saves a checkpoint first." if now["state"] == "stopping" else ""))
    return common.OK


def resume_command(args: argparse.Namespace) -> int:
    """``studio resume ID``."""
    from studio import api

    found = api.resume(common.find_run(args.id)["id"])
    if args.detach:
        print(f"{found['id']}  {found['state']}. Watch it: studio show {found['id']}")
        return common.OK
    return watch(found["id"])


def watch(run_id: str) -> int:
    """Show a run until it is over; the queue is moved on meanwhile. Returns the exit code for its state.

    Ctrl-C asks the run to stop; a second one leaves it alone and returns.
    """
    from studio import api
    from studio.jobs.supervisor import Supervisor

    show = _Bar(run_id) if sys.stdout.isatty() else _Lines(run_id)
    supervisor, asked = Supervisor(warm=False), False
    cursor, state = "0", "queued"
    with show, _pressed() as presses:
        while state not in _FINAL:
            news = api.poll(run_id, cursor)
            cursor, state = news["cursor"], news["state"]
            show.take(news)
            if len(presses) > 1:
                show.say(f"Left alone: {run_id} goes on in the background. Watch it: studio show {run_id}")
                return common.OK
            if presses and not asked:
                asked = True
                show.say("Stopping: a checkpoint is saved first. Ctrl-C again leaves the run to itself.")
                api.stop(run_id)
            if state not in _FINAL:
                supervisor.tick()
                time.sleep(_LOOK)
    return _end(api.run(run_id, details=True))


@contextmanager
def _pressed() -> Iterator[list[float]]:
    """Counts Ctrl-C instead of being broken off by it, so that none falls between a question and its answer."""
    presses: list[float] = []
    before = signal.signal(signal.SIGINT, lambda *_: presses.append(time.monotonic()))
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


def _end(run: dict[str, Any]) -> int:
    took = common.span((run["ended"] or time.time()) - (run["started"] or run["created"]))
    print(f"{run['id']}  {run['state']} after {took}." + (f" {common.plain(run['reason'])}" if run["reason"] else ""))
    for key, value in run["summary"].items():
        if isinstance(value, int | float | str):
            print(f"  {key}: {common.plain(f'{value:.6g}' if isinstance(value, float) else value)}")
    for made in run["artifacts"]:
        print(f"  {made['kind']}: {common.plain(made['name'])}  ({made['ref']}, {made['path']})")
    if run["state"] == "succeeded":
        return common.OK
    hint = run["hint"] or ("Go on with: studio resume " + run["id"])
    print(common.plain(hint), file=sys.stderr)
    return common.EXIT[run["state"]]


class _Lines:
    """Progress as plain lines, for a file or a pipe."""

    def __init__(self, run_id: str):
        self.run_id, self.state, self.said = run_id, "", 0.0
        self.at: dict[str, Any] = {}
        self.done = self.total = 0.0
        self.eta: float | None = None
        self.latest: dict[str, Any] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, flush=True)

    def take(self, news: dict[str, Any]) -> None:
        if news["state"] != self.state:
            self.state = news["state"]
            if self.state not in _FINAL:
                self.say(f"{self.run_id}  {self.state}")
        for warning in news["warnings"]:
            self.say(common.plain(f"warning: {warning['message']} {warning['hint']}".rstrip()))
        for note in news["notes"]:
            self.say(common.plain(note))
        for name, points in news["series"].items():
            if points:
                self.latest[name] = points[-1][1]
        if news["progress"] and news["progress"] != self.at:
            self.at = news["progress"]
            self.done, self.total, self.eta = (self.at[k] for k in ("done", "total", "eta"))
            self.moved()

    def moved(self) -> None:
        if time.monotonic() - self.said >= _SAY or self.done >= self.total:
            self.said = time.monotonic()
            self.say(f"{self.done:g}/{self.total:g}  {self.numbers()}" + (f"  {common.span(self.eta)} left" if self.eta else ""))

    def numbers(self) -> str:
        shown = [(word, self.latest[key]) for key, word in
                 (("loss", "loss"), ("eval_loss", "eval loss"), ("tokens_per_second", "tokens/s")) if key in self.latest]
        return "  ".join(f"{word} {value:.4g}" if isinstance(value, float | int) else f"{word} {value}" for word, value in shown)


class _Bar(_Lines):
    """Progress as a live bar."""

    def __enter__(self) -> _Bar:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[steps]}"),
                            TextColumn("{task.fields[numbers]}", style="bold"), TimeElapsedColumn(),
                            TextColumn("{task.fields[left]}"))
        self.task = self.bar.add_task(self.run_id, total=None, steps="", numbers="", left="")
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def take(self, news: dict[str, Any]) -> None:
        super().take(news)
        self.bar.update(self.task, description=f"{self.run_id} {self.state}", numbers=self.numbers())

    def moved(self) -> None:
        self.bar.update(self.task, completed=self.done, total=self.total, steps=f"{self.done:g}/{self.total:g}",
                        left=f"{common.span(self.eta)} left" if self.eta else "")
