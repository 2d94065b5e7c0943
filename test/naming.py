# SPDX-License-Identifier: Apache-2.0
"""Which names the people of clips get, some of them enrolled and some not.

The people of a clip are in a gallery together with all other faces of the catalogue's pictures. Of
one of them there are further photographs, which are enrolled instead of the one in the clip; the
others are enrolled by the photograph that the clip is made of, so that they are easier to know than
people are. Strangers are as hard as in life.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from clips import CAST, Frame
from numpy.typing import NDArray

from scrfd_ros.config import GalleryConfig
from scrfd_ros.faces import FloatArray, IdentityState, ious
from scrfd_ros.gallery.identifier import Identifier
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import GalleryInfo, Look
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.assignment import best_pairs

OTHER_PHOTOGRAPHS = {"a": ("obama2.jpg", "obama3.jpg")}
CROWD = (
    "Tom_Hanks_54745.png",
    "gdp.jpg",
    "players.jpg",
    "solvay_conference_1927.jpg",
    "yaoming.jpg",
)
"""Pictures of other people, who are in the gallery too."""

Images = Callable[[str], NDArray[np.uint8]]

_SAME_FACE = 0.5  # IoU with the box of a face in the clip


@dataclass
class Seen:
    """How a person in a clip was called.

    Attributes:
        frames: in which the face was found.
        right, wrong: of these, in which the own name was used, and another one.
        tentative_wrong: in which another person was named as likely, which is no name.
        delays: seconds from when a face comes to when it is named, for each time it came; None if
            it left before.
        lost: times that it had its name and then none.
        strangers: anonymous ids that it got.
    """

    frames: int = 0
    right: int = 0
    wrong: int = 0
    tentative_wrong: int = 0
    delays: list[float | None] = field(default_factory=list)
    lost: int = 0
    strangers: set[str] = field(default_factory=set)


@dataclass
class Outcome:
    """How the people of a clip were called.

    Attributes:
        people: by their names in `CAST`.
        embedded: faces that were embedded.
        faces: that were found.
    """

    people: dict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))
    embedded: int = 0
    faces: int = 0


class Naming:
    """Runs clips with one gallery after the other; each image goes through each network once.

    Args:
        pipeline: with a recognizer. What its networks gave is remembered.
        image: gives an image of the catalogue by its file name.
    """

    def __init__(self, pipeline: FacePipeline, image: Images) -> None:
        recognizer = pipeline.recognizer
        assert recognizer is not None
        self._pipeline, self._recognizer = pipeline, recognizer
        self._detect_all, self._embed = pipeline.detector.detect_all, recognizer.embed
        self._found: dict[int, Any] = {}
        self._embeddings: dict[bytes, tuple[FloatArray, np.float32]] = {}
        pipeline.detector.detect_all = self._remembered_faces  # type: ignore[method-assign]
        recognizer.embed = self._remembered_embeddings  # type: ignore[method-assign]
        self._looks = {name: self._looks_of(name, image) for name in CAST}
        self._crowd = [looks for file in CROWD for looks in self._looks_in(image(file))]

    def run(
        self,
        frames: Sequence[Frame],
        enrolled: Collection[str],
        store: Path,
        config: GalleryConfig,
    ) -> Outcome:
        """How people are called in a clip.

        Args:
            frames: of the clip.
            enrolled: who of `CAST` is in the gallery, beside `CROWD`.
            store: file of the gallery, which is made.
            config: the rule.
        """
        info = GalleryInfo("recognizer", "0" * 64, self._recognizer.dimensions)
        with open_gallery(str(store), info) as gallery:
            for name in sorted(enrolled):
                gallery.enroll(name, self._looks[name], source="")
            for number, look in enumerate(self._crowd):
                gallery.enroll(f"crowd {number}", [look], source="")
            self._pipeline.identifier = Identifier(gallery, config)
            outcome = self._run(frames)
        self._pipeline.identifier = None
        return outcome

    def _run(self, frames: Sequence[Frame]) -> Outcome:
        outcome, tracker = Outcome(), self._pipeline.new_tracker()
        assert tracker is not None
        came: dict[str, tuple[float, float]] = {}  # when it came, and when it was seen last
        last: dict[str, str] = {}
        for frame in frames:
            result = self._pipeline(frame.image, tracker, frame.time)
            faces = result.faces
            assert faces.identities is not None
            outcome.faces += len(faces)
            outcome.embedded += len(result.looks)
            names = list(frame.boxes)
            boxes = np.array([frame.boxes[name] for name in names], np.float32).reshape(-1, 4)
            overlaps = ious(faces.boxes, boxes)
            pairs = best_pairs(np.where(overlaps >= _SAME_FACE, overlaps, 0))
            for row, column in zip(*pairs, strict=True):
                name, identity = names[column], faces.identities[row]
                seen = outcome.people[name]
                if name not in came or frame.time - came[name][1] > tracker.config.max_age:
                    came[name] = frame.time, frame.time
                    last[name] = ""
                    seen.delays.append(None)
                start = came[name][0]
                came[name] = start, frame.time
                seen.frames += 1
                seen.right += identity.name == name
                seen.wrong += identity.name not in ("", name)
                if identity.name == name and seen.delays[-1] is None:
                    seen.delays[-1] = frame.time - start
                seen.lost += bool(last[name] and not identity.name)
                last[name] = identity.name
                if identity.person_id.startswith("stranger-"):
                    seen.strangers.add(identity.person_id)
                if identity.state is IdentityState.TENTATIVE:
                    assert self._pipeline.identifier is not None
                    person = self._pipeline.identifier.gallery.person(identity.person_id)
                    seen.tentative_wrong += person is not None and person.name != name
        return outcome

    def _looks_of(self, name: str, image: Images) -> list[Look]:
        """Looks to enroll a person of the clips by."""
        if name in OTHER_PHOTOGRAPHS:
            return [self._looks_in(image(file))[0] for file in OTHER_PHOTOGRAPHS[name]]
        face = CAST[name].face
        result = self._pipeline(image(face.image))
        box = np.array([face[1:]], np.float32)
        row = int(ious(result.faces.boxes, box)[:, 0].argmax())
        return [self._look(result.faces.embeddings, row)]

    def _looks_in(self, image: NDArray[np.uint8]) -> list[Look]:
        embeddings = self._pipeline(image).faces.embeddings
        return [
            self._look(embeddings, row)
            for row in range(0 if embeddings is None else len(embeddings))
        ]

    @staticmethod
    def _look(embeddings: FloatArray | None, row: int) -> Look:
        assert embeddings is not None
        return Look(embeddings[row], 1.0, 0.0, 0.0)

    def _remembered_faces(self, images: Sequence[NDArray[np.uint8]], done: Any, plans: Any) -> Any:
        found = []
        for image in images:
            key = hash(image.tobytes())
            if key not in self._found:
                (self._found[key],) = self._detect_all([image], done, None)
            found.append(self._found[key])
        return found

    def _remembered_embeddings(
        self, crops: NDArray[np.uint8]
    ) -> tuple[FloatArray, NDArray[np.float32]]:
        keys = [crop.tobytes() for crop in crops]
        new = [row for row, key in enumerate(keys) if key not in self._embeddings]
        for row, embedding, norm in zip(new, *self._embed(crops[new]), strict=True):
            self._embeddings[keys[row]] = embedding, norm
        both = [self._embeddings[key] for key in keys]
        embeddings = np.array([embedding for embedding, _ in both], np.float32)
        embeddings = embeddings.reshape(len(keys), self._recognizer.dimensions)
        return embeddings, np.array([norm for _, norm in both], np.float32)


def compositions(people: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Who is enrolled: all, nobody, and all but one of the people of a clip, each in turn."""
    everybody = frozenset(people)
    one_less = {f"without {name}": everybody - {name} for name in sorted(people)}
    return {"all": everybody, "nobody": frozenset(), **one_less}
