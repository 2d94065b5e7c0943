# SPDX-License-Identifier: Apache-2.0
"""The comparison with other libraries and a plain node runs, and its ratios are correct."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from peers import cold_start, compressed, images, libraries, nodes, video
from peers.libraries import IN_PARTS, INSIGHTFACE, ON_OPENVINO, OURS, UNIFACE, own_pipeline
from peers.nodes import FAST, PLAIN, SLOW
from peers.observed_node import Feeder
from peers.pictures import FULL_HD, HD, UHD, VGA, six_people
from peers.ratios import RATIOS, Ratio, look_up
from peers.report import print_report, results
from peers.timing import NetworkClock, sample, summary

from scrfd_ros.cli import bench
from scrfd_ros.cli.main import main
from scrfd_ros.pipeline import FacePipeline

ROOT = Path(__file__).resolve().parents[1]
README, PERFORMANCE = ROOT / "README.md", ROOT / "docs" / "performance.md"

WANTED = {
    "detection, 1280x720, to insightface": "at most 0.62",
    "end to end, 1280x720, to insightface": "at most 0.42",
    "end to end, 1280x720, OpenVINO, to insightface": "at most 0.33",
    "outside network: detection, to insightface": "at most 0.4",
    "outside network: recognition, to insightface": "at most 0.2",
    "tracked clip, 1280x720, to insightface": "at most 0.33",
    "new process: first face, to insightface": "at most 1",
    "node: throughput, to plain node": "at least 1.3",
    "node: peak memory, to plain node": "at most 0.9",
    "detecting node: throughput, to plain node": "at least 1",
    "detecting node: age of results, to plain node": "at most 0.5",
}


@pytest.fixture(scope="module")
def pipeline() -> FacePipeline:
    return own_pipeline()


@pytest.fixture(scope="module")
def sides(pipeline: FacePipeline, openvino_folder: Path) -> dict[str, libraries.Library]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(openvino_folder)
        return libraries.libraries(pipeline)[0]


@pytest.fixture
def feeder() -> Iterator[Feeder]:
    feeder = Feeder(seconds=0.5)
    yield feeder
    feeder.close()


def invented() -> dict[str, Any]:
    """Medians with everything in them, in which we are twice as good as insightface."""

    def of_sides(value: Any, *peers: str) -> dict[str, Any]:
        return {OURS: value(1.0), **{peer: value(2.0) for peer in peers}}

    def spread(factor: float) -> dict[str, float]:
        return summary([10 * factor, 1000 * factor, 4000 * factor])

    def times(factor: float) -> dict[str, Any]:
        return {"total": spread(factor), "outside": spread(factor), "mean": 1000 * factor}

    def at_rate(factor: float) -> dict[str, Any]:
        keys = ("age", "pipeline", "overhead", "interval")
        return {key: spread(factor) for key in keys} | {"throughput": spread(1 / factor)}

    def node(factor: float) -> dict[str, Any]:
        rates = {f"{rate}_hz": at_rate(factor) for rate in (SLOW, FAST)}
        return {**rates, "peak_memory": 300 * factor}

    others = (INSIGHTFACE, UNIFACE)

    def of_backends(size: str) -> dict[str, Any]:
        ours = {ON_OPENVINO: times(1)} if size == HD else {}
        return of_sides(times, *others) | ours

    stages = {stage: spread(1) for stage in ("decode", "track", "message", "all")}
    by_task = {
        "detection": {size: of_backends(size) for size in (VGA, HD, FULL_HD, UHD)},
        "end_to_end": {size: of_backends(size) for size in (VGA, HD, FULL_HD)},
    }
    processes = ("first_face", "processor", "peak_memory")
    return {
        **by_task,
        "recognition": {HD: of_sides(times, *others)},
        "video": of_sides(times, INSIGHTFACE) | {IN_PARTS: times(1.0)},
        "compressed_video": of_sides(times, INSIGHTFACE),
        "compressed": {
            task: {size: of_sides(times, INSIGHTFACE) for size in (HD, FULL_HD)} for task in by_task
        },
        "cold_start": of_sides(
            lambda factor: {key: spread(factor) for key in processes}, "insightface"
        ),
        "node": of_sides(node, PLAIN),
        "node_detection_only": of_sides(node, PLAIN),
        "cameras": {
            str(count): of_sides(lambda factor: at_rate(factor) | {"peak_memory": 300}, PLAIN)
            for count in nodes.CAMERAS
        },
        "stages": {"image: read": spread(1)},
        "faces": {str(count): of_sides(times, INSIGHTFACE) for count in (0, 1, 6, 29)},
        "crowds": {str(count): stages for count in (125, 250, 500)},
    }


def test_ratios_are_quotients_of_medians() -> None:
    for row in RATIOS:
        ratio = row.of(invented())
        if row.to in (INSIGHTFACE, UNIFACE, PLAIN):
            assert ratio == (2 if "throughput" in row.what else 0.5), row
        else:
            assert ratio == 1, row


def test_names_of_ratios_are_unique() -> None:
    assert len({row.name for row in RATIOS}) == len(RATIOS)


def test_what_is_wanted_is_among_the_ratios() -> None:
    assert WANTED.items() <= {row.name: row.wanted for row in RATIOS}.items()


@pytest.mark.parametrize(
    ("limits", "met"),
    [
        ({"at_most": 0.5}, {0.4: True, 0.5: True, 0.6: False}),
        ({"at_least": 0.5}, {0.4: False, 0.5: True, 0.6: True}),
    ],
)
def test_limits_are_met_on_their_side(limits: dict[str, float], met: dict[float, bool]) -> None:
    row = Ratio("a", "b", "c", "d", **limits)
    assert {value: row.is_met(value) for value in met} == met


def test_the_report_fits_a_terminal_and_says_what_is_not_met(
    capsys: pytest.CaptureFixture[str],
) -> None:
    medians = invented()
    medians["detection"][HD][INSIGHTFACE]["total"]["median"] = 1500.0
    print_report(results(medians, 50, []))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    cells = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in lines}
    assert ("detection, 1280x720", "insightface", "0.67", "at most 0.62", "no") in cells
    assert ("detecting node: throughput", "plain node", "2.00", "at least 1", "yes") in cells
    assert {row.what for row in RATIOS} <= {row[0] for row in cells if row}


def test_what_is_not_measured_is_told_with_its_reason(
    pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(libraries, "uniface", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "scrfd_ros.inference.openvino", raising=False)
    sides, missing = libraries.libraries(pipeline)
    assert sides.keys() == {OURS, INSIGHTFACE}
    medians = invented()
    for task in ("detection", "recognition", "end_to_end"):
        for size in medians[task].values():
            for missed in (UNIFACE, ON_OPENVINO):
                size.pop(missed, None)
    print_report(results(medians, 50, missing))
    output = capsys.readouterr().out
    assert "| uniface     | -     |" in output
    assert "\n- uniface: not installed" in output
    assert "| detection, 1280x720, OpenVINO  | insightface | -     |" in output
    assert "- on OpenVINO: " in output
    assert "pip install openvino" in " ".join(output.split())


def table_after(start: str, document: Path) -> list[tuple[str, ...]]:
    """The rows of the first table after a text, without its head."""
    _, found, text = document.read_text("utf-8").partition(start)
    assert found, f"{document.name} lacks {start!r}"
    table = text[text.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in table[2:]]


def test_the_page_on_performance_has_the_rows_that_the_command_prints() -> None:
    rows = table_after("### Measured", PERFORMANCE)
    assert [(what, to, wanted) for what, to, _, wanted, _ in rows] == [
        (row.what, row.to, row.wanted) for row in RATIOS
    ]
    by_name = {(row.what, row.to): row for row in RATIOS}
    for what, to, ratio, wanted, met in rows:
        if ratio != "-" and wanted:
            assert (met == "yes") == by_name[what, to].is_met(float(ratio)), what


def test_the_readme_has_five_of_these_rows_with_command_and_date() -> None:
    measured = {
        (what, to): ratio for what, to, ratio, *_ in table_after("### Measured", PERFORMANCE)
    }
    rows = table_after("## How fast", README)
    assert len(rows) == 5
    assert all(measured[what, to] == ratio != "-" for what, to, ratio in rows)
    text = README.read_text("utf-8").partition("## How fast")[2].partition("|")[0]
    assert "./run.sh bench --peers" in text
    (date,) = re.findall(r"\d{4}-\d\d-\d\d", text)
    assert date in PERFORMANCE.read_text("utf-8").partition("### Measured")[2].partition("|")[0]


@pytest.mark.parametrize("option", ["--peers", "--gpu"])
def test_without_a_checkout_the_command_says_where_it_runs(
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "default_model_directory", lambda: tmp_path / "models")
    assert main(["bench", option]) == 2
    assert f"./run.sh bench {option}" in capsys.readouterr().err


def test_the_clock_counts_runs_of_openvino(sides: dict[str, libraries.Library]) -> None:
    clock = NetworkClock()
    with clock.counting():
        total, outside = sample(clock, lambda: sides[ON_OPENVINO].detect(six_people(HD)))
    assert len(clock.milliseconds) == 1
    assert 0 < outside < total


def test_the_clock_counts_each_run_of_a_network_and_nothing_else(pipeline: FacePipeline) -> None:
    own = onnxruntime.InferenceSession.run
    clock = NetworkClock()
    black = np.zeros((64, 64, 3), np.uint8)
    with clock.counting():
        total, outside = sample(clock, lambda: pipeline.detector.detect(black))
    assert len(clock.milliseconds) == 1
    assert 0 < outside < total
    assert total - outside == pytest.approx(clock.milliseconds[0])
    assert onnxruntime.InferenceSession.run is own
    pipeline(black)
    assert len(clock.milliseconds) == 1


@pytest.mark.parametrize("size", images.SIZES)
def test_the_people_keep_their_shape_at_every_size(size: str, pipeline: FacePipeline) -> None:
    image = six_people(size)
    assert f"{image.shape[1]}x{image.shape[0]}" == size
    found, whole = pipeline.detector.detect(image), pipeline.detector.detect(six_people("1280x886"))
    assert len(found) == len(whole) == 6
    np.testing.assert_allclose(
        np.sort(found.sizes.prod(axis=1)) * (1280 / image.shape[1]) ** 2,
        np.sort(whole.sizes.prod(axis=1)),
        rtol=0.1,
    )


@pytest.mark.filterwarnings("ignore:`estimate`:FutureWarning")
@pytest.mark.parametrize("recognize", [True, False])
def test_both_sides_find_the_people_in_a_jpeg(
    recognize: bool, pipeline: FacePipeline, sides: dict[str, libraries.Library]
) -> None:
    message = compressed.jpeg_message(six_people(FULL_HD))
    own = pipeline if recognize else own_pipeline(recognize=False)
    assert len(compressed.our_faces(own, message)) == 6
    peer = sides[INSIGHTFACE]
    if recognize:
        assert len(compressed.their_faces(peer.analyze, message)) == 6
    else:
        boxes, _ = compressed.their_faces(peer.detect, message)
        assert len(boxes) == 6


@pytest.mark.filterwarnings("ignore:`estimate`:FutureWarning")
def test_a_short_run_gives_the_wanted_ratios(
    feeder: Feeder, pipeline: FacePipeline, sides: dict[str, libraries.Library]
) -> None:
    clock = NetworkClock()
    with clock.counting():
        medians = images.measure(clock, sides, repeat=1, sizes=(HD,))
        medians |= video.measure(clock, pipeline, sides[INSIGHTFACE], seconds=0.1)
    medians |= cold_start.measure(turns=1)
    medians["node"] = nodes.compare(feeder, True, 0.3, 1, cameras=("left", "right"))
    found = json.loads(json.dumps(results(medians, repeat=1, missing=[])))
    assert found.keys() == {"ratios", "machine", "date", "repeat", "medians", "not_measured"}
    assert found["ratios"].keys() >= {name for name in WANTED if "detecting" not in name}
    assert all(0 < value < np.inf for value in found["ratios"].values())
    assert {"insightface", "processor", "load_average"} <= found["machine"].keys()
    for side in (OURS, PLAIN):
        times = look_up(found["medians"], f"node/{side}/{nodes.SLOW}_hz")
        assert 0 < times["pipeline"]["median"] < times["age"]["median"]
