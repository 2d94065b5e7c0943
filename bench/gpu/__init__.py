# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can show, in one go: `./run.sh bench --gpu`.

`plan` has the steps, in order. `running` runs each in a process of its own, through `step`. The
steps are functions of `machine`, `engines`, `agreement`, `times`, `node`, `faults` and `suite`.
`report` writes what they found.
"""
