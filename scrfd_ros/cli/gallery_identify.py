# SPDX-License-Identifier: Apache-2.0
"""Find the faces in an image, and who they are.

A name is given if the face is similar enough to one person, and more than to any other: see
docs/identity.md. The state tentative stands for a face that is like somebody, but not enough.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from scrfd_ros.cli.arguments import add_pipeline_arguments, pipeline_of
from scrfd_ros.cli.detect import add_report_arguments, report_faces
from scrfd_ros.images.files import read_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image, JPEG or PNG")
    add_report_arguments(parser)
    add_pipeline_arguments(parser, large_faces=True, of_gallery=True)


def run(args: argparse.Namespace) -> int:
    image = read_image(args.image)
    with closing(pipeline_of(args)) as pipeline:
        report_faces(args, args.image, image, pipeline)
    return 0
