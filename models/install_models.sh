#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Download models into this folder: `run.sh models` under the name in older instructions.
set -euo pipefail
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" models "$@"
