# SPDX-License-Identifier: Apache-2.0
"""What free sizes in a detector's file cost, and what smaller inputs save its network.

    ./run.sh setup && .venv/bin/python bench/free_size.py

Prints a Markdown table: 2.5g as published, which takes 640x640 only, and the file that it is
changed to, at several sizes, in turns, with one thread. Times are of the processor.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
from tqdm import tqdm
from turns import times_in_turns

from scrfd_ros.engines.free_size import load_for_size
from scrfd_ros.inference.load import load_network
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue
from scrfd_ros.models.download import ensure_model

SIZES = {"square": (640, 640), "4:3": (640, 480), "16:9": (640, 384), "21:9": (640, 288)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="runs of each (default: 40)")
    args = parser.parse_args()
    model = ensure_model(load_catalogue().find("2.5g", DETECTOR))
    fixed = load_network(model, threads=1)
    free = load_for_size(model, SIZES["square"], any_size=True, threads=1)
    name = fixed.inputs[0].name
    noise = np.random.default_rng(0).standard_normal((1, 3, 640, 640)).astype(np.float32)
    inputs = {shape: np.ascontiguousarray(noise[:, :, :high]) for shape, (_, high) in SIZES.items()}
    functions = {"as published": partial(fixed, {name: inputs["square"]})}
    functions |= {shape: partial(free, {name: blob}) for shape, blob in inputs.items()}
    for function in functions.values():
        function()
    with tqdm(total=args.rounds, desc="turns", leave=False, disable=None) as bar:
        rounds = []
        for _ in range(args.rounds):
            rounds.append(times_in_turns(functions, 1, time.process_time))
            bar.update()
    print("| input | ms, median | ms, best | median to as published |\n|---|---:|---:|---:|")
    times = {each: 1e3 * np.concatenate([of[each] for of in rounds]) for each in functions}
    for each, taken in times.items():
        width, height = SIZES.get(each, SIZES["square"])
        ratio = np.median(taken) / np.median(times["as published"])
        print(
            f"| {width}x{height}, {each} | {np.median(taken):.1f} | {taken.min():.1f} "
            f"| {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
