# SPDX-License-Identifier: Apache-2.0
"""The parameters in config/faces.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[1] / "config" / "faces.yaml"


def configured() -> dict[str, Any]:
    """Values by full name, such as detector.model."""
    content = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return _flattened(content["/**"]["ros__parameters"])


def _flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flattened(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
