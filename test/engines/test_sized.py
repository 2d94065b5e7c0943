# SPDX-License-Identifier: Apache-2.0
"""Engines for several sizes of input are found, or built beside the images, on a simulated GPU."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fixed_detectors
import numpy as np
import onnx
import pytest
from faulty_processes import LONGEST
from numpy.typing import NDArray

from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines import free_size, sized
from scrfd_ros.engines.build import build_engine
from scrfd_ros.engines.cache import ensure_engine
from scrfd_ros.engines.open import engines_of_sizes, open_network
from scrfd_ros.engines.sized import SizedEngines
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import Faces
from scrfd_ros.files import locked_folder
from scrfd_ros.inference import cuda
from scrfd_ros.inference.engine_file import ShapeRange, read_metadata
from scrfd_ros.inference.network import Network
from scrfd_ros.models.checksums import sha256_of
from scrfd_ros.pipeline import load_pipeline

SIZE = (192, 128)


@pytest.fixture
def model(detector_path: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "any.onnx"
    path.symlink_to(detector_path("500m"))
    return path


@pytest.fixture(autouse=True)
def simulated_in_children(
    simulated_gpu: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[], int]:
    """Gives the number of engines that were built."""
    builds = tmp_path / "builds"
    folders = (str(Path(cuda._LIBRARY).parent), os.environ.get("LD_LIBRARY_PATH", ""))
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(filter(None, folders)))
    monkeypatch.setenv("SIMULATED_BUILDS", str(builds))
    return lambda: len(builds.read_text().splitlines()) if builds.exists() else 0


def live(model: Path) -> SizedEngines:
    return SizedEngines(model, batch=1, cuda_graph=False, is_live=True)


def child(engines: SizedEngines) -> subprocess.Popen[str]:
    assert engines._build is not None
    return engines._build._process


def wait(engines: SizedEngines) -> Network | None:
    """What comes of the build that runs."""
    assert engines(SIZE) is None
    child(engines).wait(LONGEST)
    return engines(SIZE)


def test_an_engine_that_is_there_is_loaded_at_once(
    model: Path, simulated_in_children: Callable[[], int]
) -> None:
    path = ensure_engine(model, SIZE, 1)
    engines = live(model)
    network = engines(SIZE)
    assert network is not None and network.path == path
    assert network.inputs[0].shape == (1, 3, *SIZE[::-1])
    assert engines(SIZE) is network
    assert simulated_in_children() == 1


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x3a\x05abc"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.onnx: not .* ONNX model"):
        ensure_engine(path, SIZE, 1)


def test_an_engine_is_built_beside_the_images_and_kept(
    detector_path: Callable[[str], Path],
    tmp_path: Path,
    simulated_in_children: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tmp_path / "any.onnx"
    onnx.save(fixed_detectors.fixed(detector_path("2.5g")), str(model))  # takes another size
    engines = live(model)
    network = wait(engines)
    assert network is not None and network.backend == "tensorrt 10.3.0 fp16"
    (record,) = caplog.records
    assert "any.onnx: building an engine for an input of 192x128, once; until" in record.message
    # Users know the file that was there before.
    metadata = read_metadata(network.path)
    with model.open("rb") as stream:
        sha256 = sha256_of(stream)
    assert metadata is not None and metadata.model == str(model)
    assert network.sha256 == metadata.model_sha256 == sha256
    assert network.name == "any"
    other = live(model)(SIZE)
    assert other is not None and other.path == network.path
    assert simulated_in_children() == 1


def test_a_build_that_fails_is_told_once(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT", "build fails")
    engines = live(model)
    assert wait(engines) is None
    assert [engines(SIZE) for _ in range(3)] == [None] * 3
    assert engines._build is None
    assert len(caplog.records) == 2
    assert "no engine for an input of 192x128: " in caplog.records[-1].message
    assert "cannot build an engine" in caplog.records[-1].message
    assert "tried again at the next start" in caplog.records[-1].message


def test_a_build_that_crashes_leaves_this_process_alone(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines = live(model)
    assert engines(SIZE) is None
    child(engines).send_signal(signal.SIGSEGV)
    assert wait(engines) is None
    assert "the process that built it was ended by SIGSEGV. Such images" in caplog.text


@pytest.mark.parametrize("is_live", [True, False])
def test_a_built_engine_that_is_gone_is_not_built_again(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    simulated_in_children: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
    is_live: bool,
) -> None:
    monkeypatch.setattr(sized, "find_engine", lambda *_: None)
    engines = SizedEngines(model, batch=1, cuda_graph=False, is_live=is_live)
    assert (wait(engines) if is_live else engines(SIZE)) is None
    assert engines(SIZE) is None and engines._build is None
    assert simulated_in_children() == 1
    assert "192x128: the one that was built is gone, or does not fit. Such images" in caplog.text


def test_an_engine_that_does_not_run(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_engine(model, SIZE, 1)
    caplog.clear()
    monkeypatch.setenv("SIMULATED_TENSORRT", "execute fails")
    engines = live(model)
    assert engines(SIZE) is None and engines(SIZE) is None
    (record,) = caplog.records
    assert "192x128: " in record.message and "the engine does not run" in record.message


def test_the_number_of_sizes_is_limited(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sized, "MAX_SIZES", 1)
    ensure_engine(model, SIZE, 1)
    caplog.clear()
    engines = live(model)
    network = engines(SIZE)
    for width in (64, 96, 128):
        assert engines((width, 64)) is None
    assert engines(SIZE) is network is not None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no engine for an input of 64x64, nor for further sizes: 1 of" in record.message


def test_one_build_at_a_time_which_ends_with_its_user(model: Path) -> None:
    (model.parent / "engines").mkdir()
    with locked_folder(model.parent / "engines"):  # so the build waits
        engines = live(model)
        assert engines(SIZE) is None
        process = child(engines)
        assert engines((64, 64)) is None and child(engines) is process
        assert process.poll() is None
        del engines
        gc.collect()
        assert process.returncode == -signal.SIGKILL
    assert not list((model.parent / "engines").iterdir())


def test_the_detector_of_a_pipeline_takes_them(
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
    simulated_in_children: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "scrfd_500m_bnkps.onnx").symlink_to(detector_path("500m"))
    photograph = image("t1.jpg")[:720]  # 16:9

    def faces(backend: str, is_live: bool) -> Faces:
        config = PipelineConfig(
            backend=backend,
            model_directory=tmp_path,
            detector=DetectorConfig(model="500m", input_size=320),
            recognizer=RecognizerConfig(enabled=False),
        )
        return load_pipeline(config, is_live=is_live)(photograph).faces

    on_square = faces("tensorrt", is_live=True)
    assert simulated_in_children() == 1, "the other one has only been begun"
    on_fitting, expected = faces("tensorrt", is_live=False), faces("onnxruntime", is_live=False)
    assert simulated_in_children() == 2
    for found in (on_square, on_fitting):
        assert len(found) == len(expected) == 6
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1)
    np.testing.assert_allclose(on_fitting.boxes, expected.boxes, atol=1e-3)
    messages = [each.message for each in caplog.records if "input of 320x192" in each.message]
    assert [each.partition("once")[2] for each in messages] == [
        "; until it is ready, images go onto the largest input",
        "",
    ]


def test_a_detector_that_cannot_be_changed_has_one_engine_of_its_own_size(
    detector_path: Callable[[str], Path],
    tmp_path: Path,
    simulated_in_children: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    free_size._log_own_size.cache_clear()
    made = fixed_detectors.fixed(detector_path("2.5g"))
    fixed_detectors.fixed_rows(made)
    path = tmp_path / "any.onnx"
    onnx.save(made, str(path))
    network = open_network(path, "tensorrt", input_size=(640, 640), any_size=True)
    assert network.inputs[0].shape[:1:-1] == fixed_detectors.SIZE
    assert engines_of_sizes(network, path, batch=1, cuda_graph=False, is_live=True) is None
    assert simulated_in_children() == 1
    assert caplog.text.count("every image is scaled to its own size, 320x256") == 1


def test_an_engine_with_free_sizes_gets_the_largest_input_only(
    detector_path: Callable[[str], Path], image: Callable[[str], NDArray[np.uint8]], tmp_path: Path
) -> None:
    """Which other sizes it was built for is its builder's business."""
    import tensorrt

    shapes = ShapeRange((1, 3, 320, 320), (1, 3, 320, 320), (1, 3, 640, 640))
    plan = build_engine(tensorrt, detector_path("500m").read_bytes(), shapes, "fp32")
    path = tmp_path / "of trtexec.engine"
    path.write_bytes(plan)
    network = open_network(path, input_size=(320, 320), any_size=True)
    assert network.inputs[0].shape == (1, 3, None, None)
    assert engines_of_sizes(network, path, batch=1, cuda_graph=False, is_live=True) is None
    found = Scrfd(network, DetectorConfig(input_size=320)).detect(image("t1.jpg")[:720])
    assert len(found) == 6


PARENT = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's background job
from scrfd_ros.engines.sized import SizedEngines
engines = SizedEngines(Path(sys.argv[1]), batch=1, cuda_graph=False, is_live=True)
engines((64, 64))
print(engines._build._process.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_ends_with_its_process(how: signal.Signals, model: Path) -> None:
    (model.parent / "engines").mkdir()
    with locked_folder(model.parent / "engines"):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(model)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(how)
        parent.wait(LONGEST)
        parent.stdout.close()
        end = time.monotonic() + LONGEST
        while is_running(pid):
            assert time.monotonic() < end
            time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may be there to ask for its status
