# SPDX-License-Identifier: Apache-2.0
"""`Faces` to messages and back."""
