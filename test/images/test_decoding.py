# SPDX-License-Identifier: Apache-2.0
"""Damaged images are used or refused by one rule and reported, and stderr stays clean."""

from __future__ import annotations

import os
import struct
import threading

import cv2
import numpy as np
import pytest
from exif import with_orientation
from numpy.typing import NDArray

from scrfd_ros.errors import ImageError
from scrfd_ros.images import decoding
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.decoding import MAX_MISSING, decode

HEIGHT, WIDTH = 320, 240


def image() -> NDArray[np.uint8]:
    """A smooth image with edges, in which no row has one color."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = np.stack((x + y // 2, 2 * x, x * y // 64), axis=2) % 256
    noise = np.random.default_rng(0).integers(0, 24, waves.shape)
    return cv2.blur((waves * 0.9 + noise).astype(np.uint8), (3, 3)).astype(np.uint8)


def jpeg(*options: int) -> bytes:
    return cv2.imencode(".jpg", image(), options)[1].tobytes()


WHOLE = jpeg()
PROGRESSIVE = jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 10)
PNG = cv2.imencode(".png", image())[1].tobytes()
EXPECTED, _ = decode(WHOLE, cv2.IMREAD_COLOR)
assert EXPECTED is not None


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def segments(content: bytes) -> list[bytes]:
    """Start, each segment before the pixels, and the rest."""
    parts, position = [content[:2]], 2
    while content[position + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, position + 2)
        parts.append(content[position : position + 2 + length])
        position += 2 + length
    return [*parts, content[position:]]


def with_padding(content: bytes, padding: bytes) -> bytes:
    return content[:-2] + padding + content[-2:]


def replaced(content: bytes, share: float, values: bytes) -> bytes:
    position = int(len(content) * share)
    return content[:position] + values + content[position + len(values) :]


GOOD = {
    "no end marker": WHOLE[:-2],
    "half an end marker": WHOLE[:-1],
    "no end marker, and a buffer of one size": WHOLE[:-2] + bytes(4000),
    "a buffer of one size": WHOLE + bytes(4000),
    "rubbish behind the end": WHOLE + bytes(range(256)),
    "a second image behind it, as of 3D cameras": WHOLE + PROGRESSIVE,
    "filled up by one byte": with_padding(WHOLE, b"\0"),
    "filled up by three bytes": with_padding(WHOLE, b"\0\0\0"),
    "filled up by fill bytes": with_padding(WHOLE, b"\xff" * 9),
    "no tables, as of USB cameras": b"".join(
        part for part in segments(WHOLE) if not part.startswith(b"\xff\xc4")
    ),
    "AVI1, as of USB cameras": WHOLE[:2] + b"\xff\xe0\0\x10AVI1" + bytes(10) + WHOLE[20:],
    "progressive": PROGRESSIVE,
    "progressive, no end marker": PROGRESSIVE[:-2],
    "restart markers": RESTARTS,
    "restart markers, no end marker": RESTARTS[:-2],
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_what_has_every_pixel_is_whole(content: bytes) -> None:
    found, damage = decode(content, cv2.IMREAD_COLOR)
    assert found is not None
    assert np.array_equal(found, EXPECTED) and damage == ""


@pytest.mark.parametrize("padding", [0, 3000], ids=["", "in a buffer of one size"])
@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("content", [WHOLE, RESTARTS], ids=["plain", "restart markers"])
def test_missing_rows_are_gray_and_told(content: bytes, share: float, padding: int) -> None:
    found, damage = decode(cut(content, share) + bytes(padding), cv2.IMREAD_COLOR)
    assert found is not None
    percent = int(damage.partition("cut short, ")[2].partition("% of its rows are missing")[0])
    assert abs(percent / 100 - (1 - share)) < 0.1
    missing = round(percent / 100 * HEIGHT)
    assert (found[HEIGHT - missing + 2 :] == 128).all()
    good = HEIGHT - missing - 32  # a row of blocks may be incomplete, and colors reach further
    assert np.array_equal(found[:good], EXPECTED[:good])


def test_with_too_many_rows_missing_nothing_is_used() -> None:
    found, damage = decode(cut(WHOLE, 0.3), cv2.IMREAD_COLOR)
    assert found is None
    percent = int(damage.partition("cut short, ")[2].partition("% of its rows are missing")[0])
    assert percent > 100 * MAX_MISSING


def test_the_image_before_is_not_seen_in_missing_rows() -> None:
    """As with OpenCV 4.10, which leaves old memory in them."""
    content = cut(WHOLE, 0.7)
    outcomes = []
    for color in (0, 255):
        before = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), color, np.uint8))[1]
        for _ in range(3):
            decode(before.tobytes(), cv2.IMREAD_COLOR)
        outcomes.append(decode(content, cv2.IMREAD_COLOR)[0])
    assert outcomes[0] is not None and outcomes[1] is not None
    assert np.array_equal(*outcomes)


DAMAGED = {
    "zeros": replaced(WHOLE, 0.4, bytes(600)),
    "another image's bytes": replaced(WHOLE, 0.4, bytes(RESTARTS[2000:3000])),
    "a part is missing": WHOLE[:4000] + WHOLE[5000:],
    "another image begins inside": cut(WHOLE, 0.8) + WHOLE,
    "restart markers are missing": RESTARTS.replace(b"\xff\xd3", b""),
    "bytes between pixels and end": with_padding(WHOLE, bytes(range(1, 100))),
    "progressive, cut short": cut(PROGRESSIVE, 0.7),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_inside_is_told_and_not_written(
    content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    found, damage = decode(content, cv2.IMREAD_COLOR)
    assert found is not None and found.shape == EXPECTED.shape
    assert damage.startswith(("it is damaged inside, ", "it is cut short, "))
    assert capfd.readouterr().err == ""


PNG_DAMAGE = {
    "a changed byte": replaced(PNG, 0.5, bytes([PNG[len(PNG) // 2] ^ 1])),
    "a wrong checksum": PNG[:29] + bytes([PNG[29] ^ 1]) + PNG[30:],
    "cut short": cut(PNG, 0.9),
    "no end": PNG[:-12],
}


@pytest.mark.parametrize("content", PNG_DAMAGE.values(), ids=PNG_DAMAGE)
def test_a_damaged_png_is_refused_with_the_reason(
    content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    found, damage = decode(content, cv2.IMREAD_COLOR)
    assert found is None and damage.startswith("libpng error")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tiff", ".ppm", ".jp2"])
def test_other_formats_that_are_cut_are_refused(
    suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = cv2.imencode(suffix, image())[1].tobytes()
    assert decode(content, cv2.IMREAD_COLOR)[0] is not None
    assert decode(cut(content, 0.5), cv2.IMREAD_COLOR)[0] is None
    assert "OpenCV" not in capfd.readouterr().err


def test_what_others_write_to_stderr_comes_through(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread writes while another decodes; here one after the other."""
    real = decoding._quietly

    def with_others(content: bytes, flags: int) -> NDArray[np.generic] | None:
        os.write(2, b"before\n")
        pixels = real(content, flags)
        os.write(2, b"[WARN] [node]: Corrupt JPEG data was seen\nwithout an end")
        return pixels

    monkeypatch.setattr(decoding, "_quietly", with_others)
    _, damage = decode(DAMAGED["zeros"], cv2.IMREAD_COLOR)
    assert "Corrupt JPEG data: " in damage
    expected = "before\n[WARN] [node]: Corrupt JPEG data was seen\nwithout an end"
    assert capfd.readouterr().err == expected


def test_threads_do_not_get_each_others_damage() -> None:
    found: dict[str, set[bool]] = {"good": set(), "damaged": set()}

    def work(name: str, content: bytes) -> None:
        for _ in range(100):
            found[name].add(decode(content, cv2.IMREAD_COLOR)[1] != "")

    threads = [
        threading.Thread(target=work, args=("good", WHOLE)),
        threading.Thread(target=work, args=("damaged", DAMAGED["zeros"])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"good": {False}, "damaged": {True}}


def test_a_closed_stderr_is_no_obstacle() -> None:
    before = os.dup(2)
    os.close(2)
    try:
        found, _ = decode(WHOLE, cv2.IMREAD_COLOR)
    finally:
        os.dup2(before, 2)
        os.close(before)
    assert found is not None and np.array_equal(found, EXPECTED)


def test_nothing_is_left_open() -> None:
    decode(DAMAGED["zeros"], cv2.IMREAD_COLOR)
    before = os.listdir("/proc/self/fd")
    for content in (WHOLE, *DAMAGED.values(), *PNG_DAMAGE.values(), b""):
        decode(content, cv2.IMREAD_COLOR)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("smallest", [None, (100, 100)], ids=["whole", "reduced"])
def test_a_message_tells_its_damage(smallest: tuple[int, int] | None) -> None:
    content = cut(WHOLE, 0.8)
    found = bgr_from_compressed("jpeg", content, smallest)
    height = -(-HEIGHT // found.reduction)
    assert found.image.shape[0] == height and found.reduction == (1 if smallest is None else 2)
    start = f"image compressed as 'jpeg', {len(content)} bytes: it is cut short, "
    assert found.damage.startswith(start)
    assert "% of its rows are missing; check the camera's cable" in found.damage
    with pytest.raises(ImageError, match=r"it is cut short, \d+% of its rows are missing; check"):
        bgr_from_compressed("jpeg", cut(WHOLE, 0.3), smallest)


OTHERS = {
    "gray": cv2.imencode(".jpg", image()[..., 0])[1].tobytes(),
    "turned by EXIF": with_orientation(WHOLE, 6),
    "cut short": cut(WHOLE, 0.7),
    "cut too short": cut(WHOLE, 0.3),
}


@pytest.mark.parametrize(
    "content",
    [*OTHERS.values(), *GOOD.values(), *DAMAGED.values()],
    ids=[*OTHERS, *GOOD, *DAMAGED],
)
def test_a_reduced_image_and_its_whole_are_used_or_refused_alike(content: bytes) -> None:
    try:
        expected = bgr_from_compressed("jpeg", content)
    except ImageError:
        with pytest.raises(ImageError):
            bgr_from_compressed("jpeg", content, (WIDTH // 2, HEIGHT // 2))
        return
    found = bgr_from_compressed("jpeg", content, (WIDTH // 2, HEIGHT // 2))
    assert found.reduction == 2 and found.size == (WIDTH, HEIGHT)
    assert np.array_equal(found.whole, expected.image)
    assert bool(found.damage) == bool(expected.damage)
    halves = expected.image.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(found.image - halves).mean() < 2


def with_frame(marker: int, bits: int) -> bytes:
    """A JPEG that claims another kind of coding."""
    start = WHOLE.index(b"\xff\xc0")
    return (
        WHOLE[: start + 1]
        + bytes([marker])
        + WHOLE[start + 2 : start + 4]
        + bytes([bits])
        + (WHOLE[start + 5 :])
    )


FOREIGN: dict[str, tuple[str, bytes, str]] = {
    "12 bits": ("jpeg", with_frame(0xC1, 12), "JPEG of 12 bits a value; choose one of 8"),
    "lossless": ("jpeg", with_frame(0xC3, 8), "lossless JPEG; choose a baseline one"),
    "H.264": ("h264", b"\0\0\0\1\x67\x42" + bytes(99), "found a video stream.*republish"),
    "ffmpeg": ("ffmpeg", bytes(99), "found a video stream.*republish"),
    "WebP": ("webp", cv2.imencode(".webp", image())[1].tobytes(), "found WebP; have the"),
    "AVIF": ("avif", b"\0\0\0\x1cftypavif" + bytes(99), "found AVIF; have the publisher send"),
    "JPEG XL": ("jxl", b"\xff\x0a" + bytes(99), "found JPEG XL"),
    "TIFF": ("16UC1; tiff compressed ", b"II*\0", "depth image.*color image"),
    "compressedDepth": ("16UC1; compressedDepth png", bytes(12) + PNG, "depth image.*color"),
    "depth without its name": ("png", bytes(12) + PNG, "compressedDepth has it.*color image"),
    "depth as plain PNG": ("16UC1; png compressed ", PNG, "depth image.*color image"),
    "leading bytes": ("jpeg", bytes(4) + WHOLE, "begins with 00 00 00 00 ff d8 ff e0"),
    "no data": ("jpeg", b"", "found no data"),
    "no format and no data": ("", b"", "found no data"),
    "text": ("jpeg", b"no signal", "begins with 6e 6f 20"),
    "only headers": ("jpeg", WHOLE[:300], "it is cut short or damaged; check the camera's cable"),
}


@pytest.mark.parametrize(("format", "content", "words"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_jpeg_or_png_is_named(format: str, content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        bgr_from_compressed(format, content)


@pytest.mark.parametrize(
    "format",
    ["jpeg", "jpg", "JPEG", "mjpeg", "image/jpeg", "", "rgb8; jpeg compressed bgr8", "nonsense"],
)
def test_the_data_tells_what_it_is(format: str) -> None:
    assert np.array_equal(bgr_from_compressed(format, WHOLE).image, EXPECTED)
