# SPDX-License-Identifier: Apache-2.0
"""play_bag and the real node: no image of a bag is missed, and problems are reported.

If `ros2 bag play` is missing, bag_player.py stands in for it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bag_player
import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_prefix
from bag_files import TYPES, Entry, jpeg, raw, write_bag
from harness import TIMEOUT, Harness, image_counts, running_face_node
from numpy.typing import NDArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node import play_bag

Images = Callable[[str], NDArray[np.uint8]]

LIGHT = {
    "detector.model": "500m",
    "detector.input_size": [320, 320],
    "recognizer.enabled": False,
    "backend": "onnxruntime",
    "use_sim_time": True,
}
TOPIC = "/camera/image_raw"
ARGUMENTS = ("-r", f"image:={TOPIC}")
IMAGES = 8


@pytest.fixture(autouse=True)
def player(
    tmp_path: Path, node_finds_optional_messages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag_player.install_if_missing(tmp_path / "bin", monkeypatch)


@pytest.fixture
def bag(tmp_path: Path, image: Images) -> Path:
    small = np.ascontiguousarray(image("t1.jpg")[::4, ::4])
    return write_bag(tmp_path / "bag", images(small))


def images(image: NDArray[np.uint8]) -> Iterator[Entry]:
    """One image, twice a second."""
    return (raw(TOPIC, 10**9 + i * 5 * 10**8, image) for i in range(IMAGES))


@contextmanager
def playing(bag: Path, node: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(get_package_prefix("scrfd_ros"), "lib", "scrfd_ros", "play_bag"))]
    with subprocess.Popen(
        [*command, str(bag), "--node", node],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def name_of(harness: Harness) -> str:
    return f"{harness.node.get_namespace()}/face_node"


def played(harness: Harness, bag: Path) -> tuple[int, str]:
    """Play a bag to its end: exit status, what was said."""
    with playing(bag, name_of(harness)) as process:
        said, _ = process.communicate(timeout=2 * TIMEOUT)
    return process.returncode, said


@pytest.mark.parametrize("lazy", [False, True])
def test_every_image_is_seen(tmp_path: Path, bag: Path, lazy: bool) -> None:
    # Nobody but play_bag wants results, so a lazy node takes images only because of it.
    with running_face_node(tmp_path, LIGHT | {"lazy": lazy}, arguments=ARGUMENTS) as harness:
        if lazy:
            for subscription in list(harness.node.subscriptions):
                harness.node.destroy_subscription(subscription)
        status, said = played(harness, bag)
    assert status == 0, said
    (counts,) = image_counts(harness.log())
    assert counts.handled + counts.dropped == IMAGES  # a busy machine drops some, but misses none
    assert (counts.skipped, counts.lost) == (0, 0)


def test_only_images_are_played(tmp_path: Path, image: Images) -> None:
    small = np.ascontiguousarray(image("t1.jpg")[::4, ::4])
    clock = TYPES.types["rosgraph_msgs/msg/Clock"]
    time = TYPES.types["builtin_interfaces/msg/Time"]
    cdr = TYPES.serialize_cdr(clock(clock=time(sec=1000, nanosec=0)), clock.__msgtype__)
    entries: Iterable[Entry] = [
        *images(small),
        *(("/clock", clock.__msgtype__, 10**9 + i, bytes(cdr)) for i in range(3)),
        raw("/overlay", 10**9, small),
    ]
    bag = write_bag(tmp_path / "bag", entries)
    times: list[int] = []
    with running_face_node(tmp_path, LIGHT, arguments=ARGUMENTS) as harness:
        harness.node.create_subscription(Clock, "/clock", lambda m: times.append(m.clock.sec), 100)
        harness.node.create_subscription(Image, "/overlay", lambda _: times.append(-1), 100)
        with playing(bag, name_of(harness)) as process:
            harness.wait_for(lambda: process.poll() is not None, "the end of the bag")
            assert process.stdout is not None
            assert f"playing {TOPIC}; nothing else" in process.stdout.read()
    assert times
    assert set(times) <= set(range(1, 1 + IMAGES))  # of the player's clock, not the bag's


def test_a_bag_without_the_topic(tmp_path: Path, bag: Path) -> None:
    with running_face_node(tmp_path, LIGHT) as harness:
        status, said = played(harness, bag)
        expected = f"expects {harness.node.get_namespace()}/image (sensor_msgs/msg/Image); images"
    assert status == 1, said
    assert expected in said
    assert f"{TOPIC} (sensor_msgs/msg/Image)" in said


def test_a_bag_without_the_topic_and_without_metadata(tmp_path: Path, bag: Path) -> None:
    (bag / "metadata.yaml").unlink()
    with running_face_node(tmp_path, LIGHT) as harness:
        status, said = played(harness, next(bag.glob("*.db3")))
    assert status == 1, said


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000], ids=["empty", "cut off", "nested"])
def test_metadata_that_cannot_be_used_is_left_to_the_player(text: str, bag: Path) -> None:
    assert play_bag.image_topics(bag) == {TOPIC: "sensor_msgs/msg/Image"}
    (bag / "metadata.yaml").write_text(text)
    assert play_bag.image_topics(bag) is None


def test_compressed_images_of_a_raw_topic(tmp_path: Path, image: Images) -> None:
    entries = [jpeg(TOPIC, 10**9, image("t1.jpg"))]
    bag = write_bag(tmp_path / "bag", entries)
    with running_face_node(tmp_path, LIGHT, arguments=ARGUMENTS) as harness:
        status, said = played(harness, bag)
    assert status == 1, said
    assert f"images of the bag: {TOPIC} (sensor_msgs/msg/CompressedImage)" in said


def test_a_node_that_cannot_configure(tmp_path: Path, bag: Path) -> None:
    parameters = LIGHT | {"model_directory": tmp_path / "nowhere", "detector.model": "34g"}
    with running_face_node(tmp_path, parameters) as harness:
        status, said = played(harness, bag)
    assert status == 1, said
    assert "/face_node is unconfigured: its log above says why" in said


def test_a_node_that_waits_to_be_configured(tmp_path: Path, bag: Path) -> None:
    with (
        running_face_node(tmp_path, LIGHT | {"autostart": False}, arguments=ARGUMENTS) as harness,
        playing(bag, name_of(harness)) as process,
    ):
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("waiting until it is active" in line for line in lines)
        assert harness.change_state("configure")
        assert harness.change_state("activate")
        assert process.wait(2 * TIMEOUT) == 0
    assert "images: 0 handled" not in harness.log()


def test_another_clock(tmp_path: Path, bag: Path) -> None:
    with running_face_node(tmp_path, LIGHT, arguments=ARGUMENTS) as harness:
        harness.node.create_publisher(Clock, "/clock", 1)
        status, said = played(harness, bag)
    assert status == 1, said
    assert "harness publishes /clock too" in said


def test_a_clock_whose_publisher_has_no_name_yet_is_the_players(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = play_bag._Session.__new__(play_bag._Session)
    names = ["_NODE_NAME_UNKNOWN_", play_bag.PLAYER]
    monkeypatch.setattr(session, "publishers", lambda topic: names)
    assert not session.check_clocks()
    names[0] = "simulator"
    with pytest.raises(ScrfdError, match="simulator publishes /clock too"):
        session.check_clocks()


def test_a_broken_bag(tmp_path: Path, bag: Path) -> None:
    (database,) = bag.glob("*.db3")
    database.write_bytes(b"nonsense")
    with running_face_node(tmp_path, LIGHT, arguments=ARGUMENTS) as harness:
        status, said = played(harness, bag)
    assert status == 1, said
    assert "`ros2 bag play` ended with status 1" in said


@pytest.mark.parametrize("arguments", [["nowhere"], []])
def test_no_bag(arguments: Sequence[str]) -> None:
    command = Path(get_package_prefix("scrfd_ros"), "lib", "scrfd_ros", "play_bag")
    result = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert re.search("there is no bag nowhere|arguments are required: BAG", result.stderr)


@pytest.mark.parametrize("moment", ["waiting", "playing"])
def test_a_signal_ends_it_and_the_player(tmp_path: Path, bag: Path, moment: str) -> None:
    with running_face_node(tmp_path, LIGHT, arguments=ARGUMENTS) as harness:
        node = name_of(harness) if moment == "playing" else "/nobody"
        with playing(bag, node) as process:
            if moment == "playing":
                harness.wait_for(lambda: bool(harness.detections), "detections")
            else:
                assert process.stdout is not None
                assert "is not there yet" in process.stdout.readline()
            process.terminate()
            assert process.wait(TIMEOUT) == 0
        if moment == "playing":
            harness.wait_for(
                lambda: not harness.node.get_publishers_info_by_topic("/clock"), "no player"
            )
    assert rclpy.ok()
