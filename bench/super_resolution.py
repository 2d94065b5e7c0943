# SPDX-License-Identifier: Apache-2.0
"""Does upscaling small faces help to recognize them? Prints the tables of docs/small-faces.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/super_resolution.py OUT [DIR ...]

Real faces (see bench/people.py) of 100 pixels and more are scaled down and embedded, with the
landmarks of the large face. They are upscaled by Real-ESRGAN, by the bilinear warp that aligns
faces without it, and by a bicubic warp. The embeddings are compared with those of the large faces.
The faces are also degraded as by a camera, with noise and JPEG, which Real-ESRGAN was trained to
undo. OUT/faces.png shows examples: the large face, and below it in turns bilinear and Real-ESRGAN.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from people import Person, find_people
from tqdm import tqdm

from scrfd_ros.config import DetectorConfig, PipelineConfig, SuperResolutionConfig
from scrfd_ros.engines.open import open_network
from scrfd_ros.images.files import write_image
from scrfd_ros.models.catalogue import SUPER_RESOLUTION, load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.pipeline import load_pipeline
from scrfd_ros.recognition.alignment import CROP_SIZE, align_faces, similarity_transforms
from scrfd_ros.recognition.super_resolution import SuperResolution

HEIGHTS = (12, 16, 24, 32, 48)
WORSE = (24, 32, 48)
"""Heights of the faces that are also degraded."""

LARGE = 100
FACES = 30
"""Number of faces to scale down; they are compared with all."""

NOISE, JPEG = 4.0, 70
FAR = 0.01


class Small(NamedTuple):
    """A face scaled down: the image it is in, and its landmarks [1, 5, 2] there."""

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


def scaled(person: Person, height: int, worse: bool) -> Small:
    """The surroundings of a face, so that its box is `height` pixels high."""
    scale = height / person.faces.sizes[0, 1]
    center, reach = person.faces.centers[0], 2 * person.faces.sizes[0].max()
    limit = person.image.shape[1::-1]
    x1, y1 = np.clip(center - reach, 0, limit).astype(int)
    x2, y2 = np.clip(center + reach, 0, limit).astype(int)
    part = person.image[y1:y2, x1:x2]
    size = max(round(scale * (x2 - x1)), 1), max(round(scale * (y2 - y1)), 1)
    image = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    if worse:
        noise = np.random.default_rng(0).normal(0, NOISE, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG])[1]
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    factor = np.array(size) / (x2 - x1, y2 - y1)
    landmarks = (person.faces.landmarks - (x1, y1) + 0.5) * factor - 0.5
    return Small(image, landmarks.astype(np.float32))


def bicubic(face: Small) -> NDArray[np.uint8]:
    """As `align_faces`, with a smoother warp."""
    (transform,) = similarity_transforms(face.landmarks)
    size = (CROP_SIZE, CROP_SIZE)
    return cv2.warpAffine(face.image, transform, size, flags=cv2.INTER_CUBIC)[None]


def main() -> None:
    out, *folders = (Path(argument) for argument in sys.argv[1:])
    pipeline = load_pipeline(PipelineConfig(detector=DetectorConfig(large_faces=True)))
    people = [
        person for person in find_people(pipeline, folders) if person.faces.sizes[0, 1] >= LARGE
    ]
    names = np.array([person.name for person in people])
    same = names[:, None] == names
    # People with one image have no other image to compare with.
    rows = np.flatnonzero(same.sum(axis=1) > 1)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:FACES])
    genuine, impostors = same[rows], ~same[rows]
    own = np.zeros_like(genuine)
    own[np.arange(len(rows)), rows] = True
    large = np.concatenate([person.faces.embeddings for person in people])
    print(
        f"{len(rows)} faces scaled down, of {len(set(names[rows]))} people, against {len(people)} "
        f"of {len(set(names))}: {(genuine & ~own).sum()} pairs of two images of one person, "
        f"{impostors.sum()} of different people\n"
    )
    shown = [align_faces(people[row].image, people[row].faces.landmarks)[0] for row in rows[::3]]
    sheet = [np.hstack(shown)]
    model = ensure_model(load_catalogue().find("realesrgan_x4plus", SUPER_RESOLUTION))
    network = open_network(model, "onnxruntime")
    print(
        f"| image | height | upscaled by | same image | same person | another | 99 % below "
        f"| matched at FAR {FAR:.0%} | ms |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    settings = [(height, False) for height in HEIGHTS] + [(height, True) for height in WORSE]
    for height, worse in settings:
        upscaler = SuperResolution(network, SuperResolutionConfig(max_size=round(1.2 * height)))
        ways = {
            "bilinear": lambda face: align_faces(*face),
            "bicubic": bicubic,
            "Real-ESRGAN": lambda face, upscaler=upscaler: upscaler.align(*face),
        }
        crops = {
            method: np.empty((len(rows), CROP_SIZE, CROP_SIZE, 3), np.uint8) for method in ways
        }
        times = {method: np.empty(len(rows)) for method in ways}
        for number, row in enumerate(tqdm(rows, f"{height} pixels", leave=False, disable=None)):
            face = scaled(people[row], height, worse)
            for method, way in ways.items():
                start = perf_counter()
                crops[method][number] = way(face)[0]
                times[method][number] = 1e3 * (perf_counter() - start)
        for method in ways:
            cosines = pipeline.recognizer.embed(crops[method])[0] @ large.T
            threshold = np.quantile(cosines[impostors], 1 - FAR)
            others = cosines[genuine & ~own]
            print(
                f"| {'worse' if worse else 'clean'} | {height} | {method} "
                f"| {cosines[own].mean():.2f} | {others.mean():.2f} "
                f"| {cosines[impostors].mean():.2f} | {threshold:.2f} "
                f"| {(others > threshold).mean():.0%} | {np.median(times[method]):.2g} |",
                flush=True,
            )
            if method != "bicubic":
                sheet.append(np.hstack(crops[method][::3]))
    write_image(out / "faces.png", np.vstack(sheet))


if __name__ == "__main__":
    main()
