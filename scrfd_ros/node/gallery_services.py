# SPDX-License-Identifier: Apache-2.0
"""The services of the gallery: other nodes enroll, identify, list, correct and forget people.

Each answers with success and a message, as the services of std_srvs do. Names and embeddings are in
answers, never in the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.serialization import deserialize_message

from scrfd_ros.config import shown
from scrfd_ros.enrollment.images import only_look
from scrfd_ros.errors import GalleryError, ImageError
from scrfd_ros.gallery import choice
from scrfd_ros.gallery.people import Look, Person, Template
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.messages.faces import ModelNames, face_array
from scrfd_ros.msg import FaceArray
from scrfd_ros.msg import Person as PersonMessage
from scrfd_ros.msg import Template as TemplateMessage
from scrfd_ros.node.clock import STEADY
from scrfd_ros.node.error_reports import EXPECTED_ERRORS, reason_of
from scrfd_ros.node.guarded_executor import guard_service
from scrfd_ros.node.images import decode_message
from scrfd_ros.pipeline import FacePipeline, Result
from scrfd_ros.srv import (
    Enroll,
    ForgetPerson,
    Identify,
    ListPeople,
    MergePeople,
    MoveTemplates,
    RejectMatch,
    RenamePerson,
    SplitPerson,
)
from scrfd_ros.tracking.tracker import Tracker

if TYPE_CHECKING:
    from scrfd_ros.node.camera import Camera, ReceivedImage
    from scrfd_ros.node.parameters import LiveConfig
    from scrfd_ros.node.worker import Worker

MAX_IMAGES = 32
"""Images in one request: nothing else is done while they are searched."""

_REVIEW_PERIOD = 1.0  # seconds

_MAX_SECONDS = 2**31 - 1  # of a builtin_interfaces/Time
_PATIENCE = 5.0  # seconds that the store may take; meanwhile no images come in

_Returned = TypeVar("_Returned")

_Handler: TypeAlias = Callable[[Any, Any], str]
"""Takes a request, fills the response, and returns its message; refuses by raising ScrfdError."""


class GalleryServices:
    """The services of a node with a gallery.

    Requests are answered on the executor's thread; networks run on the worker's.

    Args:
        node: whose services these are.
        config: the pipeline's, with the live parameters of each moment.
        pipeline: with an identifier.
        cameras: of the node.
        worker: runs the networks.
    """

    def __init__(
        self,
        node: Node,
        config: LiveConfig,
        pipeline: FacePipeline,
        cameras: Sequence[Camera],
        worker: Worker[Camera, ReceivedImage],
    ) -> None:
        assert pipeline.identifier is not None
        self._node = node
        self._config = config
        self._pipeline = pipeline
        self._identifier = pipeline.identifier
        self._gallery = pipeline.identifier.gallery
        self._trackers = {camera.name: camera.tracker for camera in cameras}
        self._worker = worker
        self._store_work: Future[Any] | None = None
        handlers: list[tuple[str, type, _Handler]] = [
            ("enroll", Enroll, self._enroll),
            ("identify", Identify, self._identify),
            ("list_people", ListPeople, self._list_people),
            ("rename_person", RenamePerson, self._rename_person),
            ("merge_people", MergePeople, self._merge_people),
            ("split_person", SplitPerson, self._split_person),
            ("move_templates", MoveTemplates, self._move_templates),
            ("reject_match", RejectMatch, self._reject_match),
            ("forget_person", ForgetPerson, self._forget_person),
        ]
        self._services = [
            node.create_service(kind, f"~/{name}", self._answering(kind, handler))
            for name, kind, handler in handlers
        ]
        for service in self._services:
            guard_service(node, service)
        # What was seen of people who are forgotten goes, even if no image comes.
        self._timer = node.create_timer(_REVIEW_PERIOD, self._review, clock=STEADY)

    def destroy(self) -> None:
        """Remove the services."""
        self._node.destroy_timer(self._timer)
        for service in self._services:
            self._node.destroy_service(service)

    def _review(self) -> None:
        self._identifier.config = self._config.current().gallery
        self._identifier.review()

    def _answering(self, kind: Any, handler: _Handler) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            try:
                message = handler(request, response)
            except EXPECTED_ERRORS as error:
                return kind.Response(success=False, message=reason_of(error))
            response.success, response.message = True, message
            return response

        return answer

    def _enroll(self, request: Enroll.Request, response: Enroll.Response) -> str:
        self._ensure_store()  # before networks run
        expires = _seconds(request.expires)
        if expires is not None and expires <= time.time():
            raise GalleryError(
                f"expires is {time.time() - expires:.0f} s ago; expected a time to come, by the "
                f"clock of the machine, or 0 for never"
            )
        tracked = None
        given = [
            name for name in ("track_id", "stranger_id", "images") if len(getattr(request, name))
        ]
        if given == ["track_id"]:
            tracked = self._tracked(request)
            looks = self._identifier.looks(*tracked)
            source = f"camera {request.camera or 'image'}"
        elif given == ["stranger_id"]:
            looks = self._identifier.stranger_looks(request.stranger_id)
            source = "a stranger"
        elif given == ["images"]:
            looks = self._looks(request.images)
            source = "an image in a request"
        else:
            raise GalleryError(
                f"{' and '.join(given) or 'nothing'} is given to enroll from; expected one of "
                f"track_id, stranger_id and images"
            )
        done = self._in_store(
            partial(
                choice.enroll,
                self._gallery,
                request.name,
                looks,
                source=source,
                consent=request.consent,
                expires=expires,
                force=request.force,
                config=self._config.current().gallery,
            )
        )
        if tracked is not None:
            with suppress(GalleryError):  # the track has just ended
                self._identifier.settle(*tracked, done.person.id)
        response.person_id, response.added = done.person.id, len(done.added)
        added = _counted(len(done.added), "template")
        self._log(f"enrolled {done.person.id}, {added}")
        if done.is_new:
            return f"{done.person.name} is enrolled, with {added}"
        if not done.added:
            return f"{done.person.name} has templates of the same images already"
        return f"{done.person.name} was there already, and has {added} more"

    def _identify(self, request: Identify.Request, response: Identify.Response) -> str:
        header = request.image.header

        def identify() -> bytes:
            decoded = decode_message(request.image)
            faces = decoded.restore(self._found(decoded).faces)
            return face_array(faces, header, ModelNames.of(self._pipeline))

        response.faces = deserialize_message(self._worker.call(identify), FaceArray)
        return _counted(len(response.faces.faces), "face")

    def _list_people(self, request: ListPeople.Request, response: ListPeople.Response) -> str:
        people, templates = self._gallery.people, list[Template]()
        counts, merged = self._gallery.template_counts(), self._gallery.merged_names()
        if request.person:
            person = self._gallery.find(request.person)
            people = [person]
            for each in (person, *self._gallery.merged(person.id)):
                templates += self._in_store(partial(self._gallery.templates_of, each))
            # Who is merged into another has no count of its own there.
            counts[person.id] = sum(not each.is_negative for each in templates)
        response.people = [
            _person(each, counts.get(each.id, 0), merged.get(each.id, []), templates)
            for each in people
        ]
        return f"{len(people)} of {self._gallery.person_count} people"

    def _rename_person(self, request: RenamePerson.Request, response: Any) -> str:
        person = self._gallery.find(request.person)
        self._in_store(partial(self._gallery.rename, person.id, request.new_name))
        self._log(f"renamed {person.id}")
        return f"{person.name} is called {self._gallery.find(person.id).name} now"

    def _merge_people(self, request: MergePeople.Request, response: Any) -> str:
        person, into = self._gallery.find(request.person), self._gallery.find(request.into)
        self._in_store(partial(self._gallery.merge, person.id, into.id))
        self._log(f"merged {person.id} into {into.id}")
        return f"{person.name} and {into.name} are one person now"

    def _split_person(self, request: SplitPerson.Request, response: Any) -> str:
        person = self._gallery.find(request.person)
        self._in_store(partial(self._gallery.split, person.id))
        self._log(f"split off {person.id}")
        return f"{person.name} is a person of its own again"

    def _move_templates(self, request: MoveTemplates.Request, response: Any) -> str:
        person = self._gallery.find(request.person)
        if not request.template_ids:
            raise GalleryError("template_ids is empty; ~/list_people with a person has them")
        self._in_store(partial(self._gallery.move, list(request.template_ids), person.id))
        moved = _counted(len(request.template_ids), "template")
        self._log(f"moved {moved} to {person.id}")
        return f"moved {moved} to {person.name}"

    def _reject_match(self, request: RejectMatch.Request, response: RejectMatch.Response) -> str:
        self._ensure_store()
        tracker, track_id = self._tracked(request)
        person_id, looks = self._identifier.reject(tracker, track_id)
        person = self._gallery.find(person_id)
        source = f"camera {request.camera or 'image'}"
        self._in_store(partial(self._gallery.reject, person_id, looks, source))
        response.person_id = person_id
        self._log(f"rejected a match with {person_id}")
        return f"track {track_id} is not {person.name}"

    def _forget_person(self, request: ForgetPerson.Request, response: Any) -> str:
        person = self._gallery.find(request.person)
        self._in_store(partial(self._gallery.forget, person.id))
        self._log(f"forgot {person.id}")
        return f"{person.name} is forgotten"

    def _ensure_store(self) -> None:
        """Refuse what needs the store while it cannot be reached, rather than wait for it.

        Raises:
            GalleryError: it cannot, or still has earlier work to do.
        """
        if self._gallery.is_away:
            raise GalleryError(f"not possible now: {self._gallery.state}")
        if self._store_work is not None and not self._store_work.done():
            raise GalleryError("not possible now: the store of the gallery is busy; try again")

    def _in_store(self, work: Callable[[], _Returned]) -> _Returned:
        """Do something with the store, in a thread of its own, and wait for it a while.

        Raises:
            GalleryError: see `_ensure_store`, or the store does not answer.
        """
        self._ensure_store()
        future: Future[_Returned] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._store_work = future
        # A daemon: the node can end while a server hangs.
        threading.Thread(target=run, name="gallery services", daemon=True).start()
        try:
            return future.result(_PATIENCE)
        except futures.TimeoutError:
            if future.done():  # just now, or its own error
                return future.result()
        raise GalleryError(
            f"the store of the gallery has not answered for {_PATIENCE:g} s; it may still do it: "
            f"~/list_people shows whether it has"
        )

    def _tracked(self, request: Enroll.Request | RejectMatch.Request) -> tuple[Tracker, int]:
        """The tracker of the camera that a request names, and the number of the track.

        Raises:
            GalleryError: there is no such camera, or that is no number.
        """
        if request.camera not in self._trackers:
            names = ", ".join(map(repr, self._trackers))
            raise GalleryError(f"there is no camera {shown(request.camera)}; expected {names}")
        tracker = self._trackers[request.camera]
        if tracker is None:
            raise GalleryError("faces have no tracks: tracking.enabled is false")
        text = request.track_id
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise GalleryError(
                f"track_id is {shown(text)}; expected a number, as in Detection2D.id of a face "
                f"that the camera sees now"
            )
        return tracker, int(text)

    def _looks(self, images: Sequence[Any]) -> list[Look]:
        """A look at the one face of each image.

        Raises:
            GalleryError: there are too many images.
            ImageError: an image cannot be decoded, or does not show one face.
        """
        if len(images) > MAX_IMAGES:
            raise GalleryError(f"{len(images)} images; expected at most {MAX_IMAGES} in a request")

        def look(image: Any, name: str) -> Look:
            try:
                result = self._found(decode_message(image))
            except ImageError as error:
                raise ImageError(f"{name}: {error}") from error
            return only_look(result, name)

        return [
            self._worker.call(partial(look, image, f"image {number} of {len(images)}"))
            for number, image in enumerate(images, 1)
        ]

    def _found(self, image: DecodedImage) -> Result:
        """The faces of an image in a request, by the options of this moment; for the worker."""
        config = self._config.current()
        if config is not self._pipeline.config:  # no image of a camera has come since it changed
            self._pipeline.config = config
        return self._pipeline(image)

    def _log(self, text: str) -> None:
        self._node.get_logger().info(f"gallery: {text}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _person(
    person: Person, count: int, merged_names: Sequence[str], templates: Sequence[Template]
) -> PersonMessage:
    return PersonMessage(
        id=person.id,
        name=person.name,
        merged_names=list(merged_names),
        consent=person.consent,
        created=_time(person.created),
        expires=_time(person.expires or 0.0),
        template_count=count,
        templates=[_template(each) for each in templates],
    )


def _template(template: Template) -> TemplateMessage:
    return TemplateMessage(
        id=template.id,
        quality=template.quality,
        source=template.source,
        created=_time(template.created),
        is_negative=template.is_negative,
    )


def _time(seconds: float) -> Time:
    """Seconds since the epoch as a message; the last that it can hold for what is later."""
    whole = int(min(max(seconds, 0.0), _MAX_SECONDS))
    return Time(sec=whole, nanosec=min(int((max(seconds, 0.0) - whole) * 1e9), 999_999_999))


def _seconds(time: Time) -> float | None:
    """A time of a request as seconds since the epoch; None for 0."""
    return time.sec + time.nanosec / 1e9 if time.sec or time.nanosec else None
