"""Read and write pictures and reports, with errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.decoding import decode, format_name
from scrfd_ros.errors import ImageError, ScrfdError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Formats that pictures are written in."""

_LOG = logging.getLogger(__name__)

# What to do about data that OpenCV cannot read, by its name in `scrfd_ros.decoding`.
_REMEDIES = {
    "a video": "take single pictures out of it, for example: ffmpeg -i VIDEO -r 2 %04d.png",
    "a bag": "find the faces in its images by `scrfd replay`",
    "a bag of ROS 1": "make it a bag of ROS 2 by rosbags-convert, then use `scrfd replay`",
    "a Git LFS pointer": "fetch the picture itself by `git lfs pull`",
    "a web page": "download the picture itself, not the page that shows it",
}
_CONVERT = "convert it to PNG or JPEG"


def keep_others_from_writing() -> None:
    """Let nothing that this process makes be writable by everybody, whatever its umask was."""
    os.umask(os.umask(0o002) | 0o002)


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """A picture file as uint8 [H, W, 3] BGR, upright if it has an EXIF orientation.

    16-bit values are cut off to 8 bits, and transparency is left out. What happens to a JPEG that
    is damaged is told in `scrfd_ros.decoding.decode`; one that is used is logged.

    Raises:
        ImageError: the file is missing, or no picture that OpenCV can decode.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot read the picture: {_reason(path, error)}") from error
    picture, damage = decode(content, cv2.IMREAD_COLOR)
    if picture is None:
        name = format_name(content)
        found = name or f"{len(content)} bytes"
        remedy = _REMEDIES.get(name, _CONVERT) if name else "expected a JPEG, a PNG or the like"
        raise ImageError(
            f"{path}: not a picture that OpenCV {cv2.__version__} can read ({found}): "
            f"{f'{damage}; ' if damage else ''}{remedy}"
        )
    if damage:
        _LOG.warning("%s: used, but %s", path, damage)
    return picture


def _reason(path: str | Path, error: OSError | ValueError) -> str:
    text = str(path)
    if "//" in text or ":/" in text:  # Path makes one of two slashes
        return "an address is no file; download the picture first"
    if isinstance(error, ValueError):  # a zero in the name
        return str(error)
    if isinstance(error, IsADirectoryError):
        return f"{error.strerror}; give one picture of it"
    if isinstance(error, FileNotFoundError) and any(sign in text for sign in "*?"):
        return f"{error.strerror}; no name fits the pattern"
    return str(error.strerror)


def list_pictures(folder: Path, below: bool = False) -> list[Path]:
    """The pictures in a folder, sorted: those that OpenCV can read, and all .png, .jpg and .jpeg.

    What else is there is logged in one sentence. Hidden files are left alone.

    Args:
        below: also those in the folders below it.

    Raises:
        ScrfdError: there are none, or the folder cannot be read.
    """
    if not folder.is_dir():
        there = "not a folder" if folder.exists() else "no such folder"
        raise ScrfdError(f"{folder}: {there}; expected one with pictures")
    pictures: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*") if below else folder.glob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            (pictures if _is_picture(path) else others).append(path)
    left_alone = ""
    if others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in others)
        told = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        noun = "file that is not a picture" if len(others) == 1 else "files that are not pictures"
        left_alone = f"{len(others)} {noun} OpenCV {cv2.__version__} can read ({told})"
    if not pictures:
        raise ScrfdError(
            f"{folder}: no pictures in it{f', but {left_alone}' if others else ''}; expected JPEG, "
            f"PNG or the like"
        )
    if left_alone:
        _LOG.warning("%s: left alone: %s, the first: %s", folder, left_alone, others[0].name)
    return pictures


def _is_picture(path: Path) -> bool:
    # Those that are always read are tried even if they are damaged, to be told by name.
    return path.suffix.lower() in PICTURE_SUFFIXES or bool(cv2.haveImageReader(str(path)))


def ensure_writable(path: Path) -> None:
    """Make the folder of a file that results will go to: mistakes are known before the work.

    Raises:
        ScrfdError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] BGR in the format of the path's suffix, making folders as needed.

    Raises:
        ScrfdError: OpenCV does not know the format, or the file cannot be written.
        ValueError: `picture` is another array.
    """
    picture = checked_image(picture, "picture")
    try:
        known, content = cv2.imencode(path.suffix, picture)
    except cv2.error:
        known = False
    if not known:
        raise ImageError(f"{path}: unknown picture format {path.suffix!r}; expected .png or .jpg")
    _write(path, content.tobytes())


def write_text(path: Path, text: str) -> None:
    """Write a text file, making folders as needed.

    Raises:
        ScrfdError: the file cannot be written.
    """
    _write(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, making folders as needed.

    Until it is, it is `.<name>.part`; what a writer that was killed left of that is overwritten.

    Raises:
        ScrfdError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as stream:
            try:
                stream.truncate(0)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # a robot may lose power at any time
                os.replace(part, path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, with no other process or thread having it open here."""
    while True:
        with part.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Who held the lock may have renamed or removed the file: then lock its successor.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), part.stat()):
                    yield stream
                    return


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error
