# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files, and pins: checksums kept beside files for which none is published.

A pin is `<file>.sha256` in the format of the command sha256sum, which can also check it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from scrfd_ros.errors import ModelError

SHA256 = "[0-9a-f]{64}"


def sha256_of(stream: BinaryIO) -> str:
    """SHA-256 of the whole content of an open file, in hexadecimal."""
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def pin_path(path: Path) -> Path:
    """The path of the pin for the file at `path`."""
    return path.with_name(f"{path.name}.sha256")


def read_pin(path: Path) -> str | None:
    """The checksum pinned for the file at `path`; None if there is no pin.

    Raises:
        ModelError: the content of the pin is not one checksum.
        OSError: it cannot be read.
    """
    pin = pin_path(path)
    try:
        content = pin.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    found = re.fullmatch(rf"({SHA256})( [ *]\S+)?\s*", content)
    if found is None:
        raise ModelError(
            f"{pin}: expected a checksum as sha256sum prints it, found {content[:80]!r}; remove "
            f"the file, and it is written again"
        )
    return found[1]


def write_pin(path: Path, checksum: str) -> None:
    """Pin the file at `path`. Two processes must not do so at once."""
    pin = pin_path(path)
    new = pin.with_name(f"{pin.name}.part")
    new.write_text(f"{checksum}  {path.name}\n", encoding="utf-8")
    os.replace(new, pin)  # so a pin is always complete
