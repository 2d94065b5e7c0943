# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures in turns, leaves out warm-up runs, and computes correct figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_detector, write_recognizer
from pipelines import detector_of, pipeline_of

from scrfd_ros.config import DetectorConfig, PipelineConfig
from scrfd_ros.errors import ModelError
from scrfd_ros.evaluation.benchmark import (
    Configuration,
    Measurement,
    detection_times,
    load_configurations,
    machine_info,
    measure,
    network_times,
)
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.recognition.arcface import ArcFace

BLACK = np.zeros((64, 64, 3), np.uint8)
STAGES = ["prepare", "detect", "decode", "align", "embed"]

ModelPath = Callable[[str], Path]
Image = Callable[[str], NDArray[np.uint8]]


class Logged:
    """A network that logs its calls, and reports the number of the last as a time of the device."""

    def __init__(self, network: Network, log: list[str], name: str, backend: str = "") -> None:
        self._network = network
        self._log = log
        self._name = name
        self.backend = backend or network.backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        self._log.append(self._name)
        return self._network(inputs)

    def device_milliseconds(self) -> dict[str, float]:
        return {"copy_in": 0.25, "network": float(self._log.count(self._name)), "copy_out": 0.5}


def input_size(width: int, height: int) -> PipelineConfig:
    return PipelineConfig(detector=DetectorConfig(input_size=(width, height)))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds the same faces in every image, at 64x64."""
    return write_detector(tmp_path_factory.mktemp("models") / "any.onnx", scrfd_outputs(64, 64))


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recognizer(tmp_path_factory.mktemp("models") / "faces.onnx")


@pytest.fixture(scope="module")
def real(detector_path: ModelPath, recognizer_path: ModelPath, image: Image) -> list[Measurement]:
    """Two real pipelines on six people."""
    configurations, reasons = load_configurations(
        [detector_path("500m"), detector_path("2.5g")],
        [recognizer_path("w600k_mbf")],
        ["onnxruntime"],
        PipelineConfig(),
    )
    assert reasons == []
    return measure(configurations, image("t1.jpg"), repeat=3, warmup=1)


def test_stages_of_real_pipelines_add_up(real: list[Measurement]) -> None:
    for each in real:
        times = each.milliseconds
        assert list(times) == [*STAGES, "total", "detection", "embed_one"]
        for values in times.values():
            assert values.shape == (3,) and values.dtype == np.float64
            assert np.isfinite(values).all() and (values > 0).all()
        np.testing.assert_allclose(sum(times[stage] for stage in STAGES), times["total"])
        first = times["prepare"] + times["detect"] + times["decode"]
        np.testing.assert_allclose(first, times["detection"])
        assert each.faces == 6


def test_report_of_real_pipelines(real: list[Measurement]) -> None:
    models = load_catalogue().models
    for each, name in zip(real, ("500m", "2.5g"), strict=True):
        report = json.loads(json.dumps(each.as_json()))
        assert report["detector"] == name and report["recognizer"] == "w600k_mbf"
        assert report["backend"] == "onnxruntime"
        assert report["networks"]["detector"]["sha256"] == models[name].sha256
        assert report["networks"]["recognizer"]["sha256"] == models["w600k_mbf"].sha256
        for network in report["networks"].values():
            assert Path(network["path"]).is_file()
            assert network["runs_on"].startswith("onnxruntime ")
        assert report["input_size"] == "auto"
        assert (report["score_threshold"], report["nms_threshold"]) == (0.5, 0.4)
        assert report["max_faces"] == 0 and report["faces"] == 6
        assert list(report["milliseconds"]) == list(each.milliseconds)
        for stage, values in each.milliseconds.items():
            _, middle, high = sorted(values)
            spread = report["milliseconds"][stage]
            assert spread["median"] == middle
            assert spread["p95"] == pytest.approx(middle + 0.9 * (high - middle))
        assert report["images_per_second"] == pytest.approx(
            1000 / report["milliseconds"]["total"]["median"]
        )


def test_takes_turns_and_counts_the_second_run_of_each_after_the_warm_up(detector: Path) -> None:
    log: list[str] = []
    configurations = [
        Configuration(
            name,
            None,
            "onnxruntime",
            pipeline_of(detector_of(Logged(load_network(detector), log, name), (64, 64))),
        )
        for name in ("a", "b", "c")
    ]
    log.clear()
    measurements = measure(configurations, BLACK, repeat=3, warmup=2)
    assert log == ["a", "a", "b", "b", "c", "c"] * 5
    for each in measurements:
        assert each.milliseconds["network"].tolist() == [6, 8, 10]
        assert each.milliseconds["copy_in"].tolist() == [0.25] * 3
        assert each.median("network") == 8 and each.median("copy_out") == 0.5
        assert each.median("embed") is None and each.p95("embed_one") is None


def test_without_warm_up(detector: Path) -> None:
    configurations, _ = load_configurations([detector], [None], ["onnxruntime"], input_size(64, 64))
    (only,) = measure(configurations, BLACK, repeat=1, warmup=0)
    assert {values.shape for values in only.milliseconds.values()} == {(1,)}
    assert list(only.milliseconds) == [*STAGES[:3], "total", "detection"]
    assert only.faces > 0
    assert "recognizer" not in only.as_json()["networks"]  # type: ignore[operator]


def test_every_model_once_under_every_backend(
    tmp_path: Path, detector: Path, recognizer: Path
) -> None:
    other_detector = write_detector(tmp_path / "other.onnx", scrfd_outputs(64, 64, seed=1))
    other_recognizer = write_recognizer(tmp_path / "others.onnx", "fixed")
    configurations, reasons = load_configurations(
        [detector, other_detector],
        [recognizer, other_recognizer, None],
        ["onnxruntime"],
        input_size(64, 64),
    )
    assert reasons == []
    assert [(each.detector, each.recognizer) for each in configurations] == [
        (str(detector), str(recognizer)),
        (str(other_detector), str(recognizer)),
        (str(detector), str(other_recognizer)),
        (str(detector), None),
    ]
    for each in configurations:
        assert each.backend == "onnxruntime"
        assert str(each.pipeline.detector.network.path) == each.detector
        loaded = each.pipeline.recognizer
        assert (loaded and str(loaded.network.path)) == each.recognizer


def test_says_what_cannot_be_measured(detector_path: ModelPath, tmp_path: Path) -> None:
    fixed = write_detector(tmp_path / "any.onnx", scrfd_outputs(640, 640), (1, 3, 640, 640))
    configurations, reasons = load_configurations(
        [fixed, detector_path("500m")],
        [None],
        ["onnxruntime"],
        input_size(320, 224),
    )
    assert [each.detector for each in configurations] == ["500m"]
    (reason,) = reasons
    assert reason.startswith("onnxruntime: ") and "takes images of 640x640 only" in reason
    with pytest.raises(ModelError, match="takes images of 640x640 only"):
        load_configurations([fixed], [None], ["onnxruntime"], input_size(320, 224))


@pytest.fixture(scope="module")
def made_up(detector: Path, recognizer: Path) -> list[Measurement]:
    """Known times of real pipelines that claim to run on other hardware."""

    def measurement(
        names: tuple[str, str], runs_on: str, milliseconds: Mapping[str, Sequence[float]]
    ) -> Measurement:
        networks = [Logged(load_network(path), [], "", runs_on) for path in (detector, recognizer)]
        pipeline = pipeline_of(detector_of(networks[0], (64, 64)), ArcFace(networks[1]))
        return Measurement(
            Configuration(*names, runs_on.partition(" ")[0], pipeline),
            faces=1,
            input_size=(64, 32),
            milliseconds={stage: np.array(times) for stage, times in milliseconds.items()},
        )

    def times(detect: Sequence[float], embed_one: Sequence[float]) -> dict[str, Sequence[float]]:
        return {
            "detect": detect,
            "embed_one": embed_one,
            "detection": [value + 2 for value in detect],
            "total": [20, 40, 30],
        }

    return [
        measurement(("small", "mbf"), "onnxruntime CPU", times([8, 9, 7], [4, 4, 4])),
        measurement(("large", "mbf"), "onnxruntime CPU", times([50, 10, 30], [6, 6, 6])),
        measurement(("small", "r50"), "onnxruntime CPU", times([10, 6, 12], [20, 21, 22])),
        measurement(("small", "mbf"), "openvino CPU", times([7, 6, 8], [3, 2, 4])),
        measurement(("small", "mbf"), "tensorrt 10.3.0", times([2, 2, 5], [0.5, 0.5, 0.5])),
        measurement(("extra", "mbf"), "onnxruntime CUDA", times([3, 3, 3], [2, 2, 2])),
    ]


def test_networks_by_backend(made_up: list[Measurement]) -> None:
    rows = [
        (row.model, row.onnxruntime, row.openvino, row.tensorrt, row.speedup)
        for row in network_times(made_up)
    ]
    assert rows == [
        ("SCRFD small", 8.5, 7, 2, 4.25),  # 6 7 8 9 10 12
        ("SCRFD large", 30, None, None, None),
        ("SCRFD extra", 3, None, None, None),
        ("ArcFace mbf", 4, 3, 0.5, 8),  # 2 2 2 4 4 4 6 6 6
        ("ArcFace r50", 21, None, None, None),
    ]


def test_detection_by_hardware(made_up: list[Measurement]) -> None:
    rows = detection_times(made_up)
    assert {row.resolution for row in rows} == {"64x32"}
    assert [(row.model, row.hardware, row.milliseconds) for row in rows] == [
        ("SCRFD small", "CPU", 10.5),
        ("SCRFD small", "OpenVINO", 9),
        ("SCRFD small", "CUDA", None),
        ("SCRFD small", "TensorRT", 4),
        ("SCRFD large", "CPU", 32),
        ("SCRFD large", "OpenVINO", None),
        ("SCRFD large", "CUDA", None),
        ("SCRFD large", "TensorRT", None),
        ("SCRFD extra", "CPU", None),
        ("SCRFD extra", "OpenVINO", None),
        ("SCRFD extra", "CUDA", 5),
        ("SCRFD extra", "TensorRT", None),
    ]
    for row in rows:
        if row.milliseconds is None:
            assert row.images_per_second is None
        else:
            assert row.images_per_second == pytest.approx(1000 / row.milliseconds)


def test_percentiles(made_up: list[Measurement]) -> None:
    one = made_up[0]
    assert one.median("total") == 30 and one.p95("total") == pytest.approx(39)
    assert one.images_per_second == pytest.approx(1000 / 30)
    assert one.configuration.title == "SCRFD small + ArcFace mbf"


def test_machine_metadata() -> None:
    metadata = machine_info()
    assert json.loads(json.dumps(metadata)) == metadata
    assert list(metadata) == [
        *("processor", "processors", "gpu", "compute_capability", "cuda", "tensorrt", "system"),
        *("python", "numpy", "opencv", "onnxruntime", "openvino"),
    ]
    assert metadata["processor"] and isinstance(metadata["processors"], int)
    assert metadata["numpy"] == np.__version__
    assert metadata["onnxruntime"] is not None
    gpu = (metadata["gpu"], metadata["compute_capability"], metadata["cuda"])
    assert all(gpu) or gpu == (None, None, None)
