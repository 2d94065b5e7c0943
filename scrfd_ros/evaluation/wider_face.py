# SPDX-License-Identifier: Apache-2.0
"""WIDER FACE validation: ground truth, images, and detections in the submission format.

WIDER FACE: A Face Detection Benchmark, Yang et al., CVPR 2016, https://arxiv.org/abs/1511.06523.
Boxes here have the benchmark's form: x and y of the top left corner, width and height, in pixels of
the image.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.config import SIZE_MULTIPLE, DetectorConfig
from scrfd_ros.detection.views import plan_views
from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.evaluation.settings import recorded_options
from scrfd_ros.faces import Faces
from scrfd_ros.files import write_bytes
from scrfd_ros.images.files import read_image
from scrfd_ros.models.catalogue import default_model_directory
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import FacePipeline

SUBSETS = ("easy", "medium", "hard")
GROUND_TRUTH = tuple(f"wider_{part}_val.mat" for part in ("face", *SUBSETS))

PUBLISHED = DetectorConfig(input_size=(640, 640), score_threshold=0.02, nms_threshold=0.45)
"""Options of the published table of SCRFD. The curve of recall needs faces of low scores too."""

_MAT_HEADER = 128  # bytes of a .mat file of version 5
_MAT_COMPRESSED = 15  # type of an element
_MAX_VARIABLE = 1 << 27  # bytes; those of the official files have some millions

_MAX_SHOWN = 3  # files in an error

_T = TypeVar("_T")

FindFaces = Callable[[NDArray[np.uint8]], Faces]
"""From an image, uint8 [H, W, 3] BGR, to its faces."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of the validation set and its annotated faces.

    Attributes:
        event: the folder it is in.
        name: its file name without .jpg.
        boxes: float64 [N, 4], x, y, width, height.
        counted: bool [3, N], whether each face belongs to each of `SUBSETS`.
    """

    event: str
    name: str
    boxes: NDArray[np.float64]
    counted: NDArray[np.bool_]


def find_ground_truth(directory: Path | None) -> Path:
    """The folder with the files of the ground truth, downloaded if they are not in `directory`.

    Raises:
        ScrfdError: there is no such directory, or it has only some of the files.
        DownloadError: they could not be downloaded.
    """
    if directory is not None:
        if not directory.is_dir():
            raise ScrfdError(f"{directory}: no such folder; expected the one that holds WIDER_val")
        for folder in (
            directory,
            directory / "ground_truth",
            directory / "eval_tools" / "ground_truth",
        ):
            missing = [name for name in GROUND_TRUTH if not (folder / name).is_file()]
            if not missing:
                return folder
            if len(missing) < len(GROUND_TRUTH):
                raise ScrfdError(f"{folder}: lacks {', '.join(missing)} of the ground truth")
    folder = default_model_directory() / "wider_face"
    for name in GROUND_TRUTH:
        ensure_picture(name, folder)
    return folder


def read_ground_truth(folder: Path) -> list[AnnotatedImage]:
    """All images of the validation set, in the order of the ground truth.

    Raises:
        ScrfdError: a file of the ground truth is missing, damaged or does not fit the others.
    """
    faces, *subsets = (folder / name for name in GROUND_TRUTH)
    names, boxes = _read_mat(faces, _names_and_boxes)
    rows = [_read_mat(path, _rows) for path in subsets]
    sizes = (len(boxes), *(len(own) for own in rows))
    for path, size in zip((faces, *subsets), sizes, strict=True):
        if size != len(names):
            raise ScrfdError(f"{path}: has {size} images, expected {len(names)}")
    images = []
    for number, (event, name) in enumerate(names):
        if "/" in event + name or event.startswith(".") or not (event and name):
            raise ScrfdError(f"{faces}: {event}/{name} is not an event and the name of an image")
        counted = np.zeros((len(SUBSETS), len(boxes[number])), np.bool_)
        for subset, path in enumerate(subsets):
            own = rows[subset][number]
            if own.size and not 0 <= own.min() <= own.max() < counted.shape[1]:
                raise ScrfdError(f"{path}: {event}/{name} lists faces that it does not have")
            counted[subset, own] = True
        images.append(AnnotatedImage(event, name, boxes[number], counted))
    return images


def _read_mat(path: Path, parse: Callable[[Mapping[str, Any]], _T]) -> _T:
    from scipy.io import loadmat  # not above: it takes long to load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScrfdError(f"{path}: cannot read: {error.strerror}") from error
    try:
        _check(content)
        return parse(loadmat(io.BytesIO(content)))
    except Exception as error:  # of nearly any class, where a file is damaged
        raise ScrfdError(
            f"{path}: damaged, or not of the ground truth of WIDER FACE: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check(content: bytes) -> None:
    """Verify the checksums of the variables, which are compressed in all official files.

    SciPy does so after reading them, and a wrong byte can crash the process before that.
    """
    position = _MAT_HEADER
    while position < len(content):
        kind, size = struct.unpack_from("<II", content, position)
        variable = content[position + 8 : position + 8 + size]
        if kind != _MAT_COMPRESSED or len(variable) != size:
            raise ValueError(f"no whole compressed variable at byte {position}")
        content_of = zlib.decompressobj()
        content_of.decompress(variable, _MAX_VARIABLE)
        if not content_of.eof:
            raise ValueError(f"cut off, or more than {_MAX_VARIABLE:,} bytes, at byte {position}")
        position += 8 + size


def _names_and_boxes(
    mat: Mapping[str, Any],
) -> tuple[list[tuple[str, str]], list[NDArray[np.float64]]]:
    names = [
        (str(event.item()), str(name.item()))
        for event, images in zip(_cells(mat["event_list"]), _cells(mat["file_list"]), strict=True)
        for name in _cells(images)
    ]
    boxes = [
        cell.reshape(-1, 4).astype(np.float64)
        for event in _cells(mat["face_bbx_list"])
        for cell in _cells(event)
    ]
    return names, boxes


def _rows(mat: Mapping[str, Any]) -> list[NDArray[np.int64]]:
    return [
        cell.reshape(-1).astype(np.int64) - 1  # MATLAB counts from 1
        for event in _cells(mat["gt_list"])
        for cell in _cells(event)
    ]


def _cells(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The arrays in a column of MATLAB cells, [N, 1]."""
    if array.dtype != object or array.ndim != 2 or array.shape[1] != 1:
        raise ValueError(f"expected a column of cells, found {array.dtype} {list(array.shape)}")
    return list(array[:, 0])


def find_images(directory: Path, ground_truth: Sequence[AnnotatedImage]) -> list[Path]:
    """The files of the images.

    Args:
        directory: the folder that holds WIDER_val, or WIDER_val, or images in that.

    Raises:
        ScrfdError: images are missing.
    """
    folders = (directory / "WIDER_val" / "images", directory / "images", directory)
    events = dict.fromkeys(image.event for image in ground_truth)
    images = next(
        (folder for folder in folders if any((folder / event).is_dir() for event in events)), None
    )
    if images is None:
        raise ScrfdError(
            f"{directory}: no images; expected them in {folders[0] / next(iter(events))} and the "
            f"other folders of WIDER_val.zip"
        )
    paths = [images / image.event / f"{image.name}.jpg" for image in ground_truth]
    missing = [str(path.relative_to(images)) for path in paths if not path.is_file()]
    if missing:
        raise ScrfdError(
            f"{images}: lacks {len(missing)} of the {len(paths)} images: {_some(missing)}; "
            f"unpack WIDER_val.zip once more"
        )
    return paths


def at_original_size(pipeline: FacePipeline) -> FindFaces:
    """The detector of a pipeline on images at their own size, padded to multiples of 32.

    Raises:
        ModelError: the detector takes images of one size only.
    """
    detector = pipeline.detector
    if not detector.takes_all_sizes:
        network = detector.network
        width, height = detector.size
        raise ModelError(
            f"{network.path} on {network.backend}: the protocol original needs a detector that "
            f"takes images of any size; this one takes {width}x{height}. The files of 500m "
            f"and det_500m take any size, with --backend onnxruntime, and so does that of 2.5g "
            f"with --input-size auto"
        )
    config = detector.config = replace(detector.config, max_faces=0)

    def find(image: NDArray[np.uint8]) -> Faces:
        height, width = image.shape[:2]
        right, bottom = -width % SIZE_MULTIPLE, -height % SIZE_MULTIPLE
        padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
        size = width + right, height + bottom
        plan = plan_views(*size, *size, config.tiles, config.large_faces)
        (faces,) = detector.detect_all([padded.astype(np.uint8, copy=False)], plans=[plan])
        return faces

    return find


def settings_of(protocol: str, pipeline: FacePipeline) -> dict[str, object]:
    """The settings that the detections of a pipeline depend on, for JSON."""
    network = pipeline.detector.network
    return {
        "protocol": protocol,
        "detector": network.name,
        "sha256": network.sha256,
        "backend": network.backend,
        **_options_of(pipeline.config.detector),
        **({} if protocol == "vga" else {"input_size": None}),
    }


def published_settings() -> dict[str, object]:
    """The settings of the published table of SCRFD, in the form of `settings_of`."""
    return {"protocol": "vga", **_options_of(PUBLISHED)}


def _options_of(config: DetectorConfig) -> dict[str, object]:
    short = {"score_threshold": "score", "nms_threshold": "nms"}
    return {short.get(name, name): value for name, value in recorded_options(config).items()}


def prepare_folder(folder: Path, settings: Mapping[str, object]) -> Path:
    """The folder for detections in a folder of results, to which the settings are written.

    Args:
        settings: from `settings_of`.

    Raises:
        ScrfdError: the folder has detections made with other or unknown settings.
    """
    note, detections = folder / "settings.json", folder / "detections"
    if not note.exists() and any(detections.glob("*/*.txt")):
        raise ScrfdError(
            f"{folder}: has detections, but not the settings they were made with; {_ELSEWHERE}"
        )
    if not note.exists():
        write_bytes(note, f"{json.dumps(settings, indent=1)}\n".encode())
        return detections
    try:
        there = dict(json.loads(note.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ScrfdError(f"{note}: not settings of detections: {error}; {_ELSEWHERE}") from error
    differences = [
        f"{name} was {there.get(name)}, is {settings.get(name)}"
        for name in dict.fromkeys((*there, *settings))
        if there.get(name) != settings.get(name)
    ]
    if differences:
        raise ScrfdError(
            f"{folder}: has detections made with other settings ({'; '.join(differences)}); "
            f"{_ELSEWHERE}"
        )
    return detections


_ELSEWHERE = "remove it, or choose another with --output"


def detect(
    find: FindFaces,
    ground_truth: Sequence[AnnotatedImage],
    paths: Sequence[Path],
    folder: Path,
) -> int:
    """Find the faces in all images that have no detections yet, and write them.

    Progress is shown on a terminal. An interruption leaves complete files, from which the next call
    continues.

    Args:
        paths: of the images, in the order of `ground_truth`.
        folder: for the detections.

    Returns:
        The number of processed images.

    Raises:
        ScrfdError: an image cannot be read, or a file cannot be written.
    """
    todo = [
        (image, path, file)
        for image, path in zip(ground_truth, paths, strict=True)
        if not (file := _file(folder, image)).exists()
    ]
    done = len(paths) - len(todo)
    for image, path, file in tqdm(
        todo, "detecting", initial=done, total=len(paths), leave=False, disable=None
    ):
        faces = find(read_image(path))
        corners = faces.boxes.astype(np.float64)
        rows = np.column_stack((corners[:, :2], corners[:, 2:] - corners[:, :2], faces.scores))
        lines = [f"{x:.1f} {y:.1f} {w:.1f} {h:.1f} {score:.6f}\n" for x, y, w, h, score in rows]
        text = "".join((f"{image.event}/{image.name}.jpg\n{len(lines)}\n", *lines))
        write_bytes(file, text.encode())
    return len(todo)


def read_detections(
    folder: Path, ground_truth: Sequence[AnnotatedImage]
) -> list[NDArray[np.float64]]:
    """Read detections in the submission format.

    EVENT/NAME.txt has the name, the number of detections, and for each a line of x, y, width,
    height and score.

    Returns:
        For each image float64 [N, 5], x, y, width, height, score, as in the file.

    Raises:
        ScrfdError: files are missing, malformed, or for images outside the set.
    """
    if not folder.is_dir():
        raise ScrfdError(f"{folder}: no such folder; expected one with EVENT/NAME.txt in it")
    files = [_file(folder, image) for image in ground_truth]
    there = set(folder.glob("*/*.txt"))
    for trouble, paths in (
        ("has detections of {} images that are not in the ground truth", there - set(files)),
        ("lacks the detections of {} images", set(files) - there),
    ):
        if paths:
            names = sorted(str(path.relative_to(folder)) for path in paths)
            raise ScrfdError(f"{folder}: {trouble.format(len(names))}: {_some(names)}")
    return [_read_file(file) for file in tqdm(files, "reading", leave=False, disable=None)]


def _read_file(path: Path) -> NDArray[np.float64]:
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        raise ScrfdError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScrfdError(f"{path}: not a text file: {error}") from error
    count = lines[1].strip() if len(lines) > 1 else ""
    if not re.fullmatch(r"\d{1,9}", count):
        raise ScrfdError(f"{path}, line 2: expected the number of detections, found {count[:80]!r}")
    if int(count) != len(lines) - 2:
        raise ScrfdError(f"{path}, line 2: {count} detections, but {len(lines) - 2} lines follow")
    detections = []
    for number, line in enumerate(lines[2:], 3):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 or not all(map(math.isfinite, row)):
            raise ScrfdError(
                f"{path}, line {number}: expected x, y, width, height and score, found {line!r}"
            )
        detections.append(row)
    return np.array(detections, np.float64).reshape(-1, 5)


def _file(folder: Path, image: AnnotatedImage) -> Path:
    return folder / image.event / f"{image.name}.txt"


def _some(names: Sequence[str]) -> str:
    more = "" if len(names) <= _MAX_SHOWN else ", ..."
    return ", ".join(names[:_MAX_SHOWN]) + more
