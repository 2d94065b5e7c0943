# SPDX-License-Identifier: Apache-2.0
"""The launch files start what they say, with the arguments given, under the real launch.

Two programs have stand-ins: RViz 2, which needs a screen, and `ros2 bag play` where it is missing,
see bag_player.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bag_player
import numpy as np
import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from bag_files import raw, write_bag
from harness import TIMEOUT, Harness, image_counts
from message_packages import make_importable
from numpy.typing import NDArray

from scrfd_ros.errors import ScrfdError

reason = "launch and launch_ros come with an installed ROS 2, no registry package has them"
pytest.importorskip("launch", reason=reason)
pytest.importorskip("launch_ros", reason=reason)

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity  # noqa: E402
from launch.actions import SetLaunchConfiguration  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_ros.actions import Node  # noqa: E402

Images = Callable[[str], NDArray[np.uint8]]

ROOT = Path(__file__).parents[2]
SHARE = Path(get_package_share_directory("scrfd_ros"))
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "CYCLONEDDS_URI")
LIGHT = ("detector:=500m", "backend:=onnxruntime")


@pytest.fixture(autouse=True)
def models(detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]) -> None:
    """The models that the launched nodes load, downloaded if missing."""
    detector_path("500m")
    recognizer_path("w600k_mbf")


RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
include = IncludeLaunchDescription(source, launch_arguments=arguments)
service = LaunchService(argv=sys.argv[2:], noninteractive=True)  # passes an interrupt on
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

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


@dataclass(frozen=True)
class Started:
    """A node as launch would have started it."""

    executable: str
    command: list[str]
    environment: dict[str, str]

    def parameters(self) -> dict[str, object]:
        """What launch arguments set."""
        file = self.command[max(i for i, w in enumerate(self.command) if w == "--params-file") + 1]
        ((_, content),) = yaml.full_load(Path(file).read_text("utf-8")).items()
        return dict(content["ros__parameters"] or {})


class NothingRuns:
    """A loop for asyncio in which no process is started."""

    def create_future(self) -> object:
        return object()

    def create_task(self, task: Coroutine[object, object, None]) -> None:
        task.close()


def executed(context: LaunchContext, file: Path | str, *arguments: str) -> list[Started]:
    """Execute a launch file, but start no node; gives what it would have started."""
    nodes: list[Started] = []
    context._set_asyncio_loop(NothingRuns())

    def execute(entities: Sequence[LaunchDescriptionEntity]) -> None:
        for entity in entities:
            if not isinstance(entity, Node):
                execute(entity.visit(context) or [])
                continue
            command: list[str] = []
            if entity.node_package == "scrfd_ros":
                entity.visit(context)
                command = entity.process_details["cmd"]
            nodes.append(Started(entity.node_executable, command, dict(context.environment)))

    given = [SetLaunchConfiguration(*argument.split(":=", 1)) for argument in arguments]
    execute([*given, *description(file).entities])
    return nodes


def documented(folder: Path, number: int) -> Path:
    """A launch file of bring-up.md."""
    text = (ROOT / "docs" / "bring-up.md").read_text("utf-8")
    parameters = folder / "faces.yaml"
    parameters.write_text("/**: {ros__parameters: {autostart: false}}")
    code = text.split("```python\n")[1 + number].split("```")[0]
    file = folder / f"robot{number}.launch.py"
    file.write_text(code.replace("/opt/robot/faces.yaml", str(parameters)))
    return file


def launch_file(folder: Path, *actions: str) -> Path:
    """A user's launch file; in its actions FACES is an include of faces.launch.py."""
    include = (
        "IncludeLaunchDescription(PathJoinSubstitution([FindPackageShare('scrfd_ros'), 'launch', "
        "'faces.launch.py'])"
    )
    file = folder / "mine.launch.py"
    file.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import *\n"
        "from launch.substitutions import PathJoinSubstitution\n"
        "from launch_ros.actions import Node\n"
        "from launch_ros.substitutions import FindPackageShare\n"
        "def generate_launch_description():\n"
        f"    return LaunchDescription([{', '.join(actions)}])\n".replace("FACES", include)
    )
    return file


@contextmanager
def launched(
    folder: Path, file: Path | str, *arguments: str, namespace: str, dies: bool = False
) -> Iterator[Harness]:
    """Launch a file in a process of its own; interrupt it at the end.

    No process may have died, unless that is what is meant to happen.
    """
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
    assert dies or "[face_node-1]: process has died" not in harness.log(), harness.log()


def program(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}{code}")
    path.chmod(0o755)


def add_package(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a package be found that is nothing but its executables in lib."""
    marker = folder / "share" / "ament_index" / "resource_index" / "packages" / name
    marker.parent.mkdir(parents=True)
    marker.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(folder), prepend=os.pathsep)


@pytest.fixture(scope="session")
def rosbag2_interfaces(request: pytest.FixtureRequest) -> dict[str, str]:
    return make_importable(request.config.cache.mkdir("optional_messages"))


@pytest.fixture
def player(
    tmp_path: Path, rosbag2_interfaces: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ros2 bag play`, or its stand-in."""
    for name, value in rosbag2_interfaces.items():
        monkeypatch.setenv(name, value)
    bag_player.install_if_missing(tmp_path / "bin", monkeypatch)


@pytest.fixture
def rviz(tmp_path: Path, player: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """RViz's stand-in."""
    program(tmp_path / "lib" / "rviz2" / "rviz2", RVIZ)
    add_package(tmp_path, "rviz2", monkeypatch)


def write_clip(path: Path, image: NDArray[np.uint8], seconds: int) -> Path:
    """A bag of one image, twice a second."""
    half_seconds = range(10**9, (seconds + 1) * 10**9, 5 * 10**8)
    return write_bag(path, (raw("/camera/image_raw", stamp, image) for stamp in half_seconds))


@pytest.mark.parametrize("file", ["faces.launch.py", "replay.launch.py"])
def test_arguments_are_described(file: str) -> None:
    arguments = {
        argument.name: argument.description for argument in description(file).get_launch_arguments()
    }
    expected = {"namespace", "image", "cameras", "params_file", "detector", "recognizer"}
    expected |= {"backend", "transport_profile", "log_level", "image_transport", "use_sim_time"}
    expected |= {"respawn", "node_name", "gallery"}
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
    driver, faces = executed(LaunchContext(), documented(tmp_path, 0))
    assert driver.executable == "v4l2_camera_node"
    assert set(VARIABLES) <= set(driver.environment)
    assert set(VARIABLES) <= set(faces.environment)
    assert {"__ns:=/robot", "image:=image_raw"} <= set(faces.command)


def test_documented_launch_file_takes_nothing_of_its_surroundings(tmp_path: Path) -> None:
    # As a parent has them that declares arguments of these names, such as Nav2's.
    others = ("namespace:=nav", "params_file:=/nav2.yaml", "cameras:=a,b", "detector:=34g")
    _, faces = executed(LaunchContext(), documented(tmp_path, 0), *others)
    assert {"__ns:=/robot", "image:=image_raw"} <= set(faces.command)
    assert str(SHARE / "config" / "faces.yaml") in faces.command
    assert "/nav2.yaml" not in faces.command


def test_two_in_groups_share_nothing(tmp_path: Path) -> None:
    first = "FACES, launch_arguments={'cameras': 'front,rear', 'detector': '500m'}.items())"
    second = "FACES, launch_arguments={'namespace': 'top'}.items())"
    groups = (f"GroupAction([{one}], forwarding=False)" for one in (first, second))
    context = LaunchContext()
    one, other = executed(context, launch_file(tmp_path, *groups))
    assert one.parameters()["cameras"] == ("front", "rear")
    assert one.parameters()["detector.model"] == "500m"
    assert "__ns:=/top" in other.command
    assert "image:=image" in other.command
    assert not other.parameters()


def test_defaults_are_not_left_behind(tmp_path: Path) -> None:
    # For a parent without a group that includes Nav2 next, which has a params_file too.
    context = LaunchContext()
    file = launch_file(tmp_path, "FACES, launch_arguments={'image': '/image_raw'}.items())")
    executed(context, file, "namespace:=mine")
    assert context.launch_configurations == {"namespace": "mine", "image": "/image_raw"}


def test_documented_lifecycle_manager(tmp_path: Path) -> None:
    faces, manager = executed(LaunchContext(), documented(tmp_path, 1))
    assert str(tmp_path / "faces.yaml") in faces.command
    assert manager.executable == "lifecycle_manager"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["image:=/cam/image_raw", "image_transport:=compressed"], "compressed"),
        (["image:=/cam/image/compressed"], "compressed"),
        (["image:=/cam/image/compressed", "image_transport:=raw"], "raw"),
    ],
)
def test_image_transport(arguments: list[str], expected: object) -> None:
    (node,) = executed(LaunchContext(), "faces.launch.py", "backend:=auto", *arguments)
    assert node.parameters().get("image_transport", {}) == expected


@pytest.mark.parametrize(
    ("gallery", "store"),
    [
        ("", None),
        ("people.db", f"{Path.cwd() / 'people.db'}"),
        ("/var/people.db", "/var/people.db"),
        ("~/people.db", f"{Path.home() / 'people.db'}"),
        ("postgresql://robot@server/people", "postgresql://robot@server/people"),
        ("host=server dbname=people", "host=server dbname=people"),
        ("1234", f"{Path.cwd() / '1234'}"),
    ],
)
def test_gallery(gallery: str, store: str | None) -> None:
    (node,) = executed(LaunchContext(), "faces.launch.py", f"gallery:={gallery}")
    assert node.parameters() == ({} if store is None else {"gallery.store": store})


def test_arguments_reach_the_node() -> None:
    (node,) = executed(
        LaunchContext(), "faces.launch.py", "node_name:=eyes", "use_sim_time:=True", "namespace:=/a"
    )
    assert {"__node:=eyes", "__ns:=/a"} <= set(node.command)
    assert node.parameters() == {"use_sim_time": True}


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("params_file:=/nowhere.yaml", "params_file:=/nowhere.yaml is not there"),
        ("log_level:=nonsense", "log_level:=nonsense: expected one of"),
        ("image:= ", "image is empty"),
        ("respawn:=yes", "respawn:=yes: expected true or false"),
        ("use_sim_time:=1", "use_sim_time:=1: expected true or false"),
    ],
)
def test_refused_arguments(argument: str, reason: str) -> None:
    with pytest.raises(ScrfdError, match=reason):
        executed(LaunchContext(), "faces.launch.py", argument)


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
    with pytest.raises(ScrfdError, match="image:=/image is one topic, but there are 2 cameras"):
        executed(LaunchContext(), "faces.launch.py", "image:=/image", "cameras:=[front, rear]")


def test_arguments_win_over_the_file(tmp_path: Path, image: Images) -> None:
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
        detections, faces = harness.ask(image("t1.jpg"))
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


@pytest.mark.usefixtures("rviz")
def test_replay_shows_the_overlay(tmp_path: Path, image: Images) -> None:
    half_size = np.ascontiguousarray(image("t1.jpg")[::2, ::2])
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


@pytest.mark.usefixtures("player")
@pytest.mark.parametrize("log_level", ["info", "WARN"])
def test_replay_without_rviz_ends_with_the_bag(
    tmp_path: Path, image: Images, log_level: str
) -> None:
    bag = write_clip(tmp_path / "bag", image("t1.jpg")[::4, ::4], seconds=2)
    parameters = tmp_path / "quick.yaml"
    parameters.write_text(
        "/**: {ros__parameters: {detector: {input_size: [320, 320]}, recognizer: {enabled: false}}}"
    )
    arguments = (f"bag:={bag}", "rviz:=false", "image:=/camera/image_raw", *LIGHT)
    arguments += (f"log_level:={log_level}", f"params_file:={parameters}")
    with launched(tmp_path, "replay.launch.py", *arguments, namespace="/") as harness:
        assert harness.process.wait(timeout=2 * TIMEOUT) == 0, harness.log()
    if log_level == "info":
        (counts,) = image_counts(harness.log())
        assert counts.handled + counts.dropped == 4  # a busy machine drops some, but misses none
        assert (counts.skipped, counts.lost) == (0, 0)


def ros2_launch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `ros2 launch` itself to its end."""
    command = [sys.executable, "-c", ROS2_LAUNCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * TIMEOUT)


ROS2_LAUNCH = """
import sys
from ros2cli.cli import main
sys.argv[:1] = ["ros2", "launch", "-n"]
sys.exit(main())
"""

needs_ros2cli = pytest.mark.skipif(
    importlib.util.find_spec("ros2launch") is None, reason="ros2 launch is not installed"
)


@needs_ros2cli
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["detctor:=500m"], "no argument detctor: did you mean detector:=..."),
        (["params_file:=/nowhere.yaml"], "params_file:=/nowhere.yaml is not there"),
        (["detector:=nonsense"], "face_node-1 ended with status 2"),
        (["image_transport:=nonsense"], "face_node-1 ended with status 2"),
        (["namespace:=a b"], "namespace must not contain"),
        (["image:=a b"], "face_node-1 ended with status 2"),
    ],
)
def test_status_of_what_cannot_be_started(arguments: list[str], said: str) -> None:
    result = ros2_launch("scrfd_ros", "faces.launch.py", *arguments)
    assert result.returncode == 1, result.stdout + result.stderr
    assert said in result.stdout + result.stderr


@needs_ros2cli
def test_arguments_are_shown_in_plain_words() -> None:
    for file in ("faces.launch.py", "replay.launch.py"):
        shown = ros2_launch("scrfd_ros", file, "--show-args").stdout
        assert f"(default: '{SHARE / 'config' / 'faces.yaml'}')" in shown
        assert "PathJoin" not in shown


@needs_ros2cli
@pytest.mark.usefixtures("player")
def test_replay_refuses_before_anything_starts(tmp_path: Path, image: Images) -> None:
    bag = write_clip(tmp_path / "bag", image("t1.jpg")[::4, ::4], seconds=1)
    for arguments, said in {
        ("bag:=/nowhere", "rviz:=false"): "there is no bag /nowhere",
        (f"bag:={bag}", "detctor:=500m"): "did you mean detector",
        (f"bag:={bag}", "params_file:=/nowhere"): "params_file:=/nowhere is not there",
        (f"bag:={bag}",): "RViz 2 is not installed",
    }.items():
        if "RViz" in said and is_found("rviz2"):
            continue
        if "params_file" in said:
            arguments += ("rviz:=false",)
        result = ros2_launch("scrfd_ros", "replay.launch.py", *arguments)
        assert result.returncode == 1, result.stdout + result.stderr
        assert said in result.stdout + result.stderr
        assert "process started" not in result.stdout + result.stderr


@pytest.mark.usefixtures("player")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["detector:=34g", "params_file:=FILE"], "is unconfigured: its log above says why"),
        (["image:=/other", *LIGHT], "has no images for the node"),
    ],
)
def test_replay_ends_with_1_where_nothing_can_be_replayed(
    tmp_path: Path, image: Images, arguments: list[str], said: str
) -> None:
    parameters = tmp_path / "mine.yaml"
    parameters.write_text(f"/**: {{ros__parameters: {{model_directory: {tmp_path}}}}}")
    bag = write_clip(tmp_path / "bag", image("t1.jpg")[::4, ::4], seconds=1)
    arguments = [argument.replace("FILE", str(parameters)) for argument in arguments]
    arguments += [f"bag:={bag}", "rviz:=false"]
    with launched(tmp_path, "replay.launch.py", *arguments, namespace="/") as harness:
        assert harness.process.wait(2 * TIMEOUT) == 1, harness.log()
    assert said in harness.log()


def test_status_of_a_node_that_crashes(tmp_path: Path) -> None:
    with launched(tmp_path, "faces.launch.py", *LIGHT, namespace="/", dies=True) as harness:
        harness.wait_for(lambda: "waiting for images" in harness.log(), "an active node")
        os.kill(process_number(harness), signal.SIGSEGV)
        assert harness.process.wait(TIMEOUT) == 1
    assert "face_node-1 was ended by signal 11" in harness.log()


def test_respawn(tmp_path: Path) -> None:
    arguments = ("respawn:=true", *LIGHT)
    with launched(tmp_path, "faces.launch.py", *arguments, namespace="/", dies=True) as harness:
        harness.wait_for(lambda: "waiting for images" in harness.log(), "an active node")
        os.kill(process_number(harness), signal.SIGKILL)
        harness.wait_for(lambda: harness.log().count("waiting for images") == 2, "another")
        harness.process.send_signal(signal.SIGINT)
        assert harness.process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
def test_nothing_outlives_launch(tmp_path: Path, end: signal.Signals) -> None:
    with launched(tmp_path, "faces.launch.py", *LIGHT, namespace="/", dies=True) as harness:
        harness.wait_for(lambda: "waiting for images" in harness.log(), "an active node")
        node = process_number(harness)
        harness.process.send_signal(end)
        harness.process.wait(TIMEOUT)
        wait_until_gone(node)


def test_nothing_outlives_a_launch_file_that_fails_halfway(tmp_path: Path) -> None:
    missing = "Node(package='not_installed', executable='driver')"
    file = launch_file(tmp_path, "FACES)", missing)
    with launched(tmp_path, file, namespace="/", dies=True) as harness:
        assert harness.process.wait(TIMEOUT) == 1
    assert "package 'not_installed' not found" in harness.log()
    if "process started" in harness.log():
        wait_until_gone(process_number(harness))


def is_found(package: str) -> bool:
    try:
        get_package_share_directory(package)
    except LookupError:
        return False
    return True


def process_number(harness: Harness) -> int:
    """The last number that launch gave for face_node."""
    return int(re.findall(r"face_node-1\]: process started with pid \[(\d+)", harness.log())[-1])


def wait_until_gone(process: int) -> None:
    end = time.monotonic() + TIMEOUT
    while Path(f"/proc/{process}").exists():
        status = Path(f"/proc/{process}/stat").read_text()
        if status.rpartition(")")[2].split()[0] == "Z":  # nobody has asked for its status
            return
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            raise AssertionError("face_node outlives launch")
        time.sleep(0.05)
