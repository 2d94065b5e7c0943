# SPDX-License-Identifier: Apache-2.0
"""Set the transport profile for large images, for everything that starts after this.

It has no arguments, so an include passes none on.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction, SetEnvironmentVariable

CONFIG = Path(get_package_share_directory("scrfd_ros"), "config")
PROFILES = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": f"{CONFIG / 'fastdds.xml'}",  # up to Jazzy
    "FASTDDS_DEFAULT_PROFILES_FILE": f"{CONFIG / 'fastdds.xml'}",  # from Kilted on
    "CYCLONEDDS_URI": f"file://{CONFIG / 'cyclonedds.xml'}",
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([OpaqueFunction(function=set_profile)])


def set_profile(context: LaunchContext) -> list[SetEnvironmentVariable]:
    if any(context.environment.get(name) for name in PROFILES):
        return []  # the user has set one
    return [SetEnvironmentVariable(name, profile) for name, profile in PROFILES.items()]
