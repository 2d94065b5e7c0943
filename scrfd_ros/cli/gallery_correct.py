# SPDX-License-Identifier: Apache-2.0
"""Correct a gallery, and forget people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from scrfd_ros.cli.arguments import add_pipeline_arguments, pipeline_of
from scrfd_ros.cli.output import count_of_templates
from scrfd_ros.enrollment.images import look_at
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Person


def _add_rename(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person, or the id")
    parser.add_argument("new_name", metavar="NEW", help="the new name")


def rename(args: argparse.Namespace) -> int:
    """Give a person another name."""
    with open_gallery(args.gallery) as gallery:
        person = gallery.find(args.name)
        gallery.rename(person.id, args.new_name)
        print(f"{person.name} is called {gallery.find(person.id).name}")
    return 0


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person, or the id")
    parser.add_argument("into", metavar="INTO", help="the person that it is")


def merge(args: argparse.Namespace) -> int:
    """Note that two people are one.

    The person is called by the name of INTO; the other name still finds it. `split` ends that.
    """
    with open_gallery(args.gallery) as gallery:
        gallery.merge(args.name, args.into)
        person, into = gallery.find(args.name), gallery.find(args.into)
        print(f"{person.name} is {into.name}, who has {_templates(gallery, into)}")
    return 0


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person who was merged, or the id")


def split(args: argparse.Namespace) -> int:
    """Make somebody who was merged into another a person of its own again.

    Everything is as it was before; templates that were added since stay with the person whose name
    was given.
    """
    with open_gallery(args.gallery) as gallery:
        person, merged = gallery.find(args.name), gallery.merged_names().items()
        whole_id = next((each for each, names in merged if person.name in names), "")
        gallery.split(person.id)
        whole = gallery.person(whole_id)
        rest = "" if whole is None else f"; {whole.name} has {_templates(gallery, whole)}"
        print(f"{person.name} is a person of its own with {_templates(gallery, person)}{rest}")
    return 0


def _add_move(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person to whom, or the id")
    _add_templates(parser)


def move(args: argparse.Namespace) -> int:
    """Have templates belong to another person."""
    with open_gallery(args.gallery) as gallery:
        gallery.move(args.templates, args.name)
        person = gallery.find(args.name)
        print(f"{count_of_templates(len(args.templates))} moved: {person.name} has", end=" ")
        print(_templates(gallery, person))
    return 0


def _add_templates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "templates", nargs="+", metavar="TEMPLATE", help="ids of templates, as `list NAME` has them"
    )


def remove(args: argparse.Namespace) -> int:
    """Remove templates or negative examples for good.

    Whoever has no template left stays in the gallery, and is not found in images.
    """
    with open_gallery(args.gallery) as gallery:
        gallery.remove(args.templates)
        print(f"{count_of_templates(len(args.templates))} removed")
    return 0


def _add_reject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person, or the id")
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="of somebody else, who was taken for the person"
    )
    add_pipeline_arguments(parser, large_faces=True, of_gallery=True)


def reject(args: argparse.Namespace) -> int:
    """Keep a face as a negative example: it is not that person.

    A face that is more like it than like the templates of the person is not called by that name.
    """
    with closing(pipeline_of(args)) as pipeline:
        assert pipeline.identifier is not None
        gallery = pipeline.identifier.gallery
        person = gallery.find(args.name)
        gallery.reject(person.id, [look_at(pipeline, args.image)], args.image.name)
        print(f"{args.image} is not {person.name}: kept as a negative example")
    return 0


def _add_forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the person, or the id")


def forget(args: argparse.Namespace) -> int:
    """Forget a person for good.

    Templates, images, name and note of consent are overwritten, also those of people merged into
    the person. Copies of the gallery, such as exports, are not known here: remove these yourself.
    """
    with open_gallery(args.gallery) as gallery:
        person = gallery.find(args.name)
        others = [each.name for each in gallery.merged(person.id)]
        count = sum(
            len(gallery.templates_of(each)) for each in (person, *gallery.merged(person.id))
        )
        gallery.forget(person.id)
        also = f" and, merged into it, {', '.join(others)}" if others else ""
        print(f"{person.name}{also}: forgotten, with {count_of_templates(count)}")
    return 0


def _templates(gallery: Gallery, person: Person) -> str:
    return count_of_templates(gallery.template_counts().get(person.id, 0))


RUN: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "rename": rename,
    "merge": merge,
    "split": split,
    "move": move,
    "remove": remove,
    "reject": reject,
    "forget": forget,
}
"""What is done, by the name of the action."""

ARGUMENTS: Final[Mapping[str, Callable[[argparse.ArgumentParser], None]]] = {
    "rename": _add_rename,
    "merge": _add_merge,
    "split": _add_split,
    "move": _add_move,
    "remove": _add_templates,
    "reject": _add_reject,
    "forget": _add_forget,
}
"""Adds the arguments of each action."""
