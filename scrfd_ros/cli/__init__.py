# SPDX-License-Identifier: Apache-2.0
"""The `scrfd` command, one module per sub-command."""
