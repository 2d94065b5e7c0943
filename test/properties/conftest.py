# SPDX-License-Identifier: Apache-2.0
"""How Hypothesis searches: the same examples in every run, unless more are asked for.

The same of the same tests: Hypothesis also tries the constants of the modules that are loaded, so
one file alone gets other examples than the whole suite.

SCRFD_HYPOTHESIS_EXAMPLES=5000 pytest test/properties tries 5000 examples, others each time. An
example that fails is printed with a line that repeats it.
"""

from __future__ import annotations

import os

from hypothesis import settings

_EXAMPLES = os.environ.get("SCRFD_HYPOTHESIS_EXAMPLES")

settings.register_profile(
    "scrfd_ros",
    max_examples=int(_EXAMPLES or 100),
    derandomize=_EXAMPLES is None,
    deadline=None,
    print_blob=True,
)
settings.load_profile("scrfd_ros")
