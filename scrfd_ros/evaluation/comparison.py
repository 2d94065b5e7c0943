# SPDX-License-Identifier: Apache-2.0
"""Compare the faces found with two models, precisions, input sizes or backends.

Matching and limits are those of `scrfd_ros.engines.agreement`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.engines.agreement import (
    Differences,
    compare_embeddings,
    compare_faces,
    is_minimum,
    judge,
    worst,
)
from scrfd_ros.errors import ImageError, MessageError, ModelError
from scrfd_ros.faces import Faces
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.files import IMAGE_SUFFIXES, list_images, read_image, write_image
from scrfd_ros.images.message import decode_message
from scrfd_ros.inference.network import Network
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

Image = NDArray[np.uint8]

_LOWEST_SCORE = 0.02  # below it, almost everything in an image is a candidate
_BAG_FILES = (".db3", ".mcap")
_RED, _WHITE, _BLACK = (40, 40, 230), (255, 255, 255), (0, 0, 0)  # BGR

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figure:
    """One figure over all images.

    Attributes:
        value: the sum of a count, or the worst of the measured values.
        median: of the measured values over all faces; None for counts.
        limit: of `value`; None if it has none.
        within: whether the value is within the limit.
        is_minimum: whether the limit is a minimum, rather than a maximum.
        image: the one with the worst value, or with the highest count; None for faces and a count
            of 0.
    """

    value: float
    median: float | None
    limit: float | None
    within: bool
    is_minimum: bool
    image: str | None


@dataclass(frozen=True)
class Report:
    """The result of a comparison.

    Attributes:
        figures: by name; see `compare_pipelines` and `compare_recognizers`.
        images: the figures of each image alone, by its name.
        different: names of the images with a figure outside its limit.
        failures: a sentence for each figure outside its limit.
    """

    figures: dict[str, Figure]
    images: dict[str, dict[str, float]]
    different: tuple[str, ...]
    failures: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """All attributes, with null for infinitely bad values."""
        return {
            "within_limits": not self.failures,
            "failures": list(self.failures),
            "figures": {
                name: {
                    "value": _finite(figure.value),
                    "median": _finite(figure.median),
                    "limit": figure.limit,
                    "within": figure.within,
                    "picture": figure.image,
                }
                for name, figure in self.figures.items()
            },
            "different": list(self.different),
            "pictures": {
                name: {key: _finite(value) for key, value in figures.items()}
                for name, figures in self.images.items()
            },
        }


def open_images(path: Path) -> Iterator[tuple[str, Image]]:
    """The images in a folder and the folders below it, in a bag, or in a file, with their names.

    A name is the path in the folder, or topic and time in a bag, and ends in the suffix of an image
    file. Images of a bag that cannot be decoded are logged and skipped. Progress is shown on a
    terminal.

    Raises:
        ScrfdError: there are no images; during iteration: a file cannot be decoded.
    """
    if (path / "metadata.yaml").is_file() or (path.is_file() and path.suffix in _BAG_FILES):
        return _in_bag(path)
    if not path.is_dir():
        return iter([(path.name, read_image(path))])
    paths = list_images(path, below=True)
    return (
        (file.relative_to(path).as_posix(), read_image(file))
        for file in tqdm(paths, "comparing", unit="image", leave=False, disable=None)
    )


def _in_bag(path: Path) -> Iterator[tuple[str, Image]]:
    # Not at the top: images need no rosbags.
    from scrfd_ros.bags.bag import open_bag
    from scrfd_ros.bags.image_topics import image_topics
    from scrfd_ros.bags.message_types import deserialize
    from scrfd_ros.bags.times import seconds

    with open_bag(path) as bag:
        for sentence in (*bag.notes, *bag.damage):
            _LOG.warning("%s", sentence)
        topics, left_alone = image_topics(bag)
        for topic, reason in left_alone.items():
            _LOG.warning("%s: left alone: %s", topic, reason)
        total = bag.count(topics)
        names: Counter[str] = Counter()
        bar = tqdm(bag.records(topics), "comparing", total, unit="image", leave=False, disable=None)
        for topic, kind, time, data in bar:
            name = f"{topic.lstrip('/')}/{seconds(time)}"
            names[name] += 1
            name += f"_{names[name]}.jpg" if names[name] > 1 else ".jpg"
            try:
                image = decode_message(deserialize(data, kind))
            except (MessageError, ImageError) as error:
                _LOG.warning("%s: image skipped: %s", name, error)
                continue
            if image.damage:
                _LOG.warning("%s: used, but %s", name, image.damage)
            yield name, image.image


def compare_pipelines(
    reference: FacePipeline,
    candidate: FacePipeline,
    images: Iterable[tuple[str, Image]],
    limits: Mapping[str, float],
    output: Path | None = None,
) -> Report:
    """Compare the faces found by two pipelines with the same recognizer, or with none.

    A face that reaches the reference's score threshold on one side has to be found by the other,
    where its score may be lower by the limit of the score's difference. So no comparison fails for
    a face on the threshold. The thresholds of both pipelines are lowered by that limit.

    Args:
        images: see `open_images`.
        limits: see `scrfd_ros.engines.agreement.LIMITS`.
        output: folder for an image of both sides' faces, the reference's on the left, for each
            image with a figure outside its limit; faces that only one side has are red.

    Returns:
        faces: number of the reference's; the other figures are those of
            `scrfd_ros.engines.agreement.compare_faces`.

    Raises:
        ModelError: the recognizers are different models.
        ScrfdError: an image cannot be read or written.
    """
    if reference.recognizer is not None and candidate.recognizer is not None:
        refuse_different_models(reference.recognizer, candidate.recognizer)
    certain = reference.config.detector.score_threshold
    lowest = max(certain - limits["max_score_difference"], _LOWEST_SCORE)
    for pipeline in (reference, candidate):
        detector = replace(pipeline.config.detector, score_threshold=lowest)
        pipeline.config = replace(pipeline.config, detector=detector)
    differences = {}
    for name, image in images:
        expected, found = reference(image).faces, candidate(image).faces
        each = compare_faces(found, expected, certain, certain)
        each.counts["faces"] = int((expected.scores >= certain).sum())
        differences[name] = each
        if output is not None and judge(_of_one(each), limits):
            drawn = name if name.lower().endswith(IMAGE_SUFFIXES) else f"{name}.png"
            write_image(output / drawn, _side_by_side(image, expected, found, each))
    return _report(differences, limits)


def compare_recognizers(
    reference: ArcFace,
    candidate: ArcFace,
    finder: FacePipeline,
    images: Iterable[tuple[str, Image]],
    limits: Mapping[str, float],
) -> Report:
    """Compare the embeddings that two recognizers of one model give the same faces.

    Args:
        finder: finds the faces; its detector has to find landmarks.
        images, limits: see `compare_pipelines`.

    Returns:
        The figures of `scrfd_ros.engines.agreement.compare_embeddings`.

    Raises:
        ModelError: the recognizers are different models, or the finder finds no landmarks.
        ScrfdError: an image cannot be read.
    """
    refuse_different_models(reference, candidate)
    if not finder.detector.has_landmarks:
        raise ModelError(
            f"{finder.detector.network.path}: finds no landmarks, without which there are no "
            f"faces to recognize; choose another detector, such as 2.5g"
        )
    differences = {}
    for name, image in images:
        landmarks = finder(image).faces.landmarks
        assert landmarks is not None
        crops = align_faces(image, landmarks)
        differences[name] = compare_embeddings(*candidate.embed(crops), *reference.embed(crops))
    return _report(differences, limits)


def refuse_different_models(reference: ArcFace, candidate: ArcFace) -> None:
    """Refuse recognizers of different models, whose embeddings cannot be compared.

    Raises:
        ModelError: they are of different models, by catalogue or number of dimensions.
    """
    first, second = (_catalogue_name(side.network) for side in (reference, candidate))
    if (first and second and first != second) or reference.dimensions != candidate.dimensions:
        names = [
            name or f"{side.network.name} ({side.dimensions} values)"
            for name, side in ((first, reference), (second, candidate))
        ]
        raise ModelError(
            f"{' and '.join(names)} are different models: the cosine of their embeddings means "
            f"nothing. `scrfd eval verification` measures the accuracy of each"
        )


def _catalogue_name(network: Network) -> str | None:
    for entry in load_catalogue().models.values():
        if entry.sha256 == network.sha256:
            return entry.name
    return None


def _of_one(differences: Differences) -> dict[str, float]:
    """The figures of one image, except its number of faces, which may be 0."""
    return {name: value for name, value in differences.figures.items() if name != "faces"}


def _report(differences: Mapping[str, Differences], limits: Mapping[str, float]) -> Report:
    images = {name: each.figures for name, each in differences.items()}
    together = worst(({"faces": 0}, *images.values()))
    figures = {}
    for name, value in together.items():
        values = [each.values[name] for each in differences.values() if name in each.values]
        having = {key: each[name] for key, each in images.items() if name in each}
        lowest = is_minimum(name)
        where = (min if lowest else max)(having, key=lambda key: having[key], default=None)
        figures[name] = Figure(
            value,
            float(np.median(np.concatenate(values))) if values else None,
            limits.get(name),
            not judge({name: value}, limits),
            lowest,
            where if values or (value and name != "faces") else None,
        )
    different = tuple(name for name, each in differences.items() if judge(_of_one(each), limits))
    return Report(figures, images, different, judge(together, limits))


def _side_by_side(image: Image, expected: Faces, found: Faces, differences: Differences) -> Image:
    sides = []
    for letter, faces, rows in (
        ("A", expected, differences.missed),
        ("B", found, differences.extra),
    ):
        side = draw_faces(image, faces)
        line = max(min(side.shape[:2]) // 200, 1)
        around = faces.boxes[rows] + 3 * line * np.array([-1, -1, 1, 1])
        for x1, y1, x2, y2 in around.round().astype(int).tolist():
            cv2.rectangle(side, (x1, y1), (x2, y2), _RED, line)
        scale = line / 2
        (width, height), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        cv2.rectangle(side, (0, 0), (2 * width, 2 * height), _BLACK, cv2.FILLED)
        place = (width // 2, 3 * height // 2)
        cv2.putText(side, letter, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, line)
        sides.append(side)
    return np.hstack(sides)


def _finite(value: float | None) -> Any:
    return value if value is not None and np.isfinite(value) else None
