# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime and OpenVINO on the processor: prints the tables of docs/performance.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/backends.py

All in turns, in one process: 2.5g at the size that 1280x720 needs, and w600k_mbf with the six faces
of the sample picture. Of each network alone the processor time of one thread, as the threads of
ONNX Runtime wait in a loop; of both together, as a pipeline runs them, also the wall time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.open import open_network
from scrfd_ros.images.files import read_image
from scrfd_ros.inference.cores import usable_cores
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

SIZE = (640, 384)

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=25, help="turns (default: %(default)s)")
    repeat = parser.parse_args().repeat
    sys.path.append(str(Path(sys.prefix, "openvino")))  # where run.sh puts it
    detector, recognizer = (ensure_model(load_catalogue().find(n)) for n in ("2.5g", "w600k_mbf"))
    image = read_image(ensure_picture("t1.jpg"))[:720]

    def detecting(backend: str, threads: int) -> Scrfd:
        network = open_network(detector, backend, input_size=SIZE, any_size=True, threads=threads)
        return Scrfd(network, DetectorConfig(input_size=SIZE))

    def embedding(load: Callable[..., Network], threads: int) -> ArcFace:
        return ArcFace(load(recognizer, threads=threads))

    def original(path: Path, threads: int) -> Network:
        return load_network(path, "onnxruntime", threads=threads)

    def changed(path: Path, threads: int) -> Network:
        return open_network(path, "onnxruntime", threads=threads)

    def openvino(path: Path, threads: int) -> Network:
        return open_network(path, "openvino", threads=threads)

    recognizers = {"ONNX Runtime": original, "ONNX Runtime, changed": changed, "OpenVINO": openvino}
    detectors = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
    landmarks = detecting("onnxruntime", 1).detect(image).landmarks
    assert landmarks is not None
    crops = align_faces(image, landmarks)

    print(f"{SIZE[0]}x{SIZE[1]}, {len(crops)} faces, {usable_cores()} cores, {repeat} turns\n")
    print("| one thread | processor time, ms | ratio |\n|---|---:|---:|")
    alone: dict[str, Run] = {}
    for name, backend in detectors.items():
        alone[f"2.5g, {name}"] = bound(detecting(backend, 1).detect, image)
    table(measured(alone, repeat))
    alone = {}
    for count in (1, 4, len(crops)):
        for name, load in recognizers.items():
            alone[f"{count} faces, {name}"] = bound(embedding(load, 1).embed, crops[:count])
        table(measured(alone, repeat))
        alone = {}

    print("\n| both | processor time, ms | ratio | wall time, ms | ratio |")
    print("|---|---:|---:|---:|---:|")
    both: dict[str, Run] = {}
    for first, backend in detectors.items():
        for second, load in recognizers.items():
            pair = detecting(backend, 0), embedding(load, 0)
            both[f"{first} + {second}"] = in_turn(*pair, image, crops)
    table(measured(both, repeat), wall=True)


def bound(call: Callable[[NDArray[np.uint8]], object], image: NDArray[np.uint8]) -> Run:
    return lambda: call(image)


def in_turn(
    detector: Scrfd, recognizer: ArcFace, image: NDArray[np.uint8], crops: NDArray[np.uint8]
) -> Run:
    return lambda: (detector.detect(image), recognizer.embed(crops))


def measured(runs: Mapping[str, Run], repeat: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of processor and of wall time, the best of each. A second run in each turn
    counts, in which the caches are those of this side."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in tqdm(range(repeat), leave=False, disable=None):
        for name, each in runs.items():
            each()
            wall, processor = time.perf_counter(), time.process_time()
            each()
            spent = time.process_time() - processor, time.perf_counter() - wall
            times[name].append((1e3 * spent[0], 1e3 * spent[1]))
    return {
        name: (min(one for one, _ in own), min(one for _, one in own))
        for name, own in times.items()
    }


def table(times: Mapping[str, tuple[float, float]], wall: bool = False) -> None:
    first = next(iter(times.values()))
    for name, own in times.items():
        pairs = [(own[0], first[0]), (own[1], first[1])][: 1 + wall]
        cells = [f"{value:.1f} | {value / base:.2f}" for value, base in pairs]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
