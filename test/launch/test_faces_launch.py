"""faces.launch.py starts the node, under the real launch and launch_ros."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory

reason = "launch and launch_ros come with an installed ROS 2, no registry package has them"
pytest.importorskip("launch", reason=reason)
pytest.importorskip("launch_ros", reason=reason)

TIMEOUT = 60.0  # seconds

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
include = IncludeLaunchDescription(source, launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


def test_arguments_reach_the_node(tmp_path: Path) -> None:
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**: {ros__parameters: {recognizer: {enabled: false}}}")
    launch_file = Path(get_package_share_directory("scrfd_ros"), "launch", "faces.launch.py")
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", RUN, str(launch_file)),
            *("namespace:=front", "image:=/camera/image_raw", f"params_file:={parameters}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    killer = threading.Timer(TIMEOUT, process.kill)  # else a silent node would block the reading
    killer.start()
    output = ""
    for line in process.stdout:
        output += line
        if "waiting for images" in line or "has died" in line:
            break
    process.send_signal(signal.SIGINT)
    output += process.communicate(timeout=TIMEOUT)[0]
    killer.cancel()
    assert "front.face_node]: waiting for images on /camera/image_raw" in output
    assert "no recogniser" in output
    assert "has died" not in output
