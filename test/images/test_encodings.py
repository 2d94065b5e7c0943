# SPDX-License-Identifier: Apache-2.0
"""Raw and compressed messages become the right image; wrong ones become clear errors."""

from __future__ import annotations

import resource
import struct
import tracemalloc
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from exif import with_orientation
from numpy.typing import NDArray
from raw_images import BAYER, Message, by_hand, largest_difference
from rosbags.image import image_to_cvimage
from rosbags.typesys import Stores, get_typestore

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import fitted_size
from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import ImageError
from scrfd_ros.faces import Faces
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.decoded import DecodedImage, WholeImage
from scrfd_ros.images.decoding import decode
from scrfd_ros.images.encodings import ENCODINGS, LAYOUTS, bgr_from_image

WIDTH, HEIGHT = 62, 48
WORDS = [name for name in ENCODINGS if LAYOUTS[name].value_bytes == 2]


@pytest.fixture(scope="module")
def people(image: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Six people, 1280x886."""
    return image("t1.jpg")


def random_values(encoding: str) -> NDArray[Any]:
    """[lines, width, channels], uint8 or uint16."""
    layout = LAYOUTS[encoding]
    shape = (layout.lines(HEIGHT), WIDTH, layout.channels)
    dtype = np.dtype(f"u{layout.value_bytes}")
    return np.random.default_rng(len(encoding)).integers(0, 256**dtype.itemsize, shape, dtype)


def message_of(
    values: NDArray[Any], encoding: str, *, padding: int = 0, big_endian: bool = False
) -> Message:
    """A message with these values, and `padding` random bytes after each row."""
    rows = values.astype(values.dtype.newbyteorder(">" if big_endian else "<"))
    rows = rows.reshape(len(rows), -1).view(np.uint8)
    rubbish = np.full((len(rows), padding), 171, np.uint8)
    rows = np.concatenate((rows, rubbish), axis=1)
    return Message(HEIGHT, WIDTH, encoding, rows.shape[1], rows.tobytes(), int(big_endian))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_what_it_says(encoding: str) -> None:
    values = random_values(encoding)
    image = bgr_from_image(message_of(values, encoding))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    # Half a level is rounding; demosaicing rounds its means and YUV its factors as well.
    exact = encoding not in BAYER and LAYOUTS[encoding].shared == (1, 1)
    tolerance = 0.5 if exact else 1.01
    assert largest_difference(image, by_hand(values, encoding), encoding) <= tolerance


@pytest.mark.parametrize("encoding", sorted(set(ENCODINGS) - {"8UC1", "8UC4"}))
def test_rosbags_sees_the_same_image(encoding: str) -> None:
    message = message_of(random_values(encoding), encoding)
    image = bgr_from_image(message)
    message.height = LAYOUTS[encoding].lines(HEIGHT)  # it expects the lines of the buffer
    oracle = image_to_cvimage(message, "bgr8")  # type: ignore[arg-type]
    # It cuts 16 bits to 8; we round.
    tolerance = 1 if encoding.endswith("16") else 0
    assert np.abs(image.astype(int) - oracle).max() <= tolerance


@pytest.mark.parametrize("encoding", WORDS)
def test_byte_order_makes_no_difference(encoding: str) -> None:
    values = random_values(encoding)
    little = bgr_from_image(message_of(values, encoding))
    big = bgr_from_image(message_of(values, encoding, big_endian=True))
    assert np.array_equal(little, big)


@pytest.mark.parametrize("padding", [1, 2, 130])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_pads_the_rows_is_not_seen(encoding: str, padding: int) -> None:
    values = random_values(encoding)
    tight = bgr_from_image(message_of(values, encoding))
    assert np.array_equal(bgr_from_image(message_of(values, encoding, padding=padding)), tight)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("uyvy", [90, 81, 240, 81] * 2),
        ("yuyv", [81, 90, 81, 240] * 2),
        ("nv12", [81] * 4 + [90, 240]),
        ("nv21", [81] * 4 + [240, 90]),
    ],
)
def test_red_is_red(encoding: str, data: list[int]) -> None:
    """Y 81, Cb 90, Cr 240 is the red of the BT.601 color bars."""
    message = Message(2, 2, encoding, 2 * LAYOUTS[encoding].channels, bytes(data))
    assert np.abs(bgr_from_image(message) - np.array([0.0, 0.0, 255.0])).max() <= 1


@pytest.mark.parametrize(
    "hold",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: array("B", data),
        lambda data: np.array(list(data), np.uint8),
    ],
    ids=["bytes", "bytearray", "memoryview", "array", "ndarray"],
)
@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono16", "nv12"])
def test_data_may_be_any_buffer(encoding: str, hold: Callable[[bytes], Any]) -> None:
    message = message_of(random_values(encoding), encoding, padding=3)
    expected = bgr_from_image(message)
    held = replace(message, data=hold(message.data))
    assert np.array_equal(bgr_from_image(held), expected)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", ["bgr8", "8UC3"])
def test_bgr_is_not_copied_and_cannot_be_written(encoding: str, padding: int) -> None:
    message = message_of(random_values(encoding), encoding, padding=padding)
    message.data = array("B", message.data)
    image = bgr_from_image(message)
    message.data[0] ^= 255
    assert image[0, 0, 0] == message.data[0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 0


@pytest.mark.parametrize("encoding", sorted(set(ENCODINGS) - {"bgr8", "8UC3"}))
def test_a_converted_image_does_not_hang_on_the_message(encoding: str) -> None:
    message = message_of(random_values(encoding), encoding)
    assert not np.shares_memory(bgr_from_image(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("lines", [1, HEIGHT])
@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "rgba8", "mono8", "mono16", "bgra16"])
def test_one_column_is_enough(encoding: str, lines: int) -> None:
    values = random_values(encoding)[:lines, :1]
    message = replace(message_of(values, encoding, padding=5), width=1, height=lines)
    assert np.array_equal(bgr_from_image(message), np.rint(by_hand(values, encoding)))


GOOD = Message(4, 6, "rgb8", 18, bytes(72))


WRONG = {
    "no width": (replace(GOOD, width=0, step=0, data=b""), "0 x 4 pixels.*resolution"),
    "no height": (replace(GOOD, height=0, data=b""), "6 x 0 pixels.*resolution"),
    "never filled in": (Message(0, 0, "", 0, b""), "''.*bgr8"),
    "step below width": (replace(GOOD, step=17, data=bytes(68)), "step is 17, .* at least 18"),
    "step never set, padded": (replace(GOOD, step=0, data=bytes(80)), "step is 0, expected at"),
    "last row short": (replace(GOOD, step=20, data=bytes(77)), r"77 bytes, expected 80 \(4 lines"),
    "step for 8 bits": (Message(4, 6, "mono16", 6, bytes(24)), "step is 6, .* 12 .*x 2 bytes"),
    "data short": (replace(GOOD, data=bytes(71)), r"71 bytes, expected 72 \(4 lines x step 18\)"),
    "data long": (replace(GOOD, data=bytes(73)), "73 bytes, expected 72"),
    "no data": (replace(GOOD, data=b""), "0 bytes, expected 72"),
    "no color": (Message(4, 6, "nv12", 6, bytes(24)), r"24 bytes, expected 36 \(6 lines x step 6"),
    "odd width": (Message(4, 5, "yuyv", 10, bytes(40)), "5 x 4 pixels.* 2 x 1 pixels share"),
    "odd height": (Message(3, 6, "nv21", 6, bytes(27)), "6 x 3 pixels.* 2 x 2 pixels share"),
    "8 or 16 bits": (replace(GOOD, encoding="mono"), "'mono'.*mono8"),
    "of floats": (replace(GOOD, encoding="32FC3"), "'32FC3'.*preferably bgr8"),
    "of three planes": (replace(GOOD, encoding="yuv420"), "'yuv420'.*preferably bgr8"),
    "depth image": (replace(GOOD, encoding="32FC1"), "depth image.*color image"),
    "depth image in millimetres": (replace(GOOD, encoding="16UC1"), "depth image.*color image"),
    "compressed": (replace(GOOD, encoding="mjpeg"), "compressed data in a raw image.*image_transp"),
}


@pytest.mark.parametrize(("message", "words"), WRONG.values(), ids=WRONG)
def test_wrong_message_is_refused(message: Message, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        bgr_from_image(message)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_last_row_may_lack_its_padding(encoding: str) -> None:
    values = random_values(encoding)
    whole = message_of(values, encoding, padding=5)
    expected = bgr_from_image(whole)
    for missing in (1, 5):
        short = replace(whole, data=whole.data[:-missing])
        assert np.array_equal(bgr_from_image(short), expected)
    with pytest.raises(ImageError, match="data has"):
        bgr_from_image(replace(whole, data=whole.data[:-6]))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_step_that_was_never_set_or_counts_pixels(encoding: str) -> None:
    message = message_of(random_values(encoding), encoding)
    expected = bgr_from_image(message)
    for step in (0, WIDTH):
        assert np.array_equal(bgr_from_image(replace(message, step=step)), expected)


@pytest.mark.parametrize("name", ["RGB8", "rgb8 ", " Rgb8\n"])
def test_capitals_and_blanks_make_no_difference(name: str) -> None:
    message = message_of(random_values("rgb8"), "rgb8")
    found = bgr_from_image(replace(message, encoding=name))
    assert np.array_equal(found, bgr_from_image(message))


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_byte_order_of_bytes_is_nothing(flag: int) -> None:
    message = message_of(random_values("bgr8"), "bgr8")
    found = bgr_from_image(replace(message, is_bigendian=flag))
    assert np.array_equal(found, bgr_from_image(message))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_claimed_size_costs_no_memory(encoding: str) -> None:
    side = 100_000
    message = Message(side, side, encoding, 8 * side, bytes(1000))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="data has 1000 bytes"):
            bgr_from_image(message)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_unknown_encoding_lists_the_known_ones() -> None:
    with pytest.raises(ImageError) as caught:
        bgr_from_image(replace(GOOD, encoding="i420"))
    assert all(encoding in str(caught.value) for encoding in ENCODINGS)


def test_an_image_of_another_library_is_read_without_a_copy() -> None:
    types = get_typestore(Stores.ROS2_HUMBLE)
    image, header, time = (
        types.types[name]
        for name in (
            "sensor_msgs/msg/Image",
            "std_msgs/msg/Header",
            "builtin_interfaces/msg/Time",
        )
    )
    values = random_values("bgr8")
    message = image(
        header=header(stamp=time(sec=1, nanosec=2), frame_id="camera"),
        height=HEIGHT,
        width=WIDTH,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * WIDTH,
        data=values.reshape(-1),
    )
    data = types.serialize_cdr(message, message.__msgtype__)
    image = bgr_from_image(types.deserialize_cdr(data, message.__msgtype__))  # type: ignore[arg-type]
    assert np.array_equal(image, values)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


def compressed(image: NDArray[Any], suffix: str) -> bytes:
    known, content = cv2.imencode(suffix, image)
    assert known
    return bytes(content)


@pytest.mark.parametrize(
    "hold",
    [bytes, bytearray, memoryview, lambda data: array("B", data)],
    ids=["bytes", "bytearray", "memoryview", "array"],
)
@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        ("jpeg", ".jpg"),
        ("jpg", ".jpg"),
        ("bgr8; jpeg compressed bgr8", ".jpg"),
        ("rgb8; jpeg compressed bgr8", ".jpg"),
        ("png", ".png"),
        ("rgb8; png compressed bgr8", ".png"),
        ("", ".png"),
    ],
)
def test_a_compressed_image(
    people: NDArray[np.uint8], format: str, suffix: str, hold: Callable[[bytes], Any]
) -> None:
    content = compressed(people, suffix)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    image, reduction, *_ = bgr_from_compressed(format, hold(content))
    assert np.array_equal(image, expected)
    assert (image.dtype, reduction) == (np.uint8, 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_gray_becomes_three_channels(bits: int) -> None:
    values = random_values(f"mono{bits}")
    image, *_ = bgr_from_compressed(f"mono{bits}; png compressed ", compressed(values, ".png"))
    expected = bgr_from_image(message_of(values, f"mono{bits}"))
    # OpenCV cuts values that are rounded in raw images.
    assert np.abs(image.astype(int) - expected).max() <= (1 if bits == 16 else 0)


def test_exchanged_colors_are_exchanged_back(people: NDArray[np.uint8]) -> None:
    content = compressed(np.ascontiguousarray(people[..., ::-1]), ".png")
    image, *_ = bgr_from_compressed("rgb8; png compressed rgb8", content)
    assert np.array_equal(image, people)


@pytest.mark.parametrize("name", sorted({name.rstrip("0123456789") for name in BAYER}))
def test_a_compressed_bayer_pattern_becomes_an_image(name: str) -> None:
    values = random_values(f"{name}8")
    content = compressed(values, ".png")
    image, reduction, *_ = bgr_from_compressed(f"{name}8; png compressed ", content, (8, 8))
    assert np.array_equal(image, bgr_from_image(message_of(values, f"{name}8")))
    assert reduction == 1
    image, *_ = bgr_from_compressed(f"{name}8; png compressed bgr8", content)
    assert np.array_equal(image, np.repeat(values, 3, axis=2))


@pytest.mark.parametrize("smallest", [None, (640, 640)])
def test_an_image_is_not_turned(
    people: NDArray[np.uint8], smallest: tuple[int, int] | None
) -> None:
    content = compressed(people, ".jpg")
    turned = with_orientation(content, 6)
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[0] == 1280
    image, reduction, *_ = bgr_from_compressed("jpeg", turned, smallest)
    expected, *_ = bgr_from_compressed("jpeg", content, smallest)
    assert image.shape[1] * reduction == 1280
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("size", "smallest", "reduction"),
    [
        ((1280, 886), (640, 640), 2),
        ((1279, 886), (640, 640), 1),
        ((886, 1280), (640, 640), 2),
        ((1280, 886), (320, 320), 4),
        ((1280, 886), (160, 128), 8),
        ((1280, 886), (32, 32), 8),
        ((300, 200), (640, 640), 1),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_where_that_fills_the_input(
    people: NDArray[np.uint8],
    size: tuple[int, int],
    smallest: tuple[int, int],
    reduction: int,
) -> None:
    content = compressed(cv2.resize(people, size), ".jpg")
    image, found, *_ = bgr_from_compressed("jpeg", content, smallest)
    assert found == reduction
    assert image.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
    width, height = fitted_size(*size, *smallest)
    assert reduction == 1 or (image.shape[1] >= width and image.shape[0] >= height)


def test_png_is_never_reduced(people: NDArray[np.uint8]) -> None:
    image, reduction, *_ = bgr_from_compressed("png", compressed(people, ".png"), (160, 160))
    assert (image.shape, reduction) == (people.shape, 1)


@pytest.mark.parametrize("enlargement", [1, 2])
def test_a_reduced_jpeg_has_the_same_faces(
    detector_path: Callable[[str], Path], people: NDArray[np.uint8], enlargement: int
) -> None:
    detector = Scrfd(open_network(detector_path("2.5g"), "onnxruntime"))
    content = compressed(cv2.resize(people, None, fx=enlargement, fy=enlargement), ".jpg")
    expected = detector.detect(bgr_from_compressed("jpeg", content)[0])
    decoded = bgr_from_compressed("jpeg", content, detector.config.largest_input)
    found = decoded.enlarge(detector.detect(decoded.image))
    assert decoded.reduction == 2 * enlargement
    assert len(found) == len(expected) == 6
    assert found.landmarks is not None and expected.landmarks is not None
    assert np.abs(found.boxes - expected.boxes).max() < 3 * enlargement
    assert np.abs(found.landmarks - expected.landmarks).max() < 2 * enlargement
    assert np.abs(found.scores - expected.scores).max() < 0.02


def test_faces_without_landmarks_are_enlarged_too() -> None:
    faces = Faces(np.array([[1, 2, 3, 4]], np.float32), np.ones(1, np.float32))
    image = np.zeros((8, 8, 3), np.uint8)
    whole = WholeImage((32, 32), lambda: np.zeros((32, 32, 3), np.uint8))
    found = DecodedImage(image, 4, source=whole).enlarge(faces)
    assert found.landmarks is None and found.boxes.tolist() == [[4, 8, 12, 16]]


@pytest.mark.parametrize("format", ["jpeg", "rgb8; jpeg compressed rgb8", "mono8; jpeg compressed"])
def test_the_whole_of_a_reduced_jpeg_is_decoded_when_it_is_used(
    people: NDArray[np.uint8], format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = compressed(people, ".jpg")
    expected = bgr_from_compressed(format, content).image
    flags: list[int] = []
    monkeypatch.setattr(
        "scrfd_ros.images.compressed.decode",
        lambda content, how: flags.append(how) or decode(content, how),
    )
    decoded = bgr_from_compressed(format, content, (640, 443))
    assert (decoded.reduction, decoded.size, len(flags)) == (2, (1280, 886), 1)
    for _ in range(2):
        assert np.array_equal(decoded.whole, expected)
    assert len(flags) == 2, "once"


def claim(content: bytes, width: int, height: int) -> bytes:
    """The same JPEG or PNG, with another size in its header."""
    if content.startswith(b"\x89"):
        return content[:16] + struct.pack(">II", width, height) + content[24:]
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


@pytest.mark.parametrize(
    ("suffix", "width", "height"),
    [(".jpg", 65_000, 65_000), (".jpg", 10_001, 10_000), (".png", 2**31 - 1, 2**31 - 1)],
)
def test_a_claimed_compressed_size_costs_no_memory(
    people: NDArray[np.uint8], suffix: str, width: int, height: int
) -> None:
    content = claim(compressed(people, suffix), width, height)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=f"{width} x {height} pixels, expected at most 100000000"):
        bgr_from_compressed("jpeg", content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_last_chunk_of_a_png_may_not_claim_more_than_is_there(
    people: NDArray[np.uint8],
) -> None:
    """OpenCV 5 allocates the memory before it checks."""
    content = compressed(people, ".png")
    content = content[:-12] + struct.pack(">I", 2**31 - 1) + content[-8:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="it is cut short or damaged"):
        bgr_from_compressed("png", content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "two bytes": lambda content: content[:2],
    "the first hundredth": lambda content: content[: len(content) // 100],
    "the first third": lambda content: content[: len(content) // 3],
    "no pixels": lambda content: claim(content, 0, 0),
    "nothing but its beginning": lambda content: content[:24] + b"\xff" * 1000,
    "text": lambda content: b"no signal",
    "another format": lambda content: b"RIFF\x24\0\0\0WEBPVP8 " + bytes(100),
    "its header behind a depth image's": lambda content: bytes(12) + content,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_damaged_compressed_data_is_refused(
    people: NDArray[np.uint8], suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    content = damage(compressed(people, suffix))
    with pytest.raises(ImageError, match=f"compressed as 'jpeg', {len(content)} bytes"):
        bgr_from_compressed("jpeg", content, (640, 640))


def test_what_follows_a_jpeg_is_not_seen(people: NDArray[np.uint8]) -> None:
    """Some cameras send buffers of fixed size."""
    content = compressed(people, ".jpg")
    image, *_ = bgr_from_compressed("jpeg", content)
    assert np.array_equal(bgr_from_compressed("jpeg", content + bytes(5000))[0], image)
