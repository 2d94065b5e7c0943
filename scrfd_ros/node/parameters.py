# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: declared once, with type, range and description."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSReliabilityPolicy

from scrfd_ros.config import (
    SIZE_MULTIPLE,
    DetectorConfig,
    PipelineConfig,
    RecognizerConfig,
    SuperResolutionConfig,
    TrackingConfig,
)
from scrfd_ros.errors import ScrfdError
from scrfd_ros.images.orientation import ROTATIONS
from scrfd_ros.inference.cores import MAX_THREADS
from scrfd_ros.inference.load import BACKENDS
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.node.diagnostics import Limits
from scrfd_ros.pipeline import FacePipeline, load_pipeline

if TYPE_CHECKING:
    from scrfd_ros.node.hri import HumanFaces

AT_CONFIGURE = "Takes effect at the next configure."
LIVE = "Takes effect with the next image."
_MAX_TILES = 8  # each tile is a run of the network
_LARGEST_INPUT = 4096  # pixels; the networks take some 400 bytes for each of width times height
_MAX_CAMERAS = 64  # each has six publishers and takes part in a batch
_DEEPEST_QUEUE = 10_000
_SECONDS = {"floating_point_range": [FloatingPointRange(from_value=0.0, to_value=1e6)]}
_FRACTION = {"floating_point_range": [FloatingPointRange(from_value=0.0, to_value=1.0)]}


@dataclass(frozen=True)
class _Parameter:
    default: Any
    description: str
    choices: tuple[str, ...] = ()
    limits: dict[str, Any] | None = None
    read_only: bool = False


def _parameters() -> dict[str, _Parameter]:
    catalogue = load_catalogue()
    detectors = tuple(catalogue.names(DETECTOR))
    recognizers = tuple(catalogue.names(RECOGNIZER))
    return {
        "autostart": _Parameter(True, "Configure and activate by itself at start.", read_only=True),
        "backend": _Parameter(
            "auto", f"What runs the networks: {', '.join(BACKENDS)}. {AT_CONFIGURE}", BACKENDS
        ),
        "cuda_graph": _Parameter(
            False,
            "With TensorRT: record the work on the GPU once and replay it for every image, which "
            f"spares the processor. {AT_CONFIGURE}",
        ),
        "threads": _Parameter(
            0,
            "Threads on the processor; 0 for as many as there are cores that the node may use, by "
            f"its affinity and the quota of its container. {AT_CONFIGURE}",
            limits={"integer_range": [IntegerRange(from_value=0, to_value=MAX_THREADS, step=1)]},
        ),
        "cameras": _Parameter(
            [""],
            "Names of cameras: each has its topics under its name, as front/image and "
            f"front/detections. One empty name for topics without. {AT_CONFIGURE}",
        ),
        "rotation": _Parameter(
            [0],
            "Degrees clockwise, 0, 90, 180 or 270, by which images have to be turned for faces to "
            "be upright: one value for all cameras, or one for each of cameras. Results stay in "
            f"pixels of the image as sent. {AT_CONFIGURE}",
        ),
        "image_transport": _Parameter(
            "raw",
            f"What to subscribe to: raw (image) or compressed (image/compressed). {AT_CONFIGURE}",
            ("raw", "compressed"),
        ),
        "lazy": _Parameter(
            False,
            f"Take images in only while somebody subscribes to a result. {AT_CONFIGURE}",
        ),
        "model_directory": _Parameter(
            "",
            "Folder with the model files; empty for the one that the download command uses. "
            + AT_CONFIGURE,
        ),
        "detector.model": _Parameter(
            "2.5g", f"SCRFD variant: {', '.join(detectors)}. {AT_CONFIGURE}", detectors
        ),
        "detector.engine_path": _Parameter(
            "", f"A detector's model file, which wins over detector.model. {AT_CONFIGURE}"
        ),
        "detector.input_size": _Parameter(
            [640, 640],
            "Width and height, in pixels, that images are scaled to for the detector: multiples "
            f"of {SIZE_MULTIPLE}. {AT_CONFIGURE}",
        ),
        "detector.score_threshold": _Parameter(
            0.5, f"Faces that score less are not reported. {LIVE}", limits=_FRACTION
        ),
        "detector.nms_threshold": _Parameter(
            0.4,
            f"Of two boxes that overlap by a greater IoU only the better is reported. {LIVE}",
            limits=_FRACTION,
        ),
        "detector.max_faces": _Parameter(
            0,
            f"Report at most so many faces, the best scores first; 0 for all. {LIVE}",
            limits={"integer_range": [IntegerRange(from_value=0, to_value=100_000, step=1)]},
        ),
        "detector.tiles": _Parameter(
            [1, 1],
            "Columns and rows of overlapping tiles that are looked at besides the whole image, for "
            f"faces too small in it; each costs a run of the network. {AT_CONFIGURE}",
        ),
        "detector.large_faces": _Parameter(
            False,
            "Also find faces that fill the image, by a second look at a smaller scale. Costs "
            f"nothing but with images about as high as wide: there a run more. {LIVE}",
        ),
        "recognizer.enabled": _Parameter(
            True, f"Compute an embedding for every face. {AT_CONFIGURE}"
        ),
        "recognizer.model": _Parameter(
            "w600k_mbf", f"ArcFace model: {', '.join(recognizers)}. {AT_CONFIGURE}", recognizers
        ),
        "recognizer.engine_path": _Parameter(
            "", f"A recognizer's model file, which wins over recognizer.model. {AT_CONFIGURE}"
        ),
        "recognizer.min_quality": _Parameter(
            0.0,
            "Faces less useful than this, of 0 to 1, are not embedded: small, blurred, turned or "
            f"hidden ones; 0 for all. {LIVE}",
            limits=_FRACTION,
        ),
        "super_resolution.enabled": _Parameter(
            False, f"Enlarge small faces by a network before they are embedded. {AT_CONFIGURE}"
        ),
        "super_resolution.engine_path": _Parameter(
            "", f"The model file for that; empty for realesrgan_x4plus. {AT_CONFIGURE}"
        ),
        "super_resolution.max_size": _Parameter(
            32,
            f"Faces smaller than so many pixels are enlarged. {AT_CONFIGURE}",
            limits={"integer_range": [IntegerRange(from_value=8, to_value=112, step=1)]},
        ),
        "super_resolution.max_faces": _Parameter(
            4,
            f"At most so many faces of an image are enlarged, the best scores first. {LIVE}",
            limits={"integer_range": [IntegerRange(from_value=1, to_value=1000, step=1)]},
        ),
        "tracking.enabled": _Parameter(
            True,
            "Give each face an id that stays with it, and embed it only when it is new or has "
            f"changed. {AT_CONFIGURE}",
        ),
        "tracking.max_age": _Parameter(
            2.0,
            f"Seconds that a face may be missed and keep its id. {AT_CONFIGURE}",
            limits=_SECONDS,
        ),
        "tracking.refresh_period": _Parameter(
            5.0,
            f"Seconds after which a face is embedded anew; 0 for every image. {AT_CONFIGURE}",
            limits=_SECONDS,
        ),
        "hri": _Parameter(
            False,
            "Publish the faces for ROS4HRI (REP-155) too, under /humans/faces. Needs hri_msgs and "
            f"tracking. {AT_CONFIGURE}",
        ),
        "diagnostics.stale_after": _Parameter(
            2.0,
            f"Seconds without an image after which a camera is reported as stale. {LIVE}",
            limits=_SECONDS,
        ),
        "diagnostics.min_rate": _Parameter(
            0.0,
            f"Results a second below which there is a warning; 0 for none. {LIVE}",
            limits=_SECONDS,
        ),
    }


def declare_parameters(node: Node) -> None:
    """Declare all parameters on a node, and refuse values that can never work.

    Raises:
        ScrfdError: such a value was given at start.
    """
    parameters = _parameters()

    def validate(changes: list[Parameter]) -> SetParametersResult:
        for change in changes:
            reason = _refusal(change, parameters.get(change.name))
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    for given in node._parameter_overrides.values():
        reason = _refusal(given, parameters.get(given.name))
        if reason and given.name in parameters:
            raise ScrfdError(reason)
    # First the callback, so that what rclpy declares by itself passes through it too.
    node.add_on_set_parameters_callback(validate)
    for name, spec in parameters.items():
        descriptor = ParameterDescriptor(
            description=spec.description,
            additional_constraints=f"one of: {', '.join(spec.choices)}" if spec.choices else "",
            read_only=spec.read_only,
            **(spec.limits or {}),
        )
        node.declare_parameter(name, spec.default, descriptor)


def _refusal(change: Parameter, spec: _Parameter | None) -> str:
    """Why a parameter cannot have this value, in a sentence; empty if it can.

    Args:
        spec: of the parameter; None for one that this package does not declare.
    """
    if not change.name:  # rclpy would declare it
        return "a parameter without a name cannot be set"
    if spec is None:
        is_override = change.name.startswith("qos_overrides.")
        reason = _qos_refusal(change.name.rpartition(".")[2], change.value) if is_override else ""
    else:
        reason = (
            _type_refusal(change, spec.default)
            or _choice_refusal(change.value, spec.choices)
            or _range_refusal(change.value, spec.limits or {})
            or _special_refusal(change.name, change.value)
        )
    return f"{change.name}: {reason}" if reason else ""


_TYPES = {
    Parameter.Type.NOT_SET: "nothing, or an empty list",
    Parameter.Type.BOOL: "true or false",
    Parameter.Type.INTEGER: "a whole number",
    Parameter.Type.DOUBLE: "a number with a decimal point",
    Parameter.Type.STRING: "a text",
    Parameter.Type.BYTE_ARRAY: "a list of bytes",
    Parameter.Type.BOOL_ARRAY: "a list of true and false",
    Parameter.Type.INTEGER_ARRAY: "a list of whole numbers",
    Parameter.Type.DOUBLE_ARRAY: "a list of numbers with a decimal point",
    Parameter.Type.STRING_ARRAY: "a list of texts",
}


def _type_refusal(change: Parameter, default: Any) -> str:
    expected = Parameter.Type.from_parameter_value(default)
    if change.type_ == expected:
        return ""
    example = str(default).lower() if isinstance(default, bool) else repr(default)
    if isinstance(change.value, int) and expected == Parameter.Type.DOUBLE:
        example = repr(float(change.value))
    elif isinstance(change.value, str) and expected == Parameter.Type.STRING_ARRAY:
        example = repr([change.value])
    elif isinstance(change.value, (int, float)) and expected == Parameter.Type.STRING:
        example = repr(str(change.value).lower())
    if change.name == "cameras":
        example = f'{example}, or [""] for one camera without a name'.replace(
            "['']", "[front, rear]"
        )
    given = "" if change.value is None else f"{_shown(change.value)} is "
    return f"{given}{_TYPES[change.type_]}; expected: {_TYPES[expected]}, such as {example}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value if isinstance(value, (int, float, str)) else list(value))
    return text if len(text) <= 100 else f"{text[:100]}..."


def _choice_refusal(value: Any, choices: tuple[str, ...]) -> str:
    if choices and value not in choices:
        return f"{_shown(value)} is unknown; expected one of: {', '.join(choices)}"
    return ""


def _range_refusal(value: Any, limits: dict[str, Any]) -> str:
    for (limit,) in limits.values():
        if not limit.from_value <= value <= limit.to_value:  # nor is NaN
            return f"{value} is not within {limit.from_value:g} to {limit.to_value:g}"
    return ""


def _special_refusal(name: str, value: Any) -> str:
    if name == "detector.input_size" and (
        len(value) != 2
        or any(v % SIZE_MULTIPLE or not SIZE_MULTIPLE <= v <= _LARGEST_INPUT for v in value)
    ):
        return (
            f"{_shown(value)} is not a width and a height in multiples of {SIZE_MULTIPLE}, at most "
            f"{_LARGEST_INPUT}, such as [640, 640]"
        )
    if name == "detector.tiles" and (
        len(value) != 2 or not all(1 <= count <= _MAX_TILES for count in value)
    ):
        return (
            f"{_shown(value)} is not a number of columns and of rows, each 1 to {_MAX_TILES}, "
            f"such as [3, 2]"
        )
    if name == "rotation" and (not len(value) or any(one not in ROTATIONS for one in value)):
        return (
            f"{_shown(value)} is not a list of degrees clockwise, each one of "
            f"{', '.join(map(str, ROTATIONS))}: one for all cameras, or one for each"
        )
    if name == "cameras" and list(value) != [""]:
        valid = all(re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", one, re.ASCII) for one in value)
        if not valid or len(set(value)) < len(value) or not 1 <= len(value) <= _MAX_CAMERAS:
            return (
                f"{_shown(value)} is not a list of different names for topics, at most "
                f'{_MAX_CAMERAS}, such as [front, rear], or [""] for one camera without a name'
            )
    return ""


_QOS_CHOICES = {
    policy: tuple(name.lower() for name in kind.__members__ if name != "UNKNOWN")
    for policy, kind in (
        ("reliability", QoSReliabilityPolicy),
        ("history", QoSHistoryPolicy),
        ("durability", QoSDurabilityPolicy),
    )
}


def _qos_refusal(policy: str, value: Any) -> str:
    if policy == "depth":
        if isinstance(value, bool) or not isinstance(value, int):
            return f"{_shown(value)} is not a whole number"
        if not 1 <= value <= _DEEPEST_QUEUE:
            return f"{value} is not within 1 to {_DEEPEST_QUEUE}"
    if policy in _QOS_CHOICES:
        return _choice_refusal(value, _QOS_CHOICES[policy])
    return ""


def configured_pipeline(node: Node) -> FacePipeline:
    """Load the pipeline that the node's parameters ask for.

    Raises:
        ModelError: see `load_pipeline`.
        ScrfdError: faces are to be enlarged, but not recognized.
    """

    def value(name: str) -> Any:
        return node.get_parameter(name).value

    def path(name: str) -> Path | None:
        return Path(value(name)).expanduser() if value(name) else None

    width, height = value("detector.input_size")
    columns, rows = value("detector.tiles")
    config = PipelineConfig(
        backend=value("backend"),
        cuda_graph=value("cuda_graph"),
        threads=value("threads"),
        model_directory=path("model_directory"),
        detector=DetectorConfig(
            model=value("detector.model"),
            engine_path=path("detector.engine_path"),
            input_size=(width, height),
            tiles=(columns, rows),
        ),
        recognizer=RecognizerConfig(
            enabled=value("recognizer.enabled"),
            model=value("recognizer.model"),
            engine_path=path("recognizer.engine_path"),
        ),
        super_resolution=SuperResolutionConfig(
            enabled=value("super_resolution.enabled"),
            engine_path=path("super_resolution.engine_path"),
            max_size=value("super_resolution.max_size"),
        ),
        tracking=TrackingConfig(
            enabled=value("tracking.enabled"),
            max_age=value("tracking.max_age"),
            refresh_period=value("tracking.refresh_period"),
        ),
    )
    return load_pipeline(config, max_images=len(value("cameras")))


def configured_cameras(node: Node) -> dict[str, int]:
    """The cameras that the node's parameters ask for, and the rotation of each.

    Raises:
        ScrfdError: there is another number of rotations than of cameras, and than one.
    """
    names = list(node.get_parameter("cameras").value)
    rotations = list(node.get_parameter("rotation").value)
    if len(rotations) == 1:
        rotations *= len(names)
    if len(rotations) != len(names):
        raise ScrfdError(
            f"rotation has {len(rotations)} values for {len(names)} cameras; expected one for all, "
            f"or one for each, in the order of cameras"
        )
    return dict(zip(names, rotations, strict=True))


def configured_human_faces(node: Node) -> HumanFaces | None:
    """What publishes faces for ROS4HRI, if the node's parameters ask for it.

    Raises:
        ScrfdError: the faces are not tracked, or hri_msgs is missing.
    """
    if not node.get_parameter("hri").value:
        return None
    if not node.get_parameter("tracking.enabled").value:
        raise ScrfdError(
            "hri is true, but tracking.enabled is false: faces without an id that stays cannot "
            "be published for ROS4HRI; set tracking.enabled to true, or hri to false"
        )
    try:
        from scrfd_ros.node.hri import HumanFaces
    except ImportError as error:
        raise ScrfdError(
            f"hri is true, but the ROS 2 package hri_msgs, 2.0 or newer, is not there ({error}): "
            f"install or build it and source its workspace, or set hri to false"
        ) from error
    return HumanFaces(node, node.get_parameter("tracking.max_age").value)


def diagnostic_limits(node: Node) -> Limits:
    """The limits of the diagnostics as they are now."""
    return Limits(
        stale_after=node.get_parameter("diagnostics.stale_after").value,
        min_rate=node.get_parameter("diagnostics.min_rate").value,
    )


def apply_live_parameters(node: Node, pipeline: FacePipeline) -> None:
    """Hand the thresholds as they are now to the detector."""

    def value(name: str) -> Any:
        return node.get_parameter(name).value

    config = pipeline.config
    pipeline.config = replace(
        config,
        detector=replace(
            config.detector,
            score_threshold=value("detector.score_threshold"),
            nms_threshold=value("detector.nms_threshold"),
            max_faces=value("detector.max_faces"),
            large_faces=value("detector.large_faces"),
        ),
        recognizer=replace(config.recognizer, min_quality=value("recognizer.min_quality")),
        super_resolution=replace(
            config.super_resolution, max_faces=value("super_resolution.max_faces")
        ),
    )
