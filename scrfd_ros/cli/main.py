# SPDX-License-Identifier: Apache-2.0
"""Find faces in images and tell people apart, with SCRFD and ArcFace."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from scrfd_ros.cli import (
    bench,
    compare,
    convert,
    detect,
    evaluate,
    gallery,
    models,
    replay,
    verify,
)
from scrfd_ros.cli.arguments import add_verbose
from scrfd_ros.cli.output import LogOutput
from scrfd_ros.errors import ScrfdError
from scrfd_ros.files import keep_others_from_writing

_COMMANDS = {
    "detect": detect,
    "models": models,
    "convert": convert,
    "verify": verify,
    "bench": bench,
    "replay": replay,
    "gallery": gallery,
    "eval": evaluate,
    "compare": compare,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 bad input, 130 interrupted.

    1 is for commands that compare, if there are differences.
    """
    keep_others_from_writing()
    logging.basicConfig(format="scrfd: %(message)s", handlers=[LogOutput()])
    try:
        args = _parser().parse_args(argv)
        level = logging.INFO if args.verbose else logging.NOTSET
        logging.getLogger("scrfd_ros").setLevel(level)
        status: int = _COMMANDS[args.command].run(args)
        sys.stdout.flush()
        return status
    except ScrfdError as error:
        print(f"scrfd: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output, such as head, has ended. Python would complain about the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """Refuses unknown options by the usage of their command, and names the nearest one."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = re.findall(r"--([a-z-]+)", self.format_usage())
            name = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
            near = difflib.get_close_matches(name.lstrip("-"), known, n=1, cutoff=0.7)
            hint = f"; did you mean --{near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def _version() -> str:
    try:
        return version("scrfd_ros")
    except PackageNotFoundError:
        return "from a checkout, not installed"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="scrfd", description=__doc__)
    parser.set_defaults(verbose=False)
    parser.add_argument("--version", action="version", version=f"scrfd_ros {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        if module not in (evaluate, gallery):  # their own commands have it
            add_verbose(command)
    return parser
