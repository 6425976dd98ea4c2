"""The command line: the same core as the page. ``studio --help``; every word and exit code is in ``docs/cli.md``."""

from __future__ import annotations

import argparse
import json
import os
import sys

from studio import __version__
from studio.errors import StudioError

EPILOG = """ids may be an unambiguous beginning, or 'last'.
exit codes: 0 done, 1 the run failed, 2 refused, 3 the run was stopped.
the workspace is ~/.atelier; STUDIO_HOME moves it."""


def parser() -> argparse.ArgumentParser:
    """The whole command line; what a word does is imported when it is used."""
    from studio.commands import doctor, look, run

    made = argparse.ArgumentParser(prog="studio", description="Fine-tune, watch and try language models on your own machine.",
                                   epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"atelier {__version__}")
    words = made.add_subparsers(dest="word", metavar="WORD")
    words.add_parser("ui", help="open the studio in the browser (see: studio ui --help)", add_help=False)
    for group in (run, look, doctor):
        group.add(words)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["ui"]:
        from components.app import main as ui

        return ui(argv[1:])
    try:
        made = parser()
        args, rest = made.parse_known_args(argv)
        if args.word is None:
            made.print_help()
            return 0 if not rest else 2
        if rest and not getattr(args, "loose", False):
            made.error(f"unknown argument {rest[0]}")
        args.rest = rest
        return args.call(args)
    except SystemExit as err:  # argparse: 0 after --help and --version, 2 for a wrong line
        return int(err.code or 0)
    except StudioError as err:
        return refuse(err, "--json" in argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough (studio ls | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def refuse(err: StudioError, as_json: bool = False) -> int:
    """Tell what is wrong, why, and what to do; exit code 2."""
    from studio.commands.common import plain

    fields = getattr(err, "fields", {})
    if as_json:
        print(json.dumps({"error": err.to_dict() | ({"fields": fields} if fields else {})}, indent=2, ensure_ascii=False))
    for name, message in fields.items() or [(err.field, f"{err.message} {err.hint}".strip())]:
        print(plain(f"{name}: {message}" if name else message), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
