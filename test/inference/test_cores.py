# SPDX-License-Identifier: Apache-2.0
"""The cores that a process may use, by its affinity and the quotas of its control groups.

Folders with the files of /proc and /sys stand in for containers, which cannot be created here; the
result for this machine is compared with nproc.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from ament_index_python.packages import get_package_prefix

from scrfd_ros.cli.main import main
from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.inference.cores import MAX_THREADS, usable_cores
from scrfd_ros.pipeline import load_pipeline

V1 = "3:cpu,cpuacct:{0}\n2:memory:/other\n0::/\n"
V2 = "0::{0}\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def sixteen_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


@pytest.mark.usefixtures("sixteen_processors")
@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        pytest.param("", {}, 16, id="no control groups"),
        pytest.param(V2.format("/"), {"cpu.max": "200000 100000"}, 2, id="v2, in a container"),
        pytest.param(V2.format("/"), {"cpu.max": "max 100000"}, 16, id="v2, no limit"),
        pytest.param(V2.format("/"), {"cpu.max": "150000 100000"}, 2, id="a fraction"),
        pytest.param(V2.format("/"), {"cpu.max": "10000 100000"}, 1, id="less than one"),
        pytest.param(V2.format("/"), {"cpu.max": "9900000 100000"}, 16, id="more than there are"),
        pytest.param(V2.format("/"), {"cpu.max": "nonsense"}, 16, id="nonsense"),
        pytest.param(V2.format("/"), {"cpu.max": "0 0"}, 16, id="zeros"),
        pytest.param(V2.format("/"), {"cpu.max": ""}, 16, id="an empty file"),
        pytest.param("no colons\n\n0::\n", {"cpu.max": "100000 100000"}, 1, id="odd lines"),
        pytest.param(
            V2.format("/robot.slice/faces.service"),
            {
                "robot.slice/cpu.max": "300000 100000",
                "robot.slice/faces.service/cpu.max": "max 100000",
            },
            3,
            id="v2, the limit is above",
        ),
        pytest.param(
            V2.format("/a/b"),
            {"a/cpu.max": "300000 100000", "a/b/cpu.max": "500000 100000"},
            3,
            id="v2, the smaller of two",
        ),
        pytest.param(
            V2.format("/../../outside"), {"cpu.max": "400000 100000"}, 4, id="v2, from outside"
        ),
        pytest.param(
            "1:name=systemd:/\n0::/\n", {"unified/cpu.max": "200000 100000"}, 2, id="hybrid"
        ),
        pytest.param(
            V1.format("/docker/0123"),
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3,
            id="v1, in a container",
        ),
        pytest.param(
            V1.format("/a/b"),
            {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "25000"},
            2,
            id="v1, nested, mounted as cpu",
        ),
        pytest.param(
            V1.format("/"),
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            16,
            id="v1, no limit",
        ),
    ],
)
def test_quotas(tmp_path: Path, cgroup: str, files: dict[str, str], cores: int) -> None:
    content = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert usable_cores(tree(tmp_path, {"proc/self/cgroup": cgroup, **content})) == cores


@pytest.mark.usefixtures("sixteen_processors")
def test_threads_of_one_core_count_once(tmp_path: Path) -> None:
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = {topology.format(number): f"{number % 8},{number % 8 + 8}\n" for number in range(16)}
    assert usable_cores(tree(tmp_path, files)) == 8


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 11})
    assert usable_cores(tmp_path) == 3
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert usable_cores(tree(tmp_path, files)) == 2


def test_this_machine() -> None:
    code = "from scrfd_ros.inference.cores import usable_cores; print(usable_cores())"
    processor = subprocess.run(["taskset", "-cp", str(os.getpid())], capture_output=True, text=True)
    first = processor.stdout.split()[-1].split(",")[0].split("-")[0]
    found = [
        int(subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True).stdout)
        for prefix in ([], ["taskset", "-c", first])
    ]
    processors = int(subprocess.run(["nproc"], capture_output=True).stdout)
    assert 1 <= found[0] <= processors
    assert found[1] == 1


@pytest.fixture
def threads_of_opencv() -> Iterator[None]:
    number = cv2.getNumThreads()
    yield
    cv2.setNumThreads(number)


@pytest.mark.usefixtures("threads_of_opencv")
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_reach_all_that_computes(
    threads: int,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        config = PipelineConfig(
            threads=threads,
            detector=DetectorConfig(engine_path=detector_path("500m")),
            recognizer=RecognizerConfig(engine_path=recognizer_path("w600k_mbf")),
        )
        pipeline = load_pipeline(config)
    expected = threads or usable_cores()
    assert pipeline.recognizer is not None
    for part in (pipeline.detector, pipeline.recognizer):
        network: Any = part.network
        assert network._session.get_session_options().intra_op_num_threads == expected
    assert cv2.getNumThreads() == expected
    reason = "as set" if threads else "the cores that this process may use"
    assert f"{expected} threads for the networks and for OpenCV: {reason}" in caplog.text


@pytest.mark.parametrize("threads", ["-1", "10000", "257", "two", "1.5", ""])
def test_threads_out_of_range(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["detect", f"--threads={threads}"])
    assert caught.value.code == 2
    reason = f"expected a whole number from 0 to {MAX_THREADS}, found {threads!r}"
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("threads", [-1, 10000, "two"])
def test_the_node_refuses_threads_out_of_range(threads: object) -> None:
    # The installed one: else the folder of the tests, without messages, is first in the path.
    node = Path(get_package_prefix("scrfd_ros"), "lib", "scrfd_ros", "face_node")
    arguments = ["--ros-args", "-p", "autostart:=false", "-p", f"threads:={threads}"]
    result = subprocess.run([node, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "threads" in result.stderr
