# SPDX-License-Identifier: Apache-2.0
"""Decode images of files and messages with OpenCV, with one rule for damaged data.

OpenCV's versions differ on a JPEG that was cut short: some fill it up with gray, some refuse it,
and some leave old memory in it, such as the previous image. When data is damaged inside, the
decoders write a line to stderr and return an image all the same. This module adds a missing end
marker, after which all versions from 4.5 to 5 agree, and reads stderr.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_MISSING = 0.5
"""Share of a JPEG's rows that may be missing at its end; with more, the image is refused."""

JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
JPEG_SCAN = b"\xff\xda"

# The first bytes of data that people often send as an image: position, bytes and name.
_FORMATS = (
    (12, b"\x89PNG\r\n\x1a\n", "a PNG after 12 bytes, as compressedDepth has it"),
    (8, b"WEBP", "WebP"),
    (8, b"AVI ", "a video"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypcrx", "raw data of a camera"),
    (4, b"ftyp", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF or raw data of a camera"),
    (0, b"MM\0*", "TIFF or raw data of a camera"),
    (0, b"FUJIFILMCCD-RAW", "raw data of a camera"),
    (0, b"\0\0\0\x01", "a video stream such as H.264"),
    (0, b"\0\0\x01", "a video stream such as H.264"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"%PDF", "PDF"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"version https://git-lfs", "a Git LFS pointer"),
    (0, b"\x89MCAP0", "a bag"),
    (0, b"SQLite format 3", "a bag"),
    (0, b"#ROSBAG", "a bag of ROS 1"),
)

# Lines of libjpeg, libpng and OpenCV's own decoders. Other lines come from other threads.
_DECODERS_LINE = re.compile(
    rb"(?:Corrupt JPEG data|Premature end|Inconsistent progression|Invalid SOS|Unknown Adobe|"
    rb"Warning: unknown JFIF|imdecode_?\(|Unsupported marker|libpng (?:error|warning)|"
    rb"\[ ?(?:WARN|ERROR):[^\]]*\] global (?:grfmt|loadsave|.*imgcodecs))"
)
_DAMAGE = re.compile(r"(?:Corrupt|Premature|Inconsistent).*")

# Many cameras pad the data to a multiple of two or four bytes before the end marker. libjpeg calls
# these bytes corrupt, but no pixel is missing. None of 600 images with real damage had so few extra
# bytes.
_FILLED_UP = re.compile(r"Corrupt JPEG data: [1-3] extraneous bytes before marker 0xd9")

_stderr = threading.Lock()  # held while stderr is redirected
os.register_at_fork(  # so that no child process inherits a redirected stderr
    before=_stderr.acquire, after_in_parent=_stderr.release, after_in_child=_stderr.release
)


def decode(content: bytes, flags: int) -> tuple[NDArray[np.uint8] | None, str]:
    """Decode an image in any format that OpenCV reads.

    A JPEG without an end marker is used if at most `MAX_MISSING` of its rows are missing; these are
    gray. A JPEG that is damaged inside is used as decoded, because the damaged parts are not known.
    Damaged images of all other formats are refused.

    Only damage that libjpeg notices is known: nine of ten JPEGs that lack a part or contain a part
    of another image. Changed bits that keep the length of the data change only colors and are not
    noticed.

    During decoding the process's stderr is redirected and read. Lines that other threads write
    meanwhile appear a moment later (of 400,000 lines written as fast as possible, one was lost). A
    process decodes one image at a time.

    Args:
        content: the whole file or message.
        flags: cv2.IMREAD_...

    Returns:
        image: uint8 [H, W, 3], or [H, W] with IMREAD_GRAYSCALE; None if it cannot be used.
        damage: what is wrong with the data; empty if no damage is known.
    """
    is_cut = False
    if content.startswith(JPEG_START):
        is_cut, content = _with_an_end(content)
    pixels, lines = _imdecode(content, flags)
    if pixels is None:
        return None, next((line for line in lines if not line.startswith("[")), "")
    image = np.asarray(pixels, np.uint8)
    damage = next((line for line in lines if _DAMAGE.match(line)), "")
    if not damage or _FILLED_UP.match(damage):
        return image, ""
    height = len(image)
    missing = _missing_rows(image) if "remature" in damage else 0
    # A share, as the image may be decoded at a smaller scale than its header says.
    rows = f"{max(missing / height, 0.01):.0%} of its rows are missing" if missing else ""
    if is_cut:
        sentence = f"it is cut short, {rows or 'a part of its last rows is missing'}"
    else:
        sentence = f"it is damaged inside, {rows or 'parts of the image may be wrong'} ({damage})"
    return (None if missing > MAX_MISSING * height else image), sentence


def format_name(content: bytes) -> str:
    """The format of data that is neither JPEG nor PNG, by its first bytes; empty if unknown."""
    return next((name for at, start, name in _FORMATS if content[at:].startswith(start)), "")


def _with_an_end(jpeg: bytes) -> tuple[bool, bytes]:
    """Whether a JPEG lacks its end marker, and the JPEG with one."""
    scan = jpeg.find(JPEG_SCAN)
    if scan < 0 or jpeg.rfind(_JPEG_END, scan) > 0:
        return False, jpeg
    # Zeros that fill a buffer of fixed size would be decoded as pixels.
    return True, jpeg.rstrip(b"\0") + _JPEG_END


def _missing_rows(image: NDArray[np.uint8]) -> int:
    """The number of rows at the end that have one color, as libjpeg leaves rows without data."""
    different = (image != image[-1, -1]).reshape(len(image), -1).any(axis=1)
    return int(np.argmax(different[::-1])) if different.any() else len(image)


def _imdecode(content: bytes, flags: int) -> tuple[NDArray[np.generic] | None, list[str]]:
    """The image that OpenCV decodes, and the lines that its decoders write to stderr."""
    with _stderr:
        try:
            before = os.dup(2)
        except OSError:  # stderr is closed
            return _quietly(content, flags), []
        caught = os.memfd_create("decoders")
        fcntl.fcntl(caught, fcntl.F_SETFL, os.O_APPEND)  # no writer overwrites another
        os.dup2(caught, 2)
        try:
            pixels = _quietly(content, flags)
        finally:
            os.dup2(before, 2)
            os.close(before)
            size = os.fstat(caught).st_size
            text = os.pread(caught, size, 0) if size else b""
            os.close(caught)
    lines = []
    for line in text.splitlines(keepends=True):
        if _DECODERS_LINE.match(line):
            lines.append(line.decode(errors="replace").strip())
        elif line.strip():
            os.write(2, line)
    return pixels, lines


def _quietly(content: bytes, flags: int) -> NDArray[np.generic] | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # an empty file, or a size beyond OpenCV's limit; otherwise it returns None
        return None
