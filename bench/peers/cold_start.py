# SPDX-License-Identifier: Apache-2.0
"""The first face of a new process, and its memory, beside insightface: see `first_face.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from peers.libraries import INSIGHTFACE, OURS, detector_path, link_models, recognizer_path
from peers.timing import summary
from scrfd_ros.models.download import ensure_picture

_PROGRAM = Path(__file__).with_name("first_face.py")


def measure(turns: int) -> dict[str, Any]:
    """Figures of each side, by turns: a process that imports, loads and finds six faces.

    first_face: milliseconds of wall time from the start of the process. processor: milliseconds of
    its processor time. peak_memory: MiB. The files are in memory already: the first turn, which
    reads them, does not count.
    """
    with tempfile.TemporaryDirectory() as models:
        link_models(Path(models))
        sides = {OURS: [str(detector_path()), str(recognizer_path())], INSIGHTFACE: [models]}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in tqdm(range(turns + 1), desc="cold start", leave=False, disable=None):
            for name, arguments in sides.items():
                found[name].append(first_face(name, arguments))
    figures = {
        name: {key: summary([one[key] for one in records[1:]]) for key in records[0]}
        for name, records in found.items()
    }
    return {"cold_start": figures}


def first_face(side: str, models: list[str]) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore::FutureWarning"]  # insightface's
    command += [str(_PROGRAM), str(ensure_picture("t1.jpg")), side, *models]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:  # the last one comes with the faces
            lines.append(line)
            milliseconds = 1e3 * (time.perf_counter() - start)
    if process.returncode != 0:
        raise RuntimeError(f"{side} fails, see above")
    faces, seconds, memory = json.loads(lines[-1])
    assert faces == 6, f"{side} finds {faces} of 6 faces"
    return {"first_face": milliseconds, "processor": 1e3 * seconds, "peak_memory": memory}
