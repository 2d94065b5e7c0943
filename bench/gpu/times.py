# SPDX-License-Identifier: Apache-2.0
"""Times of the stages beside the engine's own, memory, and many runs and loads."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from process_usage import DESCRIPTORS, MEMORY, THREADS, usage

from gpu.engines import engine, photograph, pipeline
from gpu.outcomes import Failure
from gpu.plan import GOAL
from scrfd_ros.evaluation.benchmark import Configuration, measure
from scrfd_ros.inference.cuda import device_memory
from scrfd_ros.pipeline import FacePipeline

_SECONDS = 8.0  # of measuring
_REPEAT = (3, 100)  # minimum and maximum number of measured runs
_FRAMES = 20
_LOADS = 10
_LARGEST_GROWTH = 16  # MiB on the device, of all loads
_LARGEST_GROWTH_ON_HOST = 64


def stages(
    folder: Path, detector: str, recognizer: str | None, precision: str, cuda_graph: bool
) -> dict[str, Any]:
    """Median and 95th percentile of each stage, and whether a frame reaches the goal.

    A frame is detection: from the image in memory to its faces. The engine's own time is what the
    device takes for the detector's network alone, without copies.
    """
    names = (detector, recognizer) if recognizer else (detector,)
    paths = [engine(folder, name, (precision,)) for name in names]
    found = pipeline(paths[0], paths[1] if recognizer else None, cuda_graph=cuda_graph)
    image = photograph()
    configuration = Configuration(detector, recognizer, "tensorrt", found)
    found(image)
    total = found(image).milliseconds["total"] / 1e3
    repeat = int(np.clip(_SECONDS / total / 2, *_REPEAT))  # each turn has two runs
    (measured,) = measure([configuration], image, repeat=repeat, warmup=_REPEAT[0])
    own, recognition = _own_milliseconds(found, image, repeat)
    frame = float(np.median(measured.milliseconds["detection"]))
    figures: dict[str, Any] = {
        "faces": measured.faces,
        "frame, ms": round(frame, 3),
        "engine, ms": round(own, 3),
        "frame / engine": round(frame / own, 3),
    }
    if found.recognizer is not None:
        both = own + recognition
        total = float(np.median(measured.milliseconds["total"]))
        figures |= {
            "with recognition, ms": round(total, 3),
            "both engines, ms": round(both, 3),
            "with recognition / both engines": round(total / both, 3),
        }
    figures["milliseconds"] = {
        stage: {"median": measured.median(stage), "p95": measured.p95(stage)}
        for stage in measured.milliseconds
    }
    if frame / own > GOAL:
        raise Failure(f"a frame takes {frame / own:.2f} times the engine's own time", figures)
    return figures


def _own_milliseconds(
    found: FacePipeline, image: NDArray[np.uint8], repeat: int
) -> tuple[float, float]:
    """Median times that the engines of detector and recognizer take for the image, 0 without.

    The detector's engine is run by itself: what `measure` gives for it can include drawing its
    input and choosing candidates. Frames come in between, for the same clocks of the GPU.
    """
    network = found.detector.network
    width, height = found.detector.size
    blank = {network.inputs[0].name: np.zeros((1, 3, height, width), np.float32)}
    own, recognition = [], []
    for _ in range(repeat):
        found(image)
        if found.recognizer is not None:
            recognition.append(found.recognizer.network.device_milliseconds()["network"])
        network(blank)
        own.append(network.device_milliseconds()["network"])
    return float(np.median(own)), float(np.median(recognition or [0.0]))


def memory(folder: Path, detector: str, recognizer: str) -> dict[str, Any]:
    """Memory that a pipeline takes, on host and device, and what many loads leave behind."""
    paths = [engine(folder, name) for name in (detector, recognizer)]
    image = photograph()
    pipeline(*paths)(image)  # what CUDA and TensorRT keep for all engines
    before = _memory()
    found = pipeline(*paths)
    found(image)
    loaded = _memory()
    for _ in range(_FRAMES):
        found(image)
    ran = _memory()
    del found
    for _ in range(_LOADS):
        pipeline(*paths)
    after = _memory()
    figures = {
        "device, of the pipeline, MiB": loaded["device"] - before["device"],
        f"device, growth by {_FRAMES} frames, MiB": ran["device"] - loaded["device"],
        f"device, growth by {_LOADS} loads, MiB": after["device"] - before["device"],
        "process, MiB": round(loaded[MEMORY]),
        f"process, growth by {_LOADS} loads, MiB": round(after[MEMORY] - before[MEMORY]),
        f"threads, growth by {_LOADS} loads": round(after[THREADS] - before[THREADS]),
        f"descriptors, growth by {_LOADS} loads": round(after[DESCRIPTORS] - before[DESCRIPTORS]),
    }
    for name, value in figures.items():
        largest = _LARGEST_GROWTH if name.startswith("device") else _LARGEST_GROWTH_ON_HOST
        if "growth" in name and value > largest:
            raise Failure(f"{name}: {value}", figures)
    return figures


def _memory() -> dict[str, float]:
    """MiB on the device, of all programs, and the usage of this process with memory in MiB."""
    gc.collect()
    found: dict[str, float] = dict(usage("self"))
    found[MEMORY] /= 1024
    return {"device": device_memory()[0] >> 20, **found}
