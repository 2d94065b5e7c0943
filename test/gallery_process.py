# SPDX-License-Identifier: Apache-2.0
"""A process that uses a gallery, told what to do line by line; for tests that look into its memory.

Usage: python gallery_process.py GALLERY

It answers each line with one line. `enroll FILE` enrolls who is in a file of `write_person`, which
is mapped into memory, so that the process has no copy of its own making.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import numpy as np
from galleries import INFO

from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Look

_NAME = 256  # bytes
_LOOK = 2048 + 112 * 112 * 3  # bytes


def write_person(path: Path, name: str, looks: list[Look]) -> None:
    """Write a person into a file: name, embeddings and crops."""
    with path.open("wb") as stream:
        stream.write(name.encode().ljust(_NAME, b"\0"))
        for look in looks:
            assert look.crop is not None
            stream.write(look.embedding.tobytes() + look.crop.tobytes())


def _read_person(path: str) -> tuple[str, list[Look]]:
    data = np.memmap(path, np.uint8, "r")
    looks = []
    for begin in range(_NAME, len(data), _LOOK):
        embedding = data[begin : begin + 2048].view(np.float32)
        crop = data[begin + 2048 : begin + _LOOK].reshape(112, 112, 3)
        looks.append(Look(embedding, 0.9, 0.0, 0.0, crop))
    return bytes(data[:_NAME]).rstrip(b"\0").decode(), looks


def main() -> None:
    with open_gallery(sys.argv[1], INFO) as gallery:
        gallery.follow()
        for line in sys.stdin:
            command, argument = line.split()
            if command == "enroll":
                name, looks = _read_person(argument)
                print(gallery.enroll(name, looks, source="").id, flush=True)
                del name, looks
                continue
            if command == "identify":
                gallery.nearest(np.full(512, 512**-0.5, np.float32), int(argument))
            elif command == "forget":
                gallery.forget(argument)
            elif command == "await":  # until the person is forgotten
                while gallery.person(argument):
                    time.sleep(0.01)
                time.sleep(0.2)  # whoever did that has come to its end
            gc.collect()
            print("done", flush=True)


if __name__ == "__main__":
    main()
