# SPDX-License-Identifier: Apache-2.0
"""Load a library and its networks, find the faces of an image, and say how much that took.

    python bench/peers/first_face.py IMAGE scrfd_ros DETECTOR RECOGNIZER
    python bench/peers/first_face.py IMAGE insightface MODELS

The last line of the output is JSON. `cold_start` runs it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from memory import peak_memory


def main() -> None:
    path, side, *models = sys.argv[1:]
    if side == "insightface":
        import cv2
        from insightface.app import FaceAnalysis

        analysis = FaceAnalysis(*models)
        analysis.prepare(ctx_id=-1, det_size=(640, 640))
        faces = analysis.get(cv2.imread(path))
    else:
        from scrfd_ros import (
            DetectorConfig,
            PipelineConfig,
            RecognizerConfig,
            load_pipeline,
            read_image,
        )

        detector, recognizer = map(Path, models)
        config = PipelineConfig(
            backend="onnxruntime",
            detector=DetectorConfig(engine_path=detector),
            recognizer=RecognizerConfig(engine_path=recognizer),
        )
        faces = load_pipeline(config)(read_image(path)).faces
    seconds = time.process_time()
    print(f"\n{json.dumps([len(faces), seconds, peak_memory()])}", flush=True)


if __name__ == "__main__":
    main()
