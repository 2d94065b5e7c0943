# SPDX-License-Identifier: Apache-2.0
"""What results are recorded with: the models and options that they depend on."""

from __future__ import annotations

from scrfd_ros.config import Group, options
from scrfd_ros.pipeline import FacePipeline

_NOT_RECORDED = ("enabled", "model", "engine_path")  # results name the network and its checksum


def recorded_options(config: Group) -> dict[str, object]:
    """All options of a group by name, for JSON, except those that choose the network."""
    values = {name: getattr(config, name) for name in options(type(config))}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in _NOT_RECORDED
    }


def recorded_models(pipeline: FacePipeline, aligned: bool) -> dict[str, object]:
    """Detector, with the options of all that changes embeddings, and recognizer, for JSON.

    Args:
        aligned: the images were aligned faces, and the detector was not used: it is None.
    """
    networks = {
        name: {
            "path": str(network.path),
            "sha256": network.sha256,
            "runs_on": network.backend,
        }
        for name, network in pipeline.networks.items()
    }
    detector = {
        **networks["detector"],
        **recorded_options(pipeline.config.detector),
        **recorded_options(pipeline.config.recognizer),
        "enlarged": pipeline.super_resolution is not None,
    }
    return {"detector": None if aligned else detector, "recognizer": networks.get("recognizer")}
