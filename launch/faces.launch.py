"""Start face_node: ros2 launch scrfd_ros faces.launch.py image:=/camera/image_raw"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

CONFIG = PathJoinSubstitution([FindPackageShare("scrfd_ros"), "config"])

FAST_DDS = PathJoinSubstitution([CONFIG, "fastdds.xml"])
PROFILES = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": FAST_DDS,  # up to Jazzy
    "FASTDDS_DEFAULT_PROFILES_FILE": FAST_DDS,  # from Kilted on
    "CYCLONEDDS_URI": ["file://", PathJoinSubstitution([CONFIG, "cyclonedds.xml"])],
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
        DeclareLaunchArgument(
            "image",
            default_value="image",
            description="Image topic. With `cameras` the name below each camera's: image_raw",
        ),
        DeclareLaunchArgument(
            "cameras",
            default_value="",
            description="Several cameras in one node: front,rear subscribes front/image and "
            "rear/image, and publishes front/detections, rear/detections, ...",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([CONFIG, "faces.yaml"]),
            description="Parameters of the node, a YAML file; the arguments here win over it",
        ),
        DeclareLaunchArgument(
            "detector",
            default_value="",
            description="SCRFD variant, such as 2.5g; empty for what params_file says",
        ),
        DeclareLaunchArgument(
            "recognizer",
            default_value="",
            description="ArcFace model, such as w600k_mbf; empty for what params_file says",
        ),
        DeclareLaunchArgument(
            "backend",
            default_value="",
            description="auto, tensorrt or onnxruntime; empty for what params_file says",
        ),
        DeclareLaunchArgument(
            "transport_profile",
            default_value="auto",
            choices=["auto", "none"],
            description="auto: for this node and all that is started after it, the profiles for "
            "images of Fast DDS and Cyclone DDS, unless the environment has one. none: no profile",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="debug, info, warn, error or fatal"
        ),
    ]
    return LaunchDescription(
        [*arguments, OpaqueFunction(function=set_profile), OpaqueFunction(function=start_node)]
    )


def value(context: LaunchContext, argument: str) -> str:
    return LaunchConfiguration(argument).perform(context)


def set_profile(context: LaunchContext) -> list[SetEnvironmentVariable]:
    of_the_user = any(context.environment.get(name) for name in PROFILES)
    if of_the_user or value(context, "transport_profile") == "none":
        return []
    return [SetEnvironmentVariable(name, profile) for name, profile in PROFILES.items()]


def start_node(context: LaunchContext) -> list[Node]:
    image = value(context, "image")
    cameras = [name.strip(" '\"") for name in value(context, "cameras").strip("[] ").split(",")]
    cameras = [name for name in cameras if name]
    if cameras and image.startswith(("/", "~")):
        raise RuntimeError(
            f"image:={image} is one topic, but there are {len(cameras)} cameras: expected the "
            f"name below each camera's, such as image:=image_raw for {cameras[0]}/image_raw"
        )
    topics = [f"{name}/" for name in cameras] or [""]
    return [
        Node(
            package="scrfd_ros",
            executable="face_node",
            name="face_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), given_parameters(context, cameras)],
            # Compressed images follow: see `compressed_topic` of scrfd_ros.ros.camera.
            remappings=[(f"{topic}image", f"{topic}{image}") for topic in topics],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def given_parameters(context: LaunchContext, cameras: list[str]) -> dict[str, object]:
    """Parameters that launch arguments set."""

    def text(content: str) -> ParameterValue:
        return ParameterValue(content, value_type=str)  # else YAML makes something else of it

    parameters: dict[str, object] = {}
    for role in ("detector", "recognizer"):
        if model := value(context, role):
            parameters[f"{role}.model"] = text(model)
            parameters[f"{role}.engine_path"] = text("")  # would win over the model
    if value(context, "recognizer"):
        parameters["recognizer.enabled"] = True
    if backend := value(context, "backend"):
        parameters["backend"] = text(backend)
    if cameras:
        parameters["cameras"] = cameras
    return parameters
