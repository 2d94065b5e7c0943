"""What FP16 and INT8 cost in agreement: prints the table of docs/tensorrt.md.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/precision.py

Needs no GPU: the converted ONNX files run on the processor, which for FP16 keeps some values in
between in single precision.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from scrfd_ros.convert import Settings, crops_of, kind_of, typed_model
from scrfd_ros.evaluation.parity import compare_detectors, compare_recognizers
from scrfd_ros.files import read_picture
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.networks.onnx_runtime import OnnxRuntimeNetwork

MODELS = ("500m", "2.5g", "det_500m", "w600k_mbf")
CALIBRATION = ("gdp.jpg", "obama2.jpg", "obama3.jpg")
PICTURES = (
    "t1.jpg",
    "solvay_conference_1927.jpg",
    "obama.jpg",
    "biden.jpg",
    "yaoming.jpg",
    "players.jpg",
)
COLUMNS = {
    "missed_faces": "missed",
    "extra_faces": "extra",
    "min_iou": "smallest IoU",
    "max_score_difference": "largest difference of scores",
    "max_landmark_distance": "of landmarks, of the face's size",
    "min_cosine": "smallest cosine",
}


def main() -> None:
    pictures = [read_picture(ensure_picture(name)) for name in PICTURES]
    print("| model | precision | faces |", " | ".join(COLUMNS.values()), "|")
    print("|---|---|" + "---:|" * (1 + len(COLUMNS)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture in CALIBRATION:
            (folder / picture).symlink_to(ensure_picture(picture))
        for model in MODELS:
            reference = OnnxRuntimeNetwork(ensure_model(load_catalogue().find(model)))
            for precision in ("fp16", "int8"):
                settings = Settings(precision, calibration=folder)
                path = folder / f"{model}.{precision}.onnx"
                path.write_bytes(typed_model(reference, settings, precision, fp16_inside=True))
                candidate = OnnxRuntimeNetwork(path)
                if kind_of(reference) == DETECTOR:
                    agreement = compare_detectors(candidate, reference, pictures)
                else:
                    agreement = compare_recognizers(
                        candidate, reference, crops_of(pictures, reference.path.parent)
                    )
                cells = [agreement.figures.get(column) for column in COLUMNS]
                words = ["" if cell is None else f"{cell:.5g}" for cell in cells]
                faces = f"{agreement.figures['faces']:g}"
                print("|", " | ".join((model, precision, faces, *words)), "|", flush=True)


if __name__ == "__main__":
    main()
