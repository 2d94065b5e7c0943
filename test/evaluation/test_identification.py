# SPDX-License-Identifier: Apache-2.0
"""Identification figures equal hand-made cases and plain definitions; searches are those of the
gallery; folders are read as documented, and errors explain what cannot be judged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import ScrfdError
from scrfd_ros.evaluation.identification import (
    Searches,
    Split,
    agreed,
    by_gallery_size,
    evaluate,
    joined,
    open_set_point,
    plot_dir,
    read_people,
    search,
    searched,
    split_people,
    suggested_point,
    suspects,
    threshold_at,
)
from scrfd_ros.gallery.people import Template
from scrfd_ros.gallery.search import TemplateIndex
from scrfd_ros.images.files import read_image, write_image


def made_up_people(
    seed: int, people: int, images: int, spread: float = 0.05
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings around one direction for each person."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(people), images)
    centers = rng.normal(size=(people, 64))
    vectors = centers[owners] / 8 + spread * rng.normal(size=(len(owners), 64))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32), owners


def searches_of(rows: str) -> Searches:
    """Searches from words: PERSON, NAMED or - for a stranger's, the score, the margin."""
    cells = [row.split() for row in rows.strip().splitlines()]
    enrolled = {named for _, named, *_ in cells}
    people = {name: number for number, name in enumerate(sorted({c[0] for c in cells} | enrolled))}
    return Searches(
        np.array([people[cell[0]] for cell in cells]),
        np.zeros(len(cells), np.int64),
        np.array([cell[0] in enrolled for cell in cells]),
        np.array([people[cell[1]] for cell in cells]),
        np.array([float(cell[2]) for cell in cells]),
        np.array([float(cell[3]) for cell in cells]),
    )


CASE = """
ann ann 0.9 0.5
ann ann 0.5 0.3
ann bob 0.6 0.02
bob bob 0.45 0.05
cy  ann 0.55 0.3
cy  bob 0.2 0.1
dee bob 0.48 0.01
eve ann 0.1 0.0
"""


@pytest.mark.parametrize(
    ("threshold", "margin", "rate", "false", "misnamed"),
    [
        pytest.param(0.4, 0.0, 3 / 4, 2 / 4, 1 / 4, id="threshold alone"),
        pytest.param(0.4, 0.05, 3 / 4, 1 / 4, 0, id="the margin refuses a wrong name"),
        pytest.param(0.5, 0.0, 2 / 4, 1 / 4, 1 / 4, id="the threshold is included"),
        pytest.param(0.99, 0.0, 0, 0, 0, id="nobody"),
    ],
)
def test_rates_of_a_case_by_hand(
    threshold: float, margin: float, rate: float, false: float, misnamed: float
) -> None:
    point = open_set_point(searches_of(CASE), threshold, margin)
    assert (point.dir, point.fpir, point.misnamed) == (rate, false, misnamed)
    for value, (low, high) in ((rate, point.dir_interval), (false, point.fpir_interval)):
        assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fpir", [0.5, 0.1, 0.01, 0.0])
def test_threshold_is_the_lowest_that_keeps_the_rate(seed: int, fpir: float) -> None:
    scores = np.round(np.random.default_rng(seed).normal(0.2, 0.1, 200), 2)  # with ties
    threshold = threshold_at(scores, fpir)
    assert (scores >= threshold).mean() <= fpir
    assert (scores >= np.nextafter(threshold, -1)).mean() > fpir


@pytest.mark.parametrize("seed", range(3))
def test_searches_are_those_of_the_gallery(seed: int) -> None:
    embeddings, people = made_up_people(seed, 12, 5, spread=0.2)
    split = split_people(people, np.ones(len(people), np.bool_), 0.6, 3, seed)
    index = TemplateIndex(64)
    index.add(
        [
            Template(str(UUID(int=row)), str(UUID(int=people[row])), embeddings[row], 1.0, "", 0.0)
            for row in split.templates.tolist()
        ]
    )
    found = search(embeddings, people, split)
    enrolled = set(people[split.templates].tolist())
    for row, image in enumerate(split.searches.tolist()):
        first, second = index.nearest(embeddings[image], 2)
        assert str(UUID(int=found.named[row])) == first.person_id
        assert found.scores[row] == pytest.approx(first.similarity, abs=1e-6)
        assert found.margins[row] == pytest.approx(first.similarity - second.similarity, abs=1e-6)
        assert found.mated[row] == (people[image] in enrolled)


@pytest.mark.parametrize("seed", range(5))
def test_splits_enroll_some_and_search_all_other_faces(seed: int) -> None:
    people = np.repeat(np.arange(10), [1, 1, 2, 2, 3, 3, 4, 5, 6, 6])
    found = np.ones(len(people), np.bool_)
    found[[0, 2]] = False  # the image of person 0, and one of the two of person 2
    split = split_people(people, found, 0.5, 3, seed)
    enrolled, counts = np.unique(people[split.templates], return_counts=True)
    assert len(enrolled) == 4  # of the 7 who have two images with a face, half, rounded
    assert set(enrolled.tolist()) <= set(range(3, 10))
    assert counts.max() <= 3
    assert found[split.templates].all()
    assert not set(split.templates.tolist()) & set(split.searches.tolist())
    assert set(enrolled.tolist()) <= set(people[split.searches].tolist())
    assert 0 not in split.searches  # a stranger's image without a face
    assert len(split.templates) + len(split.searches) == found.sum()
    again = split_people(people, found, 0.5, 3, seed)
    assert (again.templates == split.templates).all()


def test_an_image_without_a_face_of_somebody_enrolled_misses() -> None:
    embeddings, people = made_up_people(0, 3, 3)
    embeddings[2] = 0
    split = Split(np.array([0, 3]), np.array([1, 2, 4, 6]))
    found = search(embeddings, people, split)
    assert found.scores[1] == -1
    assert found.mated.tolist() == [True, True, True, False]
    assert open_set_point(found, -0.9, -9).dir == pytest.approx(2 / 3)


def test_one_person_enrolled_has_no_second() -> None:
    embeddings, people = made_up_people(0, 2, 2)
    found = search(embeddings, people, Split(np.array([0]), np.array([1, 2, 3])))
    assert np.isinf(found.margins).all()


def test_several_looks_have_to_agree() -> None:
    rows = """
    ann ann 0.9 0.5
    ann ann 0.5 0.6
    ann bob 0.6 0.2
    ann ann 0.7 0.3
    ann ann 0.8 0.4
    bob bob 0.5 0.1
    cy  ann 0.3 0.2
    cy  ann 0.4 0.1
    """
    of = agreed(searches_of(rows), 2)
    assert of.people.tolist() == [0, 0, 2]  # what is left over is dropped
    assert of.scores.tolist() == [0.5, -1, 0.3]
    assert of.margins.tolist() == [0.5, 0.2, 0.1]
    assert of.mated.tolist() == [True, True, False]
    assert of.named.tolist()[::2] == [0, 0]


def test_looks_of_different_splits_or_people_are_not_one_search() -> None:
    embeddings, people = made_up_people(1, 6, 4)
    splits = [split_people(people, np.ones(24, np.bool_), 0.5, 1, seed) for seed in range(3)]
    searches = searched(embeddings, people, splits)
    one = agreed(searches, 1)
    assert sorted(one.scores.tolist()) == sorted(searches.scores.tolist())
    assert len(agreed(searches, 3).scores) == 3 * 6  # 3 splits of 3 enrolled with 3 left, 3 with 4
    assert len(agreed(searches, 5).scores) == 0


def test_more_images_of_the_same_people_make_no_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    people = np.arange(200)
    scores = rng.random(200)
    mated = people % 2 == 0
    once = Searches(people, np.zeros(200, np.int64), mated, people, scores, np.ones(200))
    often = joined([once] * 20)
    narrow = open_set_point(once, 0.5, 0).dir_interval
    repeated = open_set_point(often, 0.5, 0).dir_interval
    assert repeated == pytest.approx(narrow)
    assert repeated.high - repeated.low == pytest.approx(2 * 1.96 * 0.05, abs=0.03)


def test_the_interval_of_dir_includes_that_of_the_threshold() -> None:
    embeddings, people = made_up_people(2, 150, 3, spread=0.16)
    found = np.ones(len(people), np.bool_)
    searches = searched(embeddings, people, [split_people(people, found, 0.5, 1, 0)])
    threshold = threshold_at(searches.scores[~searches.mated], 0.1)
    fixed = open_set_point(searches, threshold, 0)
    chosen = open_set_point(searches, threshold, 0, 0.1)
    assert 0 < chosen.dir_interval.low <= chosen.dir <= chosen.dir_interval.high
    widths = [each.dir_interval.high - each.dir_interval.low for each in (fixed, chosen)]
    assert widths[1] > widths[0]


def test_rates_need_enough_searches_of_strangers() -> None:
    embeddings, people = made_up_people(3, 60, 3)
    found = np.ones(len(people), np.bool_)
    searches = searched(
        embeddings, people, [split_people(people, found, 0.5, 1, seed) for seed in range(5)]
    )
    # 30 strangers with 3 images: 90 in each split, though 450 together.
    result = evaluate(searches, 1, GalleryConfig())
    assert result is not None
    assert [point.wanted_fpir for point in result.points] == [0.1]
    assert (result.mated_searches, result.non_mated_searches) == (60, 90)
    assert result.suggested is not None
    assert result.suggested.fpir <= 0.1
    assert evaluate(searches, 4, GalleryConfig()) is None


def test_a_margin_is_suggested_only_where_it_helps() -> None:
    alone = """
    ann ann 0.9 0.5
    bob bob 0.8 0.5
    cy  ann 0.3 0.2
    """
    point = suggested_point(searches_of(alone), 0.0)
    assert (point.threshold, point.margin, point.dir) == (0.31, 0.0, 1)
    # A stranger scores between enrolled people, but is not ahead of the second.
    helped = alone + "dee bob 0.85 0.01\n"
    point = suggested_point(searches_of(helped), 0.0)
    assert (point.threshold, point.margin, point.dir) == (0.31, 0.05, 1)


def test_more_people_name_more_strangers() -> None:
    embeddings, people = made_up_people(4, 400, 3, spread=0.2)
    found = np.ones(len(people), np.bool_)
    splits = [split_people(people, found, 0.5, 1, seed) for seed in range(2)]
    sizes = by_gallery_size(embeddings, people, splits, 0.1, GalleryConfig(margin=0.0))
    assert [size.people for size in sizes] == [1, 10, 100, 200]
    for rising in ([each.fpir for each in sizes], [each.threshold for each in sizes]):
        assert rising == sorted(rising)
    assert sizes[-1].fpir > 2 * sizes[1].fpir
    whole = searched(embeddings, people, splits)
    assert sizes[-1].threshold == threshold_at(whole.scores[~whole.mated], 0.1)


def test_the_most_similar_faces_of_different_people_are_found() -> None:
    embeddings, people = made_up_people(5, 30, 3)
    embeddings[50] = embeddings[7]
    paths = [Path(f"{row}.png") for row in range(90)]
    first, *others = suspects(embeddings, people, paths)
    assert {first.first, first.second} == {paths[50], paths[7]}
    assert first.similarity == pytest.approx(1, abs=1e-6)
    assert len(others) == 4
    assert [each.similarity for each in others] == sorted(
        (each.similarity for each in others), reverse=True
    )
    assert suspects(embeddings[:3], people[:3], paths[:3]) == []


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    write_image(path, np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8))


def test_folders_of_people(tmp_path: Path) -> None:
    for name, seed in (("ann/1", 1), ("ann/2", 2), ("ann/copy", 1), ("bob/1", 3), ("bob/x", 4)):
        picture(tmp_path / f"{name}.png", seed)
    picture(tmp_path / "cy" / "stolen.png", 4)
    picture(tmp_path / "cy" / "own.png", 5)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("licenses")
    images = read_people(tmp_path)
    assert images.names == ("ann", "bob", "cy")
    assert [path.name for path in images.paths] == ["1.png", "2.png", "1.png", "own.png"]
    assert images.people.tolist() == [0, 0, 1, 2]
    assert images.repeated == (tmp_path / "ann" / "copy.png",)
    assert images.under_two_names == (tmp_path / "bob" / "x.png", tmp_path / "cy" / "stolen.png")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match="nowhere: cannot read: No such file"):
        read_people(tmp_path / "nowhere")
    picture(tmp_path / "all" / "1.png", 0)
    with pytest.raises(ScrfdError, match="no sub-folders; expected one sub-folder for each person"):
        read_people(tmp_path / "all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScrfdError, match="empty"):
        read_people(tmp_path)


@pytest.mark.parametrize(
    ("images", "enrolled", "message"),
    [
        pytest.param([1, 1, 1], 0.5, "nobody has two images with a face", id="one image each"),
        pytest.param([], 0.5, "nobody has two images", id="no faces"),
        pytest.param([2, 3], 1.0, "all 2 people would be enrolled", id="no strangers"),
        pytest.param([9], 0.1, "all 1 people would be enrolled", id="one person"),
    ],
)
def test_what_cannot_be_split(images: list[int], enrolled: float, message: str) -> None:
    people = np.repeat(np.arange(len(images)), images)
    with pytest.raises(ScrfdError, match=message):
        split_people(people, np.ones(len(people), np.bool_), enrolled, 3, 0)


def test_the_plot_has_a_line_for_each_number_of_looks(tmp_path: Path) -> None:
    embeddings, people = made_up_people(6, 30, 4, spread=0.2)
    found = np.ones(len(people), np.bool_)
    searches = searched(embeddings, people, [split_people(people, found, 0.5, 1, 0)])
    plot_dir(tmp_path / "one.png", "dir", searches, [1])
    plot_dir(tmp_path / "two.png", "dir", searches, [1, 2])
    assert (read_image(tmp_path / "one.png") != read_image(tmp_path / "two.png")).any()


@pytest.mark.filterwarnings("error:Attempt")
def test_the_plot_takes_one_stranger_in_each_split(tmp_path: Path) -> None:
    first = searches_of("ann ann 0.9 0.5\nzoe ann 0.1 0.05")
    second = replace(first, splits=first.splits + 1)
    plot_dir(tmp_path / "dir.png", "dir", joined([first, second]), [1])
