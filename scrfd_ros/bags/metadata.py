# SPDX-License-Identifier: Apache-2.0
"""Read the metadata.yaml of a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

_MAX_BYTES: Final = 1 << 26
_MAX_DEPTH: Final = 100


class BagMetadata(NamedTuple):
    """What a metadata.yaml says of a bag.

    Attributes:
        files: names of the bag's files.
        counts, kinds, digests: number of messages, type and type hash of each topic.
    """

    files: list[str]
    counts: dict[str, int]
    kinds: dict[str, str]
    digests: dict[str, str]


def read_metadata(path: Path) -> tuple[BagMetadata, str]:
    """Read a metadata.yaml.

    Returns:
        What it says, and a phrase that says what is wrong with it; empty if nothing is.
    """
    found = BagMetadata([], {}, {}, {})
    try:
        if path.stat().st_size > _MAX_BYTES:
            return found, f"its metadata.yaml has more than {_MAX_BYTES} bytes"
        content = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return (
            found,
            "it has no metadata.yaml: the recording was interrupted, or the file was not copied",
        )
    except OSError as error:
        return found, f"its metadata.yaml cannot be read: {error.strerror}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        return found, f"its metadata.yaml is not valid YAML ({reason[:200]})"
    information = _of_type(dict, content).get("rosbag2_bagfile_information")
    if not isinstance(information, dict):
        return found, "its metadata.yaml does not describe a bag"
    files = _of_type(list, information.get("relative_file_paths"))
    found.files.extend(name for name in files if isinstance(name, str) and name)
    for entry in _of_type(list, information.get("topics_with_message_count")):
        topic = _of_type(dict, _of_type(dict, entry).get("topic_metadata"))
        name, count = topic.get("name"), _of_type(dict, entry).get("message_count")
        if isinstance(name, str):
            found.kinds[name] = str(topic.get("type") or "")
            found.digests[name] = str(topic.get("type_description_hash") or "")
            if isinstance(count, int):
                found.counts[name] = found.counts.get(name, 0) + count
    return found, ""


_YAML: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load(text: str) -> Any:
    # The loader in C calls itself for each level, without a limit: PyYAML 6.0, and 5.4 of Ubuntu
    # 22.04, would end the process. Its events come without recursion.
    depth = 0
    for event in yaml.parse(text, _YAML):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    return _YAML(text).get_single_data()


def _of_type(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else kind()
