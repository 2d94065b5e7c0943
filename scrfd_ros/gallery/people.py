# SPDX-License-Identifier: Apache-2.0
"""The values of a gallery: people, templates, looks."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import GalleryError

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class GalleryInfo(NamedTuple):
    """What a gallery is made for. Templates of different recognizers cannot be compared.

    Attributes:
        recognizer: name of the recognizer, such as w600k_mbf.
        recognizer_sha256: its checksum, lower-case hexadecimal.
        dimensions: numbers in an embedding.
    """

    recognizer: str
    recognizer_sha256: str
    dimensions: int

    def ensure_recognizer(self, other: GalleryInfo) -> None:
        """Check that a gallery for another recognizer could have the same templates.

        Raises:
            GalleryError: it could not.
        """
        if other.recognizer_sha256 != self.recognizer_sha256:
            raise GalleryError(
                f"the gallery is for the recognizer {self.recognizer}, not for "
                f"{other.recognizer}, whose embeddings cannot be compared with it: choose that "
                f"recognizer, or enroll the people in another gallery"
            )


class Person(NamedTuple):
    """A person who was enrolled.

    Attributes:
        id: a random UUID; stays with the person.
        name: what people call the person; one of a kind in a gallery.
        consent: a note of when and how the person agreed; may be empty.
        created: seconds since the epoch.
        expires: when the person is to be forgotten, seconds since the epoch; None for never.
        merged_into: id of the person who this one turned out to be; "" for a person of its own. The
            record and its templates stay as they are, so that it can be split again.
    """

    id: str
    name: str
    consent: str = ""
    created: float = 0.0
    expires: float | None = None
    merged_into: str = ""


class Template(NamedTuple):
    """An embedding of an enrolled person.

    Attributes:
        id: a random UUID.
        person_id: whose face it is, or, of a negative example, is not.
        embedding: float32 [D], of unit length.
        quality: of the face, 0 to 1, see `scrfd_ros.recognition.quality`.
        source: where it is from, such as a file's name.
        created: seconds since the epoch.
        is_negative: it is the face of somebody else, who was taken for the person.
        image: the aligned face, PNG; b"" if it was not kept.
    """

    id: str
    person_id: str
    embedding: NDArray[np.float32]
    quality: float
    source: str
    created: float
    is_negative: bool = False
    image: bytes = b""


class Look(NamedTuple):
    """What one image tells of a face.

    Attributes:
        embedding: float32 [D], of unit length.
        quality: 0 to 1, see `scrfd_ros.recognition.quality`.
        yaw, pitch: of the head, approximate degrees, see `scrfd_ros.recognition.quality.pose`.
        crop: uint8 [112, 112, 3] BGR, the aligned face; None if images are not kept.
        source: where it is from, such as a file's name; "" if it is not known.
    """

    embedding: NDArray[np.float32]
    quality: float
    yaw: float
    pitch: float
    crop: NDArray[np.uint8] | None = None
    source: str = ""


class Candidate(NamedTuple):
    """A person whom an embedding may show.

    Attributes:
        person_id: of a person that is not merged into another.
        similarity: cosine of the embedding and the nearest template of the person, -1 to 1.
    """

    person_id: str
    similarity: float


def is_id(text: str) -> bool:
    """Whether a text has the form of the ids of people and templates."""
    return _ID.fullmatch(text) is not None
