"""From image messages, raw and compressed, to pictures: numpy and OpenCV, no ROS.

A message is any object with the fields of a sensor_msgs/Image or CompressedImage, whichever library
made it.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.decoding import JPEG_START, decode, format_name
from scrfd_ros.errors import ImageError
from scrfd_ros.faces import Faces, FloatArray

MAX_PIXELS = 100_000_000
"""Compressed pictures that claim to be larger are refused before any memory is taken."""

_MOST_PASSES = 10
"""Times `MAX_PIXELS` that the scans of a JPEG may go over. Each costs time and next to no bytes:
66 kB can keep a processor busy for a minute."""


class ImageMessage(Protocol):
    """The fields of a sensor_msgs/Image that matter here, whichever library made the message."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def encoding(self) -> str: ...
    @property
    def is_bigendian(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def data(self) -> Any:
        """Any buffer of bytes: array.array from rclpy, ndarray from rosbags."""


class _Layout(NamedTuple):
    """How an encoding stores a picture.

    Attributes:
        channels: values per pixel in a line.
        conversion: OpenCV's conversion to BGR; None where it is BGR already.
        value_bytes: bytes per value.
        shared: columns and rows of pixels that share their colour. Where rows do, the colour
            follows the brightness in half as many lines more (4:2:0).
    """

    channels: int
    conversion: int | None
    value_bytes: int = 1
    shared: tuple[int, int] = (1, 1)


# ROS names a Bayer pattern by its top left 2 x 2 pixels. OpenCV names it by the second and third
# pixel of its second row.
_8_OR_16_BITS = {
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2BGR),
    "mono": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2BGR),
}

_LAYOUTS = {
    f"{name}{8 * value_bytes}": _Layout(channels, conversion, value_bytes)
    for value_bytes in (1, 2)
    for name, (channels, conversion) in _8_OR_16_BITS.items()
}
_LAYOUTS |= {
    # Generic types say nothing of colour; these are what OpenCV programs mean by them.
    "8UC1": _Layout(1, cv2.COLOR_GRAY2BGR),
    "8UC3": _Layout(3, None),
    "8UC4": _Layout(4, cv2.COLOR_BGRA2BGR),
    "uyvy": _Layout(2, cv2.COLOR_YUV2BGR_UYVY, shared=(2, 1)),
    "yuv422": _Layout(2, cv2.COLOR_YUV2BGR_UYVY, shared=(2, 1)),
    "yuyv": _Layout(2, cv2.COLOR_YUV2BGR_YUY2, shared=(2, 1)),
    "yuv422_yuy2": _Layout(2, cv2.COLOR_YUV2BGR_YUY2, shared=(2, 1)),
    "nv12": _Layout(1, cv2.COLOR_YUV2BGR_NV12, shared=(2, 2)),
    "nv21": _Layout(1, cv2.COLOR_YUV2BGR_NV21, shared=(2, 2)),
}

ENCODINGS = tuple(_LAYOUTS)
"""What `bgr_from_image` knows."""

_BAYER = tuple(name for name in _LAYOUTS if name.startswith("bayer"))

_NAMES = {name.lower(): name for name in _LAYOUTS}

_DEPTH = frozenset(("16uc1", "32fc1", "64fc1", "16sc1"))

_COMPRESSED = frozenset(("jpeg", "jpg", "mjpeg", "mjpg", "png", "h264", "h265", "hevc"))

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def is_depth(encoding: str) -> bool:
    """Whether an encoding has one value that is no brightness: depth, disparity, confidence."""
    return encoding.strip().lower() in _DEPTH


def known_encoding(encoding: str) -> str | None:
    """The one of `ENCODINGS` that is meant, whatever its capitals and blanks; None for others.

    Raises:
        ImageError: it is known to be no image of brightness or colour.
    """
    if encoding in _LAYOUTS:  # almost always
        return encoding
    plain = encoding.strip().lower()
    if is_depth(plain):
        raise ImageError(f"image encoding {encoding!r}: {_NO_DEPTH}")
    if plain in _COMPRESSED:
        raise ImageError(
            f"image encoding {encoding!r}: compressed data in a raw image; have the camera's "
            f"driver decode it, or publish it as sensor_msgs/CompressedImage and set the parameter "
            f"image_transport to compressed"
        )
    return _NAMES.get(plain)


def bgr_from_image(message: ImageMessage) -> NDArray[np.uint8]:
    """The picture in a message.

    16-bit values are divided by 257 and rounded, so that white stays white, as in cv_bridge. YUV
    is taken as BT.601 with black at 16.

    What drivers leave wrong is taken where it can mean but one thing: capitals and blanks in the
    encoding; a last row without its padding; a step of 0 or of the width, where the data has
    exactly the pixels.

    Returns:
        uint8 [H, W, 3] BGR: for bgr8 and 8UC3 a read-only view of the message's data, rows
        perhaps padded; else a new array.

    Raises:
        ImageError: unknown encoding, no pixels, or a size, step and data that do not agree.
    """
    name = known_encoding(message.encoding)
    if name is None:
        raise ImageError(
            f"unknown image encoding {message.encoding!r}; expected one of {', '.join(ENCODINGS)}; "
            f"choose one in the camera's driver, best bgr8"
        )
    layout = _LAYOUTS[name]
    pixels = _view(message, layout)
    if layout.value_bytes == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=1 / 257)
    if layout.conversion is not None:
        pixels = cv2.cvtColor(pixels, layout.conversion)
    return np.asarray(pixels, np.uint8)


class CompressedPicture(NamedTuple):
    """What `bgr_from_compressed` makes of a message.

    Attributes:
        picture: uint8 [H, W, 3] BGR, a new array.
        reduction: 1, 2, 4 or 8; times this, coordinates in the picture are those in the whole one:
            see `in_whole_picture`.
        damage: a sentence on what is wrong with the data, and what to do; empty if nothing is
            known to be. See `scrfd_ros.decoding.decode`.
    """

    picture: NDArray[np.uint8]
    reduction: int
    damage: str


def bgr_from_compressed(
    format: str, data: Any, smallest: tuple[int, int] | None = None
) -> CompressedPicture:
    """The picture in a CompressedImage, as its pixels lie: an EXIF orientation is ignored.

    What the data is, is taken from itself: drivers write "jpeg", "jpg" or "rgb8; jpeg compressed
    bgr8" for the same. The format tells only what the data cannot: that red and blue are exchanged
    ("compressed rgb8"), that it is a Bayer pattern ("bayer_rggb8; png compressed"), as written
    and read by image_transport's compressed_image_transport, or that it is no picture of colours.

    Args:
        format, data: the message's fields; data is any buffer of bytes.
        smallest: width and height, pixels, that the picture is going to be fitted into. A JPEG
            may then be decoded at 1/2, 1/4 or 1/8 of its scale, if that fills them still. It saves
            a quarter to a half of the time, and the same faces are found, but embeddings
            suffer (cosine 0.95, at 1/4 0.75): not for pictures that faces are cut out of.

    Raises:
        ImageError: neither JPEG nor PNG, damaged beyond use, or of more than `MAX_PIXELS`.
    """
    content = bytes(memoryview(data))
    source, _, coding = format.partition("; ")
    bayer = source in _BAYER and "bgr" not in coding
    is_jpeg = content.startswith(JPEG_START)
    what = f"image compressed as {format!r}, {len(content)} bytes"
    if "compressedDepth" in format or is_depth(source):
        raise ImageError(f"{what}: {_NO_DEPTH}")
    width, height = _jpeg_size(content) if is_jpeg else _png_size(content)
    if width < 1 or height < 1:
        raise ImageError(f"{what}: {_instead_of_picture(format, content)}")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{what}: claims {width} x {height} pixels, expected at most {MAX_PIXELS}; choose "
            f"a lower resolution in the camera's driver"
        )
    if is_jpeg and width * height * content.count(_JPEG_SCAN) > _MOST_PASSES * MAX_PIXELS:
        raise ImageError(
            f"{what}: {content.count(_JPEG_SCAN)} scans of {width} x {height} pixels, expected at "
            f"most {_MOST_PASSES * MAX_PIXELS} pixels in all of them; choose a baseline JPEG"
        )
    reduction = 1
    if smallest is not None and is_jpeg and not bayer:
        larger = max(width / smallest[0], height / smallest[1])
        reduction = max(size for size in _REDUCED if size <= max(larger, 1))
    flags = cv2.IMREAD_GRAYSCALE if bayer else _REDUCED[reduction]
    pixels, damage = decode(content, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ImageError(
            f"{what}: {width} x {height} pixels that OpenCV cannot decode: "
            f"{damage or _undecodable(content)}; {_MEND_DAMAGE}"
        )
    if damage:
        damage = f"{what}: {damage}; {_MEND_DAMAGE}"
    conversion = None
    if bayer:
        conversion = _LAYOUTS[source].conversion
    elif "compressed rgb" in coding:
        conversion = cv2.COLOR_RGB2BGR
    if conversion is not None:
        pixels = np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
    return CompressedPicture(pixels, reduction, damage)


_MEND_DAMAGE = (
    "check the camera's cable, the bandwidth of its bus and network, and the size of the buffers "
    "in its driver"
)

_NO_DEPTH = (
    "this is a depth image, in which no faces can be found; choose the topic of the camera's "
    "colour image"
)

# None is in the name of another format: AVIF is not "av1".
_VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "ffmpeg", "libx26", "theora")


def is_video(format: str) -> bool:
    """Whether the format of a CompressedImage names a video stream."""
    return any(word in format.lower() for word in _VIDEO)


def _instead_of_picture(format: str, content: bytes) -> str:
    """A sentence on what is there instead of a JPEG or PNG, and what to do."""
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
        return f"expected a JPEG or PNG, found {name}: {_NO_DEPTH}"
    found = name or (f"data that begins with {content[:8].hex(' ')}" if content else "no data")
    return f"expected a whole JPEG or PNG, found {found}; have the publisher send jpeg or png"


def _undecodable(content: bytes) -> str:
    """Why the data, which has the form of a JPEG or PNG, may be beyond OpenCV."""
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


ROTATIONS = (0, 90, 180, 270)
"""Degrees clockwise by which the images of a camera have to be turned to be upright: 0 for one that
is mounted upright, 180 for one upside down. One that was itself turned by 90 degrees to the right
gives images that lie to the left, which takes 90."""

_TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def upright(picture: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """The picture, uint8 [H, W, 3], turned clockwise by one of `ROTATIONS`: a copy, or itself."""
    if rotation == 0:
        return picture
    return np.asarray(cv2.rotate(picture, _TURNS[rotation]), np.uint8)


def size_before_turn(size: tuple[int, int], rotation: int) -> tuple[int, int]:
    """Width and height of a picture that has this size when it is `upright`."""
    return size[::-1] if rotation % 180 else size


def in_whole_picture(
    faces: Faces, reduction: int, rotation: int = 0, size: tuple[int, int] = (0, 0)
) -> Faces:
    """Faces in pixels of the image as it was sent: the way back from the picture that was searched.

    The landmarks keep their names: "image-left" is that of the upright picture.

    Args:
        faces: in pixels of the picture that was searched.
        reduction: that picture was decoded at 1/`reduction` of its scale.
        rotation: what it was turned by, see `upright`.
        size: width and height of the picture as it was decoded, before it was turned, pixels;
            matters only where there is a rotation.
    """
    boxes, landmarks = faces.boxes, faces.landmarks
    if rotation:
        ends = _turned_back(boxes.reshape(-1, 2, 2), rotation, size)
        boxes = np.concatenate((ends.min(axis=1), ends.max(axis=1)), axis=1)
        landmarks = None if landmarks is None else _turned_back(landmarks, rotation, size)
    factor = np.float32(reduction)
    return replace(
        faces,
        boxes=boxes * factor,
        landmarks=None if landmarks is None else landmarks * factor,
    )


def _turned_back(points: FloatArray, rotation: int, size: tuple[int, int]) -> FloatArray:
    """Points, float32 [..., 2], of an upright picture, in the one of this size before the turn."""
    x, y = points[..., 0], points[..., 1]
    width, height = np.float32(size[0]), np.float32(size[1])
    turned = {90: (y, height - x), 180: (width - x, height - y), 270: (width - y, x)}
    return np.stack(turned[rotation], axis=-1)


# Markers of a frame's header: 0xC0 to 0xCF, but for those of tables (ITU-T T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# Markers without a length, which have no place before the frame's header. A reader that takes what
# follows them for one would see another frame than OpenCV does.
_JPEG_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xDA)))

_JPEG_SCAN = b"\xff\xda"


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
        # A segment, or a byte that fills up to the next marker.
        position += 1 if marker == 0xFF else 2 + length
    return None


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG; 0, 0 if it has none, or nothing after its headers."""
    frame = _jpeg_frame(content)
    return (0, 0) if frame is None or _JPEG_SCAN not in content else (frame.width, frame.height)


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG; 0, 0 if it has none, or does not hold all that it announces.

    OpenCV takes memory for a chunk of any length, up to 2 GiB, before it looks for its bytes.
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


def _view(message: ImageMessage, layout: _Layout) -> NDArray[Any]:
    """The values of a message, [lines, width, channels], read-only and without a copy.

    Raises:
        ImageError: size, step and data do not agree. Found before any memory is taken, whatever
            size the message claims.
    """
    height, width, step = message.height, message.width, message.step
    columns, rows = layout.shared
    lines = height if rows == 1 else height * 3 // 2
    pixel_bytes = layout.channels * layout.value_bytes
    size = memoryview(message.data).nbytes
    row_bytes = width * pixel_bytes
    if step in (0, width) and size == lines * row_bytes:
        step = row_bytes  # never set, or counted in pixels; the data has no room for another
    problem = ""
    if height < 1 or width < 1:
        problem = "expected at least one pixel; check the resolution set in the camera's driver"
    elif width % columns or height % rows:
        problem = (
            f"{columns} x {rows} pixels share a colour in this encoding, expected a size that is "
            f"a multiple of that; choose such a resolution, or bgr8, in the camera's driver"
        )
    elif step < row_bytes:
        problem = (
            f"step is {step}, expected at least {row_bytes} (width x {pixel_bytes} "
            f"bytes); the publisher must set it to the length of a row in bytes"
        )
    elif not (lines - 1) * step + row_bytes <= size <= lines * step:  # perhaps without padding
        problem = (
            f"data has {size} bytes, expected {lines * step} ({lines} lines x step {step}); the "
            f"publisher must send whole rows and the step they have"
        )
    if problem:
        raise ImageError(f"image of {width} x {height} pixels, {message.encoding}: {problem}")
    byte_order = ">" if message.is_bigendian else "<"
    view: NDArray[Any] = np.ndarray(
        (lines, width, layout.channels),
        f"{byte_order}u{layout.value_bytes}",
        message.data,
        strides=(step, pixel_bytes, layout.value_bytes),
    )
    view.flags.writeable = False
    return view
