# SPDX-License-Identifier: Apache-2.0
"""The state of each camera, and of the gallery, as a status of /diagnostics."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from scrfd_ros.errors import BackendError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.inference.cuda import device_memory
from scrfd_ros.inference.network import Network
from scrfd_ros.node.camera import Camera
from scrfd_ros.node.config import DiagnosticsConfig
from scrfd_ros.node.rates import rate
from scrfd_ros.pipeline import FacePipeline


class Problem(NamedTuple):
    """What is wrong with a camera, in a sentence, and its level of DiagnosticStatus.

    Levels rise in this order: OK, WARN, ERROR, STALE.
    """

    level: bytes
    sentence: str


def camera_status(
    camera: Camera, pipeline: FacePipeline, node_name: str, limits: DiagnosticsConfig
) -> DiagnosticStatus:
    """The state of a camera: OK, WARN (has problems), ERROR (images fail), STALE (no images).

    The level is that of the worst problem; the message has a sentence for each, the worst first.
    """
    now = time.monotonic()
    counts = camera.counts.snapshot()
    age = now - counts.arrivals[-1] if counts.arrivals else None
    input_rate, output_rate = rate(counts.arrivals, now), rate(counts.outputs, now)
    totals = {
        name: str(getattr(counts, name))
        for name in ("received", "handled", "dropped", "failed", "damaged")
    }
    totals["lost"] = "unknown" if counts.lost is None else str(counts.lost)
    problems = [Problem(DiagnosticStatus.WARN, text) for text in counts.warnings.values()]
    waiting_since = camera.waiting_since
    if waiting_since is None:
        state = "no subscriber to results"
    elif age is None or now - waiting_since > limits.stale_after:
        state = "no image yet" if age is None else f"no image for {age:.1f} s"
        if counts.silence:
            state += f": {counts.silence}"
        problems.append(Problem(DiagnosticStatus.STALE, state))
    else:
        state = f"{output_rate:.1f} results a second"
        if counts.reason:
            problems.append(Problem(DiagnosticStatus.ERROR, counts.reason))
        if output_rate < limits.min_rate:
            slow = f"{state}, expected at least {limits.min_rate:g}"
            problems.append(Problem(DiagnosticStatus.WARN, slow))
    problems.sort(key=lambda problem: problem.level, reverse=True)
    networks = pipeline.networks
    values = {
        "image topic": camera.topic,
        "images a second": f"{input_rate:.1f}",
        "results a second": f"{output_rate:.1f}",
        **totals,
        "stamps": counts.warnings.get("stamps", "no problem"),
        "age of the newest image, s": "" if age is None else f"{age:.3f}",
        **{f"{stage}, ms": f"{value:.1f}" for stage, value in counts.milliseconds.items()},
        "detector": _in_words(networks["detector"]),
        "recognizer": _in_words(networks["recognizer"]) if "recognizer" in networks else "none",
    }
    if any(network.on_gpu for network in networks.values()):
        values["device memory"] = _device_memory()
    return DiagnosticStatus(
        level=problems[0].level if problems else DiagnosticStatus.OK,
        name=_status_name(node_name, camera.name),
        message="; ".join(problem.sentence for problem in problems) or state,
        hardware_id=camera.topic,
        values=list(_values(values.items())),
    )


def idle_status(camera_name: str, node_name: str, problem: Problem) -> DiagnosticStatus:
    """The state of a camera while the node is not active."""
    name = _status_name(node_name, camera_name)
    return DiagnosticStatus(level=problem.level, name=name, message=problem.sentence)


def gallery_status(gallery: Gallery, node_name: str) -> DiagnosticStatus:
    """The state of the gallery: OK, or WARN while something is wrong with its store."""
    problem, people = gallery.state, gallery.person_count
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN if problem else DiagnosticStatus.OK,
        name=_status_name(node_name, "gallery"),
        message=problem or ("1 person" if people == 1 else f"{people} people"),
        values=list(
            _values(
                {
                    "people": str(people),
                    "templates": str(gallery.template_count),
                    "recognizer": gallery.info.recognizer,
                    "store": problem or "works",
                }.items()
            )
        ),
    )


def networks_in_words(pipeline: FacePipeline) -> str:
    """The files of the networks and what runs them."""
    words = [f"{kind} {_in_words(network)}" for kind, network in pipeline.networks.items()]
    return ", ".join(words if len(words) > 1 else [*words, "no recognizer"])


def _in_words(network: Network) -> str:
    return f"{network.path.name} on {network.backend}"


def _status_name(node_name: str, camera_name: str) -> str:
    return f"{node_name}: {camera_name or 'image'}"


def _device_memory() -> str:
    try:
        used, total = (size >> 20 for size in device_memory())
    except BackendError as error:
        return str(error)
    return f"{used} of {total} MiB in use"


def _values(items: Iterable[tuple[str, str]]) -> Iterable[KeyValue]:
    return (KeyValue(key=key, value=value) for key, value in items)
