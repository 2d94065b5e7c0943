# SPDX-License-Identifier: Apache-2.0
"""Measure the speed of pipelines on this machine, by stage."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.config import PipelineConfig, with_values
from scrfd_ros.errors import BackendError, ScrfdError
from scrfd_ros.evaluation.settings import recorded_options
from scrfd_ros.inference.cores import processor_name
from scrfd_ros.inference.cuda import cuda_device
from scrfd_ros.inference.tensorrt_library import import_tensorrt, product
from scrfd_ros.models.catalogue import default_model_directory, load_catalogue
from scrfd_ros.pipeline import FacePipeline, load_pipeline
from scrfd_ros.recognition.alignment import CROP_SIZE

HARDWARE = ("CPU", "OpenVINO", "CUDA", "TensorRT")
"""Hardware of a network: for ONNX Runtime, CPU or CUDA; else the backend's name."""

_ONE_FACE = np.zeros((1, CROP_SIZE, CROP_SIZE, 3), np.uint8)


@dataclass(frozen=True)
class Configuration:
    """A pipeline to measure.

    Attributes:
        detector, recognizer: names in the catalogue, or paths; None for no recognizer.
        backend: "onnxruntime", "openvino" or "tensorrt".
    """

    detector: str
    recognizer: str | None
    backend: str
    pipeline: FacePipeline

    @property
    def title(self) -> str:
        recognizer = f" + ArcFace {self.recognizer}" if self.recognizer else ""
        return f"SCRFD {self.detector}{recognizer}"

    @property
    def hardware(self) -> str:
        """The one of `HARDWARE` that the detector runs on."""
        for name in ("OpenVINO", "TensorRT"):
            if self.backend == name.lower():
                return name
        return "CUDA" if "CUDA" in self.pipeline.detector.network.backend else "CPU"


@dataclass(frozen=True)
class Measurement:
    """The times of one configuration.

    Attributes:
        faces: number of faces found in the image.
        input_size: width and height of the detector's input for the image, pixels.
        milliseconds: by stage, float64 [repeat]. Wall time: the stages of
            `scrfd_ros.pipeline.Result`; detection, which is prepare, detect and decode together;
            embed_one, the embedding of a single face. Time on the device, if the backend measures
            it, which is part of detect: see `Scrfd.device_milliseconds`.
    """

    configuration: Configuration
    faces: int
    input_size: tuple[int, int]
    milliseconds: dict[str, NDArray[np.float64]]

    def median(self, stage: str) -> float | None:
        """Median time of a stage, milliseconds; None if it was not measured."""
        return self._percentile(stage, 50)

    def p95(self, stage: str) -> float | None:
        """95th percentile of a stage's time, milliseconds; None if it was not measured."""
        return self._percentile(stage, 95)

    @property
    def images_per_second(self) -> float:
        """Images per second one after the other, by the median of total."""
        return 1e3 / float(np.median(self.milliseconds["total"]))

    def _percentile(self, stage: str, percent: float) -> float | None:
        if stage not in self.milliseconds:
            return None
        return float(np.percentile(self.milliseconds[stage], percent))

    def as_json(self) -> dict[str, object]:
        """Everything except the single runs."""
        pipeline = self.configuration.pipeline
        return {
            "detector": self.configuration.detector,
            "recognizer": self.configuration.recognizer,
            "backend": self.configuration.backend,
            "networks": {
                kind: {
                    "path": str(network.path),
                    "sha256": network.sha256,
                    "runs_on": network.backend,
                }
                for kind, network in pipeline.networks.items()
            },
            **recorded_options(pipeline.config.detector),
            "used_input_size": list(self.input_size),
            "faces": self.faces,
            "images_per_second": self.images_per_second,
            "milliseconds": {
                stage: {"median": self.median(stage), "p95": self.p95(stage)}
                for stage in self.milliseconds
            },
        }


@dataclass(frozen=True)
class NetworkTime:
    """One network alone: median milliseconds with each backend, None if not measured."""

    model: str
    onnxruntime: float | None
    openvino: float | None
    tensorrt: float | None
    speedup: float | None


@dataclass(frozen=True)
class DetectionTime:
    """A detector, from image to faces: median milliseconds, None if not measured."""

    hardware: str
    model: str
    resolution: str
    images_per_second: float | None
    milliseconds: float | None


def machine_info() -> dict[str, object]:
    """What the figures depend on; None for what this machine does not have."""
    info: dict[str, object] = {
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "gpu": None,
        "compute_capability": None,
        "cuda": None,
        "tensorrt": None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "onnxruntime": _version("onnxruntime-gpu", "onnxruntime"),
        "openvino": _version("openvino"),
    }
    try:
        device = cuda_device()
        info["gpu"] = device.name
        info["compute_capability"] = device.compute_capability
        info["cuda"] = device.cuda
        info["tensorrt"] = product(import_tensorrt())
    except BackendError:
        pass
    return info


def _version(*packages: str) -> str | None:
    """Of the first of these packages that is installed."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return None


def load_configurations(
    detectors: Sequence[Path],
    recognizers: Sequence[Path | None],
    backends: Sequence[str],
    config: PipelineConfig,
) -> tuple[list[Configuration], list[str]]:
    """Load what is to be measured: every model at least once under every backend.

    All detectors go with the first recognizer, the other recognizers with the first detector.

    Args:
        recognizers: None stands for none.
        backends: see `Configuration`.
        config: the other options.

    Returns:
        configurations: those that can be loaded on this machine.
        reasons: why the others cannot.

    Raises:
        ScrfdError: none can be loaded; see `load_pipeline`.
    """
    pairs = [(detector, recognizers[0]) for detector in detectors]
    pairs += [(detectors[0], recognizer) for recognizer in recognizers[1:]]
    configurations = []
    errors: dict[str, ScrfdError] = {}
    for backend in backends:
        for detector, recognizer in pairs:
            try:
                pipeline = load_pipeline(
                    with_values(
                        config,
                        {
                            "backend": backend,
                            "detector.engine_path": detector,
                            "recognizer.enabled": recognizer is not None,
                            "recognizer.engine_path": recognizer,
                        },
                    )
                )
            except ScrfdError as error:
                errors[f"{backend}: {error}"] = error
            else:
                configurations.append(
                    Configuration(
                        _name(detector),
                        None if recognizer is None else _name(recognizer),
                        backend,
                        pipeline,
                    )
                )
    if not configurations:
        raise list(errors.values())[-1]
    return configurations, list(errors)


def _name(path: Path) -> str:
    if path.parent == default_model_directory():
        for entry in load_catalogue().models.values():
            if entry.file == path.name:
                return entry.name
    return str(path)


def measure(
    configurations: Sequence[Configuration],
    image: NDArray[np.uint8],
    *,
    repeat: int,
    warmup: int,
) -> list[Measurement]:
    """Measure all configurations in turns, so that a slow phase of the machine affects all.

    Each turn begins with a run that is not measured. It brings caches and threads into the state
    that they have on a robot, where one pipeline runs all the time. Without it the idle threads of
    the previous pipeline still spin, which on two cores made w600k_mbf a quarter slower.

    Args:
        image: uint8 [H, W, 3] BGR.
        repeat: measured turns of each configuration, at least 1.
        warmup: turns before those.
    """
    samples: list[list[dict[str, float]]] = [[] for _ in configurations]
    faces = [0 for _ in configurations]
    turns = [turn for _ in range(warmup + repeat) for turn in enumerate(configurations)]
    for row, configuration in tqdm(turns, desc="measuring", leave=False, disable=None):
        faces[row] = len(configuration.pipeline(image).faces)
        samples[row].append(_sample(configuration.pipeline, image))
    height, width = image.shape[:2]
    return [
        Measurement(
            configuration,
            count,
            configuration.pipeline.detector.plan(width, height).size,
            {stage: np.array([sample[stage] for sample in own[warmup:]]) for stage in own[0]},
        )
        for configuration, count, own in zip(configurations, faces, samples, strict=True)
    ]


def _sample(pipeline: FacePipeline, image: NDArray[np.uint8]) -> dict[str, float]:
    times = pipeline(image).milliseconds
    times |= pipeline.detector.device_milliseconds()
    times["detection"] = times["prepare"] + times["detect"] + times["decode"]
    if pipeline.recognizer is not None:
        pipeline.recognizer.embed(_ONE_FACE)  # a change of the batch size takes extra time
        start = time.perf_counter()
        pipeline.recognizer.embed(_ONE_FACE)
        times["embed_one"] = 1e3 * (time.perf_counter() - start)
    return times


def network_times(measurements: Sequence[Measurement]) -> list[NetworkTime]:
    """Each network alone, and the speedup of TensorRT over ONNX Runtime.

    A detector takes an image, a recognizer one face; copies to and from the device are included.
    """
    rows = []
    for kind, title, stage in (
        ("detector", "SCRFD", "detect"),
        ("recognizer", "ArcFace", "embed_one"),
    ):
        measured = [each.configuration for each in measurements if stage in each.milliseconds]
        for name in dict.fromkeys(getattr(each, kind) for each in measured):
            onnxruntime, openvino, tensorrt = (
                _median(measurements, stage, **{kind: name, "backend": backend})
                for backend in ("onnxruntime", "openvino", "tensorrt")
            )
            speedup = onnxruntime / tensorrt if onnxruntime and tensorrt else None
            rows.append(NetworkTime(f"{title} {name}", onnxruntime, openvino, tensorrt, speedup))
    return rows


def chosen_backends(configurations: Sequence[Configuration]) -> dict[str, str]:
    """What runs the networks with the backend auto, by name of the model."""
    chosen: dict[str, str] = {}
    for each in configurations:
        names = [each.detector, *([each.recognizer] if each.recognizer else [])]
        if not chosen.keys() >= set(names):
            pipeline = load_pipeline(with_values(each.pipeline.config, {"backend": "auto"}))
            networks = (network.backend for network in pipeline.networks.values())
            chosen |= dict(zip(names, networks, strict=False))  # some have no recognizer after all
    return chosen


def detection_times(measurements: Sequence[Measurement]) -> list[DetectionTime]:
    """Each detector on each hardware, from an image in memory to its faces."""
    sizes = {each.configuration.detector: "{}x{}".format(*each.input_size) for each in measurements}
    rows = []
    for name, size in sizes.items():
        for hardware in HARDWARE:
            milliseconds = _median(measurements, "detection", detector=name, hardware=hardware)
            rows.append(
                DetectionTime(
                    hardware,
                    f"SCRFD {name}",
                    size,
                    1e3 / milliseconds if milliseconds else None,
                    milliseconds,
                )
            )
    return rows


def _median(measurements: Sequence[Measurement], stage: str, **attributes: str) -> float | None:
    """Median over all configurations with these attributes; None if none was measured."""
    runs = [
        each.milliseconds[stage]
        for each in measurements
        if stage in each.milliseconds
        and all(getattr(each.configuration, name) == attributes[name] for name in attributes)
    ]
    return float(np.median(np.concatenate(runs))) if runs else None
