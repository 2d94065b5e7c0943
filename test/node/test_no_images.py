# SPDX-License-Identifier: Apache-2.0
"""The sentence that says why no images arrive, for states of the ROS graph."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scrfd_ros.node.no_images import COMPRESSED, RAW, Endpoint, Graph, why_no_image

QOS = "best_effort, volatile"
USB = Endpoint("/usb_cam", RAW, "reliable, volatile", fits=True)
NOBODY = Graph("image", "/image", "/image", RAW, QOS, [], {})
NOBODY_COMPRESSED = replace(NOBODY, topic="/image/compressed", type=COMPRESSED)


def test_nothing_is_published_at_all() -> None:
    assert why_no_image(NOBODY) == (
        "nobody publishes on /image, nor images on any other topic: is the camera's driver "
        "running, and with the same ROS_DOMAIN_ID?"
    )


@pytest.mark.parametrize(
    ("graph", "topics", "expected"),
    [
        (
            NOBODY,
            {"/camera/image_raw": RAW},
            "images are on /camera/image_raw (Image): remap image:=/camera/image_raw",
        ),
        (
            NOBODY,
            {"/image/compressed": COMPRESSED, "/images": RAW},
            "images are on /image/compressed (CompressedImage): set the parameter image_transport "
            "to compressed. Also on /images (Image)",
        ),
        (
            NOBODY,
            {"/camera/image_raw/compressed": COMPRESSED},
            "set the parameter image_transport to compressed and remap image:=/camera/image_raw",
        ),
        (
            NOBODY,
            {"/camera/jpeg": COMPRESSED},
            "set the parameter image_transport to compressed and remap "
            "image/compressed:=/camera/jpeg",
        ),
        (
            NOBODY_COMPRESSED,
            {"/image": RAW},
            "images are on /image (Image): set the parameter image_transport to raw",
        ),
        (
            NOBODY_COMPRESSED,
            {"/image": COMPRESSED},
            "images are on /image (CompressedImage): remap image/compressed:=/image",
        ),
        (
            NOBODY_COMPRESSED,
            {"/camera/image_raw/compressed": COMPRESSED},
            "images are on /camera/image_raw/compressed (CompressedImage): remap "
            "image:=/camera/image_raw",
        ),
        (
            replace(NOBODY, name="front/image", base="/front/image_raw", topic="/front/image_raw"),
            {"/rear/image_raw": RAW, "/front/image_rect": RAW, "/front/image_color": RAW},
            "images are on /front/image_rect (Image): remap front/image:=/front/image_rect. Also "
            "on /front/image_color (Image), /rear/image_raw (Image)",
        ),
        (
            replace(NOBODY, base="/camera/image_raw", topic="/camera/image_raw"),
            {"/camera/depth/image_raw": RAW, "/camera/color/image_rect": RAW},
            "images are on /camera/color/image_rect (Image): remap image:=/camera/color/image_rect."
            " Also on /camera/depth/image_raw (Image)",
        ),
        (
            NOBODY,
            {f"/camera_{number}/image": RAW for number in range(9)},
            ". Also on /camera_1/image (Image), /camera_2/image (Image), /camera_3/image (Image), "
            "/camera_4/image (Image) and 4 more",
        ),
        (
            replace(NOBODY, base="/cam/image/compressed", topic="/cam/image/compressed"),
            {"/cam/image": RAW},
            "images are on /cam/image (Image): remap image:=/cam/image",
        ),
    ],
)
def test_nobody_publishes_but_others_do(
    graph: Graph, topics: dict[str, str], expected: str
) -> None:
    sentence = why_no_image(replace(graph, image_topics=topics))
    assert sentence.startswith(f"nobody publishes on {graph.topic}; ")
    assert sentence.endswith(expected)


@pytest.mark.parametrize(
    ("graph", "kind", "expected"),
    [
        (
            NOBODY,
            COMPRESSED,
            "set the parameter image_transport to compressed and remap image/compressed:=/image",
        ),
        (
            replace(NOBODY, base="/cam/image/compressed", topic="/cam/image/compressed"),
            COMPRESSED,
            "set the parameter image_transport to compressed",
        ),
        (
            NOBODY_COMPRESSED,
            RAW,
            "set the parameter image_transport to raw and remap image:=/image/compressed",
        ),
        (
            replace(NOBODY_COMPRESSED, base="/image/compressed"),
            RAW,
            "set the parameter image_transport to raw",
        ),
    ],
)
def test_the_type_is_another_transports(graph: Graph, kind: str, expected: str) -> None:
    other = Endpoint("/usb_cam", kind, QOS, fits=False)
    sentence = why_no_image(replace(graph, endpoints=[other]))
    assert (
        sentence == f"/usb_cam publishes {kind} on {graph.topic}, expected {graph.type}: {expected}"
    )


def test_the_type_is_no_image() -> None:
    other = Endpoint("/chatter", "std_msgs/msg/String", QOS, fits=True)
    assert why_no_image(replace(NOBODY, endpoints=[other])) == (
        "/chatter publishes std_msgs/msg/String on /image, expected sensor_msgs/msg/Image"
    )


def test_the_qos_is_incompatible() -> None:
    other = replace(USB, qos=QOS, fits=False)
    graph = replace(NOBODY, qos="reliable, volatile", endpoints=[other])
    assert why_no_image(graph) == (
        "the QoS of /usb_cam (best_effort, volatile) is incompatible with the node's (reliable, "
        "volatile): start the node with the parameter "
        "qos_overrides./image.subscription.reliability set to best_effort, or without it"
    )


def test_a_name_that_is_not_known() -> None:
    graph = replace(NOBODY, endpoints=[replace(USB, node="", fits=False)])
    assert why_no_image(graph).startswith("the QoS of a node whose name is not known (")


def test_all_fits_and_nothing_comes() -> None:
    sentence = why_no_image(replace(NOBODY, endpoints=[USB]))
    assert sentence.startswith(
        "/usb_cam publishes on /image, but sends nothing, or the images are lost"
    )
    assert "'Images and Fast DDS' in the README" in sentence


def test_one_fits_and_another_does_not() -> None:
    graph = replace(NOBODY, endpoints=[USB, replace(USB, node="/bag", fits=False)])
    sentence = why_no_image(graph)
    assert sentence.startswith("the QoS of /bag (reliable, volatile) is incompatible ")
    assert "; and /usb_cam publishes on /image, but sends nothing" in sentence


def test_all_fits_and_time_stands_still() -> None:
    sentence = why_no_image(replace(NOBODY, endpoints=[USB], is_paused=True))
    assert sentence == (
        "/usb_cam publishes on /image, but the time of /clock stands still: is the simulation or "
        "the bag paused?"
    )
