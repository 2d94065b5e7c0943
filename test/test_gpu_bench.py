# SPDX-License-Identifier: Apache-2.0
"""What `./run.sh bench --gpu` does when steps fail, hang, crash or are interrupted.

The GPU is simulated, see simulated_gpu/tensorrt.py; the steps themselves need a real one.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from gpu import running
from gpu.plan import all_steps
from gpu.running import FAILED, NOT_RUN, PASSED, Row, Step, run_all

PROGRAM = Path(running.__file__).parent
SIMULATED_GPU = Path(__file__).parent / "simulated_gpu"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Row]]:
    """Runs steps whose function is Python code, with the path of the result as `result`."""
    script = tmp_path / "step.py"
    script.write_text(
        "import json, os, sys, time\n"
        "from pathlib import Path\n"
        "folder, result, code, arguments = sys.argv[1:]\n"
        "exec(code)\n"
    )
    monkeypatch.setattr(running, "_STEP", script)

    def run(*steps: Step, seconds: float = 60, without_ros: str = "") -> list[Row]:
        written: list[list[str]] = []
        rows = run_all(
            steps,
            tmp_path / "out",
            seconds,
            without_ros,
            lambda rows: written.append([row.outcome for row in rows]),
        )
        assert written[0] == [NOT_RUN] * len(steps), "written before the first step"
        assert written[-1] == [row.outcome for row in rows]
        return rows

    return run


def leaves(outcome: str, reason: str = "", **figures: float) -> str:
    """Code of a step that leaves a result."""
    content = {"outcome": outcome, "reason": reason, "figures": figures}
    return f"Path(result).write_text({json.dumps(content)!r})"


def test_a_failure_costs_one_row(rows: Callable[..., list[Row]]) -> None:
    found = rows(
        Step("good", leaves(PASSED, faces=6)),
        Step("bad", leaves(FAILED, "no faces")),
        Step("crash", "print('said'); sys.stdout.flush(); os.abort()"),
        Step("crash at its end", leaves(PASSED, faces=6) + "; sys.exit(3)"),
        Step("no result", "pass"),
        Step("hangs", "time.sleep(60)", limit=0.3),
        Step("good again", leaves(PASSED)),
    )
    assert [row.outcome for row in found] == [PASSED, *[FAILED] * 5, PASSED]
    assert found[0].figures == found[3].figures == {"faces": 6}
    assert [row.reason for row in found[1:6]] == [
        "no faces",
        "its process ended by SIGABRT, and said: said",
        "its process ended with status 3, and said: ",
        "its process ended with status 0, and said: ",
        "not done after 0.3 s",
    ]


def test_what_a_step_started_ends_with_it(rows: Callable[..., list[Row]], tmp_path: Path) -> None:
    child = tmp_path / "pid"
    code = (
        "import subprocess\n"
        f"Path({str(child)!r}).write_text(str(subprocess.Popen(['sleep', '60']).pid))\n"
    )
    rows(Step("starts a child", code + leaves(PASSED)))
    end = time.monotonic() + 10  # a process that was killed takes a moment to go
    while is_running(int(child.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_time_and_ros_that_are_missing(rows: Callable[..., list[Row]]) -> None:
    found = rows(
        Step("needs ROS 2", leaves(PASSED), needs_ros=True),
        Step("takes all time", "time.sleep(60)"),
        Step("comes too late", leaves(PASSED)),
        seconds=1.0,
        without_ros="no ROS 2",
    )
    assert [(row.outcome, row.reason) for row in found] == [
        (NOT_RUN, "no ROS 2"),
        (NOT_RUN, "no time left"),
        (NOT_RUN, "no time left"),
    ]


def test_without_the_needed_step_no_other_is_run(rows: Callable[..., list[Row]]) -> None:
    found = rows(
        Step("machine", leaves(FAILED, "no CUDA device"), is_needed=True),
        Step("other", leaves(PASSED)),
    )
    assert (found[1].outcome, found[1].reason) == (NOT_RUN, "no CUDA device")


def test_every_step_has_its_function() -> None:
    steps = all_steps()
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        module, _, function = step.function.rpartition(".")
        assert callable(getattr(importlib.import_module(f"gpu.{module}"), function)), step


def test_a_run_on_the_simulated_gpu_that_fails_and_is_interrupted(
    tmp_path: Path, simulated_driver: Path, detector_path: Callable[[str], Path]
) -> None:
    detector_path("500m")
    command = [sys.executable, str(PROGRAM), "--folder", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--only", "engine for cameras", "layers of 34g", "tests"],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(simulated_driver),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(SIMULATED_GPU), os.environ.get("PYTHONPATH")])
            ),
            "SIMULATED_TENSORRT": "fp16 gives NaN",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(done(tmp_path)) < 2:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    report = json.loads((tmp_path / "gpu.json").read_text())
    machine, engine, layers, tests = report["rows"]
    assert (machine["outcome"], machine["figures"]["gpu"]) == (PASSED, "Simulated")
    assert engine["outcome"] == FAILED
    assert engine["reason"].startswith("only the engine in fp32 is right: ")
    assert "fp16 disagrees: non finite values" in engine["reason"]
    assert (tmp_path / "engines" / "500m-batch-fp32.engine").exists()
    assert (layers["outcome"], layers["reason"]) == (NOT_RUN, "interrupted")
    assert (tests["outcome"], tests["reason"]) == (NOT_RUN, "the run ended before it")
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("\n| ") == 5 and "- gpu: Simulated" in table
    assert "1 failed, 2 not run, 1 passed" in output and "2 not run" in table


def done(folder: Path) -> list[dict[str, Any]]:
    """The rows of the steps that have ended."""
    path = folder / "gpu.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if row["outcome"] != NOT_RUN]
