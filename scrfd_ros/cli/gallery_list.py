# SPDX-License-Identifier: Apache-2.0
"""List the people in a gallery, or what is known about one of them.

With NAME also the templates of this person, with their ids, which `move` takes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from scrfd_ros.cli.output import count_of_people, count_of_templates, fitted, say, tell_new_folder
from scrfd_ros.files import write_text
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Person, Template


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the person, or the id")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the list as JSON")


def run(args: argparse.Namespace) -> int:
    with open_gallery(args.gallery) as gallery:
        if args.name is None:
            people, templates = gallery.people, None
            _print_people(gallery, people)
        else:
            person = gallery.find(args.name)
            people = [person]
            templates = [
                template
                for each in (person, *gallery.merged(person.id))
                for template in gallery.templates_of(each)
            ]
            _print_person(gallery, person, templates)
        if args.json:
            tell_new_folder(args.json)
            report = _report(gallery, people, templates)
            write_text(args.json, json.dumps(report, ensure_ascii=False) + "\n")
            print(f"list in {args.json}")
    return 0


def _report(
    gallery: Gallery, people: Sequence[Person], templates: Sequence[Template] | None
) -> dict[str, Any]:
    counts, merged = gallery.template_counts(), gallery.merged_names()
    return {
        "recognizer": gallery.info.recognizer,
        "recognizer_sha256": gallery.info.recognizer_sha256,
        "people": [
            {
                "name": each.name,
                "person_id": each.id,
                "consent": each.consent,
                "created": each.created,
                "expires": each.expires,
                "merged_into": each.merged_into or None,
                "merged": merged.get(each.id, []),
                "template_count": counts.get(each.id),
            }
            for each in people
        ],
        **({} if templates is None else {"templates": list(map(_template, templates))}),
    }


def _template(template: Template) -> dict[str, Any]:
    return {
        "template_id": template.id,
        "person_id": template.person_id,
        "quality": template.quality,
        "source": template.source,
        "created": template.created,
        "is_negative": template.is_negative,
        "has_image": bool(template.image),
    }


def _print_people(gallery: Gallery, people: Sequence[Person]) -> None:
    counts, merged = gallery.template_counts(), gallery.merged_names()
    if people:
        print("name                         templates  enrolled    expires     consent")
    for each in people:
        print(
            f"{fitted(each.name, 28)}{counts[each.id]:10}  {_day(each.created):10}  "
            f"{_day(each.expires):10}  {fitted(each.consent or '-', 16)}".rstrip()
        )
        if others := merged.get(each.id):
            say(f"  also: {', '.join(others)}")
    total = count_of_templates(sum(counts.values()))
    print(f"{count_of_people(len(people))}, {total}, for {gallery.info.recognizer}")


def _print_person(gallery: Gallery, person: Person, templates: Sequence[Template]) -> None:
    say(f"{person.name}, person {person.id}")
    print(f"enrolled {_day(person.created)}, expires: {_day(person.expires)}")
    say(f"consent: {person.consent or '-'}")
    if others := gallery.merged(person.id):
        say(f"also: {', '.join(each.name for each in others)}")
    if person.merged_into and (into := gallery.person(person.merged_into)):
        say(f"merged into {into.name}")
    for is_negative, title in ((False, "template"), (True, "not this person")):
        those = [each for each in templates if each.is_negative == is_negative]
        if those:
            print(f"{title:36}  quality  added       from")
        for each in those:
            print(
                f"{each.id:36}{each.quality:9.2f}  {_day(each.created):10}  "
                f"{fitted(each.source, 18)}".rstrip()
            )


def _day(time: float | None) -> str:
    return "never" if time is None else datetime.fromtimestamp(time).date().isoformat()
