# SPDX-License-Identifier: Apache-2.0
"""Unused arguments and parameters are reported with the nearest name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scrfd_ros.node.unused_arguments import (
    bad_params_file,
    for_other_nodes,
    ignored_arguments,
    unused_parameters,
)

CONFIG = Path(__file__).parents[2] / "config" / "faces.yaml"
NODE = "/face_node"


def flat(parameters: dict[str, object], above: str = "") -> Iterator[str]:
    for key, value in parameters.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


KNOWN = list(flat(yaml.safe_load(CONFIG.read_text("utf-8"))["/**"]["ros__parameters"]))
QOS = [
    f"qos_overrides.{topic}.{policy}"
    for topic in ("/image.subscription", "/faces.publisher", "/front/image.subscription")
    for policy in ("depth", "history", "reliability")
]


def misspellings(name: str) -> set[str]:
    """A letter of the last part left out, doubled, or swapped with the next; other spellings."""
    section, dot, last = name.rpartition(".")
    middle = len(last) // 2
    spelled = {
        last[:middle] + last[middle + 1 :],
        last[:middle] + 2 * last[middle] + last[middle + 1 :],
        last[: middle - 1] + last[middle] + last[middle - 1] + last[middle + 1 :],
        last + "s",
        last.upper(),
    }
    whole = {f"{section}{dot}{one}" for one in spelled} | {name.replace(".", "_")}
    return (whole | ({last} if "_" in last else set())) - set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_each_parameter_misspelled_is_told_with_its_name(name: str) -> None:
    for given in misspellings(name):
        (sentence,) = unused_parameters([given, *KNOWN], KNOWN)
        assert given in sentence
        meant = sentence.rpartition("did you mean ")[2].removesuffix("?")
        # detector.engine_path and recognizer.engine_path end alike: the section is what tells.
        assert meant == name or meant.rpartition(".")[2] == given, sentence


def test_what_is_known_is_not_told() -> None:
    foreign = ["use_sim_time", "start_type_description_service"]
    assert unused_parameters([*KNOWN, *QOS, *foreign], [*KNOWN, *QOS]) == []


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("qos_overrides./imag.subscription.depth", "mean qos_overrides./image.subscription.depth"),
        ("qos_overrides.image.subscription.depth", "mean qos_overrides./image.subscription.depth"),
        ("qos_overrides./image.publisher.depth", "mean qos_overrides./image.subscription.depth"),
        ("qos_overrides./image.subscription.durability", "are depth, history, reliability"),
        ("qos_overrides./image.subscription_x.depth", "are depth, history, reliability"),
        ("robot_description", "no parameter has this name or a similar one"),
    ],
)
def test_hints(given: str, hint: str) -> None:
    (sentence,) = unused_parameters([given], [*KNOWN, *QOS])
    assert hint in sentence


def arguments(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return ["--ros-args", "--params-file", str(path)]


BLOCK = "{ros__parameters: {lazy: true}}"


@pytest.mark.parametrize(
    ("text", "node", "told"),
    [
        (f"face_nod: {BLOCK}", NODE, "below face_nod is not used: this node is /face_node"),
        (f"faceNode: {BLOCK}", NODE, "below faceNode is not used"),
        (f"camera: {BLOCK}", NODE, "is for camera: nothing of it is used"),
        (f"robot: {{camera: {BLOCK}}}", NODE, "is for robot/camera"),
        (f"face_node: {BLOCK}", "/robot/face_node", "write /robot/face_node or /** instead"),
        (f"/**: {BLOCK}\nface_nod: {BLOCK}", NODE, "below face_nod is not used"),
        ("", NODE, "is empty: nothing of it is used"),
        ("# only a remark", NODE, "is empty"),
        (f"camera: {BLOCK}\nface_node: {BLOCK}", NODE, None),
        (f"robot: {{face_node: {BLOCK}}}\nface_node: {BLOCK}", NODE, None),
        (f"camera: {BLOCK}\n/**: {BLOCK}", NODE, None),
        (f"robot: {{face_node: {BLOCK}}}", "/robot/face_node", None),
        (f"/robot/face_node: {BLOCK}", "/robot/face_node", None),
        (f"/*/face_node: {BLOCK}", "/robot/face_node", None),
        (f"/**/face_node: {BLOCK}", "/face_node", None),
    ],
)
def test_files_for_other_nodes(tmp_path: Path, text: str, node: str, told: str | None) -> None:
    given = arguments(tmp_path / "file.yaml", text)
    assert bad_params_file(given) is None
    sentences = for_other_nodes(given, node)
    if told is None:
        assert sentences == []
    else:
        (sentence,) = sentences
        assert told in sentence


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("face_node: {detector: {model: 500m}}", "has no ros__parameters with parameters below"),
        ("face_node: {ros_parameters: {lazy: true}}", "has no ros__parameters"),
        ("detector.model: 500m", "has no ros__parameters"),
        ("face_node: {ros__parameters: }", "has no ros__parameters with parameters"),
        ("face_node: {ros__parameters: [lazy]}", "has no ros__parameters with parameters"),
        ("- lazy", "holds no names of nodes"),
        ("lazy", "holds no names of nodes"),
        ("face_node: [", "is not YAML"),
        ("\tface_node: 1", "is not YAML"),
        ("\udcff\udcfe", "not text in UTF-8"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    complained = bad_params_file(["--ros-args", "--params-file", str(path)])
    assert complained is not None
    assert complaint in complained
    assert "\n" not in complained


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nowhere", "No such file"), (tmp_path, "Is a directory")):
        complained = bad_params_file(["--ros-args", "--params-file", str(path)])
        assert complained is not None
        assert f"{path} cannot be read: {reason}" in complained


def test_the_projects_own_file_is_for_any_name() -> None:
    given = ["--ros-args", "--params-file", str(CONFIG)]
    assert bad_params_file(given) is None
    assert for_other_nodes(given, "/robot/another_name") == []


def test_parameters_of_the_command_line_for_other_nodes() -> None:
    given = ["--ros-args", "-p", "camera:lazy:=true", "-p", "face_node:hri:=true", "-p", "a:=b:c"]
    (sentence,) = for_other_nodes(given, NODE)
    assert "lazy is for camera" in sentence


def test_arguments_that_nobody_reads() -> None:
    assert ignored_arguments(["a:=1", "--ros-args", "-p", "b:=2", "--", "_c:=3"]) == [
        "a:=1",
        "_c:=3",
    ]
    assert ignored_arguments(["--ros-args", "-p", "b:=2"]) == []
