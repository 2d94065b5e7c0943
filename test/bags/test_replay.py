# SPDX-License-Identifier: Apache-2.0
"""Every image of a bag is searched, in order, and the results are those of the pipeline."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_files import DELAY, STORAGES, Entry, jpeg, raw, text, write_bag
from numpy.typing import NDArray
from pipelines import loaded
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, Writer

from scrfd_ros.bags.message_types import DETECTION_ARRAY, FACE_ARRAY, TYPES, deserialize
from scrfd_ros.bags.recordings import compare, read_recordings
from scrfd_ros.bags.replay import replay, result_namespaces
from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.images.decoding import decode
from scrfd_ros.messages.faces import faces_of
from scrfd_ros.pipeline import FacePipeline

Load = Callable[..., FacePipeline]
Image = NDArray[np.uint8]

START = 1_700_000_000_000_000_000
FRAME = 33_333_333  # nanoseconds
FRONT, REAR = "/front/image", "/rear/image_raw/compressed"


@pytest.fixture(scope="module")
def load(detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]) -> Load:
    """Loads a pipeline, with or without its recognizer."""

    def load(recognizer: bool = True) -> FacePipeline:
        return loaded(
            detector_path("500m"),
            recognizer_path("w600k_mbf") if recognizer else None,
            backend="onnxruntime",
        )

    return load


@pytest.fixture(scope="module")
def pipeline(load: Load) -> FacePipeline:
    return load()


@pytest.fixture(scope="module")
def people(image: Callable[[str], Image]) -> Image:
    """Six people, 1280x886."""
    return image("t1.jpg")


@pytest.fixture(scope="module")
def clip(people: Image, image: Callable[[str], Image]) -> list[Entry]:
    """Two cameras: raw images of six people, nobody and one person; the last also as JPEG."""
    front = [people, np.zeros((48, 64, 3), np.uint8), image("yaoming.jpg")]
    entries = [raw(FRONT, START + n * FRAME, image) for n, image in enumerate(front)]
    entries += [jpeg(REAR, START + n * FRAME + 5, front[2]) for n in range(2)]
    entries += [text("/rosout", START)]
    return sorted(entries, key=lambda entry: entry.stamp)


@pytest.fixture(scope="module", params=STORAGES)
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bag(clip: list[Entry], storage: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip in both kinds of storage."""
    return write_bag(tmp_path_factory.mktemp("bags") / "bag", clip, storage)


def messages(path: Path) -> list[tuple[str, str, int, Any]]:
    """Topic, type, time and content of each message in a bag."""
    with Reader(path) as reader:
        return [
            (entry.topic, entry.msgtype, time, deserialize(data, entry.msgtype))
            for entry, time, data in reader.messages()
        ]


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def assert_same(found: Faces, expected: Faces) -> None:
    # Messages hold the center and the size of a box, not its corners.
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_array_equal(found.scores, expected.scores)
    if len(expected):
        np.testing.assert_array_equal(found.landmarks, expected.landmarks)
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
        np.testing.assert_array_equal(found.embedding_norms, expected.embedding_norms)


def test_every_image_in_order(
    bag: Path, storage: str, clip: list[Entry], pipeline: FacePipeline, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "out"
    outcomes = replay(bag, output, pipeline, tracking=False).outcomes
    assert {topic: (o.images, o.broken, o.found) for topic, o in outcomes.items()} == {
        FRONT: (3, 0, 7),
        REAR: (2, 0, 2),
    }
    namespaces = {FRONT: "/front", REAR: "/rear"}
    images = [entry for entry in clip if entry.topic in namespaces]
    results = messages(output)
    assert [(topic, kind, time, stamp_of(message)) for topic, kind, time, message in results] == [
        (f"{namespaces[entry.topic]}/{name}", kind, entry.stamp + DELAY, entry.stamp)
        for entry in images
        for name, kind in (("detections", DETECTION_ARRAY), ("faces", FACE_ARRAY))
    ]
    assert pipeline.recognizer is not None
    networks = pipeline.detector.network, pipeline.recognizer.network
    for entry, (_, _, _, detections), (_, _, _, faces) in zip(
        images, results[::2], results[1::2], strict=True
    ):
        sent = deserialize(entry.data, entry.kind)
        if entry.topic == FRONT:
            image = sent.data.reshape(sent.height, sent.width, 3)
        else:
            image = cv2.imdecode(sent.data, cv2.IMREAD_COLOR)
        assert_same(faces_of(faces), pipeline(image).faces)
        assert detections.header == faces.header == sent.header
        assert (faces.detector, faces.recognizer) == tuple(n.name for n in networks)
        assert (faces.detector_sha256, faces.recognizer_sha256) == tuple(n.sha256 for n in networks)
        assert len(detections.detections) == len(faces.faces)
        for detection, face in zip(detections.detections, faces.faces, strict=True):
            kind = detection.__msgtype__
            own = TYPES.serialize_cdr(detection, kind)
            assert own == TYPES.serialize_cdr(face.detection, kind)
            assert detection.header == sent.header
            assert (detection.id, detection.results[0].hypothesis.class_id) == ("", "face")
    with Reader(output) as reader:
        assert {entry.digest for entry in reader.connections} - {""} <= {
            TYPES.hash_rihs01(DETECTION_ARRAY),
            TYPES.hash_rihs01(FACE_ARRAY),
        }
    suffix = {"sqlite3": ".db3", "mcap": ".mcap"}[storage]
    assert {file.name for file in output.iterdir()} == {f"out{suffix}", "metadata.yaml"}
    assert list(output.parent.iterdir()) == [output]  # nothing else is left


def test_two_runs_give_the_same_bytes(bag: Path, load: Load, tmp_path: Path) -> None:
    outputs = [tmp_path / name / "out" for name in ("one", "other")]
    for output in outputs:
        replay(bag, output, load())
    one, other = ({file.name: file.read_bytes() for file in output.iterdir()} for output in outputs)
    assert one == other


def test_faces_keep_their_ids(people: Image, pipeline: FacePipeline, tmp_path: Path) -> None:
    entries = [raw("/image", START + n * FRAME, people) for n in range(3)]
    entries += [raw("/other/image", START + n * FRAME, people[:, :420]) for n in range(3)]
    bag = write_bag(tmp_path / "bag", sorted(entries, key=lambda entry: entry.stamp))
    replay(bag, tmp_path / "out", pipeline)
    ids: dict[str, list[list[str]]] = {"/detections": [], "/other/detections": []}
    for topic, _, _, message in messages(tmp_path / "out"):
        if topic in ids:
            ids[topic].append([detection.id for detection in message.detections])
    for topic, count in (("/detections", 6), ("/other/detections", 2)):
        first, *others = ids[topic]
        assert sorted(first) == [str(number + 1) for number in range(count)]
        assert others == [first, first]


@pytest.mark.parametrize("suffix", ["", ".db3", ".mcap"])
def test_the_file_of_a_bag_is_enough(
    clip: list[Entry], load: Load, suffix: str, tmp_path: Path
) -> None:
    path = write_bag(tmp_path / "bag", clip, "mcap" if suffix == ".mcap" else "sqlite3")
    if suffix:
        path /= f"bag{suffix}"
    outcomes = replay(path, tmp_path / "out", load(recognizer=False), [REAR]).outcomes
    assert outcomes[REAR].found == 2
    assert (tmp_path / "out" / f"out{suffix or '.db3'}").is_file()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_a_bag_may_be_compressed(
    people: Image, load: Load, storage: str, mode: CompressionMode, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=STORAGES[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    topic, kind, stamp, data = raw("/image", START, people)
    with writer:
        writer.write(writer.add_connection(topic, kind, typestore=TYPES), stamp, data)
    outcomes = replay(tmp_path / "bag", tmp_path / "out", load(recognizer=False)).outcomes
    assert outcomes["/image"].found == 6
    assert len(messages(tmp_path / "out")) == 2


def test_without_recognizer_a_jpeg_is_decoded_small_and_found_in_whole(
    people: Image, load: Load, tmp_path: Path
) -> None:
    large = cv2.resize(people, None, fx=2, fy=2)
    bag = write_bag(tmp_path / "bag", [jpeg("/image/compressed", START, large)])
    pipeline = load(recognizer=False)
    replay(bag, tmp_path / "out", pipeline)
    (recording,) = read_recordings(tmp_path / "out").values()
    found, expected = recording.frames[START, 0], pipeline(large).faces
    assert len(found) == len(expected) == 6
    assert np.abs(found.boxes - expected.boxes).max() < 10
    assert found.boxes.max() > people.shape[1]


def test_with_tracking_a_jpeg_is_decoded_whole_only_where_faces_are_due(
    people: Image,
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The image in which the faces are due again cannot be decoded whole: it counts as broken."""
    stamps = [START + FRAME * number for number in (0, 1, 2, 300, 301, 302)]
    topic = "/image/compressed"
    bag = write_bag(tmp_path / "bag", [jpeg(topic, stamp, people) for stamp in stamps])
    decoded: list[str] = []

    def decode_all_but_one(content: bytes, flags: int) -> tuple[Image | None, str]:
        is_reduced = bool(flags & cv2.IMREAD_REDUCED_COLOR_2 & ~cv2.IMREAD_COLOR)
        decoded.append("reduced" if is_reduced else "whole")
        is_broken = decoded.count("reduced") == 4 and not is_reduced  # as if the data was damaged
        return (None, "it is cut short") if is_broken else decode(content, flags)

    monkeypatch.setattr("scrfd_ros.images.compressed.decode", decode_all_but_one)
    outcomes = replay(bag, tmp_path / "out", load()).outcomes
    alone, both = ["reduced"], ["reduced", "whole"]
    assert decoded == both + alone + alone + both + both + alone
    assert (outcomes[topic].images, outcomes[topic].broken) == (6, 1)
    assert "1700000009.999999900: image skipped: image compressed as" in caplog.text
    (recording,) = read_recordings(tmp_path / "out").values()
    first, *others = recording.frames.values()
    assert first.ids is not None and len(first) == 6 and first.boxes.max() > people.shape[1] / 2
    assert all(faces.embedded.all() and len(faces) == 6 for faces in (first, *others))


def test_images_that_are_not_searched_as_a_whole_each_time(
    people: Image, detector_path: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two images a second: with a period of 0.9 s every other one is searched in parts."""
    stamps = [START + 500_000_000 * number for number in range(5)]
    bag = write_bag(tmp_path / "bag", [jpeg("/image/compressed", each, people) for each in stamps])
    pipeline = loaded(detector_path("500m"), backend="onnxruntime", full_look_period=0.9)
    whole = pipeline.detector.plan(640, 443)
    in_parts: list[bool] = []
    detect_all = pipeline.detector.detect_all

    def noted(images: Any, done: Any, plans: Any = None) -> list[Faces]:
        in_parts.append(plans is not None and 0 < plans[0].pixels < whole.pixels)
        return detect_all(images, done, plans)

    pipeline.detector.detect_all = noted  # type: ignore[method-assign]
    replay(bag, tmp_path / "out", pipeline)
    assert in_parts == [False, True, False, True, False]
    (recording,) = read_recordings(tmp_path / "out").values()
    assert [len(faces) for faces in recording.frames.values()] == 5 * [6]


def test_tiles_are_cut_from_the_whole_of_a_jpeg(people: Image, load: Load, tmp_path: Path) -> None:
    large = cv2.resize(people, None, fx=2, fy=2)
    bag = write_bag(tmp_path / "bag", [jpeg("/image/compressed", START, large)])
    pipeline = load(recognizer=False)
    detector = replace(pipeline.config.detector, tiles=(2, 1))
    pipeline.config = replace(pipeline.config, detector=detector)
    sizes = []
    detect_all = pipeline.detector.detect_all
    pipeline.detector.detect_all = lambda images, *others: (  # type: ignore[method-assign]
        sizes.extend(image.shape for image in images) or detect_all(images, *others)
    )
    replay(bag, tmp_path / "out", pipeline)
    assert sizes == [large.shape]


@pytest.mark.parametrize(
    ("topics", "namespaces"),
    [
        (["/image"], [""]),
        (["/camera/image_raw"], ["/camera"]),
        (["/camera/image_raw/compressed"], ["/camera"]),
        (["/front/image", "/rear/image"], ["/front", "/rear"]),
        (["/a/left", "/a/right", "/b/image"], ["/a/left", "/a/right", "/b"]),
        (["/a/image", "/a/image/compressed"], ["/a/image", "/a/image/compressed"]),
        (["/left", "/right"], ["/left", "/right"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_where_results_go(topics: list[str], namespaces: list[str]) -> None:
    assert list(result_namespaces(topics).values()) == namespaces


def test_images_of_one_stamp_are_all_there(people: Image, load: Load, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [raw("/image", 0, image) for image in (people, people[:9])])
    replay(bag, tmp_path / "out", load(recognizer=False), tracking=False)
    (recording,) = read_recordings(tmp_path / "out").values()
    assert {key: len(faces) for key, faces in recording.frames.items()} == {(0, 0): 6, (0, 1): 0}


def test_broken_images_are_told_and_the_next_goes_on(
    people: Image, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = raw("/image", START + 1, people)
    entries = [
        raw("/image", START, people, step=7),
        whole,
        whole._replace(stamp=START + 2, data=whole.data[:1000]),
        whole._replace(stamp=START + 3, data=whole.data[:2]),
        raw("/image", START + 4, people, encoding="32FC1"),
        jpeg("/other/compressed", START + 5, people, keep=0.2),
        jpeg("/other/compressed", START + 6, people, keep=0.9),
        jpeg("/other/compressed", START + 7, people, keep=0.8),
    ]
    with caplog.at_level(logging.WARNING):
        outcomes = replay(
            write_bag(tmp_path / "bag", entries),
            tmp_path / "out",
            load(recognizer=False),
            tracking=False,
        ).outcomes
    assert (outcomes["/image"].images, outcomes["/image"].broken) == (5, 4)
    other = outcomes["/other/compressed"]
    assert (other.images, other.broken, other.damaged) == (3, 1, 2)
    times = [time - DELAY for topic, _, time, _ in messages(tmp_path / "out")]
    assert times == [START + 1, START + 1, START + 6, START + 6, START + 7, START + 7]
    said = [record.getMessage() for record in caplog.records]
    for line, parts in zip(
        said,
        [
            ("/image, stamp 1700000000.000000000: ", "step is 7"),
            ("/image, recorded at 1700000000.005000002: ", "not a whole sensor_msgs/msg/Image"),
            ("/image, recorded at 1700000000.005000003: ", "not a whole sensor_msgs/msg/Image"),
            ("/image, stamp 1700000000.000000004: ", "'32FC1'"),
            ("/other/compressed, stamp 1700000000.000000005: ", "rows are missing; check"),
            ("/other/compressed, stamp 1700000000.000000006: used, but ", "it is cut short"),
        ],
        strict=True,
    ):
        assert line.startswith(parts[0]) and parts[1] in line


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_images_that_lie_are_turned(
    people: Image, load: Load, tmp_path: Path, rotation: int
) -> None:
    lying = np.ascontiguousarray(np.rot90(people, rotation // 90))
    entries = [raw("/a/image", START, lying), jpeg("/b/image/compressed", START, lying)]
    bag = write_bag(tmp_path / "bag", entries)
    outcomes = replay(bag, tmp_path / "out", load(recognizer=False), rotation=rotation).outcomes
    assert {outcome.found for outcome in outcomes.values()} == {6}
    for recording in read_recordings(tmp_path / "out").values():
        ((_, faces),) = recording.frames.items()
        height, width = lying.shape[:2]
        assert (faces.boxes[:, 2:] > faces.boxes[:, :2]).all()
        assert (faces.centers > 0).all() and (faces.centers < (width, height)).all()


@pytest.mark.parametrize(
    ("entries", "topics", "words"),
    [
        ([text("/chat", 1)], [], r"there are no images; .* found /chat \(std_msgs/msg/String\)"),
        ([], [], "there are no images; .* found no topics"),
        (None, ["/front/imag"], "no images on /front/imag; .*/front/image .*CompressedImage"),
        (None, ["/rosout"], "no images on /rosout; expected topics of the type sensor_msgs"),
        (None, [FRONT, "/a", "/b"], "no images on /a, /b; "),
    ],
    ids=["no image topics", "no topics", "unknown topic", "topic of text", "two unknown topics"],
)
def test_topics_without_images_are_refused(
    clip: list[Entry],
    pipeline: FacePipeline,
    entries: list[Entry] | None,
    topics: list[str],
    words: str,
    tmp_path: Path,
) -> None:
    bag = write_bag(tmp_path / "bag", clip if entries is None else entries)
    with pytest.raises(ScrfdError, match=words):
        replay(bag, tmp_path / "out", pipeline, topics)
    assert list(tmp_path.iterdir()) == [bag]


def test_a_topic_on_which_nothing_came_is_refused(pipeline: FacePipeline, tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=8) as writer:
        writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=TYPES)
    with pytest.raises(ScrfdError, match=r"there are no images; .*/image \(.*: no messages\)"):
        replay(tmp_path / "bag", tmp_path / "out", pipeline)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "folder: exists already"),
        ("file", "file: exists already"),
        ("file/out", "file/out: cannot write the bag: .*"),
    ],
)
def test_nothing_is_overwritten(
    clip: list[Entry], pipeline: FacePipeline, name: str, words: str, tmp_path: Path
) -> None:
    bag = write_bag(tmp_path / "bag", clip)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("content")
    with pytest.raises(ScrfdError, match=words):
        replay(bag, tmp_path / name, pipeline)
    assert (tmp_path / "file").read_text() == "content"
    assert list((tmp_path / "folder").iterdir()) == []


WITHOUT = """
import sys
for name in {missing}:
    sys.modules[name] = None  # importing it fails
from scrfd_ros.cli.main import main
from scrfd_ros.images.decoding import decode
sys.exit(main(sys.argv[1:]))
"""


def without(missing: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line without these modules."""
    command = [sys.executable, "-c", WITHOUT.format(missing=missing), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_ros_is_not_needed(clip: list[Entry], tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", clip)
    modules = ["rclpy", "ament_index_python", "scrfd_ros.msg", "sensor_msgs", "vision_msgs"]
    options = ["--topic", FRONT, "--detector", "500m", "--recognizer", "none"]
    result = without(modules, "replay", bag, "--output", tmp_path / "out", *options)
    assert result.returncode == 0, result.stderr
    assert len(messages(tmp_path / "out")) == 6


def test_without_rosbags_it_is_told_what_to_install(tmp_path: Path) -> None:
    result = without(["rosbags"], "replay", tmp_path, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.startswith("scrfd: error: ")
    assert "pip install rosbags" in result.stderr
    assert without(["rosbags"], "detect", "--help").returncode == 0


def test_a_bag_without_stamps(
    pipeline: FacePipeline, people: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids depend on the times of recording, and are the same in every replay."""
    entries = [raw(FRONT, 0, people)._replace(stamp=START + n * FRAME) for n in range(5)]
    path = write_bag(tmp_path / "bag", entries)
    for name in ("one", "other"):
        caplog.clear()
        replay(path, tmp_path / name, pipeline)
        (said,) = caplog.messages
        assert said.startswith(
            f"{FRONT}: header.stamp is 0: faces are tracked by the arrival times"
        )
    found = [content for _, kind, _, content in messages(tmp_path / "one") if kind == FACE_ARRAY]
    assert len(found) == 5
    for content in found:
        assert stamp_of(content) == 0, "the image's own"
        assert sorted(int(face.detection.id) for face in content.faces) == [1, 2, 3, 4, 5, 6]
    one, other = (sorted((tmp_path / name).glob("*.db3")) for name in ("one", "other"))
    assert [records(path) for path in one] == [records(path) for path in other]


def records(path: Path) -> list[tuple[str, int, bytes]]:
    """The messages of a file, byte by byte."""
    with Reader(path) as reader:
        return [(entry.topic, time, bytes(data)) for entry, time, data in reader.messages()]


def test_comparing_images_of_one_stamp_of_which_some_were_left_out(
    pipeline: FacePipeline, people: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = []
    for count in (3, 2):
        entries = [raw(FRONT, 0, people)._replace(stamp=START + n * FRAME) for n in range(count)]
        path = write_bag(tmp_path / f"bag{count}", entries)
        replay(path, tmp_path / f"out{count}", pipeline, tracking=False)
        recordings.append(read_recordings(tmp_path / f"out{count}"))
    caplog.clear()
    compare(recordings[0], recordings[0])
    assert not caplog.messages
    compare(*recordings)
    (said,) = caplog.messages
    assert said.startswith("/front/faces: 3 images here and 2 there have the stamp 0.000000000")
