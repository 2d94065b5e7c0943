# SPDX-License-Identifier: Apache-2.0
"""Decode images of files and messages with OpenCV, by one rule for those that are damaged.

OpenCV's versions differ in what they make of a JPEG that was cut short: some fill it up with gray,
some refuse it, and some leave whatever was in that memory before, such as the image before. And of
data that is damaged inside, its decoders write a line to stderr and return what they made of it.
Here a JPEG without an end is given one, after which all versions from 4.5 to 5 agree, and stderr is
read.
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
"""Share of a JPEG's rows that may be missing at its end; the image is refused if more are."""

JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"

# How data that is often taken for an image begins: the position, the bytes, and the name.
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

# What libjpeg, libpng and OpenCV's own decoders write. Other lines are other threads'.
_DECODERS_LINE = re.compile(
    rb"(?:Corrupt JPEG data|Premature end|Inconsistent progression|Invalid SOS|Unknown Adobe|"
    rb"Warning: unknown JFIF|imdecode_?\(|Unsupported marker|libpng (?:error|warning)|"
    rb"\[ ?(?:WARN|ERROR):[^\]]*\] global (?:grfmt|loadsave|.*imgcodecs))"
)
_DAMAGE = re.compile(r"(?:Corrupt|Premature|Inconsistent).*")

# Many cameras fill the data up to an even number of bytes, or to a multiple of four, before its
# end: libjpeg calls those bytes corrupt, but every pixel is there. Of 600 images with real damage
# none had as few bytes too many.
_FILLED_UP = re.compile(r"Corrupt JPEG data: [1-3] extraneous bytes before marker 0xd9")

_stderr = threading.Lock()  # held while stderr is another file
os.register_at_fork(  # so that no child is born with that one
    before=_stderr.acquire, after_in_parent=_stderr.release, after_in_child=_stderr.release
)


def decode(content: bytes, flags: int) -> tuple[NDArray[np.uint8] | None, str]:
    """Decode an image in any format that OpenCV reads.

    A JPEG without an end is used if at most `MAX_MISSING` of its rows are missing; those are gray.
    One that is damaged inside is used as it comes: which parts of it are wrong is not known. All
    other formats are refused if anything is wrong with them.

    What is known of damage is what libjpeg notices: in nine of ten JPEGs that lack a part, or have
    a part of another in them. A changed bit that leaves the length of the data as it was is seen in
    colors alone, and by nobody.

    While it decodes, the process's stderr is read; what other threads write there comes a moment
    later (of 400,000 lines written meanwhile as fast as possible, one was lost). One image at a
    time is decoded in a process.

    Args:
        content: the whole file or message.
        flags: cv2.IMREAD_...

    Returns:
        image: uint8 [H, W, 3], or [H, W] with IMREAD_GRAYSCALE; None if it cannot be used.
        damage: what is wrong with the data; empty if nothing is known to be.
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
    rows = f"{missing} of its {height} rows are missing" if missing else ""
    if is_cut:
        told = f"it is cut short, {rows or 'a part of its last rows is missing'}"
    else:
        told = f"it is damaged inside, {rows or 'parts of the image may be wrong'} ({damage})"
    return (None if missing > MAX_MISSING * height else image), told


def format_name(content: bytes) -> str:
    """What data that is no JPEG or PNG seems to be, by its first bytes; empty if unknown."""
    return next((name for at, start, name in _FORMATS if content[at:].startswith(start)), "")


def _with_an_end(jpeg: bytes) -> tuple[bool, bytes]:
    """Whether the marker for the end is missing, and the JPEG with it."""
    scan = jpeg.find(_JPEG_SCAN)
    if scan < 0 or jpeg.rfind(_JPEG_END, scan) > 0:
        return False, jpeg
    # Zeros fill a buffer of one size, and would be taken for pixels.
    return True, jpeg.rstrip(b"\0") + _JPEG_END


def _missing_rows(image: NDArray[np.uint8]) -> int:
    """Rows at the end that have one color all over: libjpeg leaves them so without data."""
    different = (image != image[-1, -1]).reshape(len(image), -1).any(axis=1)
    return int(np.argmax(different[::-1])) if different.any() else len(image)


def _imdecode(content: bytes, flags: int) -> tuple[NDArray[np.generic] | None, list[str]]:
    """What OpenCV makes of the image, and the lines that its decoders write to stderr."""
    with _stderr:
        try:
            before = os.dup(2)
        except OSError:  # stderr is closed: there is nothing to be kept clean
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
    except cv2.error:  # for an empty file and for sizes beyond OpenCV's limit; None for the rest
        return None
