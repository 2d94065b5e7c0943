# SPDX-License-Identifier: Apache-2.0
"""Compare scrfd_ros with the alternatives: `scrfd bench --peers`, docs/performance.md.

`images`, `video`, `compressed`, `crowds`, `stages`, `cold_start` and `nodes` measure one part each,
with `timing`, `first_face`, and `observed_node` with `probe`. `libraries` and `plain_node` are the
sides, and `pictures` what they get. `ratios` says what is wanted, and `report` prints all.
"""
