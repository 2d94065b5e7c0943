# SPDX-License-Identifier: Apache-2.0
"""The best available backend runs a model; engines are built once, and must fit."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from faulty_processes import LONGEST, NOBODY, kills, open_to_all
from numpy.typing import NDArray
from onnx_files import write_recognizer

from scrfd_ros.config import DetectorConfig, PipelineConfig
from scrfd_ros.engines import open as engines
from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference import cuda
from scrfd_ros.inference.engine_file import metadata_path, read_metadata, write_engine
from scrfd_ros.pipeline import load_pipeline

SIMULATED_GPU = Path(__file__).parents[1] / "simulated_gpu"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_recognizer(tmp_path / "any.onnx")


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A line for each engine that the simulated TensorRT has built: flags and workspace."""
    path = tmp_path / "builds"
    monkeypatch.setenv("SIMULATED_BUILDS", str(path))
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_onnx_runtime_where_there_is_no_gpu(
    backend: str, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines._log_no_device.cache_clear()
    with caplog.at_level(logging.INFO):
        network = open_network(model, backend)
        open_network(model, backend)
    assert network.backend == "onnxruntime CPU"
    reason = "networks run on ONNX Runtime: no CUDA device: the NVIDIA driver is not installed"
    assert (reason in caplog.text) == (backend == "auto")
    # Once for several networks, and without a warning.
    assert [record.levelname for record in caplog.records] == ["INFO"] * (backend == "auto")


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("name", ["any.onnx", "any.engine"])
def test_tensorrt_where_there_is_no_gpu(name: str, model: Path) -> None:
    with pytest.raises(BackendError, match=r"^no CUDA device: the NVIDIA driver is not installed"):
        open_network(model.with_name(name), "tensorrt")


def test_onnx_runtime_does_not_run_engines(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"any\.engine: onnxruntime does not run"):
        open_network(tmp_path / "any.engine", "onnxruntime")


def test_unknown_backend(model: Path) -> None:
    with pytest.raises(ModelError, match="unknown backend 'abacus'; expected one of auto, tens"):
        open_network(model, "abacus")


def test_without_a_gpu_nothing_for_engines_is_loaded(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import scrfd_ros.pipeline; "
        "from scrfd_ros.engines.open import open_network; "
        "from scrfd_ros.inference import cuda; cuda._LIBRARY = 'libnone.so'; "
        f"open_network(Path({str(model)!r})); print(*sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LONGEST
    ).stdout
    loaded = set(output.split())
    assert "scrfd_ros.inference.onnx_runtime" in loaded
    assert not loaded & {
        "scipy",
        "tqdm",
        "scrfd_ros.engines.build",
        "scrfd_ros.engines.cache",
        "scrfd_ros.engines.convert",
        "scrfd_ros.inference.tensorrt",
    }


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_an_engine_is_built_once(
    backend: str, model: Path, builds: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        first = open_network(model, backend)
        second = open_network(model, backend)
    assert first.backend == second.backend == "tensorrt 10.3.0 fp16"
    name = "any_sm87_tensorrt-10.3.0.engine"
    assert first.path == second.path == model.parent / "engines" / name
    assert first.name == "any"
    assert builds() == ["['FP16'] None"]
    assert "any.onnx: building a TensorRT engine, once" in caplog.text
    assert f"any.onnx: taking the engine {second.path}" in caplog.text


@pytest.mark.usefixtures("simulated_gpu")
def test_an_engine_under_another_name_is_taken(
    model: Path, builds: Callable[[], list[str]]
) -> None:
    engine = open_network(model).path
    renamed = engine.with_name("mine.engine")
    metadata_path(engine).rename(metadata_path(renamed))
    engine.rename(renamed)
    assert open_network(model).path == renamed
    assert len(builds()) == 1


def other_machine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt

    monkeypatch.setattr(tensorrt, "__version__", "10.7.0")


def other_model(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recognizer(engine.parents[1] / "any.onnx", normalizes_input=True)


def damaged_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.write_bytes(engine.read_bytes()[:-1])


def damaged_metadata(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata_path(engine).write_text("{")


def engine_that_is_a_folder(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.rename(engine.with_suffix(".bak"))
    engine.mkdir()
    metadata_path(engine).rename(metadata_path(engine.with_name("folder.engine")))
    engine.rename(engine.with_name("folder.engine"))


def no_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.unlink()


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize(
    "change",
    [
        other_machine,
        other_model,
        damaged_engine,
        damaged_metadata,
        engine_that_is_a_folder,
        no_engine,
    ],
)
def test_an_engine_that_does_not_fit_is_built_anew(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    model: Path,
    builds: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(open_network(model).path, monkeypatch)
    assert open_network(model).backend.startswith("tensorrt 10.")
    assert len(builds()) == 2
    open_network(model)
    assert len(builds()) == 2, "and then kept"


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        pytest.param("build fails", "cannot build an engine", id="build"),
        pytest.param("fp16 and fp32 give NaN", "no engine of it is right", id="disagreement"),
        pytest.param("no engine", "cannot load this engine", id="load"),
        pytest.param("execute fails", "the engine does not run", id="run"),
        pytest.param("does not start", "does not start: CUDA initialization", id="start"),
    ],
)
def test_auto_falls_back_with_a_warning(
    how: str,
    reason: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT", how)
    assert open_network(model, "auto").backend == "onnxruntime CPU"
    assert caplog.records[-1].levelname == "WARNING"
    assert reason in caplog.records[-1].getMessage()
    with pytest.raises(ModelError, match=reason):
        open_network(model, "tensorrt")


@pytest.mark.usefixtures("simulated_gpu")
def test_an_engine_that_stops_working(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_network(model)
    monkeypatch.setenv("SIMULATED_TENSORRT", "execute fails")
    assert open_network(model).backend == "onnxruntime CPU"
    assert "the engine does not run: [E] Error Code 1" in caplog.text


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize(
    "function", ["cuMemAlloc_v2", "cuMemHostAlloc", "cuCtxPushCurrent_v2", "cuStreamSynchronize"]
)
def test_a_gpu_that_stops_working(
    function: str, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_network(model)
    monkeypatch.setenv("SIMULATED_CUDA", f"{function} 2")
    assert open_network(model).backend == "onnxruntime CPU"
    assert re.search(
        rf"runs on ONNX Runtime: .*{function.split('_')[0]}\w* failed with 2, out of memory",
        caplog.text,
    )


@pytest.mark.usefixtures("simulated_gpu")
def test_engines_of_other_machines_are_left_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_network(model).path
    content = first.read_bytes()
    other_machine(first, monkeypatch)
    second = open_network(model).path
    assert second != first and first.read_bytes() == content


@pytest.mark.usefixtures("simulated_gpu")
def test_folder_that_cannot_be_written(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model.parent / "engines").write_text("a file where a folder is wanted")
    assert open_network(model, "auto").backend == "onnxruntime CPU"
    assert f"{model.parent}/engines/any_" in caplog.text
    assert "cannot write: File exists" in caplog.text


@pytest.mark.usefixtures("simulated_gpu")
def test_two_processes_build_one_engine(model: Path, builds: Callable[[], list[str]]) -> None:
    with ThreadPoolExecutor() as processes:
        assert list(processes.map(backend, [model] * 2)) == ["tensorrt 10.3.0 fp16"] * 2
    assert len(builds()) == 1


@pytest.mark.usefixtures("simulated_gpu")
def test_pipeline_on_tensorrt(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    for path in (detector_path("500m"), recognizer_path("w600k_mbf")):
        os.symlink(path, tmp_path / path.name)
    pipelines = [
        load_pipeline(
            PipelineConfig(
                backend=backend,
                model_directory=tmp_path,
                detector=DetectorConfig(model="500m", input_size=(320, 320)),
            )
        )
        for backend in ("tensorrt", "onnxruntime")
    ]
    found, expected = (pipeline(image("t1.jpg")).faces for pipeline in pipelines)
    assert len(found) == 6
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-5)


OPEN = """
import os, resource, sys
from pathlib import Path
import onnx, onnxruntime, pycuda.driver, tensorrt
from scrfd_ros.engines.open import open_network
from scrfd_ros.engines import build, prelu
from scrfd_ros.inference import onnx_runtime, tensorrt
model, choice, largest_file, user = sys.argv[1:]
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file),) * 2)
if user:
    os.setgroups([]), os.setgid(int(user)), os.setuid(int(user))
try:
    print(open_network(Path(model), choice).backend)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


def backend(
    model: Path, choice: str = "auto", largest_file: int | None = None, as_other_user: bool = False
) -> str:
    """The backend of the model in a process of its own, perhaps with limits, or the error.

    It is not a fork of this process, which ONNX Runtime's threads would not survive.
    """
    user = NOBODY if as_other_user and os.geteuid() == 0 else ""
    driver = Path(cuda._LIBRARY).parent  # the simulated one
    paths = {"LD_LIBRARY_PATH": driver, "PYTHONPATH": SIMULATED_GPU}
    for name, path in paths.items():
        paths[name] = os.pathsep.join(filter(None, (str(path), os.environ.get(name))))
    return subprocess.run(
        [sys.executable, "-c", OPEN, *map(str, (model, choice, largest_file or "", user))],
        env=os.environ | paths,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=True,
    ).stdout.strip()


@pytest.mark.usefixtures("simulated_gpu")
def test_an_engine_is_whole_or_built_anew_whenever_its_writer_is_killed(model: Path) -> None:
    assert backend(model) == "tensorrt 10.3.0 fp16"
    (engine,) = (model.parent / "engines").glob("*.engine")
    names = {engine.name, metadata_path(engine).name}
    (engine.parent / "timing.cache").unlink()
    plan, metadata = engine.read_bytes(), read_metadata(engine)
    assert metadata is not None
    states = set()
    for moment in kills(lambda: write_engine(engine, plan, metadata), "/scrfd_ros/"):
        state = frozenset((path.name, path.stat().st_size) for path in engine.parent.iterdir())
        if state not in states:
            states.add(state)
            assert backend(model) == "tensorrt 10.3.0 fp16", f"killed at line {moment}"
            assert {path.name for path in engine.parent.iterdir()} - {"timing.cache"} == names
        shutil.rmtree(engine.parent)
        engine.parent.mkdir()
    assert len(states) >= 6  # nothing, one or both files, and the beginning of each


@pytest.mark.usefixtures("simulated_gpu")
def test_without_space_for_an_engine(model: Path) -> None:
    space = model.stat().st_size // 2
    outcome = backend(model, "tensorrt", largest_file=space)
    assert outcome.startswith(f"ScrfdError: {model.parent}/engines/any_sm87_")
    assert outcome.endswith(".engine: cannot write: File too large")
    assert backend(model, largest_file=space) == "onnxruntime CPU"
    assert [path.name for path in (model.parent / "engines").iterdir()] == ["timing.cache"]
    assert backend(model) == "tensorrt 10.3.0 fp16"


@pytest.mark.usefixtures("simulated_gpu")
def test_a_read_only_folder_of_models(model: Path, simulated_driver: Path) -> None:
    open_to_all(simulated_driver)
    open_to_all(model.parent)
    model.parent.chmod(0o555)

    assert backend(model, as_other_user=True) == "onnxruntime CPU"
    outcome = backend(model, "tensorrt", as_other_user=True)
    assert outcome.startswith(f"ScrfdError: {model.parent}/engines/any_")
    assert outcome.endswith(": cannot write: Permission denied")
    model.parent.chmod(0o755)
    assert backend(model) == "tensorrt 10.3.0 fp16"
    for path in (*(model.parent / "engines").iterdir(), model.parent / "engines", model.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert backend(model, as_other_user=True) == "tensorrt 10.3.0 fp16"
    model.parent.chmod(0o755)
