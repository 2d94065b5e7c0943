# SPDX-License-Identifier: Apache-2.0
"""Build, check and measure all that needs a GPU, in one go: `./run.sh bench --gpu`.

Each step runs in a process of its own and has a row in gpu.md and gpu.json, which are written
after every step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT / "bench"), str(ROOT / "test")]

from gpu import report  # noqa: E402
from gpu.plan import GOAL, all_steps  # noqa: E402
from gpu.running import Row, run_all  # noqa: E402
from scrfd_ros.errors import DownloadError  # noqa: E402
from scrfd_ros.models.catalogue import load_catalogue  # noqa: E402
from scrfd_ros.models.download import ensure_picture  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run.sh bench --gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="time for all steps (default: %(default)s)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "output" / "gpu",
        help="for gpu.md, gpu.json, engines and logs (default: output/gpu)",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="STEP", help="steps whose names begin with one of these"
    )
    parser.add_argument("--list", action="store_true", help="list the steps")
    args = parser.parse_args()
    steps = [
        step
        for step in all_steps()
        if args.only is None or step.is_needed or step.name.startswith(tuple(args.only))
    ]
    if args.list:
        print("\n".join(step.name for step in steps))
        return 0
    _fetch_pictures()
    start = datetime.now().astimezone()
    has_ros = find_spec("rclpy") and find_spec("scrfd_ros.msg")
    without_ros = "" if has_ros else "no ROS 2, or the package was not built with it"

    def written(rows: list[Row]) -> None:
        about = {
            "date": start.isoformat(timespec="seconds"),
            "revision": _revision(),
            "goal": f"a frame takes at most {GOAL} times the engine's own time",
            "minutes": args.minutes,
            "seconds": round((datetime.now().astimezone() - start).total_seconds()),
        }
        report.write(args.folder, rows, about)

    rows = run_all(steps, args.folder, 60 * args.minutes, without_ros, written)
    print(f"{report.summary(rows)}; all results in {args.folder / 'gpu.md'} and gpu.json")
    return report.status(rows)


def _fetch_pictures() -> None:
    """Photographs to calibrate and compare with; without them the drawing has to do."""
    names = [name for name in load_catalogue().pictures if name.endswith((".jpg", ".png"))]
    try:
        for name in tqdm(names, "pictures", leave=False, disable=None):
            ensure_picture(name, report=lambda line: None)
    except DownloadError:  # the others would most likely fail too, after a long wait
        print(f"Without the picture {name}, which cannot be fetched, and those after it.")


def _revision() -> str | None:
    """The commit of this checkout, with + for changes; None without git."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the first step
        sys.exit(130)
