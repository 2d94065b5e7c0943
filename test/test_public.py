# SPDX-License-Identifier: Apache-2.0
"""What `import scrfd_ros` gives, and what it loads."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import scrfd_ros
from scrfd_ros.models.download import ensure_picture


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a new interpreter has loaded after this code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_loads_nothing_but_itself() -> None:
    loaded = loaded_by("import scrfd_ros")
    foreign = {name for name in loaded if name not in sys.stdlib_module_names}
    assert foreign - loaded_by("") <= {"scrfd_ros"}


def test_options_of_the_node_need_no_ros() -> None:
    assert "rclpy" not in loaded_by("from scrfd_ros.node.config import NodeConfig; NodeConfig()")


@pytest.mark.parametrize("name", scrfd_ros.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(scrfd_ros, name)
    assert value.__name__ == name and value.__doc__
    assert name in dir(scrfd_ros)


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        scrfd_ros.nonsense  # noqa: B018


def test_a_pipeline_on_the_processor_loads_only_what_it_runs(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    paths = str(detector_path("500m")), str(recognizer_path("w600k_mbf"))
    code = f"""
        from pathlib import Path
        import numpy as np
        from scrfd_ros import DetectorConfig, PipelineConfig, RecognizerConfig, load_pipeline

        pipeline = load_pipeline(
            PipelineConfig(
                backend="onnxruntime",
                detector=DetectorConfig(engine_path=Path({paths[0]!r})),
                recognizer=RecognizerConfig(engine_path=Path({paths[1]!r})),
            )
        )
        pipeline(np.zeros((64, 64, 3), np.uint8), pipeline.new_tracker())
    """
    loaded = loaded_by(textwrap.dedent(code))
    assert {"numpy", "cv2", "onnxruntime"} <= loaded
    assert not loaded & {"scipy", "matplotlib", "rosbags", "tensorrt", "onnx", "tqdm", "rclpy"}


def test_the_example_runs(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    detector_path("2.5g")
    recognizer_path("w600k_mbf")
    code = textwrap.dedent((scrfd_ros.__doc__ or "").partition("Example:\n")[2])
    image = str(ensure_picture("t1.jpg"))
    exec(code.replace("first.jpg", image).replace("second.jpg", image), {})
    lines = capsys.readouterr().out.splitlines()
    first, second = lines[:7], lines[7:]
    assert first == second  # of one image: the ids are the same
    assert first[0] == image
    assert {line.split()[0] for line in first[1:]} == set("123456")
