# SPDX-License-Identifier: Apache-2.0
"""Processor time of a detection on an engine: inputs drawn by the processor, and by the device.

    ./run.sh setup && .venv/bin/python bench/host_share.py models/engines/ENGINE.engine

Prints a Markdown table of milliseconds outside the network, the medians of runs in turns. Waiting
for the device is left out, and so is its work on a simulated GPU, which is done meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.images.files import read_image
from scrfd_ros.inference.load import load_network
from scrfd_ros.models.download import ensure_picture

SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))


class Stopwatch:
    """Time spent in some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - start

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cuda-graph", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    network = load_network(arguments.engine, cuda_graph=arguments.cuda_graph)
    height, width = network.inputs[0].shape[2:]
    detector = Scrfd(network, DetectorConfig(input_size=(width or 640, height or 640)))
    if network.device is None or "draw" not in detector.device_milliseconds():
        parser.error(f"{arguments.engine}: no device draws its input")
    cuda = network.device.cuda
    waiting = Stopwatch()
    for name in ("synchronize", "copy_out"):  # on a simulated GPU this one fills the array too
        setattr(cuda, name, waiting.around(getattr(cuda, name)))
    photograph = read_image(ensure_picture("t1.jpg"))
    ways: dict[str, Callable[[Any], object]] = {
        "processor": lambda image: detector.decode(map(detector.infer, detector.prepare([image]))),
        "device": detector.detect,
    }
    print("| image | processor | device | ratio |\n|---|---:|---:|---:|")
    for size in SIZES:
        image = cv2.resize(photograph, size)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in tqdm(
            range(arguments.rounds), desc=f"{size[0]}x{size[1]}", leave=False, disable=None
        ):
            for name, detect in ways.items():
                waiting.seconds, start = 0.0, time.thread_time()
                detect(image)
                times[name].append(time.thread_time() - start - waiting.seconds)
        processor, device = (1e3 * float(np.median(times[name])) for name in ways)
        ratio = device / processor
        print(f"| {size[0]}x{size[1]} | {processor:.2f} | {device:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
