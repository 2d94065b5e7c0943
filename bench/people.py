# SPDX-License-Identifier: Apache-2.0
"""Real faces with their names, for measurements of recognition.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/people.py OUT [DIR ...]
    ./run.sh eval verification OUT/pairs.csv --images OUT --aligned

The first command writes aligned faces into the folder OUT, and all their pairs to OUT/pairs.csv.
The faces are those in images of the catalogue and in images DIR/PERSON/IMAGE. A PERSON who is also
in an image of the catalogue has to have its name there, such as obama or t1_2.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.config import DetectorConfig, PipelineConfig
from scrfd_ros.evaluation.verification import main_face
from scrfd_ros.faces import Faces
from scrfd_ros.files import write_text
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.alignment import align_faces

ONE_PERSON = {"obama.jpg": "obama", "obama2.jpg": "obama", "obama3.jpg": "obama"}
DIFFERENT_PEOPLE = ("biden.jpg", "t1.jpg", "gdp.jpg", "players.jpg", "solvay_conference_1927.jpg")
"""Images of the catalogue; each person is in one of them, once."""


class Person(NamedTuple):
    """One face in one image.

    Attributes:
        name: the same for all faces of a person.
        image: uint8 [H, W, 3] BGR.
        faces: that one face in it, with its embedding.
    """

    name: str
    image: NDArray[np.uint8]
    faces: Faces


def find_people(pipeline: FacePipeline, folders: list[Path]) -> list[Person]:
    """All faces in the catalogue's images, and the main face of each image in the folders."""
    sources = [(ensure_picture(name), person) for name, person in ONE_PERSON.items()]
    sources += [(ensure_picture(name), "") for name in DIFFERENT_PEOPLE]
    for folder in folders:
        sources += [(path, path.parent.name) for path in sorted(folder.glob("*/*"))]
    people = []
    for path, name in tqdm(sources, "finding people", leave=False, disable=None):
        image = read_image(path)
        faces = pipeline(image).faces
        if name and len(faces):
            height, width = image.shape[:2]
            rows = [main_face(faces, width, height)]
        else:
            rows = list(range(len(faces)))
        if not rows:
            print(f"{path}: no face found")
        for row in rows:
            people.append(Person(name or f"{path.stem}_{row}", image, one_of(faces, row)))
    return people


def one_of(faces: Faces, row: int) -> Faces:
    """One face of several."""
    assert faces.landmarks is not None
    assert faces.embeddings is not None and faces.embedding_norms is not None
    only = slice(row, row + 1)
    return Faces(
        faces.boxes[only],
        faces.scores[only],
        faces.landmarks[only],
        faces.embeddings[only],
        faces.embedding_norms[only],
    )


def main() -> None:
    out, *folders = (Path(argument) for argument in sys.argv[1:])
    people = find_people(
        load_pipeline(PipelineConfig(detector=DetectorConfig(large_faces=True))), folders
    )
    files = []
    for number, person in enumerate(people):
        files.append(f"{number:04}_{person.name}.png")
        write_image(out / files[-1], align_faces(person.image, person.faces.landmarks)[0])
    lines = [
        f"{files[a]},{files[b]},{int(people[a].name == people[b].name)}\n"
        for a, b in combinations(range(len(people)), 2)
    ]
    write_text(out / "pairs.csv", "".join(lines))
    names = {person.name for person in people}
    print(f"{len(people)} faces of {len(names)} people, {len(lines)} pairs in {out}")


if __name__ == "__main__":
    main()
