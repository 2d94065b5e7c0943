# SPDX-License-Identifier: Apache-2.0
"""Parameter files of ROS 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scrfd_ros.errors import ScrfdError

PARAMETERS = "ros__parameters"


def read_params_file(file: str | Path) -> Any:
    """The content of a parameter file, with all values as text; {} if it is empty.

    Raises:
        ScrfdError: the file cannot be read or is not YAML: what it is, to be put after its name.
    """
    try:
        return yaml.BaseLoader(Path(file).read_text("utf-8")).get_single_data() or {}
    except OSError as error:
        raise ScrfdError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScrfdError("is not text in UTF-8; a YAML file is expected") from error
    except yaml.YAMLError as error:
        raise ScrfdError(f"is not YAML: {' '.join(str(error).split())}") from error


def sections(document: dict[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Names of nodes, which may be nested, with their ros__parameters, or None."""
    for key, value in document.items():
        name = f"{above}/{str(key).lstrip('/')}" if above else str(key)
        if isinstance(value, dict) and PARAMETERS in value:
            yield name, value[PARAMETERS]
        elif isinstance(value, dict) and value:
            yield from sections(value, name)
        else:
            yield above or name, None
