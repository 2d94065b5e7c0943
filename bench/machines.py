# SPDX-License-Identifier: Apache-2.0
"""The faces found in some pictures on this machine, and on another machine.

    ./run.sh setup
    .venv/bin/python bench/machines.py here.npz --compare other.npz

Prints how they differ. The pictures are parts of photographs, of sizes at which
OpenCV for aarch64 scales to other values than on x86_64. The detector is 500m
at 640x640, the recognizer w600k_mbf for two faces of each picture, both on ONNX
Runtime. test/bags/machines/ has the files of two machines.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.bags.recordings import FrameKey, compare_recordings
from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.faces import Faces
from scrfd_ros.images.files import read_image
from scrfd_ros.inference.load import load_network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

PARTS = (  # picture; left, top, width and height in pixels
    ("t1.jpg", (0, 0, 1280, 886)),  # exactly half
    ("t1.jpg", (0, 0, 960, 720)),
    ("players.jpg", (0, 0, 1237, 800)),
    ("obama2.jpg", (0, 0, 626, 1200)),
    ("solvay_conference_1927.jpg", (700, 700, 1100, 619)),
    ("solvay_conference_1927.jpg", (300, 800, 1700, 1130)),
    ("gdp.jpg", (0, 0, 500, 665)),
)
EMBEDDED = 2  # faces of a picture


def parts() -> Iterator[NDArray[np.uint8]]:
    for name, (left, top, width, height) in tqdm(PARTS, unit="picture", ncols=80):
        image = read_image(ensure_picture(name))[top : top + height, left : left + width]
        assert image.shape[:2] == (height, width), name
        yield np.ascontiguousarray(image)


def find() -> list[Faces]:
    """The faces of each part; only the leftmost have embeddings."""
    detector, recognizer = (
        load_network(ensure_model(load_catalogue().find(name, kind)), "onnxruntime")
        for name, kind in (("500m", DETECTOR), ("w600k_mbf", RECOGNIZER))
    )
    finder, embedder = Scrfd(detector, DetectorConfig(input_size=(640, 640))), ArcFace(recognizer)
    found = []
    for image in parts():
        faces = finder.detect(image)
        assert faces.landmarks is not None
        embeddings = np.zeros((len(faces), embedder.dimensions), np.float32)
        norms = np.zeros(len(faces), np.float32)
        rows = faces.boxes[:, 0].argsort()[:EMBEDDED]
        crops = align_faces(image, faces.landmarks[rows])
        embeddings[rows], norms[rows] = embedder.embed(crops)
        found.append(faces.with_embeddings(embeddings, norms))
    return found


def save(path: Path, found: list[Faces]) -> None:
    arrays = {
        f"{number}/{name}": getattr(faces, name)
        for number, faces in enumerate(found)
        for name in ("boxes", "scores", "landmarks", "embeddings", "embedding_norms")
    }
    versions = f"{platform.machine()}, OpenCV {cv2.__version__}, "
    versions += f"ONNX Runtime {onnxruntime.__version__}, numpy {np.__version__}"
    np.savez_compressed(path, made_with=versions, **arrays)


def load(path: Path) -> tuple[str, dict[FrameKey, Faces]]:
    """What the faces were found with, and those of each part, by its number."""
    with np.load(path) as file:
        arrays = dict(file)
    made_with = str(arrays.pop("made_with"))
    parts: dict[int, dict[str, NDArray[np.float32]]] = {}
    for key, array in arrays.items():
        number, name = key.split("/")
        parts.setdefault(int(number), {})[name] = array
    return made_with, {(number, 0): Faces(**fields) for number, fields in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="FILE", help="to write: an .npz file")
    parser.add_argument("--compare", type=Path, metavar="OTHER", help="one of another machine")
    options = parser.parse_args()
    save(options.output, find())
    made_with, here = load(options.output)
    print(made_with)
    if options.compare:
        made_with, there = load(options.compare)
        print(f"compared with {made_with}\n")
        for name, value in compare_recordings(here, there).figures.items():
            print(f"{name:25} {value:.6g}")


if __name__ == "__main__":
    main()
