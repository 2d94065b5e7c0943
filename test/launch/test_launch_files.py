"""The launch files start what they say, with the arguments given, under the real launch.

Two programs have stand-ins: RViz 2, which needs a screen, and `ros2 bag play` where it is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from bag_files import raw, write_bag
from harness import TIMEOUT, Harness
from numpy.typing import NDArray

reason = "launch and launch_ros come with an installed ROS 2, no registry package has them"
pytest.importorskip("launch", reason=reason)
pytest.importorskip("launch_ros", reason=reason)

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity  # noqa: E402
from launch.actions import SetLaunchConfiguration  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_ros.actions import Node  # noqa: E402

Pictures = Callable[[str], NDArray[np.uint8]]

ROOT = Path(__file__).parents[2]
SHARE = Path(get_package_share_directory("scrfd_ros"))
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "CYCLONEDDS_URI")
LIGHT = ("detector:=500m", "backend:=onnxruntime")

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
include = IncludeLaunchDescription(source, launch_arguments=arguments)
service = LaunchService(noninteractive=True)  # passes an interrupt on
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

PLAYER = '''
"""Plays a bag's images, as `ros2 bag play BAG --clock` does."""
import sys, time
import rclpy
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image

bag, play, path, clock = sys.argv[1:]
assert (bag, play, clock) == ("bag", "play", "--clock"), sys.argv
rclpy.init()
node = rclpy.create_node("player")
last = None
with Reader(path) as reader:
    publisher = node.create_publisher(Image, reader.connections[0].topic, 10)
    for _, stamp, message in reader.messages():
        time.sleep((stamp - (last or stamp)) / 1e9)
        last = stamp
        publisher.publish(message)
'''

RVIZ = '''
"""Shows the topic of a layout's only display, as `rviz2 -d LAYOUT` does: says its size."""
import sys
import rclpy, yaml
from sensor_msgs.msg import Image

layout = yaml.safe_load(open(sys.argv[sys.argv.index("-d") + 1]))
(display,) = layout["Visualization Manager"]["Displays"]
rclpy.init(args=sys.argv)
node = rclpy.create_node("rviz2")
show = lambda image: print("shown:", image.width, image.height, file=sys.stderr, flush=True)
node.create_subscription(Image, display["Topic"]["Value"], show, 1)
try:
    rclpy.spin(node)
except BaseException:
    pass
'''


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture
def without_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """No profile in the environment; what a launch file puts there is gone afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def description(file: Path | str) -> LaunchDescription:
    source = PythonLaunchDescriptionSource(str(SHARE / "launch" / file))
    return source.get_launch_description(LaunchContext())


def executed(context: LaunchContext, file: Path | str, *arguments: str) -> None:
    """Execute a launch file, but start no node."""

    def execute(entities: Sequence[LaunchDescriptionEntity]) -> None:
        for entity in entities:
            if not isinstance(entity, Node):
                execute(entity.visit(context) or [])

    given = [SetLaunchConfiguration(*argument.split(":=", 1)) for argument in arguments]
    execute([*given, *description(file).entities])


@contextmanager
def launched(folder: Path, file: str, *arguments: str, namespace: str) -> Iterator[Harness]:
    """Launch a file in a process of its own; interrupt it at the end."""
    log = folder / "launch.log"
    command = [sys.executable, "-c", RUN, str(SHARE / "launch" / file), *arguments]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    harness = Harness(namespace, process, log, reliable=True)
    try:
        yield harness
    finally:
        harness.node.destroy_node()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=TIMEOUT)
    assert "[face_node-1]: process has died" not in harness.log(), harness.log()


def program(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}{code}")
    path.chmod(0o755)


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RViz's stand-in, and that of `ros2 bag` where it is missing."""
    program(tmp_path / "lib" / "rviz2" / "rviz2", RVIZ)
    marker = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    marker.parent.mkdir(parents=True)
    marker.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=os.pathsep)
    if (
        not shutil.which("ros2")
        or subprocess.run(["ros2", "bag", "--help"], check=False).returncode
    ):
        program(tmp_path / "bin" / "ros2", PLAYER)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def write_clip(path: Path, picture: NDArray[np.uint8], seconds: int) -> Path:
    """A bag of one picture, twice a second."""
    half_seconds = range(10**9, (seconds + 1) * 10**9, 5 * 10**8)
    return write_bag(path, (raw("/camera/image_raw", stamp, picture) for stamp in half_seconds))


@pytest.mark.parametrize("file", ["faces.launch.py", "replay.launch.py"])
def test_arguments_are_described(file: str) -> None:
    arguments = {
        argument.name: argument.description for argument in description(file).get_launch_arguments()
    }
    expected = {"namespace", "image", "cameras", "params_file", "detector", "recognizer"}
    expected |= {"backend", "transport_profile", "log_level"}
    expected |= {"bag", "rviz"} if file == "replay.launch.py" else set()
    assert set(arguments) == expected
    assert "no description given" not in " ".join(arguments.values()).lower()


def test_documented_commands() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(document.read_text("utf-8") for document in documents)
    commands = re.findall(r"^ros2 launch scrfd_ros (\S+\.launch\.py)(.*)$", text, re.MULTILINE)
    assert {file for file, _ in commands} == {"faces.launch.py", "replay.launch.py"}
    for file, arguments in commands:
        known = {argument.name for argument in description(file).get_launch_arguments()}
        assert set(re.findall(r"(\w+):=", arguments)) <= known, arguments


def test_documented_launch_file_gives_the_driver_the_profile(
    tmp_path: Path, without_profiles: None
) -> None:
    text = (ROOT / "docs" / "bring-up.md").read_text("utf-8")
    file = tmp_path / "robot.launch.py"
    file.write_text(text.split("```python\n")[1].split("```")[0])
    context = LaunchContext()
    executed(context, file)
    assert set(VARIABLES) <= set(context.environment)


@pytest.mark.parametrize(
    ("own", "arguments", "expected"),
    [
        pytest.param({}, [], True, id="none of the user's"),
        pytest.param({VARIABLES[0]: ""}, [], True, id="an empty one is none"),
        pytest.param({}, ["transport_profile:=none"], False, id="not wanted"),
        *(pytest.param({name: "mine.xml"}, [], False, id=name) for name in VARIABLES),
    ],
)
def test_profile_is_set_unless_the_user_has_one(
    monkeypatch: pytest.MonkeyPatch,
    without_profiles: None,
    own: dict[str, str],
    arguments: list[str],
    expected: bool,
) -> None:
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    context = LaunchContext()
    executed(context, "faces.launch.py", *arguments)
    found = {name: context.environment[name] for name in VARIABLES if name in context.environment}
    if expected:
        assert set(found) == set(VARIABLES)
        assert all(Path(value.removeprefix("file://")).is_file() for value in found.values())
    else:
        assert found == own


def test_cameras_of_one_topic_are_refused() -> None:
    with pytest.raises(RuntimeError, match="image:=/image is one topic, but there are 2 cameras"):
        executed(LaunchContext(), "faces.launch.py", "image:=/image", "cameras:=[front, rear]")


def test_arguments_win_over_the_file(tmp_path: Path, picture: Pictures) -> None:
    parameters = tmp_path / "mine.yaml"
    parameters.write_text(
        "/front/face_node:\n"
        "  ros__parameters:\n"
        "    backend: tensorrt\n"
        "    detector: {model: 10g, engine_path: /nowhere.onnx, max_faces: 3}\n"
        "    recognizer: {enabled: false, engine_path: /nowhere.onnx}\n"
    )
    arguments = ("namespace:=front", f"params_file:={parameters}", "recognizer:=w600k_mbf", *LIGHT)
    with launched(tmp_path, "faces.launch.py", *arguments, namespace="/front") as harness:
        detections, faces = harness.ask(picture("t1.jpg"))
        assert len(detections.detections) == 3
        assert all(len(face.embedding) == 512 for face in faces.faces)
    assert "detector scrfd_500m_bnkps.onnx on onnxruntime" in harness.log()


def test_image_topic(tmp_path: Path) -> None:
    arguments = ("image:=/camera/image_raw", "log_level:=debug", *LIGHT)
    with launched(tmp_path, "faces.launch.py", *arguments, namespace="/") as harness:
        harness.wait_for(lambda: "waiting for images" in harness.log(), "an active node")
    assert "waiting for images on /camera/image_raw" in harness.log()
    assert "[DEBUG]" in harness.log()


@pytest.mark.parametrize("cameras", ["[front, rear]", "front,rear"])
def test_cameras(tmp_path: Path, cameras: str) -> None:
    arguments = ("namespace:=robot", "image:=image_raw", f"cameras:={cameras}", *LIGHT)
    with launched(tmp_path, "faces.launch.py", *arguments, namespace="/robot") as harness:
        harness.wait_for(lambda: harness.log().count("waiting for images") == 2, "active cameras")
        for topic in ("front/detections", "rear/detections"):
            harness.wait_for(lambda topic=topic: harness.node.count_publishers(topic) == 1, topic)
    assert "waiting for images on /robot/front/image_raw" in harness.log()
    assert "waiting for images on /robot/rear/image_raw" in harness.log()


@pytest.mark.usefixtures("surroundings")
def test_replay_shows_the_overlay(tmp_path: Path, picture: Pictures) -> None:
    half_size = np.ascontiguousarray(picture("t1.jpg")[::2, ::2])
    bag = write_clip(tmp_path / "bag", half_size, seconds=15)
    arguments = (f"bag:={bag}", "namespace:=front", "image:=/camera/image_raw", *LIGHT)
    with launched(tmp_path, "replay.launch.py", *arguments, namespace="/front") as harness:
        harness.wait_for(
            lambda: bool(harness.detections) and "shown:" in harness.log(), "detections and overlay"
        )
        assert len(harness.detections[0].detections) == 6
        assert harness.detections[0].header.stamp.sec in range(1, 16)  # of the bag
        assert harness.get_parameter("use_sim_time") is True
    height, width = half_size.shape[:2]
    assert f"shown: {width} {height}" in harness.log()


@pytest.mark.usefixtures("surroundings")
def test_replay_without_rviz_ends_with_the_bag(tmp_path: Path, picture: Pictures) -> None:
    bag = write_clip(tmp_path / "bag", picture("t1.jpg")[::4, ::4], seconds=2)
    arguments = (f"bag:={bag}", "rviz:=false", "image:=/camera/image_raw", *LIGHT)
    with launched(tmp_path, "replay.launch.py", *arguments, namespace="/") as harness:
        assert harness.process.wait(timeout=TIMEOUT) == 0, harness.log()
    assert harness.log().index("waiting for images on") < harness.log().index("[ros2-2]")
