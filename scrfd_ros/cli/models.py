# SPDX-License-Identifier: Apache-2.0
"""Fetch the weights of detectors, recognizers and super-resolution, or list them.

Without names, fetches the default detector and recognizer. Every file is verified before it gets
its name. Files that are there already stay. Detectors that take one input size only are changed to
take any, and recognizers to take less time; the changed file is kept beside the original.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from scrfd_ros.cli.output import say
from scrfd_ros.errors import DownloadError, ScrfdError
from scrfd_ros.inference.onnx_file import read_file
from scrfd_ros.models.catalogue import (
    DETECTOR,
    RECOGNIZER,
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
            path = ensure_model(entry, args.directory, session=session)
        except DownloadError as error:
            failures.append(str(error))
        else:
            _change(entry, path)
    _print_table(entries, args.directory)
    if failures:
        raise DownloadError("\n".join(failures))
    return 0


def _change(entry: ModelEntry, path: Path) -> None:
    """Make the changed file that networks are loaded from, where there is to be one."""
    # Imported late: the list of names needs no network.
    from scrfd_ros.engines.adapted import adapted_model
    from scrfd_ros.engines.free_size import FREE_SIZE, fixed_size
    from scrfd_ros.engines.prelu import PRELU, is_faster_without

    if entry.kind == DETECTOR and fixed_size(read_file(path)) is not None:
        change, gain = FREE_SIZE, "any input size"
    elif entry.kind == RECOGNIZER and is_faster_without(path):
        change, gain = PRELU, "less time"
    else:
        return
    try:
        adapted_model(path, change)
    except ScrfdError as error:  # it is good without
        say(f"{entry.name}: could not be changed to take {gain}: {error}")


_REMEDIES = {
    "corrupt": "not the expected content; `scrfd models NAME` fetches it again",
    "unverified": "no checksum is published; `scrfd models NAME` pins that of the file",
}


def _print_table(entries: Sequence[ModelEntry], directory: Path) -> None:
    kind = None
    states = []
    for entry in entries:
        if entry.kind != kind:
            kind = entry.kind
            print(f"{kind:20}{'file':25}{'bytes':>11}  state")
        size = "unknown" if entry.bytes is None else f"{entry.bytes:,}"
        states.append(file_state(entry, directory / entry.file))
        print(f"  {entry.name:18}{entry.file:25}{size:>11}  {states[-1]}")
    for entry, found in zip(entries, states, strict=True):
        if found == "present" and entry.kind == DETECTOR:
            _print_sizes(entry.name, directory / entry.file)
    for state, remedy in _REMEDIES.items():
        if state in states:
            print(f"{state}: {remedy}")
    print(f"in {directory}")


def _print_sizes(name: str, path: Path) -> None:
    from scrfd_ros.engines.adapted import find_adapted
    from scrfd_ros.engines.free_size import FREE_SIZE, fixed_size

    size = fixed_size(read_file(path))
    if size is None:
        return
    adapted = find_adapted(path, FREE_SIZE)
    if adapted is None:
        others = "it is changed for others when they are first needed"
    else:
        others = f"the one in {adapted.path.parent.relative_to(path.parent)} takes any"
    print(f"{name}: this file takes {size[0]}x{size[1]} only; {others}")
