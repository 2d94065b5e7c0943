# SPDX-License-Identifier: Apache-2.0
"""Start face_node: ros2 launch scrfd_ros faces.launch.py image:=/camera/image_raw"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    UnsetLaunchConfiguration,
)
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from scrfd_ros.inference.load import BACKENDS
from scrfd_ros.node.launch_checks import (
    boolean,
    camera_names,
    check_arguments,
    check_image,
    check_log_level,
    check_parameters_file,
    is_launched,
    tell_end,
)
from scrfd_ros.node.parent import PARENT

SHARE = Path(get_package_share_directory("scrfd_ros"))
RESPAWN_DELAY = 2.0  # seconds
FROM_FILE = "empty: as in params_file"

ARGUMENTS = [
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
    DeclareLaunchArgument("node_name", default_value="face_node", description="Name of the node"),
    DeclareLaunchArgument(
        "image",
        default_value="image",
        description="Image topic; with `cameras` its name below each camera's, such as image_raw. "
        "A name that ends with /compressed selects compressed images",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        description=f"raw, or compressed: the topic below the image topic; {FROM_FILE}",
    ),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="Names of several cameras for one node: front,rear subscribes front/image and "
        f"rear/image and publishes front/detections, rear/detections, ...; {FROM_FILE}",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=f"{SHARE / 'config' / 'faces.yaml'}",
        description="YAML file with parameters of the node; the other arguments win over it",
    ),
    DeclareLaunchArgument(
        "detector", default_value="", description=f"SCRFD variant, such as 2.5g; {FROM_FILE}"
    ),
    DeclareLaunchArgument(
        "recognizer",
        default_value="",
        description=f"ArcFace model, such as w600k_mbf; {FROM_FILE}",
    ),
    DeclareLaunchArgument(
        "backend", default_value="", description=f"one of: {', '.join(BACKENDS)}; {FROM_FILE}"
    ),
    DeclareLaunchArgument(
        "gallery",
        default_value="",
        description="Gallery of people: a file, made if it is missing, or "
        f"postgresql://HOST/DATABASE; {FROM_FILE}",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        description=f"true: take the time from the topic /clock; {FROM_FILE}",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="false",
        description=f"true: restart the node {RESPAWN_DELAY:g} s after it ends",
    ),
    DeclareLaunchArgument(
        "transport_profile",
        default_value="auto",
        choices=["auto", "none"],
        description="auto: set the Fast DDS and Cyclone DDS profiles for large images, for this "
        "node and everything that starts after it, unless the environment has one. none: do not",
    ),
    DeclareLaunchArgument(
        "log_level", default_value="info", description="debug, info, warn, error or fatal"
    ),
]
NAMES = [argument.name for argument in ARGUMENTS]


def generate_launch_description() -> LaunchDescription:
    inherited: set[str] = set()

    def remember(context: LaunchContext) -> None:
        inherited.update(set(NAMES) & set(context.launch_configurations))

    def forget(context: LaunchContext) -> list[UnsetLaunchConfiguration]:
        # Else a launch file that includes this one would pass these defaults to its next include.
        return [UnsetLaunchConfiguration(name) for name in NAMES if name not in inherited]

    return LaunchDescription(
        [
            OpaqueFunction(function=remember),
            *ARGUMENTS,
            OpaqueFunction(function=check),
            OpaqueFunction(function=set_profile),
            OpaqueFunction(function=start_node),
            OpaqueFunction(function=forget),
        ]
    )


def value(context: LaunchContext, argument: str) -> str:
    return LaunchConfiguration(argument).perform(context)


def check(context: LaunchContext) -> None:
    """Runs before any process starts: launch would leave it running after an error."""
    if is_launched(Path(__file__), sys.argv):
        check_arguments(context.argv, NAMES)
    check_image(value(context, "image"), camera_names(value(context, "cameras")))
    check_parameters_file(Path(value(context, "params_file")).expanduser())
    check_log_level(value(context, "log_level"))


def set_profile(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    if value(context, "transport_profile") == "none":
        return []
    file = SHARE / "launch" / "transport.launch.py"
    return [IncludeLaunchDescription(PythonLaunchDescriptionSource(f"{file}"))]


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    cameras = camera_names(value(context, "cameras"))
    respawn = boolean("respawn", value(context, "respawn"))

    def ended(event: ProcessExited, context: LaunchContext) -> None:
        if not respawn:
            tell_end(context, event)

    return [
        Node(
            package="scrfd_ros",
            executable="face_node",
            name=value(context, "node_name"),
            namespace=value(context, "namespace"),
            parameters=[
                f"{Path(value(context, 'params_file')).expanduser()}",
                argument_parameters(context, cameras),
            ],
            # The node remaps image/compressed accordingly.
            remappings=[
                (f"{topic}image", f"{topic}{value(context, 'image')}")
                for topic in [f"{name}/" for name in cameras] or [""]
            ],
            ros_arguments=["--log-level", value(context, "log_level")],
            additional_env={PARENT: f"{os.getpid()}"},
            respawn=respawn,
            respawn_delay=RESPAWN_DELAY,
            on_exit=ended,
            output="screen",
        )
    ]


def argument_parameters(context: LaunchContext, cameras: list[str]) -> dict[str, object]:
    """Parameters that launch arguments set."""

    def text(content: str) -> ParameterValue:
        return ParameterValue(content, value_type=str)  # else it is parsed as YAML

    parameters: dict[str, object] = {}
    for role in ("detector", "recognizer"):
        if model := value(context, role):
            parameters[f"{role}.model"] = text(model)
            parameters[f"{role}.engine_path"] = text("")  # would win over the model
    if value(context, "recognizer"):
        parameters["recognizer.enabled"] = True
    if backend := value(context, "backend"):
        parameters["backend"] = text(backend)
    if gallery := value(context, "gallery").strip():
        # A path from the folder in which launch was called, wherever the node will run. What may be
        # none, such as a URL, is for the node to judge.
        is_path = not set(gallery) & set(":=")
        store = f"{Path(gallery).expanduser().absolute()}" if is_path else gallery
        parameters["gallery.store"] = text(store)
    transport = value(context, "image_transport")
    if not transport and value(context, "image").endswith("/compressed"):
        transport = "compressed"
    if transport:
        parameters["image_transport"] = text(transport)
    if use_sim_time := value(context, "use_sim_time"):
        parameters["use_sim_time"] = boolean("use_sim_time", use_sim_time)
    if cameras:
        parameters["cameras"] = cameras
    return parameters
