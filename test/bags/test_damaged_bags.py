# SPDX-License-Identifier: Apache-2.0
"""Every readable message of a damaged or odd bag is read, and the rest is reported.

Without a network: the images read here are those that a replay would search.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import (
    COMPRESSED_IMAGE,
    DELAY,
    IMAGE,
    Channel,
    Entry,
    jpeg,
    raw,
    text,
    write_bag,
    write_mcap,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from scrfd_ros.bags.bag import open_bag
from scrfd_ros.errors import ScrfdError

START = 1_700_000_000_000_000_000
RANDOM = np.random.default_rng(0)
COMPRESSIONS = [None, "", "lz4", "zstd"]


def image(number: int, topic: str = "/image", size: int = 4) -> Entry:
    """A raw image of noise, which does not compress."""
    return raw(topic, START + number, RANDOM.integers(0, 256, (size, size, 3), np.uint8))


IMAGES = [image(number) for number in range(6)]


def read(path: Path, *kinds: str) -> tuple[list[int], list[str], list[str]]:
    """The numbers of the images that are read as a whole, the damage, and the notes."""
    with open_bag(path) as bag:
        records = list(bag.records(bag.topics(*(kinds or (IMAGE, COMPRESSED_IMAGE)))))
        numbers = [
            record.time - START - DELAY
            for record in records
            if record.data in {entry.data for entry in IMAGES} or kinds
        ]
        return numbers, bag.damage, bag.notes


@pytest.mark.parametrize("summary", [True, False], ids=["summary", "no summary"])
@pytest.mark.parametrize("message_index", [True, False], ids=["index", "no message index"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_mcap_file_needs_no_index(
    compression: str | None, message_index: bool, summary: bool, tmp_path: Path
) -> None:
    path = write_mcap(
        tmp_path / "a.mcap",
        IMAGES,
        compression=compression,
        message_index=message_index,
        summary=summary,
    )
    assert read(path) == ([*range(6)], [], [])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"claimed": 1000}, id="too many messages claimed"),
        pytest.param({"claimed": 0}, id="no messages claimed"),
        pytest.param({"claimed": 2**63}, id="absurdly many messages claimed"),
        pytest.param({"chunk_offset": 13}, id="index that points into other data"),
        pytest.param({"chunk_offset": 2**40}, id="index that points beyond the end"),
        pytest.param({"channels_in_summary": False}, id="no channels in the summary"),
        pytest.param({"profile": ""}, id="no profile"),
        pytest.param({"profile": "px4"}, id="another profile"),
        pytest.param({"crc": False}, id="no checksums"),
        pytest.param({"channels": {"/image": Channel(IMAGE, "ros2idl")}}, id="IDL"),
        pytest.param({"channels": {"/image": Channel(IMAGE, "")}}, id="empty schema"),
        pytest.param({"channels": {"/image": Channel(None)}}, id="no schema"),
    ],
)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_an_mcap_file_says_of_itself_does_not_matter(
    compression: str | None, options: dict[str, Any], tmp_path: Path
) -> None:
    path = write_mcap(tmp_path / "a.mcap", IMAGES, compression=compression, **options)
    assert read(path) == ([*range(6)], [], [])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_messages_come_in_the_order_of_their_times(compression: str | None, tmp_path: Path) -> None:
    order = [5, 0, 4, 4, 1, 3, 2]
    entries = [IMAGES[number] for number in order]
    path = write_mcap(tmp_path / "a.mcap", entries, compression=compression, summary=False)
    assert read(path)[0] == sorted(order)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_mcap_file_cut_short_at_every_byte_gives_the_images_before(
    compression: str | None, tmp_path: Path
) -> None:
    path = write_mcap(tmp_path / "whole.mcap", IMAGES, compression=compression)
    content = path.read_bytes()
    data_end = content.rindex(struct.pack("<BQI", 15, 4, 0)) + 13
    # Uncompressed records are read as soon as they are whole; compressed data may be lost.
    ends = [content.index(entry.data) + len(entry.data) for entry in IMAGES if not compression]
    before = 0
    part = tmp_path / "part.mcap"
    for cut in range(len(content)):
        part.write_bytes(content[:cut])
        try:
            numbers, damage, _ = read(part)
        except ScrfdError as error:
            assert before == 0
            assert re.search(r"mcap recover|the file is empty", str(error)), cut
            numbers, damage = [], ["refused"]
        assert numbers == [*range(len(numbers))], cut
        assert bool(damage) == (cut < data_end), cut
        if compression:
            assert len(numbers) >= before, cut
        else:
            assert len(numbers) == sum(end <= cut for end in ends), cut
        before = len(numbers)
    assert before == 6


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_one_byte_wrong_anywhere_in_an_mcap_file_costs_few_images_and_is_told(
    compression: str | None, tmp_path: Path
) -> None:
    path = write_mcap(tmp_path / "whole.mcap", IMAGES, compression=compression)
    content = path.read_bytes()
    end = content.rindex(struct.pack("<BQI", 15, 4, 0))
    part = tmp_path / "part.mcap"
    silent = 0
    for at in range(end):
        part.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            numbers, damage, _ = read(part)
        except ScrfdError as error:
            # Without channels or checksum the rest cannot be identified.
            assert "mcap recover" in str(error)
            continue
        assert len(set(numbers)) == len(numbers), at
        if compression is None:
            continue
        assert len(numbers) >= 4, at
        silent += len(numbers) < 6 and not damage
    assert silent == 0


def zeros(content: bytearray, begin: int, count: int) -> None:
    content[begin : begin + count] = bytes(count)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("summary", [True, False])
def test_a_hole_in_an_mcap_file_costs_what_was_there(
    compression: str | None, summary: bool, tmp_path: Path
) -> None:
    path = write_mcap(tmp_path / "a.mcap", IMAGES, compression=compression, summary=summary)
    content = bytearray(path.read_bytes())
    second = [match.start() for match in re.finditer(rb"\x06.{4}\0{4}", content, re.DOTALL)][1:2]
    middle = second[0] + 100 if compression else content.index(IMAGES[2].data[-20:])
    zeros(content, middle, 60)
    path.write_bytes(content)
    numbers, damage, _ = read(path)
    assert {0, 4, 5} <= set(numbers) < set(range(6))
    (sentence,) = damage
    assert sentence.startswith(f"{path}: damaged: ") and "mcap recover" in sentence
    with open_bag(path) as bag:
        assert bag.claims.get("/image") == (6 if summary else None)


def test_a_chunk_that_disagrees_with_its_checksum_is_used_and_told(tmp_path: Path) -> None:
    for compression in ("", "lz4", "zstd"):
        path = write_mcap(tmp_path / f"{compression}.mcap", IMAGES, compression=compression)
        content = path.read_bytes()
        (crc,) = re.findall(rb"\x06.{8}.{24}(.{4})", content, re.DOTALL)[:1]
        path.write_bytes(content.replace(crc, bytes(4 * [7])))
        numbers, damage, _ = read(path)
        assert numbers == [*range(6)]
        assert "does not match its checksum" in damage[0]


def test_joined_mcap_files_are_read_as_one(tmp_path: Path) -> None:
    one = write_mcap(tmp_path / "1.mcap", IMAGES[:3], compression="zstd")
    other = write_mcap(tmp_path / "2.mcap", [text("/a", START), *IMAGES[3:]], compression="lz4")
    joined = tmp_path / "joined.mcap"
    joined.write_bytes(one.read_bytes() + other.read_bytes())
    assert read(joined) == ([*range(6)], [], [])


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_chunk_that_claims_to_be_large_takes_no_memory(compression: str, tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", IMAGES, compression=compression, claimed_size=2**62)
    code = (
        "import resource, sys; from pathlib import Path; from scrfd_ros.bags.bag import open_bag\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "with open_bag(Path(sys.argv[1])) as bag:\n"
        "    print(len(list(bag.records(bag.topics('sensor_msgs/msg/Image')))), bag.damage)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "6 []\n", done.stderr


def test_other_channels_are_left_alone(tmp_path: Path) -> None:
    entries = [*IMAGES, text("/json", START), text("/proto", START), text("/ros1", START)]
    channels = {
        "/json": Channel("foxglove.Log", "jsonschema", "json"),
        "/proto": Channel("foxglove.CompressedImage", "protobuf", "protobuf"),
        "/ros1": Channel("sensor_msgs/Image", "ros1msg", "ros1"),
    }
    path = write_mcap(tmp_path / "a.mcap", entries, channels=channels)
    assert read(path) == ([*range(6)], [], [])
    with open_bag(path) as bag:
        assert {topic.name: topic.encoding for topic in bag.counts} == {
            "/image": "cdr",
            "/json": "json",
            "/proto": "protobuf",
            "/ros1": "ros1",
        }


def test_a_topic_whose_type_changes_is_read_in_both(tmp_path: Path) -> None:
    other = jpeg("/image", START + 7, np.zeros((8, 8, 3), np.uint8))
    path = write_mcap(tmp_path / "a.mcap", [*IMAGES[:2], other, text("/image", START + 9)])
    with open_bag(path) as bag:
        topics = bag.topics(IMAGE, COMPRESSED_IMAGE)
        assert [(topic.name, topic.kind, bag.counts[topic]) for topic in topics] == [
            ("/image", COMPRESSED_IMAGE, 1),
            ("/image", IMAGE, 2),
        ]
        assert [record.kind for record in bag.records(topics)] == [IMAGE, IMAGE, COMPRESSED_IMAGE]


# --- SQLite -----------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A bag of one .db3 file."""
    return write_bag(tmp_path / "bag", IMAGES) / "bag.db3"


def test_a_database_cut_short_at_every_page_gives_what_is_left(tmp_path: Path) -> None:
    large = [image(number, size=60) for number in range(20)]
    path = write_bag(tmp_path / "bag", large) / "bag.db3"
    content = path.read_bytes()
    counts = []
    for cut in range(0, len(content), 1024):
        path.write_bytes(content[:cut])
        try:
            with open_bag(path) as bag:
                records = list(bag.records(bag.topics(IMAGE)))
                assert bag.damage
                assert f"sqlite3 {path} .recover" in bag.damage[0]
        except ScrfdError as error:
            assert re.search("the file is empty|sqlite3 .* .recover", str(error))
            continue
        whole = [r.time - START - DELAY for r in records if r.data in {e.data for e in large}]
        assert whole == sorted(whole)
        counts.append(len(whole))
    # The pages of an image follow each other.
    assert counts == sorted(counts)
    assert set(counts) >= {0, 5, 10, 15}


def test_a_hole_in_a_database_costs_what_was_there(tmp_path: Path) -> None:
    large = [image(number, size=60) for number in range(20)]
    bag = write_bag(tmp_path / "bag", large)
    content = bytearray((bag / "bag.db3").read_bytes())
    middle = len(content) // 8192 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    (bag / "bag.db3").write_bytes(content)
    with open_bag(bag) as opened:
        records = list(opened.records(opened.topics(IMAGE)))
        whole = [r.time - START - DELAY for r in records if r.data in {e.data for e in large}]
        assert opened.damage and opened.claims == {"/image": 20}
    assert 15 <= len(whole) < 20


def test_a_database_with_a_page_of_messages_missing(tmp_path: Path) -> None:
    """The rows of one leaf of the tree are lost; those before and after it are found one by one."""
    entries = [image(number) for number in range(400)]
    path = write_bag(tmp_path / "bag", entries) / "bag.db3"
    content = bytearray(path.read_bytes())
    data = {entry.data: number for number, entry in enumerate(entries)}
    page = content.index(entries[200].data) // 4096
    content[page * 4096 : page * 4096 + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with open_bag(path) as bag:
        found = [data[r.data] for r in bag.records(bag.topics(IMAGE)) if r.data in data]
        (damage,) = bag.damage
    lost = sorted({*range(400)} - {*found})
    assert found == sorted(found)
    assert 200 in lost and lost == [*range(lost[0], lost[-1] + 1)] and len(lost) < 50
    assert f"; at least {len(lost)} messages cannot be read" in damage


def test_an_index_of_times_that_lies_hides_no_message(database: Path) -> None:
    """Its page claims to be empty."""
    with sqlite3.connect(database) as opened:
        (page,) = opened.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'timestamp_idx'"
        ).fetchone()
    opened.close()
    content = bytearray(database.read_bytes())
    content[(page - 1) * 4096 + 3 : (page - 1) * 4096 + 5] = b"\0\0"
    database.write_bytes(content)
    assert read(database) == ([*range(6)], [], [])


def test_messages_in_a_journal_are_read(tmp_path: Path) -> None:
    """As a killed recorder leaves it: rosbag2 keeps a write-ahead log."""
    path = write_bag(tmp_path / "bag", IMAGES[:3]) / "bag.db3"
    with sqlite3.connect(path) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("PRAGMA wal_autocheckpoint = 0")
    for entry in IMAGES[3:]:
        live.execute(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)",
            (entry.stamp + DELAY, entry.data),
        )
    live.commit()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("bag.db3", "bag.db3-wal"):
        shutil.copy(path.with_name(name), copy)
    live.close()
    assert (copy / "bag.db3-wal").stat().st_size > 0
    assert read(copy / "bag.db3") == ([*range(6)], [], [])
    assert {file.name for file in copy.iterdir()} == {"bag.db3", "bag.db3-wal"}
    # Without its log it is also whole, but older.
    (copy / "bag.db3-wal").unlink()
    assert read(copy / "bag.db3") == ([*range(3)], [], [])
    assert [file.name for file in copy.iterdir()] == ["bag.db3"]


def test_a_journal_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """A transaction that was cut short; undoing it means writing to the file."""
    path = write_bag(tmp_path / "bag", IMAGES) / "bag.db3"
    copy = tmp_path / "a copy"
    copy.mkdir()
    live = sqlite3.connect(path, isolation_level=None)
    live.execute("PRAGMA cache_size = 1")
    live.execute("BEGIN")
    for number in range(100):
        live.execute(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)",
            (number, bytes(4000)),
        )
    for file in path.parent.glob("bag.db3*"):
        shutil.copy(file, copy)
    live.close()
    assert (copy / "bag.db3-journal").stat().st_size > 0
    numbers, (damage,), _ = read(copy / "bag.db3")
    assert set(numbers) <= set(range(6))
    assert "the content of bag.db3-journal cannot be used" in damage
    assert f"sqlite3 '{copy / 'bag.db3'}' 'SELECT 1 FROM topics'" in damage
    assert {file.name for file in copy.iterdir()} == {"bag.db3", "bag.db3-journal"}


# --- Folders ----------------------------------------------------------------------------------


def split(folder: Path, storage: str = "mcap") -> Path:
    """A bag of two files, with three images each."""
    first = write_bag(folder / "0", IMAGES[:3], storage)
    other = write_bag(folder / "1", IMAGES[3:], storage)
    suffix = {"mcap": "mcap", "sqlite3": "db3"}[storage]
    bag = folder / "bag"
    bag.mkdir()
    (first / f"0.{suffix}").rename(bag / f"bag_0.{suffix}")
    (other / f"1.{suffix}").rename(bag / f"bag_1.{suffix}")
    content = (first / "metadata.yaml").read_text()
    content = re.sub(
        r"(relative_file_paths:\n)( *- ).*\n", rf"\1\2bag_0.{suffix}\n\2bag_1.{suffix}\n", content
    )
    (bag / "metadata.yaml").write_text(content.replace("message_count: 3", "message_count: 6"))
    shutil.rmtree(first)
    shutil.rmtree(other)
    return bag


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_all_files_of_a_bag_are_read(storage: str, tmp_path: Path) -> None:
    assert read(split(tmp_path, storage)) == ([*range(6)], [], [])


def remove_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").unlink()


def break_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("{")


def nest_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("[" * 100_000)


def empty_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("")


def binary_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").write_bytes(b"\xff\xfe\0")


@pytest.mark.parametrize(
    "damage", [remove_metadata, break_metadata, nest_metadata, empty_metadata, binary_metadata]
)
def test_a_folder_without_good_metadata_is_read(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    bag = split(tmp_path)
    damage(bag)
    numbers, found, (note,) = read(bag)
    assert (numbers, found) == ([*range(6)], [])
    assert "metadata.yaml" in note and note.endswith(f"ros2 bag reindex {bag}")


def test_metadata_nested_too_deep_is_refused_by_its_levels(tmp_path: Path) -> None:
    """Not when the stack is used up, which ends the process with older versions of PyYAML."""
    bag = split(tmp_path)
    (bag / "metadata.yaml").write_text("- " * 101)
    _, _, (note,) = read(bag)
    assert "nested deeper than 100 levels" in note


@pytest.mark.parametrize("name", ["bag_0.mcap", "bag_1.mcap"])
@pytest.mark.parametrize("how", ["missing", "empty", "text"])
def test_a_file_of_several_that_cannot_be_read_costs_its_images(
    name: str, how: str, tmp_path: Path
) -> None:
    bag = split(tmp_path)
    if how == "missing":
        (bag / name).unlink()
    else:
        (bag / name).write_text("" if how == "empty" else "text, and nothing else" * 100)
    numbers, (damage,), _ = read(bag)
    assert numbers == ([3, 4, 5] if name == "bag_0.mcap" else [0, 1, 2])
    assert name in damage
    with open_bag(bag) as opened:
        assert opened.claims == {"/image": 6}


def test_renamed_files_are_found(tmp_path: Path) -> None:
    bag = split(tmp_path)
    for number in (0, 1):
        (bag / f"bag_{number}.mcap").rename(bag / f"drive_{number}.mcap")
    assert read(bag) == ([*range(6)], [], [])


def test_a_file_that_is_not_listed_is_left_alone_and_told(tmp_path: Path) -> None:
    bag = split(tmp_path)
    shutil.copy(bag / "bag_0.mcap", bag / "copy of bag_0.mcap")
    numbers, damage, (note,) = read(bag)
    assert (numbers, damage) == ([*range(6)], [])
    assert "copy of bag_0.mcap" in note


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
@pytest.mark.parametrize("metadata", [True, False])
def test_compression_is_seen_without_metadata(
    storage: StoragePlugin, mode: CompressionMode, metadata: bool, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", IMAGE, msgdef="int32 a", rihs01="RIHS01_0")
        for entry in IMAGES:
            writer.write(connection, entry.stamp + DELAY, entry.data)
    if not metadata:
        remove_metadata(tmp_path / "bag")
    assert read(tmp_path / "bag")[:2] == ([*range(6)], [])
    (file,) = (tmp_path / "bag").glob("bag.*")
    assert read(file) == ([*range(6)], [], [])


def test_a_compressed_file_that_is_cut_short_gives_what_comes_before(tmp_path: Path) -> None:
    large = [image(number, size=250) for number in range(4)]
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", IMAGE, msgdef="int32 a", rihs01="RIHS01_0")
        for entry in large:
            writer.write(connection, entry.stamp + DELAY, entry.data)
    (file,) = (tmp_path / "bag").glob("bag.*")
    file.write_bytes(file.read_bytes()[:-200_000])
    numbers, damage, _ = read(tmp_path / "bag", IMAGE)
    assert numbers[:2] == [0, 1]
    assert damage[0].startswith(f"{file}: zstd data that is cut short")


def of_ros_1(path: Path) -> Path:
    path.write_bytes(b"#ROSBAG V2.0\n" + bytes(4096))
    return path


def in_folder(path: Path) -> Path:
    path.mkdir()
    of_ros_1(path / "a.bag")
    return path


def several(path: Path) -> Path:
    write_bag(path / "one", IMAGES)
    write_bag(path / "two", IMAGES)
    return path


def text_file(path: Path) -> Path:
    path.write_text("This is a text.\n" * 100)
    return path


def archive(path: Path) -> Path:
    path.write_bytes(gzip.compress(b"bag"))
    return path


def no_recording(path: Path) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (id INTEGER)")
    database.close()
    return path


def without_files(path: Path) -> Path:
    bag = write_bag(path, IMAGES, "mcap")
    (bag / "bag").unlink(missing_ok=True)
    for file in bag.glob("*.mcap"):
        file.unlink()
    return bag


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def empty_file(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (of_ros_1, "a.bag", "a bag of ROS 1; .*rosbags-convert --src .*a.bag --dst .*/a$"),
        (in_folder, "a", "a folder with bags of ROS 1; .*rosbags-convert --src .*/a.bag"),
        (several, "a", "a folder with bags in it; expected one bag, such as: one, two"),
        (text_file, "a.db3", "file is not a database.*sqlite3 .*a.db3 .recover"),
        (text_file, "a.mcap", "its first bytes are not those of an MCAP file.*mcap recover"),
        (text_file, "a.txt", "not a bag that can be read. Expected a folder with metadata.yaml"),
        (archive, "a.tgz", "not a bag that can be read. Expected"),
        (no_recording, "a.db3", "the database has no table messages and topics"),
        (without_files, "a", "a.mcap is missing, which its metadata.yaml lists: copy the whole"),
        (empty_folder, "a", "there is no .db3 or .mcap file in it. Expected"),
        (empty_file, "a.db3", "the file is empty"),
        (empty_file, "a.mcap", "the file is empty"),
        (lambda path: path, "a", "a: cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_bag_is_refused_with_a_remedy(
    make: Callable[[Path], Path], name: str, words: str, tmp_path: Path
) -> None:
    path = make(tmp_path / name)
    with pytest.raises(ScrfdError, match=words) as refused, open_bag(path):
        pass
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_bag_that_may_not_be_read_is_refused(database: Path) -> None:
    database.chmod(0)
    with pytest.raises(ScrfdError, match="cannot be read: Permission denied"), open_bag(database):
        pass
