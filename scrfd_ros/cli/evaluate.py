# SPDX-License-Identifier: Apache-2.0
"""Measure accuracy by public protocols."""

from __future__ import annotations

import argparse

from scrfd_ros.cli import eval_identification, eval_verification, eval_wider_face
from scrfd_ros.cli.arguments import add_verbose

_PROTOCOLS = {
    "wider-face": eval_wider_face,
    "verification": eval_verification,
    "identification": eval_identification,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    protocols = parser.add_subparsers(dest="protocol", required=True, metavar="PROTOCOL")
    for name, module in _PROTOCOLS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        protocol = protocols.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(protocol)
        add_verbose(protocol)


def run(args: argparse.Namespace) -> int:
    status: int = _PROTOCOLS[args.protocol].run(args)
    return status
