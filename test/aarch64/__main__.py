# SPDX-License-Identifier: Apache-2.0
"""Run a part of the tests on aarch64: emulated on x86_64, as it is on an aarch64 machine.

parts.py says what is run and why the rest is not. Two parts at a time run, each in a process of
its own, so that a crash costs one part. The report is .aarch64/report.md; the logs are beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Timer
from xml.etree import ElementTree

from parts import LEFT_OUT, PARTS
from tqdm import tqdm

from scrfd_ros.models.download import ensure_picture

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".aarch64"
LOGS = FOLDER / "logs"
EMULATED = platform.machine() != "aarch64"
PROCESSOR = "cortex-a76"  # as QEMU names it; a Jetson Orin has its successor, the Cortex-A78AE
EMULATOR = FOLDER / "qemu-aarch64"
_EXAMPLES = 10  # of each property under emulation, where they take 20 times as long
_SECONDS = 1800  # maximum time for a part
_VERSIONS = """
import json, platform, cv2, numpy, onnxruntime, scipy
print(json.dumps({"machine": platform.machine(), "Python": platform.python_version(),
    "numpy": numpy.__version__, "OpenCV": cv2.__version__, "SciPy": scipy.__version__,
    "ONNX Runtime": onnxruntime.__version__}))
"""


@dataclass
class Row:
    """What became of a part."""

    part: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    processor_seconds: float = 0
    remarks: list[str] = field(default_factory=list)  # what failed or was skipped, and why


def start(*arguments: str) -> subprocess.Popen[str]:
    """Python on aarch64, with its output in one pipe."""
    command, environment = [sys.executable], dict(os.environ)
    if EMULATED:
        root = FOLDER / "root"
        command = [str(EMULATOR), "-L", str(root), str(root / "usr/bin/python3")]
        environment |= {
            "PYTHONPATH": f"{ROOT}:{FOLDER / 'site'}",
            "QEMU_CPU": PROCESSOR,
            "SCRFD_HYPOTHESIS_EXAMPLES": str(_EXAMPLES),
        }
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def versions() -> dict[str, str]:
    """Names and versions of what the tests run with."""
    output, _ = (process := start("-c", _VERSIONS)).communicate()
    if process.returncode:
        sys.exit(f"Python for aarch64 does not run:\n{output}\nRemove {FOLDER} to start over.")
    found: dict[str, str] = json.loads(output.splitlines()[-1])
    if EMULATED:
        text = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True).stdout
        found["QEMU"] = f"{text.split()[2]} as {PROCESSOR}"
        found["examples of each property"] = str(_EXAMPLES)
    return found


def run(part: str, bar: tqdm) -> Row:
    """Run the tests of a part, in a process of its own."""
    name = part.replace(" ", "_")
    log, results = LOGS / f"{name}.log", LOGS / f"{name}.xml"
    results.unlink(missing_ok=True)
    without = [
        f"--{'deselect' if '::' in path else 'ignore'}={path}"
        for path in LEFT_OUT
        if not any(chosen.startswith(path) for chosen in PARTS[part])
    ]
    begin, last = time.monotonic(), "no test"
    process = start(
        "-m", "pytest", "-v", "--durations=10", f"--junitxml={results}", *without, *PARTS[part]
    )
    timer = Timer(_SECONDS, process.kill)
    timer.start()
    assert process.stdout is not None
    with process.stdout, log.open("w", buffering=1, encoding="utf-8") as file:
        for line in process.stdout:
            file.write(line)
            if test := re.match(r"(\S+\.py::.+) [A-Z]+ +\[", line):
                last = test[1]
                bar.update()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    timer.cancel()
    row = counted(part, results)
    row.seconds = time.monotonic() - begin
    row.processor_seconds = usage.ru_utime + usage.ru_stime
    if process.returncode not in (0, 1):  # 1: tests failed
        row.failed += 1
        row.remarks.append(f"{ending(process.returncode)} after {last}: see {log}")
    return row


def ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def counted(part: str, results: Path) -> Row:
    """The counts of a part from pytest's report, which is missing after a crash."""
    row = Row(part)
    for case in ElementTree.parse(results).iter("testcase") if results.is_file() else ():
        name = f"{case.get('classname')}::{case.get('name')}"
        for kind in ("failure", "error", "skipped"):
            if (outcome := case.find(kind)) is not None:
                row.remarks.append(f"{kind}: {name}: {first_line(outcome.get('message'))}")
                break
        else:
            row.passed += 1
            continue
        if kind == "skipped":
            row.skipped += 1
        else:
            row.failed += 1
    return row


def first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]


def report(found: dict[str, str], rows: list[Row], wall: float) -> str:
    """The whole run as Markdown: versions, a row for each part, remarks, and what was left out."""
    total = Row("together", seconds=wall)
    for row in rows:
        total.passed += row.passed
        total.failed += row.failed
        total.skipped += row.skipped
        total.processor_seconds += row.processor_seconds
    lines = [f"Run on {date.today()}, {'emulated' if EMULATED else 'not emulated'}, with:", ""]
    lines += [f"- {name}: {version}" for name, version in found.items()]
    lines += [
        "",
        "| part | passed | failed | skipped | s | processor s |",
        "|---|---|---|---|---|---|",
    ]
    for row in (*rows, total):
        lines.append(
            f"| {row.part} | {row.passed} | {row.failed} | {row.skipped} | {row.seconds:.0f} "
            f"| {row.processor_seconds:.0f} |"
        )
    lines += ["", *(f"- {row.part}: {remark}" for row in rows for remark in row.remarks)]
    lines += ["", "Not run:", ""]
    for reason in dict.fromkeys(LEFT_OUT.values()):
        paths = ", ".join(f"`{path}`" for path, why in LEFT_OUT.items() if why == reason)
        lines.append(f"- {reason}: {paths}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the parts, print and write what became of them; 1 if a test failed."""
    assert __doc__
    parser = argparse.ArgumentParser("./run.sh test-aarch64", description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; else all")
    names = parser.parse_args().part or list(PARTS)
    if unknown := set(names) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    ensure_picture("t1.jpg")  # here, since the emulated Python may lack certificates
    found = versions()
    print(textwrap.fill(", ".join(f"{name} {version}" for name, version in found.items()), 80))
    begin = time.monotonic()
    rows = {}
    with (
        ThreadPoolExecutor(2) as pool,
        tqdm(unit=" tests", ncols=80, leave=False, disable=None) as bar,
    ):
        for task in as_completed([pool.submit(run, name, bar) for name in names]):
            row = task.result()
            rows[row.part] = row
            bar.write(
                f"{row.part:26}{row.passed:5} passed {row.failed:3} failed {row.skipped:3} skipped"
                f"{row.seconds:6.0f} s"
            )
            for remark in row.remarks:
                bar.write(f"  {remark}")
    text = report(found, [rows[name] for name in names], time.monotonic() - begin)
    path = FOLDER / "report.md"
    path.write_text(text, encoding="utf-8")
    print(f"Report: {path}")
    return int(any(row.failed for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
