# SPDX-License-Identifier: Apache-2.0
"""OpenVINO runs what ONNX Runtime runs, with the same results, and sends no reports."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_files import write_graph, write_recognizer
from pipelines import loaded

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference import load as backends
from scrfd_ros.inference.load import BACKEND_MODULES, load_network
from scrfd_ros.inference.network import Network, Tensor
from scrfd_ros.recognition.alignment import align_faces

Load = Callable[[Path], Network]


@pytest.fixture
def load(openvino_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(openvino_folder)
    return lambda path: load_network(path, "openvino", threads=2)


def test_says_what_it_is(load: Load, tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "any.onnx", normalizes_input=True)
    network = load(path)
    assert (network.path, network.name) == (path, "any")
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert network.backend in ("openvino CPU", "openvino GPU")
    assert network.inputs == (Tensor("input.1", (None, 3, 112, 112)),)
    assert network.outputs == (Tensor("516", (None, 512)),)
    assert network.normalizes_input


@pytest.mark.parametrize("name", ["2.5g", "500m", "det_500m"])
def test_outputs_have_the_names_that_the_file_gives_them(
    load: Load, detector_path: Callable[[str], Path], name: str
) -> None:
    path = detector_path(name)
    names = [[each.name for each in load_(path).outputs] for load_ in (load, load_network)]
    assert names[0] == names[1]


def test_every_size_and_batch_in_any_order(
    load: Load, detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    random = np.random.default_rng(0)
    for path, shapes in (
        (detector_path("500m"), [(1, 3, 64, 96), (1, 3, 128, 64), (2, 3, 64, 96), (1, 3, 64, 96)]),
        (recognizer_path("w600k_mbf"), [(size, 3, 112, 112) for size in (1, 4, 2, 1)]),
    ):
        network, reference = load(path), load_network(path)
        for shape in shapes:
            blob = random.standard_normal(shape).astype(np.float32)
            found = network({network.inputs[0].name: blob})
            for name, array in reference({reference.inputs[0].name: blob}).items():
                np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4)


PICTURES = {
    "t1.jpg": 6,
    "solvay_conference_1927.jpg": 2,
    "obama.jpg": 1,
    "players.jpg": 2,
    "gdp.jpg": 2,
}
"""And how many of the faces are embedded: it takes long."""


def test_same_faces_as_with_onnx_runtime(
    load: Load,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    """1e-4 pixels for boxes and landmarks, a cosine of 0.99999 for embeddings."""
    paths = detector_path("2.5g"), recognizer_path("w600k_mbf")
    ours, reference = (loaded(*paths, backend=name) for name in ("openvino", "onnxruntime"))
    assert {each.backend.split()[0] for each in ours.networks.values()} == {"openvino"}
    for name, count in PICTURES.items():
        found, expected = (each.detector.detect(image(name)) for each in (ours, reference))
        assert len(found) == len(expected) >= count
        assert found.landmarks is not None and expected.landmarks is not None
        # A float32 of 2000 has steps of 1.2e-4.
        for values, wanted in (
            (found.boxes, expected.boxes),
            (found.landmarks, expected.landmarks),
        ):
            np.testing.assert_allclose(values, wanted, rtol=1.2e-7, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
        crops = align_faces(image(name), expected.landmarks[:count])
        (embeddings, norms), (right, lengths) = (
            each.recognizer.embed(crops) for each in (ours, reference) if each.recognizer
        )
        assert (embeddings * right).sum(axis=1).min() > 0.99999
        np.testing.assert_allclose(norms, lengths, rtol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "cannot read the model file: No such file", id="missing"),
        pytest.param(b"", r"not an ONNX model .*\(0 bytes\)", id="empty"),
        pytest.param(b"hello, world\n", r"not an ONNX model .*\(13 bytes\)", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model", id="an image"),
    ],
)
def test_unusable_files(load: Load, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_truncated(
    load: Load, tmp_path: Path, detector_path: Callable[[str], Path], share: float
) -> None:
    content = detector_path("500m").read_bytes()
    path = tmp_path / "truncated.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"not an ONNX model .* Fetch the file again"):
        load(path)


def test_graph_with_an_unknown_operator(load: Load, tmp_path: Path) -> None:
    nodes = [helper.make_node("Fold", ["input.1"], ["out"])]
    path = write_graph(tmp_path / "odd.onnx", nodes, (1, 4), {"out": (1, 4)}, {})
    with pytest.raises(ModelError, match=r"odd\.onnx: not an ONNX model that OpenVINO .* can load"):
        load(path)


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        pytest.param("UINT8", "FLOAT", r"'input\.1' is u8, expected f32", id="bytes in"),
        pytest.param("FLOAT", "INT64", r"'out' is i64, expected f32", id="integers out"),
    ],
)
def test_takes_and_gives_only_float32(
    load: Load, tmp_path: Path, given: str, wanted: str, message: str
) -> None:
    to = getattr(TensorProto, wanted)
    path = write_graph(
        tmp_path / "typed.onnx",
        [helper.make_node("Cast", ["input.1"], ["out"], to=to)],
        (1, 4),
        {"out": (1, 4)},
        {},
        dtype=getattr(TensorProto, given),
        output_dtype=to,
    )
    with pytest.raises(ModelError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        pytest.param({"input.1": np.zeros((1, 3, 16, 112), np.float32)}, "16", id="size"),
        pytest.param({"input.1": np.zeros((3, 112, 112), np.float32)}, "shape", id="rank"),
        pytest.param({"input.1": np.zeros((1, 3, 112, 112))}, "float64, expected", id="double"),
        pytest.param({"data": np.zeros((1, 3, 112, 112), np.float32)}, "['input.1']", id="name"),
        pytest.param({}, "got the inputs [], expected ['input.1']", id="nothing"),
    ],
)
def test_wrong_input(
    load: Load, tmp_path: Path, inputs: dict[str, NDArray[Any]], reason: str
) -> None:
    path = write_recognizer(tmp_path / "any.onnx", "fixed")
    network = load(path)
    with pytest.raises(ModelError) as caught:
        network(inputs)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message
    # It still works after a failure.
    assert network({"input.1": np.zeros((1, 3, 112, 112), np.float32)})


class _Gpu:
    """Stands in for a machine with an Intel GPU: OpenVINO's core, whose GPU is the processor."""

    def __init__(self, core: Any, is_broken: bool) -> None:
        self._core, self._is_broken = core, is_broken
        self.available_devices = ["CPU", "GPU"]
        self.read_model = core.read_model

    def compile_model(self, model: object, device: str, settings: dict[str, object]) -> object:
        if device == "GPU" and self._is_broken:
            raise RuntimeError("no kernels\nfor this GPU")
        if device == "GPU":
            assert not settings.keys() & {"INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING"}
        return self._core.compile_model(model, "CPU", settings)


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_gpu_is_taken_where_it_works(
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_broken: bool,
) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    load(path)  # the library is there
    openvino = sys.modules["openvino"]
    core = openvino.Core
    monkeypatch.setattr(openvino, "Core", lambda: _Gpu(core(), is_broken))
    with caplog.at_level(logging.WARNING):
        network = load(path)
    assert network.backend == ("openvino CPU" if is_broken else "openvino GPU")
    warned = "OpenVINO runs on the CPU, not on the GPU: no kernels for this GPU"
    assert (warned in caplog.text) == is_broken
    assert network({"input.1": np.zeros((1, 3, 112, 112), np.float32)})["516"].shape == (1, 512)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, BACKEND_MODULES["openvino"], raising=False)
    monkeypatch.delattr(backends.__package__ + ".openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    yield


@pytest.mark.usefixtures("absent")
def test_missing_library(tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    with pytest.raises(BackendError, match=r"package openvino, which is not .*: pip install openv"):
        load_network(path, "openvino")


def test_no_report_is_sent(openvino_folder: Path, tmp_path: Path) -> None:
    """The library would import this package, which reports each import to its maker."""
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('a report')\n")
    code = (
        f"import sys; sys.path[:0] = [{str(openvino_folder)!r}, {str(tmp_path)!r}]\n"
        "import scrfd_ros.inference.openvino\n"
        "assert 'openvino' in sys.modules\n"
        "assert 'openvino_telemetry' not in sys.modules  # others may import it\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
