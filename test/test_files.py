"""Pictures and reports are read and written whole, and errors name the file."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faulty_processes import kills, open_to_all, outcome_in_child

from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.files import ensure_writable, read_picture, write_bytes, write_picture, write_text

PICTURE = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


def png(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def test_png_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "picture.png"
    write_picture(path, PICTURE)
    found = read_picture(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PICTURE)


def test_grey_picture_becomes_three_channels(tmp_path: Path) -> None:
    write_picture(tmp_path / "grey.png", PICTURE[:, :, 0])
    np.testing.assert_array_equal(
        read_picture(tmp_path / "grey.png"), np.repeat(PICTURE[:, :, :1], 3, axis=2)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"", r"not a picture .*\(0 bytes\)", id="empty"),
        pytest.param(b"<html>not found</html>", r"not a picture .*\(22 bytes\)", id="a web page"),
        pytest.param(png(100_000, 100_000), "not a picture", id="beyond OpenCV's size limit"),
        pytest.param(png(0, 0), "not a picture", id="no pixels"),
    ],
)
def test_unreadable_picture(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "face.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)


def test_folder_is_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="Is a directory"):
        read_picture(tmp_path)


@pytest.mark.parametrize("name", ["picture", "picture.", "picture.xyz"])
def test_unknown_picture_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"unknown picture format .* expected \.png or \.jpg"):
        write_picture(tmp_path / name, PICTURE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: write_picture(path, PICTURE), id="picture"),
        pytest.param(lambda path: write_text(path, "text"), id="text"),
    ],
)
def test_cannot_write_below_a_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match=r"file/picture\.png: cannot write"):
        write(tmp_path / "file" / "picture.png")


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
