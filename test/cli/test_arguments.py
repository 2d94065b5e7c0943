# SPDX-License-Identifier: Apache-2.0
"""Options of the pipeline have the defaults, limits and descriptions of its configuration."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from scrfd_ros.cli import arguments
from scrfd_ros.cli.arguments import add_option, add_pipeline_arguments, config_of, option_values
from scrfd_ros.cli.output import say
from scrfd_ros.config import Option, OptionField, PipelineConfig, options, with_values
from scrfd_ros.errors import ScrfdError

Path_ = Callable[[str], Path]


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="scrfd")
    add_pipeline_arguments(made)
    return made


def test_no_arguments_make_the_default_configuration(
    parser: argparse.ArgumentParser, detector_path: Path_, recognizer_path: Path_
) -> None:
    paths = {
        "detector.engine_path": detector_path(PipelineConfig().detector.model),
        "recognizer.engine_path": recognizer_path(PipelineConfig().recognizer.model),
    }
    config = config_of(parser.parse_args([]))
    assert {path.name for path in paths.values()} == {
        config.detector.engine_path.name,  # type: ignore[union-attr]
        config.recognizer.engine_path.name,  # type: ignore[union-attr]
    }
    assert with_values(config, dict.fromkeys(paths)) == PipelineConfig()


def test_arguments_set_options(parser: argparse.ArgumentParser, detector_path: Path_) -> None:
    detector = str(detector_path("500m"))
    words = f"--detector {detector} --recognizer none --backend onnxruntime --threads 3 --nms 0.25"
    words += " --input-size 320x224 --score 0.75 --tiles 3x2 --large-faces"
    config = config_of(parser.parse_args(words.split()))
    expected = {
        "detector.engine_path": Path(detector),
        "recognizer.enabled": False,
        "backend": "onnxruntime",
        "threads": 3,
        "detector.nms_threshold": 0.25,
        "detector.input_size": (320, 224),
        "detector.score_threshold": 0.75,
        "detector.tiles": (3, 2),
        "detector.large_faces": True,
    }
    assert config == with_values(PipelineConfig(), expected)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--threads 257", "--threads: expected a whole number from 0 to 256, found '257'"),
        ("--threads=-1", "--threads: expected a whole number from 0 to 256, found '-1'"),
        ("--threads 1.5", "--threads: expected a whole number from 0 to 256, found '1.5'"),
        ("--score 1.5", "--score: expected a number from 0 to 1, found '1.5'"),
        ("--min-quality nan", "--min-quality: expected a number from 0 to 1, found 'nan'"),
        *(
            (
                f"--input-size={text}",
                "--input-size: expected auto, a longer side, or a width and a height, in multiples "
                "of 32, at most 16777216 pixels in total, such as auto, 960 or 640x480, found "
                f"'{text}'",
            )
            for text in ("650", "0", "-640", "0x640", "650x640", "640x640x3", "Auto", "", "1e9")
        ),
        ("--tiles 3", "--tiles: expected CxR such as 1x1, found '3'"),
        (
            "--tiles 9x1",
            "--tiles: 9x1 is not a number of columns and of rows, each 1 to 8, such as 3x2",
        ),
        ("--backend cuda", "--backend: invalid choice: 'cuda'"),
    ],
)
def test_refuses_texts(
    parser: argparse.ArgumentParser,
    words: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(words.split())
    assert complaint in capsys.readouterr().err


def test_refuses_options_of_recognition_without_a_recognizer(
    parser: argparse.ArgumentParser, detector_path: Path_
) -> None:
    words = ["--detector", str(detector_path("500m")), "--recognizer", "none", "--super-resolution"]
    with pytest.raises(ScrfdError, match="--super-resolution and --min-quality are for recogni"):
        config_of(parser.parse_args(words))


def help_of(parser: argparse.ArgumentParser) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        parser.print_help()
    return " ".join(output.getvalue().split())


def test_help_is_that_of_the_option(parser: argparse.ArgumentParser) -> None:
    description = options(PipelineConfig)["detector.score_threshold"].option.description
    assert f"{description[1:-1]} (default: 0.5)" in help_of(parser)
    assert "--enlarge" not in help_of(parser)
    # Pairs as the command line takes them, not as YAML does.
    assert "WxH is that input for every image" in help_of(parser)
    assert "[width, height]" not in help_of(parser)


def test_a_command_can_have_another_default_and_help() -> None:
    parser = argparse.ArgumentParser()
    add_option(parser, "score", default=0.02)
    add_option(parser, "nms", help="something else")
    assert option_values(parser.parse_args([])) == {
        "detector.score_threshold": 0.02,
        "detector.nms_threshold": 0.4,
    }
    assert "(default: 0.02)" in help_of(parser) and "something else" in help_of(parser)


@pytest.mark.parametrize("name", options(PipelineConfig))
def test_every_option_can_have_an_argument(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "_OPTIONS", {"other": name})
    parser = argparse.ArgumentParser()
    add_option(parser, "other")
    help_of(parser)
    _, kind, default = options(PipelineConfig)[name]
    text = "x".join(map(str, default)) if isinstance(default, tuple) else str(default)
    words = ["--other"] if kind is bool else ["--other", text]
    expected = {bool: True, Path | None: Path(text)}.get(kind, default)
    assert option_values(parser.parse_args(words)) == {name: expected}
    assert option_values(parser.parse_args([])) == {name: default}


@pytest.mark.parametrize("text", ["many", "1.5", ""])
def test_numbers_without_limits_are_numbers(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unlimited = OptionField(Option("How many."), int, 1)
    monkeypatch.setattr(arguments, "_OPTIONS", {"other": "other"})
    monkeypatch.setattr(arguments, "options", lambda config: {"other": unlimited})
    parser = argparse.ArgumentParser()
    add_option(parser, "other")
    with pytest.raises(SystemExit):
        parser.parse_args(["--other", text])
    assert f"expected a whole number, found {text!r}" in capsys.readouterr().err


def test_text_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("well-known " * 30)
    first, *others = capsys.readouterr().out.splitlines()
    assert max(map(len, [first, *others])) <= 80
    assert all(line.startswith("  well-known") for line in others)
