# SPDX-License-Identifier: Apache-2.0
"""docs/models.md and the catalogue agree on every model."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrfd_ros.models.catalogue import (
    DETECTOR,
    RECOGNIZER,
    SUPER_RESOLUTION,
    ModelEntry,
    load_catalogue,
)

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
SECTIONS = {
    DETECTOR: "Detectors (SCRFD)",
    RECOGNIZER: "Recognizers (ArcFace)",
    SUPER_RESOLUTION: "Super-resolution (Real-ESRGAN)",
}
COLUMNS = {"easy": "WIDER easy", "medium": "WIDER medium", "hard": "WIDER hard"}


def section(kind: str) -> str:
    return TEXT.split(f"## {SECTIONS[kind]}\n")[1].split("\n#")[0]


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_table_agrees_with_the_catalogue(kind: str) -> None:
    lines = [line for line in section(kind).splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    names = []
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        entry = load_catalogue().models[cells.pop("name").strip("`")]
        names.append(entry.name)
        assert cells.pop("file") == entry.file
        size = cells.pop("bytes")
        assert size == f"{entry.bytes:,}" if entry.bytes else size.endswith(" MB")
        if kind == DETECTOR:
            assert cells.pop("landmarks") == ("yes" if entry.landmarks else "**no**")
        cells.pop("network", None)
        accuracy = {COLUMNS.get(test, test): value for test, value in cells.items() if value}
        assert accuracy == {test: f"{value:.2f}" for test, value in entry.accuracy.items()}
    assert names == load_catalogue().names(kind)


@pytest.mark.parametrize("entry", load_catalogue().models.values(), ids=lambda entry: entry.name)
def test_the_input_is_named(entry: ModelEntry) -> None:
    assert f"Input: {entry.input}" in " ".join(section(entry.kind).split())


def test_every_alias_and_every_unpublished_checksum_is_explained() -> None:
    for entry in load_catalogue().models.values():
        for alias in entry.aliases:
            assert f"`{alias}` is accepted as a name of `{entry.name}`" in TEXT
    unknown = [f"`{entry.name}`" for entry in load_catalogue().models.values() if not entry.sha256]
    assert f"Of {' and '.join(unknown)} no checksum is published" in TEXT
