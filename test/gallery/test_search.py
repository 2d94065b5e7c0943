# SPDX-License-Identifier: Apache-2.0
"""Templates in memory: bytes that go, bytes that are needed, and galleries of very many."""

from __future__ import annotations

import logging
import subprocess
import sys
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.gallery import search, signs
from scrfd_ros.gallery.people import Template
from scrfd_ros.gallery.search import TemplateIndex


def person_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def templates(
    people: int, each: int = 5, similarity: float = 0.6, seed: int = 0
) -> tuple[list[Template], NDArray[np.float32]]:
    """Made-up people with templates of such cosines, and another embedding of each, [people, D]."""
    random = np.random.default_rng(seed)
    towards = random.standard_normal((people, 1, 512))
    spread = (1 / similarity - 1) ** 0.5
    rows = towards + spread * random.standard_normal((people, each + 1, 512))
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)
    made = [
        Template(str(uuid.uuid4()), person_id(number), embedding, 0.9, "", 0.0)
        for number, own in enumerate(rows[:, :each])
        for embedding in own
    ]
    return made, rows[:, each]


def index_of(made: list[Template]) -> TemplateIndex:
    index = TemplateIndex(512)
    index.add(made)
    return index


def test_what_is_removed_or_forgotten_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(search, "BLOCK", 16)
    monkeypatch.setattr(search, "EXACT", 30)
    made, _ = templates(20)
    index = index_of(made)
    blocks, column = list(index._blocks), index._signs
    assert column is not None
    index.remove([each.id for each in made[7:12]])
    index.forget([person_id(0), person_id(19)])
    gone = [*made[7:12], *made[:5], *made[95:]]
    kept = b"".join(block.tobytes() for block in blocks)
    for each in made:
        is_there = each.embedding.tobytes() in kept
        assert is_there == (each.id not in {other.id for other in gone})
        assert (signs.of(each.embedding).tobytes() in column.tobytes()) == is_there
    assert len(index) == 85 and len(index._blocks) == 6


def test_nothing_old_stays_behind_when_more_come(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(search, "BLOCK", 16)
    monkeypatch.setattr(search, "EXACT", 5)
    made, _ = templates(10)
    index = index_of(made[:10])
    before = index._signs
    assert before is not None and before.any()
    index.add(made[10:])
    assert index._signs is not before and not before.any()


def test_a_template_takes_at_most_2200_bytes() -> None:
    """So much the whole process grows by, of one that does nothing else."""
    code = (
        "import uuid, numpy as np\n"
        "from pathlib import Path\n"
        "from scrfd_ros.gallery.people import Template\n"
        "from scrfd_ros.gallery.search import TemplateIndex\n"
        "def resident():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "def add(index, count):\n"
        "    vectors = np.random.default_rng().standard_normal((count, 512), dtype=np.float32)\n"
        "    people = [str(uuid.uuid4()) for _ in range(count // 5)]\n"
        "    index.add([Template(str(uuid.uuid4()), people[row // 5], each, 0.9, '', 0.0)\n"
        "               for row, each in enumerate(vectors)])\n"
        "index = TemplateIndex(512)\n"
        "for _ in range(8): add(index, 2000)\n"
        "before, count = resident(), len(index)\n"
        "for _ in range(17): add(index, 2000)\n"
        "print((resident() - before) / (len(index) - count))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2048 < float(run.stdout) < 2200


def test_an_embedding_that_is_not_a_number_is_nobodys() -> None:
    index = index_of(templates(10)[0])
    assert index.nearest(np.full(512, np.nan, np.float32)) == []


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Galleries count as large from 1,000 templates on."""
    monkeypatch.setattr(search, "EXACT", 1000)
    monkeypatch.setattr(search, "BLOCK", 512)
    signs._faiss.cache_clear()
    yield
    signs._faiss.cache_clear()


def exactly(index: TemplateIndex, embedding: NDArray[np.float32]) -> list[tuple[str, float]]:
    return [(each.person_id, each.similarity) for each in index._nearest_of_all(embedding, 2)]


def test_of_many_those_with_the_nearest_signs_are_compared(
    large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(signs, "NEAREST", 60)
    made, others = templates(1000, similarity=0.5)
    index = index_of(made)
    monkeypatch.setattr(index, "_nearest_of_all", None)  # it is not called
    for number, embedding in enumerate(others):
        found = index.nearest(embedding)
        assert found[0].person_id == person_id(number) and len(found) == 2


def test_somebody_of_many_may_seem_less_similar_never_more(
    large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(signs, "NEAREST", 60)
    index = index_of(templates(1000)[0])
    strangers = templates(100, seed=1)[1]
    for embedding in strangers:
        expected = exactly(index, embedding)
        for each, (_, similarity) in zip(index.nearest(embedding), expected, strict=True):
            assert each.similarity <= similarity + 1e-6


def test_of_many_a_negative_example_excludes_and_the_rest_is_searched(
    large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(signs, "NEAREST", 5)
    made, others = templates(1000)
    index = index_of(made)
    negative = Template(str(uuid.uuid4()), person_id(3), others[3], 0.9, "", 0.0, is_negative=True)
    index.add([negative])
    assert [(each.person_id, each.similarity) for each in index.nearest(others[3])] == exactly(
        index, others[3]
    )
    assert person_id(3) not in {each.person_id for each in index.nearest(others[3])}


def test_without_the_library_all_are_compared_and_that_is_told_once(
    large: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    made, others = templates(300)
    with caplog.at_level(logging.WARNING):
        index = index_of(made)
        for embedding in others[:5]:
            found = index.nearest(embedding)
            assert [(each.person_id, each.similarity) for each in found] == exactly(
                index, embedding
            )
    (record,) = caplog.records
    assert "pip install faiss-cpu" in record.getMessage()
