"""Play a bag to face_node: ros2 launch scrfd_ros replay.launch.py bag:=drive image:=/image_raw

The arguments of faces.launch.py are this file's too. As on the robot, images are dropped while the
node is busy; `scrfd replay` takes every one.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
    Shutdown,
)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, SetParameter
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("scrfd_ros")
RVIZ = LaunchConfiguration("rviz")
READY = b"waiting for images"  # what the node says when it is active


def generate_launch_description() -> LaunchDescription:
    player = ExecuteProcess(
        cmd=["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock"],
        output="screen",
        on_exit=[Shutdown(condition=UnlessCondition(RVIZ))],
    )
    waiting = [player]

    def play_when_ready(event: ProcessIO) -> list[ExecuteProcess]:
        # Not earlier: loading the networks takes seconds, building engines minutes.
        return [waiting.pop()] if waiting and READY in event.text else []

    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "faces.rviz"])],
        remappings=[("/overlay", "overlay")],  # to the one in the namespace
        condition=IfCondition(RVIZ),
        on_exit=[Shutdown()],
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="The bag to play, a folder or a file"),
            DeclareLaunchArgument(
                "rviz",
                default_value="true",
                description="Show the overlay in RViz 2; all ends when RViz is closed, without "
                "RViz when the bag ends",
            ),
            RegisterEventHandler(OnProcessIO(on_stdout=play_when_ready, on_stderr=play_when_ready)),
            SetParameter("use_sim_time", True),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([SHARE, "launch", "faces.launch.py"])
                )
            ),
            rviz,
        ]
    )
