# SPDX-License-Identifier: Apache-2.0
"""Processes of a launch file end when launch ends, however it ends; with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bag_player
import pytest
from harness import TIMEOUT, face_node_command

from scrfd_ros.node.parent import PARENT

LAUNCH = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], env=os.environ | {NAME: str(os.getpid())})
print(child.pid, flush=True)
child.wait()
"""


def is_there(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.usefixtures("node_finds_optional_messages")
@pytest.mark.parametrize("program", ["face_node", "play_bag"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_node_ends_with_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, number: signal.Signals
) -> None:
    bag_player.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    if program == "face_node":
        command = face_node_command("/orphan", {"autostart": False})
    else:
        command = [str(Path(face_node_command("")[0]).with_name(program)), str(tmp_path)]
    code = LAUNCH.replace("NAME", repr(PARENT))
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(number)
    end = time.monotonic() + TIMEOUT
    while is_there(child):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"{program} outlives its parent")
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["", "nonsense", str(os.getpid())])
def test_without_a_parent_to_end_with(name: str) -> None:
    # This process is the parent, or there is none: it is there, so the node starts.
    command = [*face_node_command("/child", {"autostart": "nonsense"})]
    result = subprocess.run(command, env=os.environ | {PARENT: name}, check=False)
    assert result.returncode == 2


def test_a_parent_that_has_ended_already() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    command = face_node_command("/child", {"autostart": "nonsense"})
    environment = os.environ | {PARENT: str(gone.pid)}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
