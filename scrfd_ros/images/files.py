# SPDX-License-Identifier: Apache-2.0
"""Read and write image files, with errors that name the file."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.files import write_content
from scrfd_ros.images.decoding import decode, format_name

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Formats in which images are written."""

_LOG = logging.getLogger(__name__)

# What to do with data that OpenCV cannot read, by the name that `format_name` gives it.
_REMEDIES = {
    "a video": "take single images out of it, for example: ffmpeg -i VIDEO -r 2 %04d.png",
    "a bag": "find the faces in its images by `scrfd replay`",
    "a bag of ROS 1": "make it a bag of ROS 2 by rosbags-convert, then use `scrfd replay`",
    "a Git LFS pointer": "fetch the image itself by `git lfs pull`",
    "a web page": "download the image itself, not the page that shows it",
}
_CONVERT = "convert it to PNG or JPEG"


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file; an EXIF orientation is applied.

    16-bit values are cut to 8 bits, and transparency is dropped. A damaged JPEG is used or refused
    as `scrfd_ros.images.decoding.decode` describes, and logged if it is used.

    Returns:
        uint8 [H, W, 3] BGR.

    Raises:
        ImageError: the file is missing, or OpenCV cannot decode it.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot read the image: {_reason(path, error)}") from error
    image, damage = decode(content, cv2.IMREAD_COLOR)
    if image is None:
        name = format_name(content)
        found = name or f"{len(content)} bytes"
        remedy = _REMEDIES.get(name, _CONVERT) if name else "expected a JPEG, a PNG or the like"
        raise ImageError(
            f"{path}: not an image that OpenCV {cv2.__version__} can read ({found}): "
            f"{f'{damage}; ' if damage else ''}{remedy}"
        )
    if damage:
        _LOG.warning("%s: used, but %s", path, damage)
    return image


def _reason(path: str | Path, error: OSError | ValueError) -> str:
    text = str(path)
    if "//" in text or ":/" in text:  # Path merges two slashes into one
        return "an address, not a file; download the image first"
    if isinstance(error, ValueError):  # a null character in the name
        return str(error)
    if isinstance(error, IsADirectoryError):
        return f"{error.strerror}; give one image of it"
    if isinstance(error, FileNotFoundError) and any(sign in text for sign in "*?"):
        return f"{error.strerror}; no name fits the pattern"
    return str(error.strerror)


def list_images(folder: Path, below: bool = False) -> list[Path]:
    """The images in a folder, sorted: every file that OpenCV can read or `IMAGE_SUFFIXES` names.

    Other files are logged in one sentence. Hidden files are ignored.

    Args:
        below: include the folders below it.

    Raises:
        ScrfdError: there are no images, or the folder cannot be read.
    """
    if not folder.is_dir():
        there = "not a folder" if folder.exists() else "no such folder"
        raise ScrfdError(f"{folder}: {there}; expected one with images")
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*") if below else folder.glob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            (images if _is_image(path) else others).append(path)
    left_alone = ""
    if others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in others)
        kinds_found = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        noun = "file that is not an image" if len(others) == 1 else "files that are not images"
        left_alone = f"{len(others)} {noun} OpenCV {cv2.__version__} can read ({kinds_found})"
    if not images:
        raise ScrfdError(
            f"{folder}: no images in it{f', but {left_alone}' if others else ''}; expected JPEG, "
            f"PNG or the like"
        )
    if left_alone:
        _LOG.warning("%s: left alone: %s, the first: %s", folder, left_alone, others[0].name)
    return images


def _is_image(path: Path) -> bool:
    # A damaged file with one of these suffixes is included, so that its error is reported.
    return path.suffix.lower() in IMAGE_SUFFIXES or bool(cv2.haveImageReader(str(path)))


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image in the format of the path's suffix, and create its folder if needed.

    Args:
        image: uint8 [H, W, 3] BGR.

    Raises:
        ScrfdError: OpenCV does not know the format, or the file cannot be written.
        ValueError: the array has another shape or dtype.
    """
    image = checked_image(image)
    try:
        known, content = cv2.imencode(path.suffix, image)
    except cv2.error:
        known = False
    if not known:
        raise ImageError(f"{path}: unknown image format {path.suffix!r}; expected .png or .jpg")
    write_content(path, content.tobytes())
