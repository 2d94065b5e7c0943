# SPDX-License-Identifier: Apache-2.0
"""How well networks do: agreement with a reference, accuracy, figures."""
