# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from scrfd_ros.cli.output import say
from scrfd_ros.config import UPSCALER, InputSize, Option, PipelineConfig, from_values, options
from scrfd_ros.errors import NoGalleryError, ScrfdError
from scrfd_ros.gallery.opening import open_store
from scrfd_ros.images.orientation import ROTATIONS
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, SUPER_RESOLUTION, load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.pipeline import FacePipeline, load_pipeline

NO_RECOGNIZER: Final = "none"
"""Stands for no model after --recognizer."""

_OPTIONS: Final = {
    "backend": "backend",
    "threads": "threads",
    "input_size": "detector.input_size",
    "score": "detector.score_threshold",
    "nms": "detector.nms_threshold",
    "tiles": "detector.tiles",
    "large_faces": "detector.large_faces",
    "min_quality": "recognizer.min_quality",
    "super_resolution": "super_resolution.enabled",
}
"""Options of the pipeline by the names of their arguments."""

_METAVARS: Final[Mapping[Any, str]] = {
    int: "N",
    float: "X",
    tuple[int, int]: "NxN",
    Path | None: "PATH",
    InputSize: "SIZE",
    "score": "S",
    "nms": "IOU",
    "tiles": "CxR",
    "min_quality": "Q",
}
"""What stands for a value in the help: by type, or by the name of an argument."""


def add_pipeline_arguments(
    parser: argparse.ArgumentParser,
    *,
    recognizer: str | None = None,
    score: float | None = None,
    nms: float | None = None,
    input_size: InputSize | None = None,
    large_faces: bool | None = None,
    of_gallery: bool = False,
) -> None:
    """Add what makes a pipeline; `pipeline_of` loads it.

    Args:
        recognizer, score, nms, input_size, large_faces: other defaults than those of
            `PipelineConfig`.
        of_gallery: without --recognizer, the one that the gallery is for is used.
    """
    add_model_arguments(parser, recognizer=recognizer, of_gallery=of_gallery)
    defaults = {"score": score, "nms": nms, "input_size": input_size, "large_faces": large_faces}
    for name in _OPTIONS:
        add_option(parser, name, default=defaults.get(name))
    parser.add_argument("--enlarge", action=_OldName, const="super_resolution", nargs=0)


def add_model_arguments(
    parser: argparse.ArgumentParser,
    *,
    recognizer: str | None = None,
    several: str = "",
    of_gallery: bool = False,
) -> None:
    """Add --detector and --recognizer.

    Args:
        recognizer: another default than that of `PipelineConfig`.
        several: each takes several models; what they are by default.
        of_gallery: without --recognizer, the one that the gallery is for is used.
    """
    known = options(PipelineConfig)
    for name, default, other, described in (
        ("detector", None, "or a model file", several),
        (
            "recognizer",
            recognizer,
            f"a model file, or {NO_RECOGNIZER}",
            several or (f"{_usual_recognizer()}, or that of the gallery" if of_gallery else ""),
        ),
    ):
        option, _, usual = known[f"{name}.model"]
        assert option.choices is not None
        parser.add_argument(
            f"--{name}",
            nargs="+" if several else None,
            default=None if described else default or usual,
            metavar="NAME",
            help=f"{', '.join(option.choices())}, {other} (default: {described or '%(default)s'})",
        )


def _usual_recognizer() -> str:
    return str(options(PipelineConfig)["recognizer.model"].default)


def add_gallery_argument(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add --gallery, where people are kept."""
    parser.add_argument(
        "--gallery",
        type=_gallery,
        required=required,
        metavar="FILE_OR_URL",
        help="the gallery of people: a file, or postgresql://HOST/DATABASE",
    )


def _gallery(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; expected a file, or a URL")
    return text.strip()


def add_option(
    parser: argparse.ArgumentParser, name: str, *, default: Any = None, help: str = ""
) -> None:
    """Add an option of the pipeline, with the default, the limits and the description it has there.

    Args:
        name: of the argument, such as input_size.
        default: another default.
        help: another help.
    """
    option, kind, usual = options(PipelineConfig)[_OPTIONS[name]]
    flag = f"--{name.replace('_', '-')}"
    default = usual if default is None else default
    if kind is bool:
        # A switch that is on by default also has --no-...
        action = argparse.BooleanOptionalAction if default else "store_true"
        parser.add_argument(flag, action=action, default=default, help=help or _help(option))
        return
    shown = "x".join(map(str, default)) if isinstance(default, tuple) else str(default)
    metavar = _METAVARS.get(name, _METAVARS.get(kind))
    parse: Callable[[str], Any] = str
    if kind in (int, float):
        parse = _number(option, kind)
    elif kind == tuple[int, int]:
        assert metavar is not None
        parse = _pair(metavar, shown, option)
    elif kind == InputSize:
        parse = input_size
    elif kind == Path | None:
        parse = Path
    parser.add_argument(
        flag,
        type=parse,
        choices=option.choices() if option.choices is not None else None,
        default=default,
        metavar=metavar,
        help=help or _help(option) + (f" (default: {shown})" if default is not None else ""),
    )


def _help(option: Option) -> str:
    """The description of an option, written as help is: a phrase in lower case."""
    text = _as_argument(option.description.removesuffix(".").replace("%", "%%"))
    return text[0].lower() + text[1:]


class _OldName(argparse.Action):
    """A deprecated name of a switch; the new one is `const`."""

    def __init__(self, **known: Any) -> None:
        super().__init__(**known, help=argparse.SUPPRESS, default=argparse.SUPPRESS)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.const, True)
        new = f"--{self.const.replace('_', '-')}"
        print(
            f"{parser.prog}: {option_string} is deprecated and will be removed in the next "
            f"version; use {new}",
            file=sys.stderr,
        )


def add_rotation_argument(parser: argparse.ArgumentParser) -> None:
    """Add --rotation, by which images are turned before they are searched."""
    parser.add_argument(
        "--rotation",
        type=int,
        choices=ROTATIONS,
        default=0,
        help="degrees clockwise by which the image has to be turned for faces to be upright; "
        "results stay in pixels of the image as it is (default: %(default)s)",
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add --verbose, with which a command also prints what it does."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print more: which backend and why, threads, sources of downloads",
    )


def option_values(args: argparse.Namespace) -> dict[str, Any]:
    """The values of those arguments that `add_option` added, by the full names of the options."""
    return {
        name: getattr(args, argument) for argument, name in _OPTIONS.items() if argument in args
    }


def config_of(args: argparse.Namespace, make_gallery: bool = False) -> PipelineConfig:
    """The configuration that the arguments make; models are fetched if they are missing.

    With a gallery, the recognizer is that of the gallery, unless it is given.

    Args:
        make_gallery: the gallery may be missing, and is made by the pipeline.

    Raises:
        GalleryError: the gallery is missing or cannot be opened.
        ModelError, DownloadError: see `model_path`.
        ScrfdError: a value is not accepted, or there is an option of recognition without a
            recognizer.
    """
    store = getattr(args, "gallery", None) or ""
    recognizer = _recognizer_of(args, make_gallery)
    recognizes = recognizer != NO_RECOGNIZER
    if not recognizes and (args.super_resolution or args.min_quality):
        raise ScrfdError(
            "--super-resolution and --min-quality are for recognition: there is no recognizer"
        )
    if not recognizes and store:
        raise ScrfdError("--gallery needs a recognizer, by whose embeddings people are told apart")
    values = option_values(args)
    values["gallery.store"] = store
    values["gallery.keep_images"] = getattr(args, "keep_images", False)
    values["detector.engine_path"] = model_path(args.detector, DETECTOR)
    values["recognizer.enabled"] = recognizes
    if recognizes:
        values["recognizer.engine_path"] = model_path(recognizer, RECOGNIZER)
    if args.super_resolution:
        values["super_resolution.engine_path"] = model_path(UPSCALER, SUPER_RESOLUTION)
    return from_values(PipelineConfig, values)


def _recognizer_of(args: argparse.Namespace, make_gallery: bool) -> str:
    """The recognizer that the arguments name, or that the gallery is for, or the usual one.

    Raises:
        NoGalleryError: there is no gallery, and none is to be made.
        ScrfdError: the recognizer of the gallery is not in the catalogue.
    """
    store, name = getattr(args, "gallery", None), str(args.recognizer or _usual_recognizer())
    if not store:
        return name
    try:
        with closing(open_store(store, None)) as opened:
            found = opened.info.recognizer
    except NoGalleryError as error:
        if make_gallery:
            return name
        raise NoGalleryError(f"{error}; `scrfd gallery enroll` makes one") from error
    if args.recognizer:
        return name
    if found not in load_catalogue().names(RECOGNIZER):
        raise ScrfdError(
            f"the gallery is for the recognizer {found}, which is not in the catalogue; give its "
            f"file by --recognizer"
        )
    return found


def pipeline_of(args: argparse.Namespace, make_gallery: bool = False) -> FacePipeline:
    """The pipeline that the arguments make; to be closed, if they have a gallery.

    Args:
        make_gallery: see `config_of`.

    Raises:
        ScrfdError: see `config_of`.
        ModelError: see `load_pipeline`.
    """
    pipeline = load_pipeline(config_of(args, make_gallery))
    if pipeline.warning:
        say(f"note: {pipeline.warning}", indent="")
    return pipeline


def model_path(name: str, kind: str | None = None) -> Path:
    """The path of a model, from its name in the catalogue or from a path.

    A model of the catalogue is fetched if it is missing.

    Args:
        kind: what the model has to be; None for any.

    Raises:
        ModelError: no model of that kind has this name.
        DownloadError: it could not be fetched.
    """
    if not name.endswith((".onnx", ".engine")):
        return ensure_model(load_catalogue().find(name, kind))
    path = Path(name)
    if not path.exists():
        for entry in load_catalogue().models.values():
            if path.name in (f"{alias}.onnx" for alias in entry.aliases):
                # Older instructions use this file name: take the model they mean.
                return ensure_model(load_catalogue().find(path.stem, kind), path.parent)
    return path


def _pair(
    metavar: str, example: str, option: Option | None = None
) -> Callable[[str], tuple[int, int]]:
    def parse(text: str) -> tuple[int, int]:
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"expected {metavar} such as {example}, found {text!r}"
            )
        pair = int(match[1]), int(match[2])
        if option is not None and (reason := option.refusal(pair)):
            raise argparse.ArgumentTypeError(_as_argument(reason))
        return pair

    return parse


def input_size(text: str) -> InputSize:
    """A detector's input size, from a text such as auto, 960 or 640x480."""
    option = options(PipelineConfig)["detector.input_size"].option
    value: InputSize = text
    if match := re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII):
        value = (int(match[1]), int(match[2])) if match[2] else int(match[1])
    if option.refusal(value):
        raise argparse.ArgumentTypeError(_as_argument(f"expected {option.form}, found {text!r}"))
    return value


def _as_argument(text: str) -> str:
    """A text with pairs as they are written here, not in YAML."""
    return re.sub(r"\[(\d+), (\d+)\]", r"\1x\2", text.replace("[width, height]", "WxH"))


image_size = _pair("WxH", "640x640")
"""Width and height in pixels, from a text such as 640x640."""


def _number(option: Option, kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or option.refusal(value):
            what = "a whole number" if kind is int else "a number"
            limits = f" from {option.constraint}" if option.constraint else ""
            raise argparse.ArgumentTypeError(f"expected {what}{limits}, found {text!r}")
        return value

    return parse
