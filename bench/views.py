# SPDX-License-Identifier: Apache-2.0
"""Faces found by the second look, by tiles and in parts, and their cost in time.

    ./run.sh setup && .venv/bin/python bench/views.py [parts]

Prints three Markdown tables, or the last one only. Faces of real photographs are scaled and
centered in images of three shapes; those of the last table are looked at as they are. Times are
medians of runs with and without the setting, in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from turns import time_ratio

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.parts import PART_FACE, Part, plan_parts
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.agreement import SAME_FACE_IOU
from scrfd_ros.faces import ious
from scrfd_ros.images.files import read_image
from scrfd_ros.inference.load import load_network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.pipeline import load_pipeline
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

MODELS = ("500m", "2.5g")
PHOTOGRAPHS = ("obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg", "t1.jpg", "yaoming.jpg")
SHAPES = {"16:9": (1280, 720), "4:3": (960, 720), "1:1": (720, 720)}
PARTS = (0.2, 0.4, 0.6, 0.7, 0.8, 1.0, 1.2)
CROWD = "solvay_conference_1927.jpg"
SIZES = (100, 50, 25, 12, 9)
REDUCED = (16, 24, 32, 40, 48, 64)
TILES = ((1, 1), (2, 2), (4, 3), (8, 6))
ROUNDS = 15


def enlarged(
    size: tuple[int, int], part: float
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Images with one face whose box is this part of the longer side, and that box [1, 4]."""
    finder = detector("2.5g")
    for name in PHOTOGRAPHS:
        photograph = read_image(ensure_picture(name))
        for box in finder.detect(photograph).boxes:
            center, face = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            scale = part * max(size) / face.max()
            shift = np.array(size) / 2 - scale * center
            transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
            image = cv2.warpAffine(photograph, transform, size, borderMode=cv2.BORDER_REPLICATE)
            corners = np.stack((box[:2], box[2:])) * scale + shift
            yield image.astype(np.uint8), corners.reshape(1, 4).astype(np.float32)


def detector(name: str) -> Scrfd:
    network = load_network(ensure_model(load_catalogue().find(name, DETECTOR)))
    return Scrfd(network, DetectorConfig(input_size=(640, 640)))


def ratio(scrfd: Scrfd, image: NDArray[np.uint8], config: DetectorConfig) -> float:
    """Median time with a config over that with the detector's own."""
    own = scrfd.config

    def detect(with_config: DetectorConfig) -> None:
        scrfd.config = with_config
        scrfd.detect(image)

    found = time_ratio(lambda: detect(config), lambda: detect(own), ROUNDS)
    scrfd.config = own
    return found


def large_faces() -> None:
    print("| image | detector | second look | " + " | ".join(map(str, PARTS)) + " | time |")
    print("|" + "---|" * (len(PARTS) + 4))
    for shape, size in SHAPES.items():
        images = {part: list(enlarged(size, part)) for part in PARTS}
        for model in MODELS:
            scrfd = detector(model)
            cost = ratio(scrfd, images[0.4][0][0], replace(scrfd.config, large_faces=True))
            for on in (False, True):
                scrfd.config = replace(scrfd.config, large_faces=on)
                cells = []
                for part in tqdm(PARTS, desc=f"{shape} {model}", leave=False, disable=None):
                    found = [
                        ious(scrfd.detect(image).boxes, box).max(initial=0) >= SAME_FACE_IOU
                        for image, box in images[part]
                    ]
                    cells.append(f"{np.mean(found):.0%}")
                words = [shape, model, "on" if on else "off", *cells, f"{cost:.2f}" if on else "1"]
                print(f"| {' | '.join(words)} |")


def tiles() -> None:
    photograph = read_image(ensure_picture(CROWD))
    usual = float(np.median(detector("2.5g").detect(photograph).sizes.max(axis=1)))
    names = [f"{columns}x{rows}" for columns, rows in TILES]
    print("\n| faces | detector | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(TILES) + 2))
    for size in SIZES:
        # Part of an image as large as the photograph, as a crowd far away would be.
        small = cv2.resize(
            photograph, None, fx=size / usual, fy=size / usual, interpolation=cv2.INTER_AREA
        )
        scene = np.zeros_like(photograph)
        scene[: small.shape[0], : small.shape[1]] = small
        for model in MODELS:
            scrfd = detector(model)
            cells = []
            for grid in tqdm(TILES, desc=f"{size} px {model}", leave=False, disable=None):
                scrfd.config = replace(scrfd.config, tiles=grid)
                cells.append(str(len(scrfd.detect(scene))))
            print(f"| {size} px | {model} | {' | '.join(cells)} |")
    for model in MODELS:
        scrfd = detector(model)
        ratios = (ratio(scrfd, photograph, replace(scrfd.config, tiles=grid)) for grid in TILES[1:])
        costs = [f"{cost:.1f}" for cost in ratios]
        print(f"| time | {model} | 1 | {' | '.join(costs)} |")


def parts() -> None:
    """Faces in parts, as they are reduced, beside those of the whole image."""
    scrfd = load_pipeline().detector
    recognizer = ArcFace(load_network(ensure_model(load_catalogue().find("w600k_mbf", RECOGNIZER))))
    found: dict[int, list[tuple[float, float, float]]] = {size: [] for size in REDUCED}
    for name in tqdm((*PHOTOGRAPHS, CROWD), desc="parts", leave=False, disable=None):
        photograph = read_image(ensure_picture(name))
        height, width = photograph.shape[:2]
        faces, whole = scrfd.detect(photograph), scrfd.plan(width, height)
        assert faces.landmarks is not None
        expected, _ = recognizer.embed(align_faces(photograph, faces.landmarks))
        for size, box, face, embedding in (
            (size, *row)
            for size in REDUCED
            for row in zip(faces.boxes, faces.sizes.max(axis=1), expected, strict=True)
            if row[1] * whole.scale >= size
        ):
            around = box + 0.4 * face * np.array((-1, -1, 1, 1))
            part = Part(tuple(around.tolist()), float(face) * PART_FACE / size)
            (seen,) = scrfd.detect_all(
                [photograph], plans=[plan_parts(width, height, [part], whole)]
            )
            overlaps = ious(box[None], seen.boxes)[0]
            if overlaps.max(initial=0) < SAME_FACE_IOU:
                found[size].append((0.0, np.nan, np.nan))
                continue
            assert seen.landmarks is not None
            best = overlaps.argmax()
            crop = align_faces(photograph, seen.landmarks[best : best + 1])
            cosine = float(recognizer.embed(crop)[0][0] @ embedding)
            found[size].append((1.0, float(overlaps[best]), cosine))
    print("\n| size in the part | faces | found | IoU | cosine | 5 % below |")
    print("|---:|---:|---:|---:|---:|---:|")
    for size, rows in found.items():
        shares, overlaps, cosines = np.array(rows).T
        figures = (np.nanmedian(overlaps), np.nanmedian(cosines), np.nanpercentile(cosines, 5))
        cells = [str(size), str(len(rows)), f"{shares.mean():.0%}", *(f"{x:.2f}" for x in figures)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["large_faces", "tiles", "parts"])
    tables = {"large_faces": large_faces, "tiles": tiles, "parts": parts}
    for table in parser.parse_args().tables:
        tables[table]()
