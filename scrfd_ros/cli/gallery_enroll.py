# SPDX-License-Identifier: Apache-2.0
"""Enroll a person from images or a bag, or a whole folder of people.

Each image has to show the person alone. PATH is an image, a folder of images, or a bag; where the
bag shows several people, its tracks are listed, and --track chooses one. With --people there is a
folder of images for each person in FOLDER, with the name of the person. With --from everybody of
another gallery is enrolled, whose images were kept, for another recognizer.

Of the faces that are good enough the best become templates, in different poses. Refused are images
of somebody who is enrolled under another name, or who does not look like the person of this name;
--force takes them. If nobody has the name yet, a person is made; else the templates are added.

Exit status: 0 done; 1 some of the people were refused; 2 nobody was enrolled.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from scrfd_ros.cli.arguments import add_pipeline_arguments, add_rotation_argument, pipeline_of
from scrfd_ros.cli.gallery_exchange import tell_imported
from scrfd_ros.cli.output import count_of_people, count_of_templates, fitted, say
from scrfd_ros.enrollment.images import images_of
from scrfd_ros.enrollment.people import (
    Attempt,
    enroll_looks,
    enroll_people,
    enroll_person,
    folders_of_people,
)
from scrfd_ros.enrollment.terms import Terms, expiry
from scrfd_ros.errors import GalleryError, ScrfdError
from scrfd_ros.gallery.choice import Enrolled
from scrfd_ros.gallery.exchange import enroll_again
from scrfd_ros.gallery.gallery import Gallery, checked_name
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Look
from scrfd_ros.images.files import IMAGE_SUFFIXES
from scrfd_ros.pipeline import FacePipeline

_MAX_SHOWN = 10  # images of a person that are told one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="of the person; after --, if it begins with a dash",
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="images, folders of images, or one bag"
    )
    parser.add_argument(
        "--people", type=Path, metavar="FOLDER", help="enroll a person for each folder in this one"
    )
    parser.add_argument(
        "--from",
        dest="old",
        metavar="GALLERY",
        help="enroll everybody of another gallery, of another recognizer, by the images that were "
        "kept there",
    )
    parser.add_argument(
        "--consent", default="", metavar="TEXT", help="a note of when and how the person agreed"
    )
    parser.add_argument(
        "--expires",
        type=_expiry,
        metavar="DAYS",
        help="forget the person after so many days, or on a date such as 2030-12-31",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="enroll although the faces do not look like one person, or look like another one",
    )
    parser.add_argument(
        "--keep-images",
        action="store_true",
        help="keep the aligned faces, so that people need not be enrolled again for another "
        "recognizer",
    )
    parser.add_argument("--topic", help="of a bag: the topic of images (default: the only one)")
    parser.add_argument("--track", type=int, metavar="N", help="of a bag: the face with this id")
    add_rotation_argument(parser)
    add_pipeline_arguments(parser, large_faces=True, of_gallery=True)


def run(args: argparse.Namespace) -> int:
    _check(args)
    from scrfd_ros.enrollment.bags import is_bag  # not above: images do not need rosbags

    terms = Terms(args.consent, args.expires, args.force)
    bags = [path for path in args.paths if is_bag(path)]
    if bags and len(args.paths) > 1:
        raise ScrfdError(f"{bags[0]} is a bag: enroll from it alone")
    if not bags and (args.topic or args.track is not None or args.rotation):
        raise ScrfdError("--topic, --track and --rotation are for a bag: give the path of one")
    folders = folders_of_people(args.people) if args.people else []
    images = [] if bags else images_of(args.paths)
    with closing(pipeline_of(args, make_gallery=True)) as pipeline:
        assert pipeline.identifier is not None
        gallery = pipeline.identifier.gallery
        if args.old is not None:
            _enroll_again(args.old, pipeline, gallery)
            return 0
        if folders:
            return _enroll_people(pipeline, gallery, folders, terms)
        if bags:
            looks = _looks_in_bag(args, pipeline, bags[0])
            enrolled = enroll_looks(pipeline, gallery, args.name, looks, terms)
            _tell(enrolled, terms)
            return 0
        with tqdm(None, "enrolling", len(images), unit="image", leave=False, disable=None) as bar:
            attempt = enroll_person(pipeline, gallery, args.name, images, terms, bar.update)
        _tell_unusable(attempt)
        if attempt.enrolled is None:
            raise GalleryError(f"{args.name} was not enrolled: {attempt.reason}")
        _tell(attempt.enrolled, terms)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse arguments that do not fit together, as early as possible."""
    if args.people is not None and args.old is not None:
        raise ScrfdError("--people and --from: choose one of them")
    if args.old is not None and (args.consent or args.expires or args.force):
        raise ScrfdError(
            "--from takes people over as they are: leave --consent, --expires and --force out"
        )
    for option, value in (("--people", args.people), ("--from", args.old)):
        if value is not None:
            if args.name is not None:
                raise ScrfdError(f"{option} knows the names: leave NAME and PATH out, or {option}")
            return
    if args.name is None:
        raise ScrfdError("give NAME and PATH of images, or --people FOLDER")
    is_image = Path(args.name).suffix.lower() in IMAGE_SUFFIXES
    if is_image or (args.name.strip() and os.path.exists(args.name)):
        first = f"scrfd gallery enroll NAME {args.name}"
        raise ScrfdError(f"{args.name} is a path, and the name comes first: {first}")
    checked_name(args.name)
    if not args.paths:
        raise ScrfdError(f"give images of {args.name}: scrfd gallery enroll NAME PATH")


def _enroll_people(
    pipeline: FacePipeline, gallery: Gallery, folders: Sequence[Path], terms: Terms
) -> int:
    attempts = enroll_people(pipeline, gallery, folders, terms)
    print("name                                      images  templates")
    for each in attempts:
        added, what = 0, "refused"
        if each.enrolled is not None:
            added = len(each.enrolled.added)
            what = "new" if each.enrolled.is_new else "added" if added else "there already"
        print(f"{fitted(each.name, 40)}{each.images:8}{added:11}  {what}")
    for each in attempts:
        _tell_unusable(each)
        if each.enrolled is None:
            say(f"{each.name} was not enrolled: {each.reason}")
        else:
            _tell_left_out(each.enrolled, terms)
    done = sum(each.enrolled is not None for each in attempts)
    templates = sum(len(each.enrolled.added) for each in attempts if each.enrolled is not None)
    tried, total = count_of_people(len(attempts)), count_of_templates(templates)
    print(f"{done} of {tried} enrolled, {total} added")
    if not done:
        return 2
    return int(done < len(attempts))


def _enroll_again(place: str, pipeline: FacePipeline, gallery: Gallery) -> None:
    """Enroll everybody of another gallery by the images that were kept there."""
    recognizer = pipeline.recognizer
    assert recognizer is not None  # there is a gallery
    with open_gallery(place) as old:
        again = enroll_again(old, gallery, lambda crops: recognizer.embed(crops)[0])
    tell_imported(again, "left out, as no images of them were kept")


def _looks_in_bag(args: argparse.Namespace, pipeline: FacePipeline, bag: Path) -> Sequence[Look]:
    """The looks at one person in a bag; if there are several, they are listed."""
    from scrfd_ros.enrollment.bags import tracks_in

    tracks = tracks_in(bag, pipeline, args.topic, args.rotation)
    if not tracks:
        raise ScrfdError(f"{bag}: no face found")
    chosen = tracks
    if args.track is not None:
        chosen = [track for track in tracks if track.id == args.track]
    elif len(tracks) > 1:
        enough = pipeline.config.gallery.min_quality
        chosen = [track for track in tracks if track.looks[0].quality >= enough]
    if len(chosen) == 1:
        return chosen[0].looks
    print("track    from s      to s  looks  best quality")
    for track in tracks:
        print(
            f"{track.id:5}{track.start:10.1f}{track.end:10.1f}{len(track.looks):7}"
            f"{track.looks[0].quality:14.2f}"
        )
    if args.track is not None:
        raise ScrfdError(f"{bag}: there is no track {args.track}; choose one of those above")
    raise ScrfdError(f"{bag}: {len(tracks)} faces were followed; choose one by --track N")


def _tell(enrolled: Enrolled, terms: Terms) -> None:
    count = len(enrolled.added)
    person = f"{enrolled.person.name}, {'a new person' if enrolled.is_new else 'there already'}"
    print(f"{person}: {count_of_templates(count)} added")
    _tell_left_out(enrolled, terms)


def _tell_left_out(enrolled: Enrolled, terms: Terms) -> None:
    name = enrolled.person.name
    for looks, reason in (
        (enrolled.poor, "of too low quality"),
        (enrolled.unlike, "not like the others, perhaps somebody else"),
        (enrolled.again, "there already"),
    ):
        if looks:
            sources = list(dict.fromkeys(each.source for each in looks))
            shown = ", ".join(sources[:_MAX_SHOWN])
            more = f" and {len(sources) - _MAX_SHOWN} more" if len(sources) > _MAX_SHOWN else ""
            say(f"{name}: left out, {reason}: {shown}{more}")
    if not enrolled.added and (terms.expires or terms.consent not in ("", enrolled.person.consent)):
        say(f"{name}: consent and expiry stay as they are; to change them, forget the person first")


def _tell_unusable(attempt: Attempt) -> None:
    for sentence in attempt.unusable[:_MAX_SHOWN]:
        say(sentence)
    if (more := len(attempt.unusable) - _MAX_SHOWN) > 0:
        print(f"and {more} more images of {attempt.name} that cannot be used")


def _expiry(text: str) -> float:
    try:
        return expiry(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
