# SPDX-License-Identifier: Apache-2.0
"""face_node answers or refuses whatever clients and publishers send, and survives.

HOSTILE_REQUESTS=10000 makes the random part long; with -s it prints the outcomes of the requests.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclone_requests import RequestOfBytes, RequestWithoutNames
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from harness import Harness, running_face_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from random_messages import MEGABYTE, UNKNOWN_TYPE, RandomMessages
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.client import Client
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

Images = Callable[[str], NDArray[np.uint8]]

REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "400"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))
MAX_GROWTH = 24.0  # MiB; 10,000 requests that left 4 kB each behind would take 40
LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320], "recognizer.enabled": False}
SHUTDOWN = {
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
}


@pytest.fixture(scope="module", autouse=True)
def weights(detector_path: Callable[[str], Path]) -> None:
    detector_path("500m")


class Caller:
    """Calls any service of a node by its name, again if there is no response."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._clients: dict[str, Client] = {}
        self.types: dict[str, type] = {}

    def discover(self) -> list[str]:
        """Find the services that the node has; their names."""
        node = self._harness.node

        def found() -> bool:
            for name, (kind,) in node.get_service_names_and_types():
                own, _, short = name.rpartition("/")
                if own == f"{node.get_namespace()}/face_node":
                    package, _, service = kind.split("/")
                    self.types[short] = getattr(import_module(f"{package}.srv"), service)
            return "get_transition_graph" in self.types and "list_parameters" in self.types

        self._harness.wait_for(found, "the node's services")
        return sorted(self.types)

    def call(self, service: str, request: Any) -> Any:
        """The response."""
        if service not in self._clients:
            kind = self.types[service]
            self._clients[service] = self._harness.node.create_client(kind, f"face_node/{service}")
        what = f"{service} of {str(request)[:300]}"
        return self._harness.call_client(self._clients[service], request, what)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Caller]]:
    """A node that has to come through all the tests that share it, and a client of its services."""
    folder = tmp_path_factory.mktemp("hostile")
    with running_face_node(folder, LIGHT) as harness:
        harness.wait_until_active()
        client = Caller(harness)
        client.discover()
        yield harness, client


def unknown_type(name: str) -> ParameterMessage:
    return ParameterMessage(name=name, value=ParameterValue(type=UNKNOWN_TYPE))


def known(name: str, value: float) -> ParameterMessage:
    kind = ParameterType.PARAMETER_DOUBLE
    return ParameterMessage(name=name, value=ParameterValue(type=kind, double_value=value))


def test_a_parameter_of_an_unknown_type_is_refused_and_those_beside_it_are_set(
    node: tuple[Harness, Caller],
) -> None:
    harness, client = node
    request = SetParameters.Request(
        parameters=[
            unknown_type("detector.score_threshold"),
            known("detector.nms_threshold", 0.25),
        ]
    )
    bad, good = client.call("set_parameters", request).results
    assert not bad.successful
    assert str(UNKNOWN_TYPE) in bad.reason
    assert good.successful
    assert harness.get_parameter("detector.nms_threshold") == 0.25
    assert "set_parameters: refused: 99 is not a valid" in harness.log()


def test_of_an_atomic_set_with_an_unknown_type_nothing_is_set(
    node: tuple[Harness, Caller],
) -> None:
    harness, client = node
    before = harness.get_parameter("detector.nms_threshold")
    request = SetParametersAtomically.Request(
        parameters=[known("detector.nms_threshold", 0.75), unknown_type("lazy")]
    )
    result = client.call("set_parameters_atomically", request).result
    assert not result.successful
    assert str(UNKNOWN_TYPE) in result.reason
    assert harness.get_parameter("detector.nms_threshold") == before


@pytest.mark.parametrize("name", ["", "nonsense", "\0", "ü" * MEGABYTE], ids=range(4))
def test_names_that_there_are_not(node: tuple[Harness, Caller], name: str) -> None:
    _, client = node
    client.call("describe_parameters", DescribeParameters.Request(names=[name]))
    client.call("get_parameters", GetParameters.Request(names=[name]))
    for depth in (0, 1, 2**64 - 1):
        request = ListParameters.Request(prefixes=[name], depth=depth)
        client.call("list_parameters", request)
    result = client.call(
        "set_parameters", SetParameters.Request(parameters=[known(name, 0.5)])
    ).results[0]
    assert not result.successful


@pytest.mark.parametrize("number", [0, 8, 10, 99, 255])
def test_a_transition_that_there_is_not_is_refused(
    node: tuple[Harness, Caller], number: int
) -> None:
    harness, client = node
    request = ChangeState.Request(transition=Transition(id=number))
    assert not client.call("change_state", request).success
    assert harness.state() == "active"


@pytest.mark.parametrize(
    "request_",
    [
        RequestOfBytes([b"lazy\0"]),
        RequestOfBytes([b"\xff\xfe\xed\xa0\x80\0"]),
        RequestOfBytes([b"no end"]),
        RequestWithoutNames(3),
        RequestWithoutNames(2**32 - 1),
    ],
    ids=["nobody waits", "no UTF-8", "no end of a string", "cut short", "cut short, huge"],
)
def test_a_request_of_a_client_that_does_not_take_the_response(
    node: tuple[Harness, Caller], request_: RequestOfBytes | RequestWithoutNames
) -> None:
    """Sent by Cyclone DDS; the last ones cannot be decoded."""
    harness, _ = node
    domain = DomainParticipant(int(os.environ.get("ROS_DOMAIN_ID", "0")))
    topic = f"rq{harness.node.get_namespace()}/face_node/get_parametersRequest"
    reliable = Qos(Policy.Reliability.Reliable(duration(seconds=1)))
    writer = DataWriter(domain, Topic(domain, topic, type(request_)), qos=reliable)
    harness.wait_for(lambda: bool(writer.get_matched_subscriptions()), "the service's topic")
    writer.write(request_)
    # The node takes requests of one service in order: this one is answered after that one.
    assert harness.get_parameter("autostart") is True
    assert harness.state() == "active"


def test_an_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    parameters = LIGHT | {"image_transport": "compressed"}
    with running_face_node(tmp_path, parameters) as harness:
        publisher = harness.node.create_publisher(CompressedImage, "image/compressed", 10)
        harness.wait_for(lambda: publisher.get_subscription_count() > 0, "the node")
        message = CompressedImage(format="jpeg")
        message.header.frame_id = "camera"
        whole = serialize_message(message)
        publisher.publish(whole.replace(b"camera", b"\xff\xfe\xed\xa0\x80\xc0"))
        publisher.publish(whole[:20])
        publisher.publish(whole[:4])
        harness.wait_for(
            lambda: (publisher.publish(message), "image skipped" in harness.log())[1],
            "what becomes of an image after those",
        )
        assert harness.state() == "active"


def resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def test_requests_of_random_content(tmp_path: Path, detector_path: Callable[[str], Path]) -> None:
    """Every service, with everything but what shuts the node down: that it may obey."""
    # No other network can be had, which would count as growth when a request has it loaded.
    models = {"detector.engine_path": detector_path("500m"), "model_directory": tmp_path}
    with running_face_node(tmp_path, LIGHT | models) as harness:
        client = Caller(harness)
        services = client.discover()
        names = client.call("list_parameters", ListParameters.Request()).result.names
        labels = ["configure", "activate", "deactivate", "cleanup", "active", "inactive"]
        messages = RandomMessages(SEED, [*names, *labels])
        outcomes: Counter[str] = Counter()
        memory = []
        for number in range(REQUESTS):
            service = messages.choice(services)
            request = messages.message(client.types[service].Request)
            if service == "change_state" and request.transition.id in SHUTDOWN:
                continue
            response = client.call(service, request)
            outcomes[f"{service}: {outcome(response)}"] += 1
            if number % max(REQUESTS // 20, 1) == 0:
                memory.append(resident(harness.process.pid))
        # The first requests load networks and fill caches.
        growth = max(memory[len(memory) // 2 :]) - max(memory[: len(memory) // 2])
        for name, count in sorted(outcomes.items()):
            print(f"{count:6d}  {name}")
        print(f"{sum(outcomes.values())} requests, memory in MiB: {[round(m) for m in memory]}")
        assert harness.state()
        assert harness.process.poll() is None
        assert growth < MAX_GROWTH


def outcome(response: Any) -> str:
    """Whether a response says that all was done, or that something was refused."""
    if hasattr(response, "success"):
        return "done" if response.success else "refused"
    if hasattr(response, "successful"):
        return "done" if response.successful else "refused"
    if hasattr(response, "results"):
        return "done" if all(one.successful for one in response.results) else "refused"
    if hasattr(response, "result") and hasattr(response.result, "successful"):
        return "done" if response.result.successful else "refused"
    return "answered"
