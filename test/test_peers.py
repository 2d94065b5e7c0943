# SPDX-License-Identifier: Apache-2.0
"""The comparison with other libraries and a plain node runs, and its ratios are correct."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from peers import library, nodes
from peers.libraries import own_pipeline
from peers.observed_node import Feeder
from peers.report import RATIOS, TARGETS, look_up, ratios, results
from peers.timing import NetworkClock, sample, summary

from scrfd_ros.cli import bench
from scrfd_ros.cli.main import main

WANTED = {
    "detection_outside_network_vs_insightface",
    "recognition_outside_network_vs_insightface",
    "end_to_end_vs_insightface",
    "tracked_clip_time_vs_insightface",
    "plain_node_time_vs_node",
}


@pytest.fixture
def feeder() -> Iterator[Feeder]:
    feeder = Feeder(seconds=0.5)
    yield feeder
    feeder.close()


def test_ratios_are_quotients_of_medians_and_those_not_measured_are_left_out() -> None:
    medians = {
        "end_to_end": {
            "scrfd_ros": {"total": summary([1, 2, 9])},
            "insightface": {"total": summary([8, 8, 8])},
        },
        "tracked_clip": {"scrfd_ros": {"mean": 3.0}, "insightface": {"mean": 12.0}},
    }
    assert ratios(medians) == {
        "end_to_end_vs_insightface": 0.25,
        "tracked_clip_time_vs_insightface": 0.25,
    }


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


def test_what_is_wanted_is_among_the_ratios() -> None:
    assert WANTED <= TARGETS.keys() <= RATIOS.keys()


def test_the_clock_counts_each_run_of_a_network_and_nothing_else() -> None:
    own = onnxruntime.InferenceSession.run
    pipeline, clock = own_pipeline(), NetworkClock()
    black = np.zeros((64, 64, 3), np.uint8)
    with clock.counting():
        total, outside = sample(clock, lambda: pipeline.detector.detect(black))
    assert len(clock.milliseconds) == 1
    assert 0 < outside < total
    assert total - outside == pytest.approx(clock.milliseconds[0])
    assert onnxruntime.InferenceSession.run is own
    pipeline(black)
    assert len(clock.milliseconds) == 1


@pytest.mark.filterwarnings("ignore:`estimate`:FutureWarning")
def test_a_short_run_gives_the_wanted_ratios(feeder: Feeder) -> None:
    clock = NetworkClock()
    with clock.counting():
        medians = library.measure(clock, repeat=1, clip_seconds=0.1)
    medians["node"] = nodes.compare(feeder, recognize=True, seconds=0.3, turns=1)
    found = json.loads(json.dumps(results(medians, repeat=1)))
    assert found.keys() == {"ratios", "machine", "date", "repeat", "medians"}
    assert found["ratios"].keys() >= WANTED
    assert all(0 < value < np.inf for value in found["ratios"].values())
    assert {"insightface", "processor", "load_average"} <= found["machine"].keys()
    for side in ("scrfd_ros", "plain_node"):
        times = look_up(found["medians"], f"node/{side}/{nodes.SLOW}_hz")
        assert 0 < times["pipeline"]["median"] < times["age"]["median"]
