# SPDX-License-Identifier: Apache-2.0
"""Run one step, in the process that `running` started for it.

    python bench/gpu/step.py FOLDER RESULT MODULE.FUNCTION ARGUMENTS

The function gets the folder and the arguments, a JSON list. It returns figures, as JSON takes them,
and raises `Failure` where they are not good enough, or `NotRun` where it cannot be tried here.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# This file's folder is on the path, but its modules are those of a package.
sys.path[:1] = [str(ROOT / "bench"), str(ROOT / "test"), str(ROOT / "test" / "node")]

from gpu.outcomes import Failure, NotRun  # noqa: E402
from gpu.running import FAILED, NOT_RUN, PASSED  # noqa: E402
from scrfd_ros.errors import ScrfdError  # noqa: E402


def main() -> None:
    folder, result, name, arguments = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    outcome, reason, figures = PASSED, "", {}
    module, _, function = name.rpartition(".")
    try:
        call: Any = getattr(importlib.import_module(f"gpu.{module}"), function)
        figures = call(Path(folder), *json.loads(arguments))
    except NotRun as error:
        outcome, reason = NOT_RUN, str(error)
    except Failure as error:
        outcome, reason, figures = FAILED, str(error), error.figures
    except ScrfdError as error:
        outcome, reason = FAILED, str(error)
    except Exception as error:
        traceback.print_exc()
        outcome, reason = FAILED, f"{type(error).__name__}: {error}"
    content = {"outcome": outcome, "reason": reason, "figures": figures}
    Path(result).write_text(json.dumps(content))


if __name__ == "__main__":
    main()
