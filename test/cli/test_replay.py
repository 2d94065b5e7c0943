# SPDX-License-Identifier: Apache-2.0
"""`scrfd replay` writes the faces of a bag; its exit status says whether they have changed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import DELAY, Entry, jpeg, raw, text, write_bag, write_mcap
from numpy.typing import NDArray
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from scrfd_ros.bags.message_types import FACE_ARRAY, TYPES, deserialize
from scrfd_ros.cli import replay
from scrfd_ros.cli.main import main

Image = NDArray[np.uint8]
Run = Callable[..., tuple[int, str, str]]

START = 1_700_000_000_000_000_000
TOPIC = "/camera/faces"


@pytest.fixture(scope="module")
def entries(image: Callable[[str], Image]) -> list[Entry]:
    """Two people, nobody, and the same two people."""
    people = image("t1.jpg")[:, :420]
    return [
        raw("/camera/image_raw", START, people),
        raw("/camera/image_raw", START + 1000, np.zeros((48, 64, 3), np.uint8)),
        raw("/camera/image_raw", START + 2000, people),
    ]


@pytest.fixture(scope="module")
def bag(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "bag", entries)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command; returns its exit status and output."""

    def run(bag: Path, *options: object, output: str = "out") -> tuple[int, str, str]:
        command = ["replay", bag, "--output", tmp_path / output, "--backend", "onnxruntime"]
        command += [] if "--detector" in options else ["--detector", "500m"]
        capsys.readouterr()
        status = main([str(word) for word in [*command, *options]])
        printed = capsys.readouterr()
        assert all(len(line) <= 80 or str(tmp_path) in line for line in printed.out.splitlines())
        return status, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def golden(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "golden"
    options = ["--output", str(path), "--detector", "500m", "--backend", "onnxruntime"]
    assert main(["replay", str(bag), *options]) == 0
    return path


def changed(golden: Path, path: Path, change: Callable[[Any], None], topic: str = TOPIC) -> Path:
    """A copy of the faces of a bag; those of the first image are changed."""
    with Reader(golden) as reader, Writer(path, version=8) as writer:
        output = writer.add_connection(topic, FACE_ARRAY, typestore=TYPES)
        faces = [entry for entry in reader.connections if entry.topic == TOPIC]
        for number, (_, time, data) in enumerate(reader.messages(faces)):
            message = deserialize(data, FACE_ARRAY)
            if number == 0:
                change(message)
            writer.write(output, time, TYPES.serialize_cdr(message, FACE_ARRAY))
    return path


def nothing(message: Any) -> None:
    pass


def move_a_box(message: Any) -> None:
    message.faces[0].detection.bbox.center.position.x += 10.0


def remove_a_face(message: Any) -> None:
    del message.faces[0]


def take_anothers_embedding(message: Any) -> None:
    message.faces[0].embedding = message.faces[1].embedding


def change_the_stamp(message: Any) -> None:
    message.header.stamp.nanosec += 1


def test_it_says_what_it_found(bag: Path, run: Run, tmp_path: Path) -> None:
    status, out, err = run(bag, "--recognizer", "none", "--input-size", "640x640")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "/camera/image_raw: 3 images, 0 broken, 4 faces",
        "  /camera/detections",
        "  /camera/faces",
        f"written to {tmp_path / 'out'}",
    ]
    assert (tmp_path / "out" / "out.db3").is_file()


def test_a_broken_image_is_told_by_the_status(
    entries: list[Entry], run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [*entries, jpeg("/b/image", START, np.zeros((9, 9, 3), np.uint8), keep=0.1)]
    bag = write_bag(tmp_path / "broken", broken, "mcap")
    status, out, _ = run(bag, "--recognizer", "none")
    assert status == 1
    assert "/b/image: 1 images, 1 broken, 0 faces" in out
    assert "/b/image, stamp 1700000000.000000000: image skipped" in caplog.text
    assert (tmp_path / "out" / "out.mcap").is_file()
    # The broken image is on another topic.
    assert run(bag, "--recognizer", "none", "--topic", "/camera/image_raw", output="2")[0] == 0


def depth(stamp: int) -> Entry:
    """A depth image in the namespace of the camera."""
    return raw("/camera/depth", stamp, np.zeros((9, 9, 3), np.uint8), encoding="16UC1", step=27)


def test_depth_is_left_alone_and_changes_nothing(
    entries: list[Entry], run: Run, tmp_path: Path
) -> None:
    bag = write_mcap(tmp_path / "a.mcap", [*entries, *(depth(START + n) for n in range(20))])
    status, out, err = run(bag, "--recognizer", "none")
    assert (status, err) == (0, "")
    assert out.splitlines()[:4] == [
        "/camera/image_raw: 3 images, 0 broken, 4 faces",
        "  /camera/detections",
        "  /camera/faces",
        "left alone: /camera/depth: depth (16UC1)",
    ]


def test_an_mcap_file_without_message_index_is_read(
    entries: list[Entry], run: Run, tmp_path: Path
) -> None:
    bag = write_mcap(tmp_path / "a.mcap", entries, message_index=False)
    status, out, _ = run(bag, "--recognizer", "none")
    assert (status, out.splitlines()[0]) == (0, "/camera/image_raw: 3 images, 0 broken, 4 faces")


@pytest.mark.parametrize("claimed", [0, 2, 2**40])
def test_a_count_that_lies_is_told_and_changes_nothing(
    claimed: int, entries: list[Entry], run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_mcap(tmp_path / "a.mcap", entries, claimed=claimed)
    status, out, _ = run(bag, "--recognizer", "none")
    assert (status, out.splitlines()[0]) == (0, "/camera/image_raw: 3 images, 0 broken, 4 faces")
    if claimed > 3:
        assert f"claims {claimed} messages, but contains 3" in caplog.text


def test_nothing_that_can_be_read_is_no_success(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_mcap(tmp_path / "a.mcap", [depth(START + n) for n in range(20)])
    status, out, err = run(bag, "--recognizer", "none", "--topic", "/camera/depth")
    assert (status, out) == (2, "")
    assert err.strip().endswith("none of the 20 images on /camera/depth can be read")
    assert not (tmp_path / "out").exists()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 6
    assert said[-1] == "/camera/depth: further skipped images are only counted"


@pytest.mark.parametrize("damage", ["hole", "cut", "missing file"])
def test_of_a_damaged_bag_the_rest_is_written_and_the_status_tells(
    damage: str,
    entries: list[Entry],
    golden: Path,
    run: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bag = write_bag(tmp_path / "bag", entries, "mcap")
    file = bag / "bag.mcap"
    content = bytearray(file.read_bytes())
    first = content.index(entries[1].data)
    if damage == "hole":
        content[first - 100 : first + 100] = b"\xff" * 200
    elif damage == "cut":
        content = content[: first + len(entries[1].data) + 100]
    else:
        text_of = (bag / "metadata.yaml").read_text()
        added = text_of.replace("  - bag.mcap\n", "  - bag.mcap\n  - bag_1.mcap\n", 1)
        (bag / "metadata.yaml").write_text(added)
    file.write_bytes(content)
    status, out, _ = run(bag, "--compare", golden)
    assert status == 1
    counts = {"hole": "2 images, 0 broken, 1 lost", "cut": "2 images, 0 broken, 1 lost"}
    assert f"/camera/image_raw: {counts.get(damage, '3 images, 0 broken')}" in out
    assert "the bag is damaged, see above" in out
    remedy = "copy the whole folder again" if damage == "missing file" else "mcap recover"
    assert any(remedy in record.getMessage() for record in caplog.records)
    with Reader(tmp_path / "out") as reader:
        assert reader.message_count == (6 if damage == "missing file" else 4)
        times = {time - DELAY for _, time, _ in reader.messages()}
    assert START in times and times <= {entry.stamp for entry in entries}


def test_the_same_again_is_equal(bag: Path, golden: Path, run: Run) -> None:
    status, out, _ = run(bag, "--compare", golden)
    assert status == 0
    heading, columns, topic, figures = out.splitlines()[-4:]
    assert heading.split() == ["frames", "faces", "worst", "of", "those", "in", "both"]
    assert len(columns.split()) == len(figures.split()) == 10
    assert topic == "/camera/faces: equal"
    assert figures.split() == [*"300400", "1.0000", "0.0000", "0.0000", "0.0000"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (move_a_box, "min iou: 0."),
        (remove_a_face, "extra faces: 1, expected at most 0"),
        (take_anothers_embedding, "max embedding distance: "),
        (change_the_stamp, "missing frames: 1, expected at most 0"),
    ],
)
def test_a_difference_is_told_by_the_status(
    bag: Path, golden: Path, change: Callable[[Any], None], words: str, run: Run, tmp_path: Path
) -> None:
    status, out, _ = run(bag, "--compare", changed(golden, tmp_path / "changed", change))
    assert status == 1
    assert "/camera/faces: different" in out
    assert words in out
    ones = "000000001" if change is change_the_stamp else "000000000"
    assert out.endswith(f"first in the image of stamp 1700000000.{ones}\n")


def test_another_machine_may_differ_by_more(
    bag: Path, golden: Path, run: Run, tmp_path: Path
) -> None:
    def shift(message: Any) -> None:
        message.faces[0].detection.bbox.center.position.x += 1.5

    options = ["--compare", changed(golden, tmp_path / "changed", shift)]
    status, out, _ = run(bag, *options, output="strict")
    assert status == 1 and "min iou: 0.9" in out
    status, out, _ = run(bag, *options, "--tolerance", "another-machine")
    assert status == 0 and "/camera/faces: equal" in out


def test_other_models_are_named(bag: Path, golden: Path, run: Run) -> None:
    status, out, _ = run(bag, "--compare", golden, "--detector", "2.5g")
    assert status == 1
    said = " ".join(out.split())
    assert "made by different models: scrfd_2.5g_bnkps + w600k_mbf against scrfd_500m_bnkps" in said


def test_one_topic_is_held_against_one_of_another_name(
    bag: Path, golden: Path, run: Run, tmp_path: Path
) -> None:
    other = changed(golden, tmp_path / "other", nothing, "/robot/faces")
    status, out, _ = run(bag, "--compare", other)
    assert status == 0
    assert "/robot/faces: equal" in out


def test_a_topic_that_is_not_replayed_is_a_difference(
    golden: Path, run: Run, entries: list[Entry], tmp_path: Path
) -> None:
    others = [entry._replace(topic=f"/{name}/image") for entry in entries[:1] for name in "ab"]
    status, out, _ = run(write_bag(tmp_path / "others", others), "--compare", golden)
    assert status == 1
    assert "frames: 0, expected at least 1" in out and "missing frames: 3" in out


def other_version(path: Path) -> Path:
    with Writer(path, version=8) as writer:
        definition, _ = TYPES.generate_msgdef(FACE_ARRAY, ros_version=2)
        writer.add_connection(TOPIC, FACE_ARRAY, msgdef=definition, rihs01="RIHS01_" + 64 * "0")
    return path


def damaged(path: Path) -> Path:
    with Writer(path, version=8) as writer:
        writer.write(writer.add_connection(TOPIC, FACE_ARRAY, typestore=TYPES), 1, b"\0\1\0\0abc")
    return path


def no_frames(path: Path) -> Path:
    with Writer(path, version=8) as writer:
        writer.add_connection(TOPIC, FACE_ARRAY, typestore=TYPES)
    return path


def interrupted(path: Path) -> Path:
    """A recording of faces whose end is missing."""
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        message = TYPES.types[FACE_ARRAY](
            header=TYPES.types["std_msgs/msg/Header"](
                stamp=TYPES.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id=""
            ),
            detector="",
            detector_sha256="",
            recognizer="",
            recognizer_sha256="",
            faces=[],
        )
        topic = writer.add_connection(TOPIC, FACE_ARRAY, typestore=TYPES)
        writer.write(topic, 1, TYPES.serialize_cdr(message, FACE_ARRAY))
    file = path / "golden.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b"\x0f\x04\0\0\0\0\0\0\0")])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_frames, "there is no message on /camera/faces to compare with"),
        (interrupted, "it has no end: the recording was interrupted"),
        (lambda path: path, "cannot be read: No such file or directory"),
        (lambda path: write_bag(path, [text("/a", 1)]), "no topic of the type scrfd_ros/msg/FaceA"),
        (other_version, "another version of scrfd_ros"),
        (damaged, "/camera/faces: not a whole scrfd_ros/msg/FaceArray"),
    ],
    ids=["no frames", "interrupted", "missing", "no faces", "another version", "damaged"],
)
def test_a_golden_bag_that_cannot_be_used_is_refused_first(
    bag: Path, make: Callable[[Path], Path], words: str, run: Run, tmp_path: Path
) -> None:
    status, out, err = run(bag, "--compare", make(tmp_path / "golden"))
    assert (status, out) == (2, "")
    assert err.startswith(f"scrfd: error: {tmp_path / 'golden'}") and words in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topic", "/camera/image"], "there are no images on /camera/image; expected"),
        (["--detector", "600m"], "600m"),
        (["--tolerance", "another-machine"], "--tolerance is for --compare"),
    ],
    ids=["unknown topic", "unknown model", "nothing to compare with"],
)
def test_bad_input_is_refused(
    bag: Path, options: list[str], words: str, run: Run, tmp_path: Path
) -> None:
    status, _, err = run(bag, *options)
    assert status == 2
    assert err.startswith("scrfd: error: ") and words in err
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_refused_first(bag: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    status, _, err = run(bag, "--detector", "none.onnx")
    assert status == 2
    assert "out: exists already; give another path, or remove it" in err


def test_help_is_complete() -> None:
    parser = argparse.ArgumentParser(prog="scrfd replay", description=replay.__doc__)
    replay.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    for words in ("/camera/detections and /camera/faces", "Exit status: 0 if", "--compare GOLDEN"):
        assert words in text
