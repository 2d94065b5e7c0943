# SPDX-License-Identifier: Apache-2.0
"""Who is forgotten is gone: from the files, and from the memory of the processes that knew.

The memory of running processes is searched for pieces of embeddings, images and names.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import gallery_process
import numpy as np
import pytest
from galleries import looks

from scrfd_ros.gallery.people import Look

Needles = Mapping[str, Sequence[bytes]]
Tell = Callable[[str], str]


def name_of(person: int) -> str:
    return f"Zq{np.random.default_rng(person).bytes(12).hex()}"


def looks_of(person: int) -> list[Look]:
    random = np.random.default_rng(person)
    return [
        look._replace(crop=random.integers(0, 256, (112, 112, 3), np.uint8))
        for look in looks(person, 2)
    ]


def needles_of(people: Sequence[int], embedding_step: int = 256) -> dict[str, list[bytes]]:
    """Pieces of what is known of people."""
    needles: dict[str, list[bytes]] = {"name": [], "embedding": [], "image": []}
    for person in people:
        # The first bytes of a free block are the allocator's.
        needles["name"] += [name_of(person)[4:].encode(), name_of(person)[4:].encode("utf-16-le")]
        for look in looks_of(person):
            data = look.embedding.tobytes()
            needles["embedding"] += [data[n : n + 32] for n in range(0, 2048, embedding_step)]
            png = bytes(cv2.imencode(".png", look.crop)[1])
            needles["image"] += [png[n : n + 64] for n in (5000, len(png) - 100)]
    return needles


def memory(process: subprocess.Popen[str]) -> bytes:
    """What a child of this process has in memory; not its code and other files, unless writable."""
    content = []
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as stream:
        for line in maps:
            span, rights, _, _, inode, *name = line.split()
            if rights[0] == "r" and (rights[1] == "w" or inode == "0") and name != ["[vvar]"]:
                begin, end = (int(address, 16) for address in span.split("-"))
                stream.seek(begin)
                try:
                    pages = np.frombuffer(stream.read(end - begin), "<u8").reshape(-1, 512)
                except OSError:  # the kernel's pages
                    continue
                content.append(pages[pages.any(axis=1)].tobytes())  # most are empty
    return b"".join(content)


def found(needles: Needles, content: bytes) -> set[str]:
    return {kind for kind, pieces in needles.items() for each in pieces if each in content}


def files(gallery: Path) -> bytes:
    """All files of a gallery, read by another process: closing them in this one ends its locks."""
    return subprocess.run(
        ["cat", *gallery.parent.glob(gallery.name + "*")], capture_output=True, check=True
    ).stdout


@contextmanager
def gallery_user(gallery: Path) -> Iterator[tuple[subprocess.Popen[str], Tell]]:
    with subprocess.Popen(
        [sys.executable, gallery_process.__file__, gallery],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout

        def tell(line: str) -> str:
            print(line, file=stdin, flush=True)
            return stdout.readline().strip()

        yield process, tell
        stdin.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the memory of processes as files")
def test_the_forgotten_are_gone_from_files_and_memory(tmp_path: Path) -> None:
    gallery = tmp_path / "people" / "people.db"
    forgotten, staying = (0, 2), (1, 3)
    with gallery_user(gallery) as (writer, tell_writer):
        ids = {}
        for person in range(4):
            gallery_process.write_person(tmp_path / "x", name_of(person), looks_of(person))
            ids[person] = tell_writer(f"enroll {tmp_path / 'x'}")
        with gallery_user(gallery) as (follower, tell_follower):
            tell_follower("identify 2")
            needles = needles_of(forgotten)
            assert found(needles, files(gallery)) == {"name", "embedding", "image"}
            for process in (writer, follower):  # this search does find what is there
                assert found(needles, memory(process)) >= {"name", "embedding"}
            for person in forgotten:
                tell_writer(f"forget {ids[person]}")
            tell_follower(f"await {ids[forgotten[-1]]}")
            for content in (files(gallery), memory(writer), memory(follower)):
                assert found(needles, content) == set()
                assert found(needles_of(staying[:1]), content) >= {"name", "embedding"}
