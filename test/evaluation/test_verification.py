# SPDX-License-Identifier: Apache-2.0
"""Verification figures equal hand-made cases and plain definitions; lists of pairs are read as
documented, and errors explain what cannot be judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pipelines import loaded

from scrfd_ros.errors import ImageError, ModelError, ScrfdError
from scrfd_ros.evaluation.verification import (
    NO_FACE,
    Pairs,
    area_under,
    best_threshold,
    embed_images,
    equal_error_rate,
    evaluate,
    find_images,
    fold_accuracy,
    main_face,
    plot_histogram,
    plot_roc,
    read_pairs,
    roc,
    score_pairs,
    threshold_at,
    wilson_interval,
)
from scrfd_ros.faces import Faces
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.recognition.alignment import align_faces


def pairs_of(same: str, different: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of both kinds, from words."""
    parts = [[float(word) for word in words.split()] for words in (same, different)]
    kinds = [np.full(len(part), kind) for part, kind in zip(parts, (True, False), strict=True)]
    return np.concatenate(parts), np.concatenate(kinds)


def in_folds(same: NDArray[np.bool_], folds: int = 10) -> NDArray[np.int64]:
    numbers = np.empty(len(same), np.int64)
    for kind in (False, True):
        numbers[same == kind] = np.arange((same == kind).sum()) % folds
    return numbers


def random_pairs(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Two kinds that overlap, with many ties."""
    rng = np.random.default_rng(seed)
    same = rng.random(400) < 0.3
    return np.round(rng.normal(np.where(same, 0.5, 0.1), 0.2), 2), same


def test_roc_of_a_case_by_hand() -> None:
    curve = roc(*pairs_of("0.9 0.8 0.4", "0.8 0.3"))
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.4, 0.3]
    assert curve.tar.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert curve.far.tolist() == [0, 0, 0.5, 0.5, 1]
    # 6 comparisons: 0.9 > both, 0.8 ties one and beats one, 0.4 beats one.
    assert area_under(curve) == pytest.approx((2 + 1.5 + 1) / 6)
    # From (FAR 0, missed 2/3) to (0.5, 1/3): FAR = missed at 0.4 of the FAR axis.
    assert equal_error_rate(curve) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("same", "different", "area", "error"),
    [
        pytest.param("0.9 0.8", "0.1 0.2", 1, 0, id="apart"),
        pytest.param("0.1 0.2", "0.9 0.8", 0, 1, id="the wrong way round"),
        pytest.param("0.5 0.5", "0.5 0.5 0.5", 0.5, 0.5, id="all equal"),
        pytest.param("0.7", "0.2", 1, 0, id="one pair of each kind"),
    ],
)
def test_extremes(same: str, different: str, area: float, error: float) -> None:
    curve = roc(*pairs_of(same, different))
    assert area_under(curve) == pytest.approx(area)
    assert equal_error_rate(curve) == pytest.approx(error)


@pytest.mark.parametrize("seed", range(5))
def test_roc_equals_the_definition(seed: int) -> None:
    scores, same = random_pairs(seed)
    curve = roc(scores, same)
    for threshold, far, tar in zip(*curve, strict=True):
        accepted = [score >= threshold for score in scores]
        false = [yes for yes, one in zip(accepted, same, strict=True) if not one]
        true = [yes for yes, one in zip(accepted, same, strict=True) if one]
        assert (far, tar) == pytest.approx((sum(false) / len(false), sum(true) / len(true)))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[same] for b in scores[~same]]
    assert area_under(curve) == pytest.approx(sum(wins) / len(wins))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("far", [0.3, 0.1, 0.01, 0.001])
def test_threshold_at_a_rate_is_the_lowest_that_keeps_it(seed: int, far: float) -> None:
    scores, same = random_pairs(seed)
    allowed = [s for s in {*scores.tolist(), math.inf} if (scores[~same] >= s).mean() <= far]
    assert threshold_at(roc(scores, same), far) == min(allowed)


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_judges_as_many_rightly_as_any(seed: int) -> None:
    scores, same = random_pairs(seed)
    found = best_threshold(roc(scores, same), same)

    def right(threshold: float) -> int:
        return sum((score >= threshold) == one for score, one in zip(scores, same, strict=True))

    assert right(found) == max(right(t) for t in np.arange(-1, 2, 0.005))


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_lies_between_the_errors_around_it(seed: int) -> None:
    scores, same = random_pairs(seed)
    rates = [
        ((scores[~same] >= t).mean(), (scores[same] < t).mean())
        for t in (math.inf, *sorted(set(scores.tolist()), reverse=True))
    ]
    after = next(row for row, (far, missed) in enumerate(rates) if far >= missed)
    low, high = rates[after - 1][0], rates[after][0]
    assert low <= equal_error_rate(roc(scores, same)) <= high


def test_thresholds_of_a_fold_come_from_the_others() -> None:
    # In the first fold all scores are higher by 0.5, for which the others have no good threshold.
    scores, same = pairs_of("0.9 " + "0.4 " * 9, "0.6 " + "0.1 " * 9)
    accuracy = fold_accuracy(scores, same, in_folds(same))
    assert accuracy.thresholds[0] == pytest.approx(0.25)
    assert accuracy.mean == pytest.approx((0.5 + 9) / 10)
    deviation = np.std([0.5] + [1] * 9, ddof=1)
    assert accuracy.standard_error == pytest.approx(deviation / math.sqrt(10))


@pytest.mark.parametrize("seed", range(3))
def test_fold_accuracy_equals_the_plain_way(seed: int) -> None:
    scores, same = random_pairs(seed)
    folds = in_folds(same, 5)
    expected = []
    for fold in range(5):
        others = [(s, one) for s, one, f in zip(scores, same, folds, strict=True) if f != fold]
        own = [(s, one) for s, one, f in zip(scores, same, folds, strict=True) if f == fold]
        between = [-1, *(t + 0.005 for t in sorted(set(scores.tolist())))]
        counts = [sum((s >= t) == one for s, one in others) for t in between]
        # Several thresholds have the same counts there, but not here.
        best = [t for t, count in zip(between, counts, strict=True) if count == max(counts)]
        expected.append({sum((s >= t) == one for s, one in own) / len(own) for t in best})
    mean = fold_accuracy(scores, same, folds).mean
    assert sum(map(min, expected)) / 5 - 1e-9 <= mean <= sum(map(max, expected)) / 5 + 1e-9


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Wilson's interval in Newcombe, Statistics in Medicine 17, 1998, table I.
        pytest.param(81, 263, 0.2553, 0.3662, id="81 of 263"),
        pytest.param(15, 148, 0.0624, 0.1605, id="15 of 148"),
        pytest.param(0, 20, 0.0, 0.1611, id="none of 20"),
        pytest.param(1, 29, 0.0061, 0.1718, id="1 of 29"),
        pytest.param(29, 29, 0.8830, 1.0, id="29 of 29"),
    ],
)
def test_confidence_equals_published_figures(
    count: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(count, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("same", "different", "message"),
    [
        pytest.param("0.5 0.6", "", "no pair of different people among 2", id="one kind"),
        pytest.param("", "0.5", "no pair of one person among 1", id="the other kind"),
        pytest.param("0.5 nan", "0.1", "1 of 3 scores are not finite", id="NaN"),
        pytest.param("0.5", "-inf inf", "2 of 3 scores are not finite", id="infinite"),
    ],
)
def test_what_cannot_be_judged(same: str, different: str, message: str) -> None:
    scores, kinds = pairs_of(same, different)
    with pytest.raises(ScrfdError, match=message):
        evaluate(scores, kinds.astype(np.bool_), np.zeros(len(scores), np.int64))


def many_pairs(different: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.concatenate((np.linspace(0.3, 0.9, 61), np.linspace(-0.2, 0.4, different)))
    return scores, np.arange(len(scores)) < 61


@pytest.mark.parametrize(
    ("different", "rates"),
    [
        pytest.param(99, [], id="99 are too few for any"),
        pytest.param(100, [1e-2], id="100 will do for 1 %"),
        pytest.param(1000, [1e-2, 1e-3], id="1000"),
        pytest.param(10000, [1e-2, 1e-3, 1e-4], id="10000"),
    ],
)
def test_rates_need_enough_pairs(different: int, rates: list[float]) -> None:
    scores, same = many_pairs(different)
    result = evaluate(scores, same, in_folds(same))
    assert [point.wanted_far for point in result.points] == rates
    for point in result.points:
        # The scores of different people are evenly spread, so their number above it is exact.
        assert point.false_accepts == different * point.wanted_far
        assert point.far == point.wanted_far
        assert point.tar == (scores[same] >= point.threshold).mean()
    assert (result.recommended is None) == (not rates)


def test_recommended_threshold_is_that_of_the_lowest_rate_rounded_up() -> None:
    scores, same = many_pairs(1000)
    result = evaluate(scores, same, in_folds(same))
    assert result.recommended is not None
    assert result.points[-1].threshold == pytest.approx(0.4)
    assert result.recommended.threshold in (0.4, 0.41)
    assert result.recommended.wanted_far == 1e-3
    assert result.recommended.far <= 1e-3
    assert result.recommended.far_interval.low <= result.recommended.far
    assert result.recommended.far_interval.high > 1e-3
    shifted = evaluate(scores - 0.0334, same, in_folds(same)).recommended
    assert shifted is not None
    assert shifted.threshold == 0.37  # 0.3666 rounded up
    assert shifted.false_accepts == 0


def test_no_threshold_where_all_scores_are_equal() -> None:
    same = np.arange(200) < 20
    result = evaluate(np.full(200, 0.5), same, in_folds(same))
    assert result.recommended is None
    assert [point.tar for point in result.points] == [0]
    assert result.accuracy is not None
    assert result.accuracy.mean == pytest.approx(0.9)  # all refused
    content = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert content["points"][0]["threshold"] is None
    assert content["accuracy"]["thresholds"] == [None] * 10


def test_few_pairs_give_no_accuracy() -> None:
    scores, same = pairs_of("0.9 " * 9, "0.1 " * 50)
    assert evaluate(scores, same, in_folds(same)).accuracy is None


LFW = """2\t2
Ann\t1\t2
Bob_B\t3\t10
Ann\t1\tBob_B\t1
Cy\t2\tAnn\t4
Cy\t1\t2
Dee\t1\t2
Cy\t1\tDee\t1
Dee\t2\tAnn\t1
"""


def test_reads_the_list_of_lfw(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(LFW, encoding="utf-8")
    pairs = read_pairs(tmp_path / "pairs.txt")
    names = [tuple(pairs.images[row] for row in pair) for pair in pairs.rows]
    assert names[1] == ("Bob_B/Bob_B_0003.jpg", "Bob_B/Bob_B_0010.jpg")
    assert names[3] == ("Cy/Cy_0002.jpg", "Ann/Ann_0004.jpg")
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.folds.tolist() == [0] * 4 + [1] * 4
    assert len(set(pairs.images)) == len(pairs.images) == 10


def test_reads_csv(tmp_path: Path) -> None:
    path = tmp_path / "pairs.CSV"
    path.write_text('picture_a, picture_b, same\n"a, b.jpg",c.jpg,1\n\nc.jpg, d/e.jpg ,0\n')
    pairs = read_pairs(path)
    assert pairs.images == ("a, b.jpg", "c.jpg", "d/e.jpg")
    assert pairs.rows.tolist() == [[0, 1], [1, 2]]
    assert pairs.same.tolist() == [True, False]


def test_csv_folds_hold_equally_many_of_each_kind(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("".join(f"a,b{row},{int(row < 30)}\n" for row in range(130)))
    pairs = read_pairs(path)
    for fold in range(10):
        assert pairs.same[pairs.folds == fold].tolist() == [True] * 3 + [False] * 10


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.csv", "a,b,1\na,b\n", r"line 2: expected picture_a, picture_b, same \(0 or 1\)"),
        ("pairs.csv", "a,b,yes\n", "line 1: .*found 'a,b,yes'"),
        ("pairs.csv", "a,,1\n", "line 1: expected"),
        ("pairs.csv", "picture_a,picture_b,same\n", "no pairs in it"),
        ("pairs.csv", "", "no pairs in it"),
        ("pairs.txt", "", "line 1: expected the number of folds"),
        ("pairs.txt", "a,b,1\n", "a CSV file has to end in .csv"),
        ("pairs.txt", "10 300\nAnn 1 2\n", "10 folds of 2 x 300 pairs, but 1 lines follow"),
        ("pairs.txt", LFW.replace("Cy\t1\t2", "Cy\t1\t2\t3"), "line 6: expected NAME number"),
        ("pairs.txt", LFW.replace("Cy\t2\tAnn\t4", "Cy\t2\tAnn"), "line 5: expected NAME number N"),
        ("pairs.txt", LFW.replace("Cy\t1\t2", f"Cy\t1\t{'9' * 5000}"), "line 6: expected NAME"),
        ("pairs.csv", f'"{"a" * 200_000}', "line 1: field larger than"),
        (
            "pairs.txt",
            LFW.replace("Ann\t1\t2", "Ann\tone\t2"),
            "line 2: expected NAME number number",
        ),
    ],
)
def test_malformed_lists(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ScrfdError, match=message):
        read_pairs(tmp_path / name)


def test_unreadable_lists(tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match="cannot read: No such file"):
        read_pairs(tmp_path / "pairs.txt")
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScrfdError, match="not a text file"):
        read_pairs(tmp_path / "pairs.txt")


def test_missing_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(LFW)
    with pytest.raises(ScrfdError, match=r"lacks 10 of the 10 images.*: Ann/Ann_0001.jpg, .*\.$"):
        find_images(tmp_path, read_pairs(tmp_path / "pairs.txt"))


def test_the_image_is_about_the_large_face_in_the_middle() -> None:
    boxes = np.array([[0, 0, 60, 60], [75, 75, 125, 125], [140, 140, 170, 170]], np.float32)
    faces = Faces(boxes, np.array([0.9, 0.8, 0.7], np.float32))
    assert main_face(faces, 200, 200) == 1  # 3600 - 2 * 9800, 2500, 900 - 2 * 6050
    assert main_face(faces, 60, 60) == 0


def test_pairs_without_a_face_have_the_lowest_score() -> None:
    pairs = Pairs(
        ("a", "b", "c"),
        np.array([[0, 1], [1, 2], [2, 2]]),
        np.array([True, False, True]),
        np.zeros(3, np.int64),
    )
    embeddings = np.array([[0.6, 0.8], [1, 0], [0, 0]], np.float32)
    scores = score_pairs(pairs, embeddings, np.array([True, True, False]))
    assert scores.tolist() == pytest.approx([0.6, NO_FACE, NO_FACE])


def test_real_images_are_embedded_once_whole_or_aligned(
    tmp_path: Path, detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    pipeline = loaded(detector_path("2.5g"), recognizer_path("w600k_mbf"))
    blank = tmp_path / "blank.png"
    write_image(blank, np.zeros((200, 300, 3), np.uint8))
    paths = [ensure_picture(name) for name in ("obama.jpg", "obama2.jpg", "biden.jpg")]
    embeddings, found = embed_images(pipeline, [*paths, blank], False)
    assert found.tolist() == [True, True, True, False]
    assert embeddings[0] @ embeddings[1] > 0.6
    assert abs(embeddings[0] @ embeddings[2]) < 0.2
    assert not embeddings[3].any()

    crops = []
    for path in paths:
        image = read_image(path)
        landmarks = pipeline(image).faces.landmarks
        assert landmarks is not None
        crops.append(tmp_path / f"{path.stem}.png")
        write_image(crops[-1], align_faces(image, landmarks[:1])[0])
    aligned, found = embed_images(pipeline, crops, True)
    assert found.all()
    np.testing.assert_allclose(aligned, embeddings[:3], atol=1e-5)
    with pytest.raises(ImageError, match="300x200 pixels; aligned faces have 112x112"):
        embed_images(pipeline, [blank], True)


def test_a_pipeline_without_recognizer_is_refused(detector_path: Callable[[str], Path]) -> None:
    pipeline = loaded(detector_path("2.5g"))
    with pytest.raises(ModelError, match="needs a recognizer"):
        embed_images(pipeline, [], False)


def test_plots_are_drawn_with_the_threshold(tmp_path: Path) -> None:
    scores, same = many_pairs(1000)
    plot_roc(tmp_path / "roc.png", "roc", scores, same)
    plot_histogram(tmp_path / "with.png", "scores", scores, same, 0.4)
    plot_histogram(tmp_path / "without.png", "scores", scores, same, None)
    with_line, without = read_image(tmp_path / "with.png"), read_image(tmp_path / "without.png")
    assert read_image(tmp_path / "roc.png").shape == with_line.shape == without.shape
    assert (with_line != without).any()


@pytest.mark.parametrize("judge", [roc, lambda *pairs: evaluate(*pairs, in_folds(pairs[1]))])
def test_other_arrays_are_refused(judge: Callable[..., object]) -> None:
    scores, same = random_pairs(0)
    with pytest.raises(ValueError, match=r"same must be bool \[.*\], got int64 .*astype\('bool'\)"):
        judge(scores, same.astype(int))  # ~1 is -2, another row
    with pytest.raises(ValueError, match="same must be bool"):
        judge(scores[1:], same)
    with pytest.raises(ValueError, match=r"scores must be real numbers \[any\], got float64"):
        judge(scores[:, None], same)


def test_other_embeddings_and_folds_are_refused() -> None:
    pairs = Pairs(("a", "b"), np.array([[0, 1]]), np.array([True]), np.array([0]))
    embeddings, found = np.eye(2, dtype=np.float32), np.ones(2, np.bool_)
    assert score_pairs(pairs, embeddings, found).tolist() == [0]
    with pytest.raises(ValueError, match=r"embeddings must be real numbers \[2, any\], got"):
        score_pairs(pairs, embeddings[0], found)
    with pytest.raises(ValueError, match=r"found must be bool \[2\], got"):
        score_pairs(pairs, embeddings, found[:1])
    with pytest.raises(ValueError, match="folds must be real numbers"):
        fold_accuracy(*random_pairs(0), None)  # type: ignore[arg-type]
