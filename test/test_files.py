# SPDX-License-Identifier: Apache-2.0
"""Images and reports are read and written whole, and errors name the file."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from exif import with_orientation
from faulty_processes import kills, open_to_all, outcome_in_child
from numpy.typing import NDArray

from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.files import ensure_writable, write_bytes, write_text
from scrfd_ros.images.files import list_images, read_image, write_image

IMAGE = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


def png(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def test_png_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "image.png"
    write_image(path, IMAGE)
    found = read_image(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGE)


def test_gray_image_becomes_three_channels(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "gray.png"), IMAGE[:, :, 0])
    np.testing.assert_array_equal(
        read_image(tmp_path / "gray.png"), np.repeat(IMAGE[:, :, :1], 3, axis=2)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"", r"not an image .*\(0 bytes\)", id="empty"),
        pytest.param(b"nothing else", r"not an image .*\(12 bytes\)", id="text"),
        pytest.param(png(100_000, 100_000), "not an image", id="beyond OpenCV's size limit"),
        pytest.param(png(0, 0), "not an image", id="no pixels"),
    ],
)
def test_unreadable_image(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "face.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(99), r"\(HEIC\): convert it to PNG or JPEG"),
        (b"<svg xmlns=", r"\(SVG\): convert it"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), r"\(TIFF or raw data of a camera\): convert"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), r"\(a video\): take single images .*ffmpeg"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(99), r"\(a video\): take single images"),
        (b"\x89MCAP0\r\n", r"\(a bag\): .*scrfd replay"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>not found</html>", "a web page"),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(99), r"\(WebP\): convert"),
        (b"GIF89a" + bytes(9), r"\(GIF\): convert"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"face.jpg: not an image that OpenCV .*{words}"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "Is a directory; give one image of it"),
        ("*.jpg", "No such file or directory; no name fits the pattern"),
        (
            "https://example.org/face.jpg",
            "an address, not a file; download the image first",
        ),
        ("face\0.jpg", "embedded null byte"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_is_no_file(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ImageError, match=f"cannot read the image: {words}"):
        read_image(Path(name) if "//" in name else tmp_path / name)


LARGER = cv2.resize(IMAGE, (320, 240), interpolation=cv2.INTER_CUBIC)
JPEG = cv2.imencode(".jpg", LARGER)[1]


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_a_cut_file_has_one_outcome_with_every_opencv(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The rule is that of messages: see test_decoding.py, where it is held pixel by pixel."""
    path = tmp_path / "face.jpg"
    path.write_bytes(JPEG.tobytes()[: int(len(JPEG) * share)])
    if share < 0.5:
        with pytest.raises(ImageError, match=r"face.jpg: .* it is cut short, \d+% of its rows"):
            read_image(path)
    else:
        image = read_image(path)
        assert image.shape == (240, 320, 3) and (image[-1] == 128).all()
        assert "face.jpg: used, but it is cut short, " in caplog.text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_turned_as_exif_says(tmp_path: Path, orientation: int) -> None:
    plain = cv2.imdecode(JPEG, cv2.IMREAD_COLOR)
    turned = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: np.rot90(plain, -1),
        7: plain.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(plain),
    }
    path = tmp_path / "face.jpg"
    path.write_bytes(with_orientation(JPEG.tobytes(), orientation))
    np.testing.assert_array_equal(read_image(path), turned[orientation])


def png_of(values: NDArray[Any]) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


def test_kinds_of_png(tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    for values in (
        IMAGE.astype(np.uint16) * 257,
        np.dstack((IMAGE, np.arange(35, dtype=np.uint8).reshape(7, 5))),
    ):
        path.write_bytes(png_of(values))
        np.testing.assert_array_equal(read_image(path), IMAGE)


FORMATS = (".png", ".JPG", ".jpeg", ".webp", ".bmp", ".tiff", ".jp2", ".ppm")


def test_images_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for suffix in FORMATS:
        content = cv2.imencode(suffix.lower(), LARGER)[1].tobytes()
        (tmp_path / f"face{suffix}").write_bytes(content)
    (tmp_path / "no_suffix").write_bytes(JPEG.tobytes())
    (tmp_path / "damaged.jpg").write_bytes(b"")  # is to be told by who reads it
    expected = {f"face{suffix}" for suffix in FORMATS} | {"no_suffix", "damaged.jpg"}
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "face.png").write_bytes(png_of(IMAGE))
    assert {path.name for path in list_images(tmp_path)} == expected
    assert not caplog.text
    for name in ("a.heic", "b.heic", "notes.txt", "README", ".DS_Store", "._face.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert {path.name for path in list_images(tmp_path)} == expected
    (record,) = caplog.records
    assert "left alone: 4 files that are not images OpenCV" in record.getMessage()
    assert "(2 of .heic, 1 of .txt, 1 of no suffix), the first: README" in record.getMessage()
    found = list_images(tmp_path, below=True)
    assert tmp_path / "below" / "face.png" in found and found == sorted(found)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match="no such folder; expected one with images"):
        list_images(tmp_path / "none")
    with pytest.raises(ScrfdError, match="no images in it; expected JPEG, PNG"):
        list_images(tmp_path)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(ScrfdError, match=r"no images in it, but 1 file .*\(1 of .heic\); expec"):
        list_images(tmp_path)
    with pytest.raises(ScrfdError, match="not a folder"):
        list_images(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["image", "image.", "image.xyz"])
def test_unknown_image_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"unknown image format .* expected \.png or \.jpg"):
        write_image(tmp_path / name, IMAGE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: write_image(path, IMAGE), id="image"),
        pytest.param(lambda path: write_text(path, "text"), id="text"),
    ],
)
def test_cannot_write_below_a_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match=r"file/image\.png: cannot write"):
        write(tmp_path / "file" / "image.png")


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "report.json", "Zoë\n")
    assert (tmp_path / "new" / "report.json").read_bytes() == b"Zo\xc3\xab\n"


OLD, NEW = b"old" * 100_000, b"new" * 200_000


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(OLD)
    seen = set()
    for _ in kills(lambda: write_bytes(path, NEW), "scrfd_ros/files.py"):
        seen.add(path.read_bytes())
        path.write_bytes(OLD)
        assert len(list(tmp_path.iterdir())) <= 2, "what is left does not pile up"
    assert seen == {OLD, NEW}
    write_bytes(path, NEW)
    assert [(path, NEW)] == [(path, path.read_bytes()) for path in tmp_path.iterdir()]


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    threads = [
        threading.Thread(target=write_bytes, args=(tmp_path / "file", content))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() in contents


@pytest.mark.parametrize("space", [0, 1, 100_000, len(NEW) - 1])
def test_no_space_leaves_the_old_file(tmp_path: Path, space: int) -> None:
    path = tmp_path / "engine"
    path.write_bytes(OLD)
    outcome, _ = outcome_in_child(lambda: write_bytes(path, NEW), largest_file=space)
    assert outcome == f"ScrfdError: {path}: cannot write: File too large"
    assert [(path, OLD)] == [(path, path.read_bytes()) for path in tmp_path.iterdir()]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the permission to mount a small disk")
    try:
        with pytest.raises(ScrfdError, match="engine: cannot write: No space left on device"):
            write_bytes(tmp_path / "engine", NEW)
        assert not list(tmp_path.iterdir())
        write_bytes(tmp_path / "engine", NEW[:1000])
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_where_results_cannot_go_is_known_before(tmp_path: Path) -> None:
    report = tmp_path / "new" / "report.json"
    ensure_writable(report)
    assert report.parent.is_dir() and not report.exists()
    report.touch()
    ensure_writable(report)
    ensure_writable(Path("/dev/null"))
    with pytest.raises(ScrfdError, match=r"report\.json/x: cannot write: File exists"):
        ensure_writable(report / "x")
    with pytest.raises(ScrfdError, match="new: cannot write: Is a directory"):
        ensure_writable(report.parent)


def test_where_others_cannot_write_is_known_before(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    old.chmod(0o666)
    tmp_path.chmod(0o555)
    outcome, _ = outcome_in_child(lambda: ensure_writable(new), as_other_user=True)
    assert outcome == f"ScrfdError: {new}: cannot write: Permission denied"
    outcome, _ = outcome_in_child(lambda: ensure_writable(old), as_other_user=True)
    assert outcome == "", "what is there can be written"


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    tmp_path.chmod(0o555)
    path = tmp_path / "engine"
    outcome, _ = outcome_in_child(lambda: write_bytes(path, NEW), as_other_user=True)
    assert outcome == f"ScrfdError: {path}: cannot write: Permission denied"
    assert not list(tmp_path.iterdir())
