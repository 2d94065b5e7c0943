# SPDX-License-Identifier: Apache-2.0
"""Watches a camera: reports problems with its images in the log and the diagnostics."""

from __future__ import annotations

import time
from collections import deque

from rclpy.exceptions import NameValidationException
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from scrfd_ros.node.camera import Camera
from scrfd_ros.node.no_images import (
    NO_NAMES,
    TRANSPORTS,
    Endpoint,
    Graph,
    incompatible,
    why_no_image,
)
from scrfd_ros.node.reminders import Reminders

_PATIENCE = 5.0  # seconds without an image or a result after which the reason is reported
_WINDOW = 30  # looks over which losses and failures are counted
# Losses and failures below both are not reported.
_MAX_SHARE = 0.05
_MIN_NUMBER = 5
_MIX_PERIOD = 10.0  # seconds in which images of several publishers arrive in turns
_GRAPH_PATIENCE = 30.0  # seconds; a dead publisher stays in the graph for up to 20 s
_OTHER_TRANSPORTS = ("/compressedDepth", "/zstd")  # CompressedImage too, but no JPEG or PNG


class CameraWatch:
    """Watches one camera from its activation on.

    Args:
        node: in whose log problems are reported.
        camera: whose counts get the sentences for the diagnostics.
    """

    def __init__(self, node: LifecycleNode, camera: Camera) -> None:
        self._node = node
        self.camera = camera
        self._reminders = Reminders()
        self._is_silence_logged = False
        # Images received, lost and failed until each look.
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=_WINDOW + 1)
        self._alone_at = time.monotonic()

    def look(self, now: float, stale_after: float, is_paused: bool) -> None:
        """Look for problems; to be called once a second, on the executor's thread.

        Args:
            now: monotonic seconds.
            stale_after: seconds without an image before the camera is reported as silent.
            is_paused: the time of /clock stands still.
        """
        camera = self.camera
        if camera.waiting_since is None:  # nobody subscribes to results
            camera.counts.silence = ""
            for subject in ("losses", "failures", "results", "publishers"):
                camera.counts.warn(subject, "")
            self._samples.clear()
            return
        is_silent = now - camera.waiting_since > max(_PATIENCE, stale_after)
        if is_silent or camera.is_refusing:
            self._explain(now, is_silent, is_paused)
        if camera.has_images and not is_silent:
            camera.counts.silence = ""
            if self._is_silence_logged:
                self._is_silence_logged = False
                self._node.get_logger().info(f"images arrive on {camera.topic}")
        self._look_at_shares(now)
        self._look_for_results(now)
        self._look_for_others(now)

    def _explain(self, now: float, is_silent: bool, is_paused: bool) -> None:
        camera = self.camera
        graph = self._graph(is_paused)
        if not is_silent and not (graph.refused and all(one.node for one in graph.refused)):
            return  # the graph learns the name of a node a little later than its publishers
        camera.is_refusing = False
        sentence = why_no_image(graph) if is_silent else incompatible(graph)
        camera.counts.silence = sentence
        if self._warn("silence", f"no images arrive: {sentence}", now):
            self._is_silence_logged = is_silent or not camera.has_images

    def _look_at_shares(self, now: float) -> None:
        counts = self.camera.counts.snapshot()
        sample = counts.received, counts.lost or 0, counts.failed
        self._samples.append(sample)
        received, lost, failed = (
            new - old for new, old in zip(sample, self._samples[0], strict=True)
        )
        topic = self.camera.topic
        losses = failures = ""
        if _is_much(lost, received + lost):
            losses = (
                f"{lost} of the last {received + lost} images on {topic} were lost on the way: "
                f"with Fast DDS the program that publishes them needs the transport profile, see "
                f"'Images and Fast DDS' in the README; if it has the profile, this machine is too "
                f"busy"
            )
        if _is_much(failed, received):
            failures = (
                f"{failed} of the last {received} images on {topic} were skipped: "
                f"{counts.last_reason}"
            )
        self._set_warning("losses", losses, now)
        self.camera.counts.warn("failures", failures)  # each is an error in the log already

    def _look_for_results(self, now: float) -> None:
        counts = self.camera.counts.snapshot()
        seconds = now - counts.busy_since if counts.in_hand else 0.0
        sentence = ""
        if seconds > _PATIENCE:
            sentence = (
                f"no image on {self.camera.topic} has been finished for {seconds:.0f} s, although "
                f"images arrive: the networks are too slow for this machine, or hang"
            )
        self._set_warning("results", sentence, now)

    def _look_for_others(self, now: float) -> None:
        camera = self.camera
        if camera.is_numbered:
            are_mixed = camera.numbers.is_mixed(now, _MIX_PERIOD)
        else:
            if self._node.count_publishers(camera.topic) < 2:
                self._alone_at = now
            are_mixed = now - self._alone_at > _GRAPH_PATIENCE
        sentence = ""
        if are_mixed:
            names = sorted({endpoint.node or "?" for endpoint in self._endpoints()})
            sentence = (
                f"several programs publish images on {camera.topic} ({', '.join(names)}): their "
                f"results and tracks mix; stop one, or remap its topic"
            )
        self._set_warning("publishers", sentence, now)

    def _graph(self, is_paused: bool) -> Graph:
        camera = self.camera
        return Graph(
            name=camera.image_name,
            base=str(self._node.resolve_topic_name(camera.image_name)),
            topic=camera.topic,
            type=camera.type_name,
            qos=_in_words(camera.qos),
            endpoints=self._endpoints(),
            image_topics=self._image_topics(),
            is_paused=is_paused,
        )

    def _endpoints(self) -> list[Endpoint]:
        own = self.camera.qos
        return [
            Endpoint(
                node="" if info.node_name in NO_NAMES else _full_name(info),
                type=info.topic_type,
                qos=_in_words(info.qos_profile),
                fits=qos_check_compatible(info.qos_profile, own)[0] != QoSCompatibility.ERROR,
            )
            for info in self._publishers(self.camera.topic)
        ]

    def _image_topics(self) -> dict[str, str]:
        """Topics with images from other nodes, and their types."""
        own = self._node.get_fully_qualified_name()
        return {
            topic: kind
            for topic, kinds in self._node.get_topic_names_and_types()
            for kind in kinds
            if kind in TRANSPORTS
            and topic != self.camera.topic
            and not topic.endswith(_OTHER_TRANSPORTS)
            and any(_full_name(info) != own for info in self._publishers(topic))
        }

    def _publishers(self, topic: str) -> list[TopicEndpointInfo]:
        try:
            return list(self._node.get_publishers_info_by_topic(topic))
        except NameValidationException:  # programs without ROS may use any name
            return []

    def _set_warning(self, subject: str, sentence: str, now: float) -> None:
        self.camera.counts.warn(subject, sentence)
        if sentence:
            self._warn(subject, sentence, now, of_one_kind=True)

    def _warn(self, subject: str, sentence: str, now: float, of_one_kind: bool = False) -> bool:
        """Log a warning if it is due; returns whether it was."""
        is_due = self._reminders.is_due(subject, "" if of_one_kind else sentence, now)
        if is_due:
            self._node.get_logger().warning(sentence)
        return is_due


def _is_much(part: int, whole: int) -> bool:
    return part >= _MIN_NUMBER and part > _MAX_SHARE * whole


def _full_name(info: TopicEndpointInfo) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _in_words(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"
