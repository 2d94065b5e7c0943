# SPDX-License-Identifier: Apache-2.0
"""Take people from one gallery to another, as a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from scrfd_ros.cli.output import count_of_people, say, tell_new_folder
from scrfd_ros.gallery.exchange import Imported, export_info, export_people, import_people
from scrfd_ros.gallery.opening import open_gallery


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="to write; it must not exist yet")


def export(args: argparse.Namespace) -> int:
    """Write everybody in the gallery, with all templates, into a file.

    Only you can read it. Whoever is forgotten later is still in the file: keep it as carefully as
    the gallery, and remove it when it is not needed any more.
    """
    with open_gallery(args.gallery) as gallery:
        tell_new_folder(args.file)
        people = export_people(gallery, args.file)
    print(f"{count_of_people(people)} written to {args.file}")
    return 0


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="that `export` wrote")


def import_(args: argparse.Namespace) -> int:
    """Add the people in a file to the gallery, which is made if it is missing.

    All of them, or none: if the gallery has other people of these names, it says which.
    """
    with open_gallery(args.gallery, export_info(args.file)) as gallery:
        tell_imported(import_people(gallery, args.file), "expired and left out")
    return 0


def tell_imported(imported: Imported, left_out: str) -> None:
    """Say what was added, and who was not, for the given reason."""
    print(f"added: people {imported.people}, templates {imported.templates}")
    if imported.left_out:
        say(f"{left_out}: {', '.join(imported.left_out)}")


RUN: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "export": export,
    "import": import_,
}
"""What is done, by the name of the action."""

ARGUMENTS: Final[Mapping[str, Callable[[argparse.ArgumentParser], None]]] = {
    "export": _add_export,
    "import": _add_import,
}
"""Adds the arguments of each action."""
