"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model


def model_path(name: str, kind: str | None = None) -> Path:
    """A model file: `name` itself where it is one, else that of the catalogue, fetched if missing.

    Raises:
        ModelError: no model (of that kind, where one is given) has this name.
        DownloadError: it could not be fetched.
    """
    if not name.endswith((".onnx", ".engine")):
        return ensure_model(load_catalogue().find(name, kind))
    path = Path(name)
    if not path.exists():
        for entry in load_catalogue().models.values():
            if path.name in (f"{alias}.onnx" for alias in entry.aliases):
                # Older instructions call the file so: take the one that is meant, and say so.
                return ensure_model(load_catalogue().find(path.stem, kind), path.parent)
    return path


def picture_size(text: str) -> tuple[int, int]:
    """Width and height in pixels, from "640x480"."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x640, found {text!r}")
    return int(match[1]), int(match[2])
