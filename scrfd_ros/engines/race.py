# SPDX-License-Identifier: Apache-2.0
"""The program with which `scrfd_ros.engines.quickest` compares backends, in a process of its own.

    python -m scrfd_ros.engines.race MODEL WIDTH HEIGHT ANY_SIZE THREADS

Width and height are 0 for the model's own. It prints the milliseconds of a run by backend as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from scrfd_ros.engines.open import open_network
from scrfd_ros.engines.quickest import BACKENDS
from scrfd_ros.errors import ScrfdError

_ROUNDS = 9
_SECONDS = 0.8  # after which no other begins


def main(arguments: list[str]) -> str:
    """The times as JSON.

    Raises:
        ScrfdError: a backend cannot run the model.
    """
    model, *numbers = arguments
    width, height, any_size, threads = map(int, numbers)
    networks = {
        name: open_network(
            Path(model),
            name,
            input_size=(width, height) if width else None,
            any_size=bool(any_size),
            threads=threads,
        )
        for name in BACKENDS
    }
    # Free are the batch, and with a given size of the input, height and width.
    ours = (1, 3, height, width)
    (tensor,) = networks["onnxruntime"].inputs
    shape = [size or own for size, own in zip(tensor.shape, ours, strict=True)]
    if not all(shape):
        raise ScrfdError(f"the size of its input is free: {tensor}")
    inputs = {tensor.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    for network in networks.values():  # to warm up
        network(inputs)
    times: dict[str, list[float]] = {name: [] for name in networks}
    start = time.perf_counter()
    while len(times["openvino"]) < _ROUNDS and time.perf_counter() - start < _SECONDS:
        for name, network in networks.items():
            before = time.perf_counter()
            network(inputs)
            times[name].append(1e3 * (time.perf_counter() - before))
    return json.dumps({name: min(own) for name, own in times.items()})


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ScrfdError as error:
        sys.exit(str(error))
