# SPDX-License-Identifier: Apache-2.0
"""Checks of the launch files' arguments, and what launch reports when a process ends.

This module does not import launch, so that it can be tested without it.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.params_files import PARAMETERS, read_params_file, sections

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

# Arguments of launch itself, beside those that a launch file declares.
_OF_LAUNCH = {
    "launch-prefix",
    "launch-prefix-filter",
    "emulate_tty",
    "sigterm_timeout",
    "sigkill_timeout",
}


def is_launched(file: Path, command: Sequence[str]) -> bool:
    """Whether `ros2 launch` was called with this launch file, not with one that includes it.

    Args:
        file: the launch file.
        command: the process's arguments, as in `sys.argv`.
    """
    if ("scrfd_ros", file.name) in itertools.pairwise(command):
        return True
    same = (word for word in command if Path(word).name == file.name)
    return any(Path(word).resolve() == file.resolve() for word in same)


def check_arguments(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that a launch file does not have.

    Args:
        given: words of the command line, such as `image:=/image_raw`.
        known: names of the launch file's arguments.

    Raises:
        ScrfdError: an argument is unknown; names the nearest known one.
    """
    names = sorted(known)
    for word in given:
        name = word.split(":=", 1)[0]
        if name in names or name in _OF_LAUNCH:
            continue
        near = difflib.get_close_matches(name, names, n=1)
        raise ScrfdError(
            f"there is no argument {name}"
            + (f": did you mean {near[0]}:=..." if near else f"; there are: {', '.join(names)}")
        )


def camera_names(text: str) -> list[str]:
    """The names in `front,rear` or `[front, rear]`."""
    names = (name.strip(" '\"") for name in text.strip("[] ").split(","))
    return [name for name in names if name]


def check_image(image: str, cameras: Sequence[str]) -> None:
    """Refuse an image topic that is empty, or the same for several cameras.

    Raises:
        ScrfdError: see above.
    """
    if not image.strip():
        raise ScrfdError("image is empty: expected a topic, such as image:=/camera/image_raw")
    if cameras and image.startswith(("/", "~")):
        raise ScrfdError(
            f"image:={image} is one topic, but there are {len(cameras)} cameras: expected the "
            f"name below each camera's, such as image:=image_raw for {cameras[0]}/image_raw"
        )


def boolean(name: str, text: str) -> bool:
    """The value of an argument that is `true` or `false`, in any case.

    Raises:
        ScrfdError: it is something else.
    """
    if text.lower() not in ("true", "false"):
        raise ScrfdError(f"{name}:={text}: expected true or false")
    return text.lower() == "true"


def check_log_level(level: str) -> None:
    """Refuse an unknown log level. `LOGGER:=LEVEL`, for one logger, is known.

    Raises:
        ScrfdError: the level is unknown.
    """
    if level.rpartition(":=")[2].lower() not in LOG_LEVELS:
        raise ScrfdError(f"log_level:={level}: expected one of: {', '.join(LOG_LEVELS)}")


def check_parameters_file(path: Path) -> None:
    """Refuse a file without parameters.

    launch_ros logs one line, which is soon out of sight, and starts the node with defaults.

    Raises:
        ScrfdError: the file does not exist, is not readable, is not YAML, or has no
            `ros__parameters`.
    """
    expected = "expected a YAML file of parameters, such as a copy of config/faces.yaml"
    if not path.is_file():
        what = "is not a file" if path.exists() else "is not there"
        raise ScrfdError(f"params_file:={path} {what}: {expected}")
    try:
        content = read_params_file(path)
    except ScrfdError as error:
        raise ScrfdError(f"params_file:={path} {error}: {expected}") from error
    if not (
        isinstance(content, dict)
        and any(isinstance(parameters, dict) for _, parameters in sections(content))
    ):
        raise ScrfdError(
            f"params_file:={path} has no {PARAMETERS}: {expected}, in which they stand below the "
            f"name of a node, or /** for every node, and {PARAMETERS}"
        )


def tell_end(context: Any, event: Any) -> None:
    """Have `ros2 launch` end with status 1 if a process has ended with another status than 0.

    By default it ends with 0. Other processes of the launch keep running.

    Args:
        context: the LaunchContext.
        event: the ProcessExited.
    """
    if event.returncode == 0 or context.is_shutdown:
        return
    number = -event.returncode
    how = f"was ended by signal {number}" if number > 0 else f"ended with status {event.returncode}"
    context.asyncio_loop.call_exception_handler({"message": f"{event.process_name} {how}"})
