# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments and parameters are refused or reported in one sentence, failed transitions in the
log."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from harness import TIMEOUT, Harness, face_node_command, running_face_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn as Return
from rclpy.node import Node
from rclpy.parameter import Parameter

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.face_node import FaceNode
from scrfd_ros.node.parameters import declare_parameters

LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320], "recognizer.enabled": False}
WAITING = LIGHT | {"autostart": False}


@pytest.fixture(scope="module", autouse=True)
def weights(detector_path: Callable[[str], Path]) -> None:
    detector_path("500m")


def start(*arguments: str, parameters: Mapping[str, object] | None = None) -> tuple[int, str]:
    """Status and output of a node that is expected to end by itself."""
    command = [*face_node_command("/refused", parameters), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.returncode, done.stdout + done.stderr


def sentence(output: str) -> str:
    """The one line in which the node says what is wrong."""
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("face_node: error: ")]
    return line


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("cameras", None, "cameras: nothing, or an empty list; expected: a list of texts"),
        ("detector.tiles", None, "expected: a list of whole numbers, such as [1, 1]"),
        ("detector.input_size", None, "nothing, or an empty list; expected: auto, a longer side"),
        ("detector.input_size", True, "true is true or false; expected: auto, a longer side"),
        ("detector.input_size", 640.0, "640.0 is a number with a decimal point; expected: auto"),
        ("detector.input_size", 33, "33 is not auto, a longer side, or a width and a height"),
        ("detector.input_size", "640x384", "'640x384' is not auto, a longer side, or"),
        ("detector.tiles", [1.0, 2.0], "is a list of numbers with a decimal point; expected"),
        ("detector.tiles", [1, 2, 3], "[1, 2, 3] is not a number of columns and of rows"),
        ("detector.tiles", [0, 1], "each 1 to 8"),
        ("detector.input_size", [64000, 64000], "at most 16777216 pixels in total"),
        ("detector.input_size", [-32, 32], "in multiples of 32"),
        ("cameras", "front", "'front' is a text; expected: a list of texts, such as ['front']"),
        ("cameras", ["a", "a"], "is not a list of different names"),
        ("cameras", ["ä"], "is not a list of different names"),
        ("cameras", [f"c{number}" for number in range(65)], "at most 64"),
        ("lazy", 1, "lazy: 1 is a whole number; expected: true or false, such as false"),
        ("autostart", "yes", "autostart: 'yes' is a text; expected: true or false, such as true"),
        ("detector.score_threshold", 1, "such as 1.0"),
        ("detector.score_threshold", math.nan, "nan is not within 0 to 1"),
        ("tracking.max_age", math.inf, "inf is not within 0 to 1000000"),
        ("detector.max_faces", -1, "-1 is not within 0 to 100000"),
        ("detector.model", 10, "10 is a whole number; expected: a text, such as '2.5g'"),
        ("detector.model", True, "true is true or false; expected: a text, such as '2.5g'"),
        ("detector.model", "nonsense", "'nonsense' is unknown; expected one of: 500m"),
    ],
)
def test_parameters_that_cannot_be(name: str, value: Any, complaint: str) -> None:
    node = Node("configured", parameter_overrides=[Parameter(name, value=value)])
    try:
        with pytest.raises(ScrfdError) as raised:
            declare_parameters(node)
    finally:
        node.destroy_node()
    assert str(raised.value).startswith(f"{name}: ")
    assert complaint in str(raised.value)


def test_parameters_of_a_file_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"cameras": []}}}))
    status, output = start("--params-file", str(file))
    assert status == 2
    assert "cameras: nothing, or an empty list" in sentence(output)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--log-level", "nonsense"), "expected: --log-level debug, info, warn, error or fatal"),
        (("-r", "__node:=bad name"), "'-r __node:=bad name'"),
        (("-p", "detector.tiles:=[1, 2.5]"), "Sequence should be of same type"),
        (("-p", "cameras:=[]"), "cameras: nothing, or an empty list"),
        (("-p", "use_sim_time:=nonsense"), "use_sim_time"),
        (("-r", f"__node:={'a' * 300}"), "node name length should not exceed"),
        (("-p", "lazy:="), "expected: -p name:=value"),
        (("--nonsense",), "unknown arguments after --ros-args: ['--nonsense']"),
        (("--params-file", "nowhere.yaml"), "nowhere.yaml cannot be read: No such file"),
    ],
)
def test_arguments_that_cannot_be(arguments: tuple[str, ...], complaint: str) -> None:
    status, output = start(*arguments)
    assert status == 2
    assert complaint in sentence(output)
    assert "/src/" not in sentence(output)


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help(argument: str) -> None:
    status, output = start(argument)
    assert status == 0
    assert output.startswith("usage: face_node ") and "docs/parameters.md" in output


def test_a_parameter_of_every_other_type_is_refused_and_the_node_lives(tmp_path: Path) -> None:
    names = ["autostart", "cameras", "detector.model", "detector.score_threshold"]
    names += ["detector.tiles", "detector.max_faces"]
    values = [None, True, 1, 0.5, "text", [b"x"], [True], [1, 2], [0.5], ["text"]]
    with running_face_node(tmp_path, WAITING) as harness:
        before = {name: harness.get_parameter(name) for name in names}
        for name in names:
            for value in values:
                if type(value) is type(before[name]) and not isinstance(value, list):
                    continue
                is_set, reason = harness.set_parameter(name, value)
                fits = name == "detector.tiles" and value == [1, 2]
                fits |= name == "cameras" and value == ["text"]
                assert is_set == fits
                assert is_set or reason
            if name in ("cameras", "detector.tiles"):
                is_set, reason = harness.set_parameter(name, before[name])
                assert is_set
        assert {name: harness.get_parameter(name) for name in names} == before


def test_misspelled_parameters_are_told(tmp_path: Path) -> None:
    parameters = WAITING | {"detector.score_treshold": 0.75, "nonsense": 1}
    with running_face_node(tmp_path, parameters) as harness:
        assert harness.state() == "unconfigured"
        log = harness.log()
    assert "detector.score_treshold is not used: did you mean detector.score_threshold" in log
    assert "the parameter nonsense is not used" in log
    assert log.count("is not used") == 2


def test_misspelled_qos_is_told_once_the_topics_are_known(tmp_path: Path) -> None:
    parameters = LIGHT | {
        f"qos_overrides./{tmp_path.name}/{topic}": value
        for topic, value in (
            ("imag.subscription.reliability", "reliable"),
            ("image.subscription.durability", "volatile"),
            ("image.subscription.depth", 2),
            ("faces.publisher.depth", 5),
        )
    }
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_until_active()
        log = harness.log()
    assert f"did you mean qos_overrides./{tmp_path.name}/image.subscription.reliability?" in log
    assert "durability is not used: the policies that can be set there are depth, history" in log
    assert log.count("is not used") == 2


@pytest.mark.parametrize(
    ("topic", "policy", "value", "verb"),
    [
        ("image.subscription", "reliability", "sometimes", "activate"),
        ("image.subscription", "depth", -1, "activate"),
        ("image.subscription", "depth", 10**12, "activate"),
        ("faces.publisher", "history", "keep_none", "configure"),
        ("faces.publisher", "depth", 0, "configure"),
        ("faces.publisher", "depth", "'ten'", "configure"),
    ],
)
def test_a_transition_that_fails_says_why(
    tmp_path: Path, topic: str, policy: str, value: object, verb: str
) -> None:
    name = f"qos_overrides./{tmp_path.name}/{topic}.{policy}"
    with running_face_node(tmp_path, LIGHT | {name: value}) as harness:
        harness.wait_for(lambda: "not configured, waiting" in harness.log(), "a complaint")
        (line,) = [one for one in harness.log().splitlines() if f"cannot {verb}: " in one]
        assert name in line
        assert harness.state() == "unconfigured"
        # What was made of the topics before it failed is gone.
        harness.wait_for(
            lambda: harness.node.count_publishers("detections") == 0, "no publisher any more"
        )


def _broken(*_: object) -> None:
    raise ValueError("broken on purpose")


@pytest.mark.parametrize("transition", ["configure", "activate", "deactivate", "cleanup"])
def test_every_transition_that_raises_says_so(
    transition: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A node in this process: what a transition does is replaced by what raises."""
    node = FaceNode()
    try:
        assert node.set_parameters([]) == []
        for before in ("configure", "activate", "deactivate", "cleanup"):
            if before == transition:
                monkeypatch.setattr(LifecycleNode, f"on_{before}", _broken)
            result = getattr(node, f"trigger_{before}")()
            if before == transition:
                break
            assert result == Return.SUCCESS
        assert result != Return.SUCCESS
        assert node._state_machine.current_state[1] == "unconfigured"
    finally:
        node.destroy_node()
    error = capfd.readouterr().err
    assert "broken on purpose" in error
    assert "cannot" in error


@pytest.mark.parametrize("state", ["unconfigured", "active"])
def test_after_shutdown_the_state_can_be_asked_for_and_the_process_ends(
    tmp_path: Path, state: str
) -> None:
    parameters = WAITING if state == "unconfigured" else LIGHT
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            face_node_command(f"/{tmp_path.name}", parameters), stdout=sink, stderr=sink
        )
    harness = Harness(f"/{tmp_path.name}", process, log, reliable=True)
    try:
        harness.wait_for(lambda: harness.state() == state, state)
        harness.wait_for(harness._clients[ChangeState].service_is_ready, "change_state")
        request = ChangeState.Request(transition=Transition(label="shutdown"))
        # Both at once: however slow this process is, the node has the second to answer yet.
        changed = harness._clients[ChangeState].call_async(request)
        asked = harness._clients[GetState].call_async(GetState.Request())
        end = time.monotonic() + TIMEOUT
        while not (changed.done() and asked.done()) and time.monotonic() < end:
            rclpy.spin_once(harness.node, timeout_sec=0.05)
        assert changed.result().success
        assert asked.result().current_state.label == "finalized"
        assert process.wait(TIMEOUT) == 0
    finally:
        harness.node.destroy_node()
        process.kill()
    assert "finalized" in harness.log()
    assert "Traceback" not in harness.log()


def test_lazy_activation_says_so(tmp_path: Path) -> None:
    with running_face_node(tmp_path, LIGHT | {"lazy": True}) as harness:
        harness.wait_for(
            lambda: "lazy: images are taken in while somebody" in harness.log(), "a line"
        )
