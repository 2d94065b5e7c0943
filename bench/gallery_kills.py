# SPDX-License-Identifier: Apache-2.0
"""Kill writers of a gallery at random moments, and check what they leave.

    ./run.sh setup && . .venv/bin/activate && python bench/gallery_kills.py --kills 1000

After each kill the gallery has to open, with all that was acknowledged and at most one change more,
as a whole; its file has to be sound, and nothing of forgotten people in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import trange

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from killed_writers import Kills


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gallery", help="a new file, or the URL of a new database")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.gallery or f"{folder}/people.db"
        kills = Kills(place, arguments.seed)
        for _ in trange(arguments.kills, desc="kills", leave=False, disable=None):
            kills.round()
        if "://" not in place:
            kills.check_file(rounds=arguments.kills)
    print("| killed | times |\n| --- | --- |")
    for moment, times in sorted(kills.moments.items()):
        print(f"| {MOMENTS.get(moment, f'in {moment}')} | {times} |")
    of_files = "" if "://" in place else ", nothing of forgotten people in the file"
    print(
        f"\n{arguments.kills} kills, {kills.changes} changes acknowledged: none lost, none half "
        f"done{of_files}"
    )


MOMENTS = {"": "between changes", "opening": "while it opened the gallery"}

if __name__ == "__main__":
    main()
