# SPDX-License-Identifier: Apache-2.0
"""Fetch the weights of detectors, recognizers and super-resolution, or list them.

Without names, fetches the default detector and recognizer. Every file is verified before it gets
its name. Files that are there already stay.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from pathlib import Path

from scrfd_ros.errors import DownloadError
from scrfd_ros.models.catalogue import (
    ModelEntry,
    default_model_directory,
    file_state,
    load_catalogue,
)
from scrfd_ros.models.download import ensure_model
from scrfd_ros.models.transfer import DownloadSession


def add_arguments(parser: argparse.ArgumentParser) -> None:
    catalogue = load_catalogue()
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(catalogue.names())} (default: {' and '.join(catalogue.default)})",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=default_model_directory(),
        metavar="DIR",
        help="where to keep the files (default: %(default)s)",
    )
    parser.add_argument(
        "--list", action="store_true", help="show which files are there; fetch nothing"
    )


def run(args: argparse.Namespace) -> int:
    catalogue = load_catalogue()
    names = args.names or (catalogue.names() if args.list else catalogue.default)
    entries = list({entry.name: entry for entry in map(catalogue.find, names)}.values())
    if args.list:
        _print_table(entries, args.directory)
        return 0
    missing = [
        entry for entry in entries if file_state(entry, args.directory / entry.file) != "present"
    ]
    for notice in dict.fromkeys(entry.license.notice for entry in missing):
        print(f"LICENSE. {textwrap.fill(notice, 79, initial_indent=' ' * 9)[9:]}\n", flush=True)
    session = DownloadSession()
    failures = []
    for entry in entries:
        try:
            ensure_model(entry, args.directory, session=session)
        except DownloadError as error:
            failures.append(str(error))
    _print_table(entries, args.directory)
    if failures:
        raise DownloadError("\n".join(failures))
    return 0


_REMEDIES = {
    "corrupt": "not the expected content; `scrfd models NAME` fetches it again",
    "unverified": "no checksum is published; `scrfd models NAME` pins that of the file",
}


def _print_table(entries: Iterable[ModelEntry], directory: Path) -> None:
    kind = None
    states = []
    for entry in entries:
        if entry.kind != kind:
            kind = entry.kind
            print(f"{kind:20}{'file':25}{'bytes':>11}  state")
        size = "unknown" if entry.bytes is None else f"{entry.bytes:,}"
        states.append(file_state(entry, directory / entry.file))
        print(f"  {entry.name:18}{entry.file:25}{size:>11}  {states[-1]}")
    for state, remedy in _REMEDIES.items():
        if state in states:
            print(f"{state}: {remedy}")
    print(f"in {directory}")
