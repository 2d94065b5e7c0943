# SPDX-License-Identifier: Apache-2.0
"""Topics whose images cannot show faces are not read, and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import COMPRESSED_IMAGE, IMAGE, TYPES, Channel, Entry, jpeg, raw, text, write_mcap

from scrfd_ros.bags.bag import open_bag
from scrfd_ros.bags.image_topics import image_topics
from scrfd_ros.bags.replay import result_namespaces
from scrfd_ros.errors import ScrfdError

BLACK = np.zeros((4, 4, 3), np.uint8)
COLOUR = raw("/camera/color/image_raw", 1, BLACK)


def encoded_as(topic: str, encoding: str, stamp: int = 1) -> Entry:
    return raw(topic, stamp, BLACK, encoding=encoding, step=12, height=4, width=4)


def compressed_as(topic: str, format: str) -> Entry:
    entry = jpeg(topic, 1, BLACK)
    message = TYPES.deserialize_cdr(entry.data, COMPRESSED_IMAGE)
    message.format = format
    return entry._replace(data=bytes(TYPES.serialize_cdr(message, COMPRESSED_IMAGE)))


def select(tmp_path: Path, *entries: Entry, wanted: tuple[str, ...] = (), **options: Any) -> Any:
    path = write_mcap(tmp_path / "a.mcap", entries, **options)
    with open_bag(path) as bag:
        selection = image_topics(bag, wanted)
        return selection.names, selection.left_alone


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (encoded_as("/camera/depth/image_rect_raw", "16UC1"), "depth (16UC1)"),
        (encoded_as("/camera/depth", "32FC1"), "depth (32FC1)"),
        (encoded_as("/camera/segmentation", "32SC1"), "encoding '32SC1'"),
        (compressed_as("/camera/depth/compressedDepth", "16UC1; compressedDepth png"), "depth"),
        (compressed_as("/d", "16UC1; compressedDepth rvl"), "depth (16UC1; compressedDepth rvl)"),
        (compressed_as("/d/compressed", "16UC1; png compressed "), "depth (16UC1; png compressed)"),
        (compressed_as("/camera/video", "h264"), "video (h264)"),
        (compressed_as("/camera/stream", "ffmpeg"), "video (ffmpeg)"),
        (raw("/overlay", 1, BLACK), "images with faces drawn in, as the node publishes them"),
        (jpeg("/a/overlay/compressed", 1, BLACK), "images with faces drawn in, as the node publ"),
        (jpeg("/camera/color/image_raw/compressed", 1, BLACK), "the same images as /camera/color"),
    ],
    ids=lambda value: value.topic if isinstance(value, Entry) else "",
)
def test_left_alone_unless_wanted(entry: Entry, reason: str, tmp_path: Path) -> None:
    names, left_alone = select(tmp_path, entry, COLOUR)
    assert names == [COLOUR.topic]
    assert list(left_alone) == [entry.topic]
    assert left_alone[entry.topic].startswith(reason)
    # The results have the camera's namespace, whatever other topics there are.
    assert result_namespaces(names) == {COLOUR.topic: "/camera/color"}
    assert select(tmp_path, entry, COLOUR, wanted=(entry.topic,))[0] == [entry.topic]


@pytest.mark.parametrize(
    "encoding", ["mono8", "8UC1", "mono16", "rgb8", "bayer_rggb8", "yuv422", "BGR8 "]
)
def test_infrared_and_color_are_taken(encoding: str, tmp_path: Path) -> None:
    names, left_alone = select(tmp_path, encoded_as("/camera/infra1/image", encoding), COLOUR)
    assert names == [COLOUR.topic, "/camera/infra1/image"]
    assert left_alone == {}


def test_of_raw_and_compressed_the_one_with_more_images_is_taken(tmp_path: Path) -> None:
    entries = [raw("/image", 1, BLACK), *(jpeg("/image/compressed", n, BLACK) for n in (1, 2))]
    names, left_alone = select(tmp_path, *entries)
    assert names == ["/image/compressed"]
    assert left_alone == {"/image": "the same images as /image/compressed"}
    both = ("/image", "/image/compressed")
    assert select(tmp_path, *entries, wanted=both)[0] == list(both)


def test_a_first_message_that_is_broken_does_not_hide_that_it_is_depth(tmp_path: Path) -> None:
    depth = [encoded_as("/depth", "16UC1", stamp) for stamp in (1, 2, 3)]
    depth[0] = depth[0]._replace(data=depth[0].data[:30])
    assert select(tmp_path, *depth, COLOUR)[1] == {"/depth": "depth (16UC1)"}


def test_what_is_not_of_ros_2_is_told_in_a_line_for_each_kind(tmp_path: Path) -> None:
    logs = [text(f"/log{number}", 1) for number in range(7)]
    names, left_alone = select(
        tmp_path,
        COLOUR,
        *logs,
        text("/proto", 1),
        text("/chat", 1),
        text("/odd", 1),
        text("/video", 1),
        channels={
            **{entry.topic: Channel("Log", "jsonschema", "json") for entry in logs},
            "/proto": Channel("foxglove.CompressedImage", "protobuf", "protobuf"),
            "/odd": Channel(None),
            "/video": Channel("ffmpeg_image_transport_msgs/msg/FFMPEGPacket"),
        },
    )
    assert names == [COLOUR.topic]
    assert left_alone == {
        "/log0, /log1, /log2, /log3, /log4 and 2 more": "not of ROS 2, but json",
        "/proto": "not of ROS 2, but protobuf",
        "/odd": "the bag does not give its type, and it is not an image",
        "/video": "ffmpeg, not images",
    }


@pytest.mark.parametrize(
    ("entries", "wanted", "words"),
    [
        ([encoded_as("/d", "16UC1")], (), r"there are no images; .*/d \(.*: depth \(16UC1\)\)"),
        ([text("/a", 1)], ("/a",), "there are no images on /a; expected topics of the type"),
        ([COLOUR], ("/b", "/c"), "there are no images on /b, /c; expected"),
        ([raw("/overlay", 1, BLACK)], (), r"found /overlay \(.*images with faces drawn in"),
    ],
)
def test_nothing_to_look_at_is_refused(
    entries: list[Entry], wanted: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ScrfdError, match=words):
        select(tmp_path, *entries, wanted=wanted)


def test_a_topic_of_two_types_is_one_topic(tmp_path: Path) -> None:
    entries = [raw("/image", 1, BLACK), jpeg("/image", 2, BLACK)]
    with open_bag(write_mcap(tmp_path / "a.mcap", entries)) as bag:
        selection = image_topics(bag)
        assert selection.names == ["/image"]
        assert {topic.kind for topic in selection.topics} == {IMAGE, COMPRESSED_IMAGE}
