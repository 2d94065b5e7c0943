# SPDX-License-Identifier: Apache-2.0
"""Keep a gallery of people: enroll, identify, correct, forget.

A gallery is made by the first `enroll`. Embeddings of faces are biometric data: enroll people who
agree, and note that by --consent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from scrfd_ros.cli import (
    gallery_correct,
    gallery_enroll,
    gallery_exchange,
    gallery_identify,
    gallery_list,
)
from scrfd_ros.cli.arguments import add_gallery_argument, add_verbose


class _Action(NamedTuple):
    """What can be done with a gallery; as a command's module has it."""

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


_ACTIONS = {
    name: _Action(module.__doc__ or "", module.add_arguments, module.run)
    for name, module in (
        ("enroll", gallery_enroll),
        ("identify", gallery_identify),
        ("list", gallery_list),
    )
} | {
    name: _Action(run.__doc__ or "", module.ARGUMENTS[name], run)
    for module in (gallery_correct, gallery_exchange)
    for name, run in module.RUN.items()
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in _ACTIONS.items():
        summary = action.description.partition("\n")[0]
        command = actions.add_parser(name, help=summary, description=action.description)
        add_gallery_argument(command)
        action.add_arguments(command)
        add_verbose(command)


def run(args: argparse.Namespace) -> int:
    status: int = _ACTIONS[args.action].run(args)
    return status
