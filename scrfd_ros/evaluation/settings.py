# SPDX-License-Identifier: Apache-2.0
"""What results are recorded with: the options that they depend on."""

from __future__ import annotations

from scrfd_ros.config import Group, options

_NOT_RECORDED = ("enabled", "model", "engine_path")  # results name the network and its checksum


def recorded_options(config: Group) -> dict[str, object]:
    """All options of a group by name, for JSON, except those that choose the network."""
    values = {name: getattr(config, name) for name in options(type(config))}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in _NOT_RECORDED
    }
