# SPDX-License-Identifier: Apache-2.0
"""The services of the gallery: what they do over DDS, what they refuse, that they never fail.

GALLERY_REQUESTS=100000 makes the random part long, and prints the outcomes. Apart from the
first tests the handlers are called without DDS; the cameras are stand-ins with a name and a
tracker.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import TIMEOUT, Harness, running_face_node
from numpy.typing import NDArray
from random_messages import MEGABYTE, RandomMessages
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from scrfd_ros import srv
from scrfd_ros.config import DetectorConfig, GalleryConfig, PipelineConfig, with_values
from scrfd_ros.faces import IdentityState
from scrfd_ros.msg import Face
from scrfd_ros.node.gallery_services import MAX_IMAGES, GalleryServices
from scrfd_ros.node.images import image_message
from scrfd_ros.node.worker import Worker
from scrfd_ros.pipeline import load_pipeline

REQUESTS = int(os.environ.get("GALLERY_REQUESTS", "150"))
LIGHT = {"detector.model": "500m"}
SERVICES = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): kind
    for kind in vars(srv).values()
    if hasattr(kind, "Request")
}
UNKNOWN, KNOWN = IdentityState.UNKNOWN, IdentityState.KNOWN


@pytest.fixture(scope="module", autouse=True)
def weights(detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")


@pytest.fixture(scope="module")
def people(image: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """An image with six people."""
    return image("t1.jpg")


def cut(image: NDArray[np.uint8], face: Any) -> Image:
    """A message with the part of an image around one face, as a message or as a box."""
    if isinstance(face, Face):
        box = face.detection.bbox
        center, size = box.center.position, max(box.size_x, box.size_y)
        x, y = center.x, center.y
    else:
        x, y, size = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2, face[3] - face[1]
    left, top = (max(int(value - size), 0) for value in (x, y))
    right, bottom = (int(value + size) for value in (x, y))
    return image_message(np.ascontiguousarray(image[top:bottom, left:right]), Header())


class Caller:
    """Calls the services of a running node's gallery by their names."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._clients = {
            name: harness.node.create_client(kind, f"face_node/{name}")
            for name, kind in SERVICES.items()
        }

    def __call__(self, service: str, request: Any = None, **fields: Any) -> Any:
        """The response."""
        request = request or SERVICES[service].Request(**fields)
        return self._harness.call_client(self._clients[service], request, service)


def test_people_are_enrolled_named_corrected_and_forgotten(
    tmp_path: Path, people: NDArray[np.uint8]
) -> None:
    with running_face_node(tmp_path, LIGHT | {"gallery.store": tmp_path / "people.db"}) as harness:
        call = Caller(harness)
        harness.wait_until_active()
        reports: list[DiagnosticStatus] = []
        harness.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: reports.extend(m.status), 10
        )

        def seen(name: str, of_first: IdentityState = KNOWN) -> list[Face]:
            """The faces, once the first one is called by a name."""
            deadline = time.monotonic() + TIMEOUT
            while True:  # on a busy machine a face can have a new track, which takes some looks
                faces = list(harness.ask(people)[1].faces)
                if (faces[0].name, faces[0].identity_state) == (name, of_first):
                    return faces
                assert time.monotonic() < deadline, faces[0]

        first, second = seen("", UNKNOWN)[:2]
        anna = call("enroll", name="Zoë", track_id=first.detection.id, consent="asked")
        assert anna.success and anna.added == 1, anna.message
        faces = seen("Zoë")
        assert faces[0].person_id == anna.person_id
        assert [face.identity_state for face in faces] == [KNOWN] + [UNKNOWN] * 5
        assert not any(face.name for face in faces[1:])
        # From an image, while a camera is served.
        ben = call("enroll", name="Ben", images=[cut(people, second)])
        assert ben.success, ben.message
        found = call("identify", image=image_message(people, Header(frame_id="asked")))
        assert found.faces.header.frame_id == "asked"
        assert [face.name for face in found.faces.faces] == ["Zoë", "Ben", "", "", "", ""]
        assert [person.name for person in call("list_people").people] == ["Ben", "Zoë"]
        (person,) = call("list_people", person="Zoë").people
        assert (person.id, person.consent, person.template_count) == (anna.person_id, "asked", 1)
        assert abs(person.created.sec - time.time()) < 600 and person.expires == Time()

        assert call("rename_person", person="Zoë", new_name="Zoë Müller").success
        track_id = seen("Zoë Müller")[0].detection.id
        assert call("merge_people", person="Ben", into="Zoë Müller").success
        (person,) = call("list_people").people
        assert (list(person.merged_names), person.template_count) == (["Ben"], 2)
        for name, count in (("Ben", 1), ("Zoë Müller", 2)):
            (person,) = call("list_people", person=name).people
            assert person.template_count == len(person.templates) == count
        assert call("split_person", person="Ben").success
        template = call("list_people", person="Ben").people[0].templates[0]
        assert not call("move_templates", template_ids=[template.id], person="nobody").success
        assert call("move_templates", template_ids=[template.id], person="Zoë Müller").success
        assert call("list_people", person="Ben").people[0].template_count == 0

        rejected = call("reject_match", track_id=track_id)
        assert rejected.success and rejected.person_id == anna.person_id, rejected.message
        seen("", UNKNOWN)
        (person,) = call("list_people", person="Zoë Müller").people
        assert person.template_count == 2 < len(person.templates)  # with negative examples
        assert call("list_people").people[1].template_count == 2
        reports.clear()
        place = f"{harness.node.get_namespace()[1:]}/face_node: gallery"
        harness.wait_for(lambda: place in {status.name for status in reports}, "diagnostics")
        (status, *_) = (status for status in reports if status.name == place)
        assert (status.level, status.message) == (DiagnosticStatus.OK, "2 people")
        assert "Zoë" not in str(status)
        for name in ("Zoë Müller", "Ben"):
            assert call("forget_person", person=name).success
        assert "nobody" in call("forget_person", person="Ben").message
        assert not call("list_people").people
        assert {face.identity_state for face in seen("", UNKNOWN)} == {UNKNOWN}
        messages = RandomMessages(2, [first.detection.id, "", "stranger-1"])
        for name, kind in [*SERVICES.items()] * 4:
            assert call(name, messages.message(kind.Request)).message
        assert harness.change_state("deactivate") and harness.change_state("cleanup")
        own = harness.node.get_service_names_and_types_by_node(
            "face_node", harness.node.get_namespace()
        )
        assert not [name for name, (kind,) in own if kind.startswith("scrfd_ros/")]
        assert harness.change_state("configure"), harness.log()
        assert call("list_people").success
    assert not re.search("Zoë|Ben|asked", harness.log())


def test_a_gallery_that_cannot_be_used_is_told_and_the_node_can_be_configured_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "people.db"
    file.write_text("no gallery")
    with running_face_node(tmp_path, LIGHT | {"gallery.store": file}) as harness:
        assert harness.state() == "unconfigured"
        assert re.search(rf"cannot configure: {file}: .*gallery", harness.log())
        file.unlink()
        assert harness.change_state("configure"), harness.log()


class Robot:
    """The services without DDS, after a camera has seen six people for a moment."""

    def __init__(self, folder: Path, people: NDArray[np.uint8]) -> None:
        self.node = Node("gallery_services")
        self.pipeline = load_pipeline(
            PipelineConfig(
                detector=DetectorConfig(model="500m"),
                gallery=GalleryConfig(store=f"{folder / 'people.db'}"),
            )
        )
        assert self.pipeline.identifier is not None
        self.gallery = self.pipeline.identifier.gallery
        tracker = self.pipeline.new_tracker()
        for number in range(3):
            self.faces = self.pipeline(people, tracker, time=number / 10).faces
        cameras: Any = [
            SimpleNamespace(name="front", tracker=tracker),
            SimpleNamespace(name="blind", tracker=None),
        ]
        self.worker: Any = Worker(lambda items: None)
        self.config = self.pipeline.config
        options: Any = SimpleNamespace(current=lambda: self.config)
        self.services = GalleryServices(self.node, options, self.pipeline, cameras, self.worker)
        # As over DDS: with what guards them.
        self._answer = {
            service.srv_name.rpartition("/")[2]: (service.srv_type, service.callback)
            for service in self.node.services
        }
        self.kinds = {
            name: kind
            for name, (kind, _) in self._answer.items()
            if kind.__module__.startswith("scrfd_ros.")
        }

    def __call__(self, service: str, request: Any = None, **fields: Any) -> Any:
        kind, callback = self._answer[service]
        return callback(request or kind.Request(**fields), kind.Response())

    def close(self) -> None:
        self.services.destroy()
        self.worker.stop()
        self.pipeline.close()
        self.node.destroy_node()


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory, people: NDArray[np.uint8]) -> Iterator[Robot]:
    robot = Robot(tmp_path_factory.mktemp("robot"), people)
    track_id = str(robot.faces.ids[0])
    assert robot("enroll", name="Anna", camera="front", track_id=track_id).success
    yield robot
    robot.close()


def test_there_is_a_service_for_each_definition(robot: Robot) -> None:
    defined = {path.stem for path in (Path(__file__).parents[2] / "srv").glob("*.srv")}
    assert {kind.__name__ for kind in SERVICES.values()} == defined
    assert robot.kinds == SERVICES
    for kind in SERVICES.values():
        assert list(kind.Response.get_fields_and_field_types())[:2] == ["success", "message"]


def picture(encoding: str = "bgr8", step: int = 12) -> Image:
    return Image(height=4, width=4, step=step, encoding=encoding, data=bytes(48))


@pytest.mark.parametrize(
    ("service", "fields", "reason"),
    [
        ("enroll", {}, "nothing is given to enroll from"),
        ("enroll", {"name": "B", "track_id": "1", "stranger_id": "s"}, "track_id and stranger_id"),
        ("enroll", {"name": "B", "track_id": "1"}, "there is no camera ''; expected 'front', "),
        ("enroll", {"name": "B", "camera": "blind", "track_id": "1"}, "tracking.enabled is false"),
        ("enroll", {"name": "B", "camera": "front", "track_id": "one"}, "expected a number"),
        ("enroll", {"name": "B", "camera": "front", "track_id": "9" * 5000}, "expected a number"),
        ("enroll", {"name": "B", "camera": "front", "track_id": "77"}, "77"),
        ("enroll", {"name": "", "camera": "front", "track_id": "2"}, "a name has 1 to"),
        ("enroll", {"name": "a\x07b", "camera": "front", "track_id": "2"}, "a name has no"),
        ("enroll", {"name": "x" * MEGABYTE, "camera": "front", "track_id": "2"}, "a name has 1 to"),
        ("enroll", {"name": "B", "stranger_id": "stranger-1"}, "stranger"),
        ("enroll", {"name": "B", "images": [picture()]}, "image 1 of 1: no face found"),
        ("enroll", {"name": "B", "images": [picture("nonsense")]}, "image 1 of 1: unknown image"),
        ("enroll", {"name": "B", "images": [Image()]}, "image 1 of 1: "),
        ("enroll", {"name": "B", "images": [Image()] * (MAX_IMAGES + 1)}, "expected at most"),
        (
            "enroll",
            {"name": "B", "camera": "front", "track_id": "2", "expires": Time(sec=-5)},
            "expected a time to come",
        ),
        ("identify", {}, "image"),
        ("identify", {"image": picture(step=5)}, "step"),
        ("list_people", {"person": "Anne"}, "nobody in the gallery is called 'Anne'"),
        ("rename_person", {}, "nobody in the gallery is called ''"),
        ("rename_person", {"person": "Anna"}, "a name has 1 to"),
        ("merge_people", {"person": "Anna", "into": "Anna"}, "one person already"),
        ("merge_people", {"person": "Anna"}, "nobody in the gallery is called ''"),
        ("split_person", {"person": "Anna"}, "is not merged into another"),
        ("move_templates", {"person": "Anna"}, "template_ids is empty"),
        ("move_templates", {"person": "Anna", "template_ids": ["no id"]}, "template"),
        ("reject_match", {"camera": "front", "track_id": "2"}, "taken for nobody"),
        ("reject_match", {"camera": "front"}, "track_id is ''"),
        ("forget_person", {"person": "x" * MEGABYTE}, "nobody in the gallery is called 'x"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    robot: Robot, service: str, fields: dict[str, Any], reason: str
) -> None:
    before = robot.gallery.people, robot.gallery.template_counts()
    response = robot(service, **fields)
    assert not response.success
    assert reason in response.message
    assert len(response.message) < 1000 and "\n" not in response.message
    assert (robot.gallery.people, robot.gallery.template_counts()) == before


def test_an_image_has_to_show_the_person_alone(robot: Robot, people: NDArray[np.uint8]) -> None:
    alone = cut(people, robot.faces.boxes[3].tolist())
    response = robot("enroll", name="Cleo", images=[alone, image_message(people, Header())])
    assert re.search(r"image 2 of 2: 6 faces, at \(\d+, \d+\) to ", response.message)


def test_a_person_who_is_there_already_is_named_unless_forced(
    robot: Robot, people: NDArray[np.uint8]
) -> None:
    fields = {"name": "Dora", "images": [cut(people, robot.faces.boxes[0].tolist())]}
    response = robot("enroll", **fields)
    assert not response.success and re.search(r"Anna.* 0\.\d\d", response.message)
    assert robot("enroll", **fields, force=True).success
    assert robot("forget_person", person="Dora").success


def test_options_that_change_while_no_images_come_take_effect(
    robot: Robot, people: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = image_message(people, Header())
    options = {"detector.max_faces": 1, "gallery.min_quality": 1.0}
    monkeypatch.setattr(robot, "config", with_values(robot.config, options))
    response = robot("enroll", name="Eve", camera="front", track_id=str(robot.faces.ids[1]))
    assert "a quality of 1.00 is needed" in response.message
    assert len(robot("identify", image=whole).faces.faces) == 1
    monkeypatch.undo()
    assert len(robot("identify", image=whole).faces.faces) == 6


def test_what_needs_the_store_is_refused_while_it_is_away(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(robot.gallery), "state", "the server is away")
    monkeypatch.setattr(type(robot.gallery), "is_away", True)
    requests: dict[str, dict[str, Any]] = {
        "enroll": {},
        "rename_person": {"person": "Anna", "new_name": "Ada"},
        "merge_people": {"person": "Anna", "into": "Anna"},
        "split_person": {"person": "Anna"},
        "move_templates": {"person": "Anna", "template_ids": ["some"]},
        "reject_match": {"camera": "front", "track_id": str(robot.faces.ids[0])},
        "forget_person": {"person": "Anna"},
        "list_people": {"person": "Anna"},
    }
    for service, fields in requests.items():
        response = robot(service, **fields)
        assert (response.success, response.message) == (
            False,
            "not possible now: the server is away",
        )
    assert robot("list_people").success


def test_a_store_that_warns_is_used(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as of a file that others can read."""
    monkeypatch.setattr(type(robot.gallery), "state", "other users may read who is known")
    assert robot("rename_person", person="Anna", new_name="Ada").success
    assert robot("rename_person", person="Ada", new_name="Anna").success


def test_a_store_that_hangs_is_not_waited_for_for_long(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scrfd_ros.node.gallery_services._PATIENCE", 0.2)
    answers = threading.Event()
    monkeypatch.setattr(robot.gallery, "forget", lambda person: answers.wait(30))
    start = time.monotonic()
    response = robot("forget_person", person="Anna")
    assert time.monotonic() - start < 5
    assert not response.success and "has not answered for 0.2 s" in response.message
    assert "busy; try again" in robot("split_person", person="Anna").message
    assert robot("list_people").success
    answers.set()
    deadline = time.monotonic() + 30
    while "busy" in (message := robot("split_person", person="Anna").message):
        assert time.monotonic() < deadline
    assert "is not merged into another" in message


def test_an_error_in_our_own_code_is_a_refusal_too(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robot.gallery, "find", lambda name: 1 / 0)
    response = robot("split_person", person="Anna")
    assert not response.success
    assert response.message == "the request is refused: division by zero"


def test_every_time_of_a_person_can_be_told(robot: Robot, people: NDArray[np.uint8]) -> None:
    looks = robot.pipeline(people).looks
    for name, expires in (("late", 1e11), ("soon", time.time() + 100.25)):
        robot.gallery.enroll(name, [looks[4]], source="", expires=expires)
    told = {each.name: each.expires for each in robot("list_people").people}
    assert told["late"] == Time(sec=2**31 - 1, nanosec=999_999_999)
    assert abs(told["soon"].sec + told["soon"].nanosec / 1e9 - time.time()) < 600
    for name in ("late", "soon"):
        robot.gallery.forget(name)


def test_requests_of_random_content(
    tmp_path: Path, people: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    """Every service answers, or refuses with a sentence, and the gallery works afterwards."""
    robot = Robot(tmp_path, people)
    looks = robot.pipeline(people).looks
    ids = [*map(str, robot.faces.ids)]
    outcomes: Counter[str] = Counter()
    messages = RandomMessages(1, [])
    for number in tqdm(range(REQUESTS), disable=None):
        if robot.gallery.person_count < 2:
            for row, name in enumerate(("Anna", "Bob", "Cleo")):
                robot.gallery.enroll(name, [looks[row]], source="test")
        # Names and ids that there are.
        names = [*ids, "front", "blind", "", "stranger-1", "bgr8", "mono8", "Dora"]
        for person in robot.gallery.people:
            names += [person.name, person.id]
            if number % 10 == 0:
                names += [each.id for each in robot.gallery.templates_of(person)]
        messages.use(names)
        service = messages.choice(sorted(robot.kinds))
        response = robot(service, messages.message(robot.kinds[service].Request))
        outcomes[f"{service}: {'done' if response.success else 'refused'}"] += 1
        assert response.message, service
        assert len(response.message) < 2000 and "\n" not in response.message
        assert "the request is refused: " not in response.message, "an error in our own code"
    with capfd.disabled():
        if REQUESTS > 1000:
            print(*(f"{count:6d}  {name}" for name, count in sorted(outcomes.items())), sep="\n")
    response = robot("identify", image=image_message(people, Header()))
    assert len(response.faces.faces) == 6
    robot.close()
    assert "Traceback" not in capfd.readouterr().err


def test_who_is_forgotten_leaves_memory_without_an_image(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews: list[float] = []
    identifier = robot.pipeline.identifier
    monkeypatch.setattr(identifier, "review", lambda: reviews.append(time.monotonic()))
    deadline = time.monotonic() + 10
    while not reviews and time.monotonic() < deadline:
        rclpy.spin_once(robot.node, timeout_sec=0.5)
    assert reviews
