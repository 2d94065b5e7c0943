# SPDX-License-Identifier: Apache-2.0
"""Which arguments the launch files refuse, and with which sentences; does not need launch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.launch_checks import (
    boolean,
    camera_names,
    check_arguments,
    check_image,
    check_log_level,
    check_parameters_file,
    is_launched,
)

LAUNCH = Path(__file__).parents[2] / "launch"
FACES = LAUNCH / "faces.launch.py"


def test_the_shipped_parameters_are_accepted() -> None:
    check_parameters_file(LAUNCH.parent / "config" / "faces.yaml")


@pytest.mark.parametrize(
    "content",
    [
        "/**: {ros__parameters: {lazy: true}}",
        "face_node: {ros__parameters: {lazy: true}}",
        "/front:\n  face_node:\n    ros__parameters:\n      lazy: true\n",
        "camera: {ros__parameters: {}}\nface_node: {ros__parameters: {lazy: true}}",
    ],
)
def test_files_of_parameters(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    check_parameters_file(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no ros__parameters"),
        (b"# nothing but a comment\n", "has no ros__parameters"),
        (b"face_node: {lazy: true}", "has no ros__parameters"),
        (b"face_node: {ros__parameters: null}", "has no ros__parameters"),
        (b"[ros__parameters]", "has no ros__parameters"),
        (b"face_node: {ros__parameters: {a: [1}}", "is not YAML"),
        (b"face_node:\n\tros__parameters: {}", "is not YAML"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "is not text in UTF-8"),
    ],
)
def test_files_without_parameters(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ScrfdError, match=f"^params_file:={file} {reason}") as info:
        check_parameters_file(file)
    assert "\n" not in str(info.value)


def test_no_file_of_parameters(tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match=r"nowhere.yaml is not there: expected a YAML file"):
        check_parameters_file(tmp_path / "nowhere.yaml")
    with pytest.raises(ScrfdError, match="is not a file: expected a YAML file"):
        check_parameters_file(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_of_parameters(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.touch(mode=0)
    with pytest.raises(ScrfdError, match="cannot be read: Permission denied"):
        check_parameters_file(file)


def test_unknown_arguments_are_refused_with_the_nearest() -> None:
    known = ["detector", "image", "namespace"]
    check_arguments(["detector:=500m", "image:=/a:=b", "launch-prefix:=gdb"], known)
    with pytest.raises(ScrfdError, match=r"no argument detctor: did you mean detector:=\.\.\."):
        check_arguments(["image:=/image", "detctor:=500m"], known)
    with pytest.raises(ScrfdError, match="no argument xyz; there are: detector, image, namespace"):
        check_arguments(["xyz:=1"], known)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["ros2", "launch", "scrfd_ros", "faces.launch.py", "image:=/image"], True),
        (["ros2", "launch", str(FACES)], True),
        (["ros2", "launch", os.path.relpath(FACES)], True),
        (["ros2", "launch", "scrfd_ros", "replay.launch.py"], False),
        (["ros2", "launch", "my_robot", "faces.launch.py"], False),
        (["ros2", "launch", "/other/faces.launch.py", "x:=/scrfd_ros"], False),
        (["launch_test", "test_robot.py"], False),
        ([], False),
    ],
)
def test_which_file_was_launched(command: list[str], expected: bool) -> None:
    assert is_launched(FACES, command) is expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("[]", []),
        ("front", ["front"]),
        ("front,rear", ["front", "rear"]),
        ("[front, rear]", ["front", "rear"]),
        ("['front', \"rear\",]", ["front", "rear"]),
    ],
)
def test_names_of_cameras(text: str, names: list[str]) -> None:
    assert camera_names(text) == names


def test_images() -> None:
    check_image("/camera/image_raw", [])
    check_image("image_raw", ["front"])
    for image in ("", "  "):
        with pytest.raises(ScrfdError, match="image is empty"):
            check_image(image, [])
    with pytest.raises(ScrfdError, match="image:=~/image is one topic, but there are 2 cameras"):
        check_image("~/image", ["front", "rear"])


def test_words_for_true_and_false() -> None:
    assert [boolean("rviz", text) for text in ("true", "True", "false")] == [True, True, False]
    with pytest.raises(ScrfdError, match="rviz:=yes: expected true or false"):
        boolean("rviz", "yes")


def test_log_levels() -> None:
    for level in ("info", "WARN", "face_node:=debug"):
        check_log_level(level)
    for level in ("nonsense", "face_node:=nonsense", ""):
        with pytest.raises(ScrfdError, match=f"log_level:={level}: expected one of: debug, info"):
            check_log_level(level)
