# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: what imports ROS 2 is skipped, be it installed or not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pytest
from test_house_rules import is_ros


class _NoRos(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if is_ros(name) and name != "scrfd_ros.node" and not name.startswith("scrfd_ros.node."):
            pytest.skip(f"needs ROS 2: imports {name}", allow_module_level=True)


sys.meta_path.insert(0, _NoRos())
