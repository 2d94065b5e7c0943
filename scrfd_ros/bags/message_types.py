# SPDX-License-Identifier: Apache-2.0
"""The types of the messages in bags, and message objects from bytes. Needs rosbags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scrfd_ros.errors import MessageError, ScrfdError

try:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    from rosbags.typesys.store import Typestore
except ImportError as error:
    raise ScrfdError(
        f"bags are read and written with the Python package rosbags, which cannot be imported "
        f"({error}): pip install rosbags"
    ) from error

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
DETECTION_ARRAY = "vision_msgs/msg/Detection2DArray"
FACE_ARRAY = "scrfd_ros/msg/FaceArray"


def deserialize(data: bytes | memoryview, kind: str) -> Any:
    """A message object, with the fields of the type `kind`, from CDR bytes.

    Raises:
        MessageError: the bytes are not a whole message of that type.
    """
    try:
        return TYPES.deserialize_cdr(data, kind)
    except Exception as error:  # the type depends on the version of rosbags
        raise MessageError(f"not a whole {kind}: {error}") from error


def _typestore() -> Typestore:
    """A typestore with the standard messages, vision_msgs and scrfd_ros."""
    folder = _definitions()
    types = get_typestore(Stores.ROS2_HUMBLE)
    known = {}
    for package, path in (
        ("vision_msgs", folder / "resource" / "vision_msgs" / "msg"),
        ("scrfd_ros", folder / "msg"),
    ):
        for file in sorted(path.glob("*.msg")):
            text = file.read_text(encoding="utf-8")
            known.update(get_types_from_msg(text, f"{package}/msg/{file.stem}"))
    types.register(known)
    return types


def _definitions() -> Path:
    """The folder with the message definitions: the source tree, or share/scrfd_ros above it."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2], *(above / "share" / "scrfd_ros" for above in here.parents)):
        if (folder / "msg" / "FaceArray.msg").is_file():
            return folder
    raise ScrfdError(
        f"no folder above {here} has share/scrfd_ros/msg/FaceArray.msg: the installation of "
        f"scrfd_ros is incomplete; install it again"
    )


TYPES = _typestore()
"""The typestore of rosbags with the standard messages, vision_msgs and scrfd_ros."""
