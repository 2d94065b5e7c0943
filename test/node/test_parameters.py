# SPDX-License-Identifier: Apache-2.0
"""A node's parameters make its configuration, and descriptors say what they accept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parameter_file import configured
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from scrfd_ros.config import OptionField, options, with_values
from scrfd_ros.errors import ScrfdError
from scrfd_ros.node import parameters
from scrfd_ros.node.config import NodeConfig, effect, from_parameter, to_parameter
from scrfd_ros.node.parameters import LiveConfig, declare_parameters, node_config

OPTIONS = options(NodeConfig)


@pytest.fixture
def node() -> Iterator[Node]:
    # In the context of all tests: of two participants in one process, Fast DDS 2.14 can wait
    # forever while it destroys one.
    made = Node("configured", start_parameter_services=False)
    declare_parameters(made)
    yield made
    made.destroy_node()


def change(node: Node, name: str, value: Any) -> None:
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert result.successful, result.reason


def test_the_file_of_parameters_has_all_of_them_with_their_defaults(node: Node) -> None:
    listed = configured()
    declared = {
        name: list(parameter.value) if isinstance(parameter.value, array) else parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if name in OPTIONS
    }
    assert listed == declared
    # 1, 1.0 and True are equal in Python, not in ROS 2.
    assert {name: type(value) for name, value in listed.items()} == {
        name: type(value) for name, value in declared.items()
    }


def test_parameters_make_the_default_configuration(node: Node) -> None:
    assert node_config(node) == NodeConfig()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("detector.engine_path", "~/own.onnx", Path.home() / "own.onnx"),
        ("detector.engine_path", "~nobody-here/own.onnx", Path("~nobody-here/own.onnx")),
        ("detector.input_size", array("q", [320, 224]), (320, 224)),
        ("detector.input_size", 960, 960),
        ("detector.input_size", "auto", "auto"),
        ("cameras", ["front", "rear"], ("front", "rear")),
        ("rotation", [90], (90,)),
        ("tracking.max_age", 3.0, 3.0),
        ("lazy", True, True),
    ],
)
def test_parameters_become_options(node: Node, name: str, value: Any, expected: Any) -> None:
    change(node, name, value)
    assert node_config(node) == with_values(NodeConfig(), {name: expected})


@pytest.mark.parametrize("name", OPTIONS)
def test_defaults_come_back(name: str) -> None:
    each = OPTIONS[name]
    assert from_parameter(to_parameter(each.default), each.type) == each.default


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            {"rotation": [0, 90]},
            "rotation has 2 values for 1 cameras; expected one for all, or one for each",
        ),
        (
            {"hri": True, "tracking.enabled": False},
            "hri is true, but tracking.enabled is false",
        ),
        (
            {"super_resolution.enabled": True, "recognizer.enabled": False},
            "super_resolution.enabled is true, but recognizer.enabled is false",
        ),
    ],
)
def test_refuses_parameters_that_contradict_each_other(
    node: Node, values: dict[str, Any], complaint: str
) -> None:
    for name, value in values.items():
        change(node, name, value)
    with pytest.raises(ScrfdError) as raised:
        node_config(node)
    assert str(raised.value).startswith(complaint)


def test_each_camera_has_a_rotation() -> None:
    assert NodeConfig().rotations == {"": 0}
    assert NodeConfig(cameras=("a", "b"), rotation=(90,)).rotations == {"a": 90, "b": 90}
    assert NodeConfig(cameras=("a", "b"), rotation=(90, 0)).rotations == {"a": 90, "b": 0}


def test_only_live_parameters_change_a_live_configuration(node: Node) -> None:
    change(node, "detector.max_faces", 3)
    live = LiveConfig(node)
    before = live.current()
    assert before.detector.max_faces == 3
    change(node, "detector.tiles", [2, 2])
    change(node, "hri", True)
    change(node, "tracking.enabled", False)  # which contradicts hri, at the next configure
    assert live.current() is before
    change(node, "detector.score_threshold", 0.75)
    change(node, "diagnostics.min_rate", 5.0)
    after = live.current()
    assert after == with_values(
        before, {"detector.score_threshold": 0.75, "diagnostics.min_rate": 5.0}
    )
    assert live.current() is after


def test_a_live_change_is_not_lost_to_an_earlier_one_in_another_thread(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveConfig(node)

    def overtaken(*arguments: Any) -> NodeConfig:
        # What the other thread does between reading the parameters and keeping their result.
        monkeypatch.setattr(parameters, "with_values", with_values)
        change(node, "detector.max_faces", 2)
        assert live.current().detector.max_faces == 2
        return with_values(*arguments)

    monkeypatch.setattr(parameters, "with_values", overtaken)
    change(node, "detector.max_faces", 1)
    live.current()
    assert live.current().detector.max_faces == 2


def test_a_refused_change_is_none(node: Node) -> None:
    live = LiveConfig(node)
    before = live.current()
    (result,) = node.set_parameters([Parameter("detector.score_threshold", value=1.5)])
    assert not result.successful
    assert live.current() is before


def limits(descriptor: ParameterDescriptor) -> tuple[float, float] | None:
    for ranges in (descriptor.integer_range, descriptor.floating_point_range):
        if ranges:
            return ranges[0].from_value, ranges[0].to_value
    return None


@pytest.mark.parametrize(("name", "each"), OPTIONS.items())
def test_descriptors_tell_what_an_option_accepts(node: Node, name: str, each: OptionField) -> None:
    descriptor = node.describe_parameter(name)
    assert descriptor.description.startswith(each.option.description)
    assert descriptor.description.endswith(f"Takes effect {effect(each.option)}.")
    assert descriptor.read_only == each.option.is_read_only
    assert limits(descriptor) == each.option.limits
    constraint = "" if each.option.limits else each.option.constraint
    assert descriptor.additional_constraints == constraint
