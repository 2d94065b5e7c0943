# SPDX-License-Identifier: Apache-2.0
"""Play a bag to face_node: ros2 launch scrfd_ros replay.launch.py bag:=drive image:=/image_raw

This file also takes the arguments of faces.launch.py. As on the robot, images are dropped while the
node is busy; `scrfd replay` processes every image.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.launch_checks import boolean, check_arguments, is_launched, tell_end
from scrfd_ros.node.parent import PARENT
from scrfd_ros.node.play_bag import check_bag, check_player

SHARE = Path(get_package_share_directory("scrfd_ros"))


def generate_launch_description() -> LaunchDescription:
    def check(context: LaunchContext) -> None:
        """Runs before any process starts: launch would leave it running after an error."""
        if is_launched(Path(__file__), sys.argv):
            known = [argument.name for argument in description.get_launch_arguments()]
            check_arguments(context.argv, known)
        check_bag(Path(value(context, "bag")).expanduser())
        check_player()
        if shows(context):
            check_rviz()

    description = LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="The bag to play, a folder or a file"),
            DeclareLaunchArgument(
                "rviz",
                default_value="true",
                description="Show the overlay in RViz 2. Everything ends when RViz is closed, or "
                "without RViz when the bag ends",
            ),
            OpaqueFunction(function=check),
            # Used here as well; the defaults are those of faces.launch.py.
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node"
            ),
            DeclareLaunchArgument(
                "node_name", default_value="face_node", description="Name of the node"
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(f"{SHARE / 'launch' / 'faces.launch.py'}"),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
            RegisterEventHandler(OnProcessExit(on_exit=end_with_the_node)),
            OpaqueFunction(function=start_player),
        ]
    )
    return description


def value(context: LaunchContext, argument: str) -> str:
    return LaunchConfiguration(argument).perform(context)


def shows(context: LaunchContext) -> bool:
    return boolean("rviz", value(context, "rviz"))


def check_rviz() -> None:
    try:
        is_there = Path(get_package_prefix("rviz2"), "lib", "rviz2", "rviz2").exists()
    except PackageNotFoundError:
        is_there = False
    if not is_there:
        raise ScrfdError(
            "RViz 2 is not installed: sudo apt install ros-$ROS_DISTRO-rviz2, or pass rviz:=false"
        )


def end_with_the_node(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    respawn = context.launch_configurations.get("respawn", "false").lower() == "true"
    if not event.process_name.startswith("face_node") or respawn:
        return None
    return Shutdown(reason="face_node has ended")


def start_player(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    def ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        tell_end(context, event)
        if event.returncode == 0 and shows(context):
            return None  # the last image stays on the screen
        return Shutdown(reason="the bag has been played" if event.returncode == 0 else "no bag")

    namespace = value(context, "namespace")
    outer = "" if namespace.startswith("/") else context.launch_configurations.get("ros_namespace")
    place = f"{outer or ''}/{namespace}/{value(context, 'node_name')}".split("/")
    player = Node(
        package="scrfd_ros",
        executable="play_bag",
        arguments=[
            f"{Path(value(context, 'bag')).expanduser()}",
            "--node",
            f"/{'/'.join(filter(None, place))}",
        ],
        additional_env={PARENT: f"{os.getpid()}"},
        on_exit=ended,
        output="screen",
    )
    if not shows(context):
        return [player]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=namespace,
        arguments=["-d", f"{SHARE / 'config' / 'faces.rviz'}"],
        remappings=[("/overlay", "overlay")],  # to the one in the namespace
        parameters=[{"use_sim_time": True}],
        on_exit=[Shutdown(reason="RViz has been closed")],
    )
    return [player, rviz]
