# SPDX-License-Identifier: Apache-2.0
"""Every option of the node, which are those of the pipeline and more. Needs no ROS."""

from __future__ import annotations

import os
import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from scrfd_ros.config import Group, Option, PipelineConfig, option, seconds
from scrfd_ros.errors import ScrfdError
from scrfd_ros.images.orientation import ROTATIONS

MAX_CAMERAS: Final = 64
"""Each has publishers of its own and takes part in a batch."""

IMAGE_TRANSPORTS: Final = ("raw", "compressed")


def _are_cameras(value: tuple[str, ...]) -> bool:
    return value == ("",) or (
        1 <= len(value) <= MAX_CAMERAS
        and len(set(value)) == len(value)
        and all(re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", name, re.ASCII) for name in value)
    )


def _are_rotations(value: tuple[int, ...]) -> bool:
    return len(value) > 0 and all(rotation in ROTATIONS for rotation in value)


@dataclass(frozen=True)
class DiagnosticsConfig(Group):
    """When the diagnostics report a problem."""

    prefix: ClassVar[str] = "diagnostics."

    stale_after: float = seconds(
        2.0,
        "Seconds without an image after which a camera is reported as stale.",
        is_live=True,
    )
    min_rate: float = option(
        0.0,
        "Results per second below which the diagnostics warn; 0 for never.",
        limits=(0.0, 1e6),
        is_live=True,
    )


@dataclass(frozen=True)
class NodeConfig(PipelineConfig):
    """All options of the node.

    Raises:
        ScrfdError: a value is not accepted; names the option. Or two options contradict each
            other; names both.
    """

    autostart: bool = option(
        True,
        "Configure and activate the node when it starts; with false it waits for a lifecycle "
        "manager.",
        is_read_only=True,
    )
    cameras: tuple[str, ...] = option(
        ("",),
        "Names of cameras. The topics of each camera are below its name, such as front/image and "
        'front/detections. With [""] there is one camera, and its topics have no prefix.',
        check=_are_cameras,
        form=f"a list of different names for topics, at most {MAX_CAMERAS}, such as "
        '[front, rear], or [""] for one camera without a name',
    )
    rotation: tuple[int, ...] = option(
        (0,),
        "Degrees clockwise by which images have to be turned for faces to be upright. Results stay "
        "in pixels of the image as sent. See docs/cameras.md.",
        check=_are_rotations,
        form=f"a list of degrees clockwise, each one of {', '.join(map(str, ROTATIONS))}: one for "
        "all cameras, or one for each",
    )
    image_transport: str = option(
        "raw",
        "Which images to subscribe to: raw (image) or compressed (image/compressed, JPEG or PNG).",
        choices=lambda: IMAGE_TRANSPORTS,
    )
    lazy: bool = option(False, "Subscribe to images only while a result has a subscriber.")
    hri: bool = option(
        False,
        "Also publish the faces for ROS4HRI (REP-155), below /humans/faces. Needs the package "
        "hri_msgs and `tracking.enabled`.",
    )
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.rotation) not in (1, len(self.cameras)):
            raise ScrfdError(
                f"rotation has {len(self.rotation)} values for {len(self.cameras)} cameras; "
                f"expected one for all, or one for each, in the order of cameras"
            )
        if self.hri and not self.tracking.enabled:
            raise ScrfdError(
                "hri is true, but tracking.enabled is false: faces without an id that stays cannot "
                "be published for ROS4HRI; set tracking.enabled to true, or hri to false"
            )

    @property
    def rotations(self) -> dict[str, int]:
        """The rotation of each camera by its name, degrees clockwise."""
        rotation = self.rotation * len(self.cameras) if len(self.rotation) == 1 else self.rotation
        return dict(zip(self.cameras, rotation, strict=True))


def effect(known: Option) -> str:
    """When a change of an option takes effect, in a phrase."""
    if known.is_read_only:
        return "at the next start"
    return "at once" if known.is_live else "at the next configure"


def to_parameter(value: Any) -> Any:
    """The value of an option as ROS 2 and YAML have it: no path is "", a tuple is a list."""
    if value is None:
        return ""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def from_parameter(value: Any, kind: Any) -> Any:
    """The value of an option of this type; the way back from `to_parameter`. "~" is expanded."""
    if kind == Path | None:
        # Not Path.expanduser(), which raises for a user that does not exist.
        return Path(os.path.expanduser(value)) if value else None
    return tuple(value) if isinstance(value, (list, array)) else value
