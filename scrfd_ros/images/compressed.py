# SPDX-License-Identifier: Apache-2.0
"""Decode compressed image messages, JPEG and PNG: numpy and OpenCV, no ROS."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ImageError
from scrfd_ros.images.decoded import DecodedImage, WholeImage
from scrfd_ros.images.decoding import JPEG_SCAN, JPEG_START, decode, format_name
from scrfd_ros.images.encodings import NO_DEPTH, bayer_conversion, is_depth

MAX_PIXELS = 100_000_000
"""Compressed images that claim more pixels are refused before any memory is allocated."""

_MAX_PASSES = 10
"""Pixels that all scans of a JPEG may cover, in multiples of `MAX_PIXELS`. A scan takes time but
hardly any bytes: 66 kB can keep a processor busy for a minute."""


_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class CompressedMessage(Protocol):
    """The fields of a sensor_msgs/CompressedImage, whichever library made the message."""

    @property
    def format(self) -> str: ...
    @property
    def data(self) -> Any:
        """A buffer of bytes."""


def bgr_from_compressed(
    format: str, data: Any, smallest: tuple[int, int] | None = None
) -> DecodedImage:
    """Decode the data of a CompressedImage. An EXIF orientation is ignored.

    The data itself shows whether it is JPEG or PNG: drivers write "jpeg", "jpg" or "rgb8; jpeg
    compressed bgr8" for the same. The format is read only for what the data cannot show: red and
    blue exchanged ("compressed rgb8"), a Bayer pattern ("bayer_rggb8; png compressed"), both as
    compressed_image_transport of image_transport writes and reads them, and depth.

    Args:
        format, data: the message's fields; data is any buffer of bytes.
        smallest: width and height, pixels, that the image will be fitted into; None to decode at
            full scale. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its scale, as long as it still
            fills this size, which saves a quarter to a half of the time. Faces are found in it, but
            should be cut out of `DecodedImage.whole`, which is decoded when it is first used: see
            docs/cameras.md.

    Raises:
        ImageError: the data is neither JPEG nor PNG, damaged beyond use, or claims more than
            `MAX_PIXELS`.
    """
    content = bytes(memoryview(data))
    source, _, coding = format.partition("; ")
    bayer = None if "bgr" in coding else bayer_conversion(source)
    is_jpeg = content.startswith(JPEG_START)
    what = f"image compressed as {format!r}, {len(content)} bytes"
    if "compressedDepth" in format or is_depth(source):
        raise ImageError(f"{what}: {NO_DEPTH}")
    width, height = _jpeg_size(content) if is_jpeg else _png_size(content)
    if width < 1 or height < 1:
        raise ImageError(f"{what}: {_instead_of_image(format, content)}")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{what}: claims {width} x {height} pixels, expected at most {MAX_PIXELS}; choose "
            f"a lower resolution in the camera's driver"
        )
    scans = _scan_count(content) if is_jpeg else 1
    if width * height * scans > _MAX_PASSES * MAX_PIXELS:
        raise ImageError(
            f"{what}: {scans} scans of {width} x {height} pixels, expected at most "
            f"{_MAX_PASSES * MAX_PIXELS} pixels in all of them; choose a baseline JPEG"
        )
    reduction = 1
    if smallest is not None and is_jpeg and bayer is None:
        larger = max(width / smallest[0], height / smallest[1])
        reduction = max(size for size in _REDUCED if size <= max(larger, 1))
    conversion = bayer
    if "compressed rgb" in coding and bayer is None:
        conversion = cv2.COLOR_RGB2BGR

    def decoded(reduction: int) -> tuple[NDArray[np.uint8], str]:
        flags = cv2.IMREAD_GRAYSCALE if bayer is not None else _REDUCED[reduction]
        pixels, damage = decode(content, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None:
            raise ImageError(
                f"{what}: {width} x {height} pixels that OpenCV cannot decode: "
                f"{damage or _undecodable(content)}; {_MEND_DAMAGE}"
            )
        if conversion is not None:
            pixels = np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
        return pixels, damage and f"{what}: {damage}; {_MEND_DAMAGE}"

    image, damage = decoded(reduction)
    if reduction == 1:
        return DecodedImage(image, damage=damage)
    # What is wrong with the data is told once, by the reduced image.
    whole = WholeImage((width, height), lambda: decoded(1)[0])
    return DecodedImage(image, reduction, damage, source=whole)


_MEND_DAMAGE = (
    "check the camera's cable, the bandwidth of its bus and network, and the size of the buffers "
    "in its driver"
)

# None of these is part of another format's name: AVIF is not "av1".
_VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "ffmpeg", "libx26", "theora")


def is_video(format: str) -> bool:
    """Whether the format of a CompressedImage names a video stream."""
    return any(word in format.lower() for word in _VIDEO)


def _instead_of_image(format: str, content: bytes) -> str:
    """A sentence that says what the data is instead of a JPEG or PNG, and what to do."""
    if content.startswith((JPEG_START, b"\x89PNG")):
        return "expected a whole JPEG or PNG, it is cut short or damaged; " + _MEND_DAMAGE
    name = format_name(content)
    if "video" in name or (not name and is_video(format)):
        return (
            "expected a JPEG or PNG, found a video stream, whose images cannot be read one by one; "
            "have the camera's driver publish `compressed`, or turn the stream into images: "
            "ros2 run image_transport republish"
        )
    if "depth" in name.lower():
        return f"expected a JPEG or PNG, found {name}: {NO_DEPTH}"
    found = name or (f"data that begins with {content[:8].hex(' ')}" if content else "no data")
    return f"expected a whole JPEG or PNG, found {found}; have the publisher send jpeg or png"


def _undecodable(content: bytes) -> str:
    """Why OpenCV cannot decode data that has the form of a JPEG or PNG."""
    frame = _jpeg_frame(content)
    if frame is None:
        return "the data is damaged"
    if frame.marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "it is a lossless JPEG; choose a baseline one"
    if frame.marker >= 0xC9:
        return "it is a JPEG with arithmetic coding; choose a baseline one"
    if frame.bits != 8:
        return f"it is a JPEG of {frame.bits} bits a value; choose one of 8"
    return "the data is damaged"


# Markers of a frame's header: 0xC0 to 0xCF without those of tables (ITU-T T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# Markers without a length. They are not allowed before the frame's header; a reader that took the
# bytes after them for a length would find another frame than OpenCV does.
_JPEG_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xDA)))


class _JpegFrame(NamedTuple):
    """The header of a JPEG's frame: its marker's second byte, bits per value, and its size."""

    marker: int
    bits: int
    height: int
    width: int


def _jpeg_frame(content: bytes) -> _JpegFrame | None:
    """The header of a JPEG's frame, if it has one."""
    if not content.startswith(JPEG_START):
        return None
    position = 2
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        length, bits, height, width = struct.unpack_from(">HBHH", content, position + 2)
        if marker in _JPEG_FRAMES:
            return _JpegFrame(marker, bits, height, width)
        if marker in _JPEG_ALONE:
            return None
        # A segment, or a byte of padding before the next marker.
        position += 1 if marker == 0xFF else 2 + length
    return None


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG; 0, 0 if it has no frame header or no scan."""
    frame = _jpeg_frame(content)
    return (0, 0) if frame is None or JPEG_SCAN not in content else (frame.width, frame.height)


def _scan_count(content: bytes) -> int:
    """The number of scans of a JPEG, at most; `bytes.count` takes some three times as long."""
    values = np.frombuffer(content, np.uint8)
    return int(np.count_nonzero((values[:-1] == JPEG_SCAN[0]) & (values[1:] == JPEG_SCAN[1])))


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG; 0, 0 if it has no header or lacks bytes that its chunks claim.

    OpenCV allocates up to 2 GiB for the claimed length of a chunk before it looks for its bytes.
    """
    if len(content) < 24 or content[:8] + content[12:16] != b"\x89PNG\r\n\x1a\nIHDR":
        return 0, 0
    position, name = 8, b""
    while name != b"IEND":
        if position + 12 > len(content):
            return 0, 0
        length, name = struct.unpack_from(">I4s", content, position)
        position += 12 + length  # the length, the name, the data and their checksum
    if position > len(content):
        return 0, 0
    width, height = struct.unpack_from(">II", content, 16)
    return width, height
