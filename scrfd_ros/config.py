# SPDX-License-Identifier: Apache-2.0
"""Every option of the pipeline: its default, limits and description, in this one place.

The node's parameters, config/faces.yaml and docs/parameters.md are made from these classes. So are
the options of commands, of which `scrfd_ros.cli.arguments` has a list.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar, get_type_hints

from scrfd_ros.errors import ScrfdError
from scrfd_ros.inference.cores import MAX_THREADS
from scrfd_ros.inference.load import BACKENDS
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue

SIZE_MULTIPLE: Final = 32
"""Width and height of a detector's input are multiples of the coarsest stride, pixels."""

MAX_INPUT_PIXELS: Final = 4096 * 4096
"""Width times height of a detector's input; networks take some 400 bytes for each pixel."""

AUTO: Final = "auto"
"""Value of `detector.input_size`: what fits the image, with a longer side of `AUTO_SIDE` pixels."""

AUTO_SIDE: Final = 640

InputSize: TypeAlias = str | int | tuple[int, int]
"""`AUTO`; a longer side, pixels; or width and height, pixels."""

MAX_TILES: Final = 8
"""In a row or column; each tile is a run of the network."""

UPSCALER: Final = "realesrgan_x4plus"
"""Name in the catalogue of the model that upscales faces."""

_Config = TypeVar("_Config", bound="Group")


@dataclass(frozen=True)
class Option:
    """What is known of an option besides its name, type and default.

    Attributes:
        description: for people, one or more sentences.
        limits: the smallest and the largest number; None for any.
        choices: gives all accepted texts; None for any.
        check: tells whether a value has the form that `form` says.
        form: what `check` accepts, in a phrase with an example.
        is_live: a change takes effect with the next image; otherwise with the next start.
        is_read_only: can only be set at the start.
    """

    description: str
    limits: tuple[float, float] | None = None
    choices: Callable[[], tuple[str, ...]] | None = None
    check: Callable[[Any], bool] | None = None
    form: str = ""
    is_live: bool = False
    is_read_only: bool = False

    @property
    def constraint(self) -> str:
        """Which values are accepted, in a phrase; "" for all of the type."""
        if self.choices is not None:
            return f"one of: {', '.join(self.choices())}"
        if self.limits is not None:
            return "{:.12g} to {:.12g}".format(*self.limits)
        return self.form

    def refusal(self, value: Any) -> str:
        """Why a value of the right type is not accepted, in a phrase; "" if it is."""
        if self.choices is not None and value not in self.choices():
            return f"{shown(value)} is unknown; expected {self.constraint}"
        if self.limits is not None and not self.limits[0] <= value <= self.limits[1]:  # or NaN
            return f"{value} is not within {self.constraint}"
        if self.check is not None and not self.check(value):
            return f"{shown(value)} is not {self.form}"
        return ""


def option(default: Any, description: str, **known: Any) -> Any:
    """A field of a configuration; `known` are attributes of `Option`."""
    return field(default=default, metadata={"option": Option(description, **known)})


def shown(value: Any) -> str:
    """A value as it is written in YAML, cut off if it is long."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value if isinstance(value, (int, float, str)) else list(value))
    return text if len(text) <= 100 else f"{text[:100]}..."


fraction = functools.partial(option, limits=(0.0, 1.0))
seconds = functools.partial(option, limits=(0.0, 1e6))


def _is_input_size(value: str | int | tuple[int, ...]) -> bool:
    if isinstance(value, str):
        return value == AUTO
    sides = (value, value) if isinstance(value, int) else value
    return (
        len(sides) == 2
        and all(side % SIZE_MULTIPLE == 0 and side >= SIZE_MULTIPLE for side in sides)
        and math.prod(sides) <= MAX_INPUT_PIXELS
    )


def _is_grid(value: tuple[int, ...]) -> bool:
    return len(value) == 2 and all(1 <= count <= MAX_TILES for count in value)


class OptionField(NamedTuple):
    """An option with its type, such as int or tuple[int, int], and its default."""

    option: Option
    type: Any
    default: Any


def options(config: type) -> Mapping[str, OptionField]:
    """All options of a configuration by full name, such as detector.score_threshold."""
    return _options(config)


@functools.cache
def _options(config: type) -> Mapping[str, OptionField]:
    types = get_type_hints(config)
    found: dict[str, OptionField] = {}
    for each in dataclasses.fields(config):
        kind = types[each.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            found |= {f"{each.name}.{name}": inner for name, inner in options(kind).items()}
        else:
            found[each.name] = OptionField(each.metadata["option"], kind, each.default)
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(type(each) is kind for each in value)


_TYPES: Final[Mapping[Any, tuple[str, Callable[[Any], bool]]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", _is_whole),
    float: ("a number", lambda value: isinstance(value, float) or _is_whole(value)),
    str: ("a text", lambda value: isinstance(value, str)),
    tuple[int, int]: ("a tuple of two whole numbers", _are(int)),
    InputSize: (
        "a text, a whole number, or a tuple of two whole numbers",
        lambda value: isinstance(value, str) or _is_whole(value) or _are(int)(value),
    ),
    tuple[int, ...]: ("a tuple of whole numbers", _are(int)),
    tuple[str, ...]: ("a tuple of texts", _are(str)),
    Path | None: ("a Path or None", lambda value: value is None or isinstance(value, Path)),
}


@dataclass(frozen=True)
class Group:
    """A group of options, checked when it is made.

    Raises:
        ScrfdError: a value is not accepted; names the option by its full name.
    """

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, each in options(type(self)).items():
            if "." in name:
                continue  # checked by its own group
            value = getattr(self, name)
            if value is each.default:
                continue  # no need to read the catalogue of models for this
            phrase, has_type = _TYPES[each.type]
            reason = each.option.refusal(value) if has_type(value) else f"{value!r} is not {phrase}"
            if reason:
                raise ScrfdError(f"{self.prefix}{name}: {reason}")


@dataclass(frozen=True)
class DetectorConfig(Group):
    """How faces are found."""

    prefix: ClassVar[str] = "detector."

    model: str = option(
        "2.5g",
        "SCRFD model. Larger models find more faces and take longer. 1g and 34g find no "
        "landmarks, and without landmarks there are no embeddings. See docs/models.md.",
        choices=lambda: tuple(load_catalogue().names(DETECTOR)),
    )
    engine_path: Path | None = option(
        None, "Your own model file, .onnx or .engine. It takes precedence over `model`."
    )
    input_size: str | int | tuple[int, int] = option(
        AUTO,
        "Size of the detector's input, in pixels; images are scaled to fit. A number is the longer "
        "side, and the other is as long as the image needs, which saves time; auto is the number "
        f"{AUTO_SIDE}. [width, height] is that input for every image. Smaller is faster and misses "
        "small faces. Some model files take one size only.",
        check=_is_input_size,
        form=f"auto, a longer side, or a width and a height, in multiples of {SIZE_MULTIPLE}, at "
        f"most {MAX_INPUT_PIXELS} pixels in total, such as auto, 960 or [640, 480]",
    )
    score_threshold: float = fraction(
        0.5, "Faces with a lower score are not reported.", is_live=True
    )
    nms_threshold: float = fraction(
        0.4,
        "If the IoU of two boxes is above this, only the one with the higher score is reported.",
        is_live=True,
    )
    max_faces: int = option(
        0,
        "Maximum number of faces to report, highest scores first; 0 for all.",
        limits=(0, 100_000),
        is_live=True,
    )
    tiles: tuple[int, int] = option(
        (1, 1),
        "Columns and rows of overlapping tiles to search besides the whole image, for faces that "
        "are too small in it; no tiles if both are 1. Each tile costs a run of the network.",
        check=_is_grid,
        form=f"a number of columns and of rows, each 1 to {MAX_TILES}, such as [3, 2]",
    )
    full_look_period: float = seconds(
        0.0,
        "Seconds until the whole image is searched again; in between only around the faces that "
        "are tracked, and where the image changes. That saves time, and a new face can be found "
        "later, by this period at most; 0 to search the whole of every image. Works with "
        "`input_size` auto on a processor. See docs/video.md.",
        is_live=True,
    )
    large_faces: bool = option(
        False,
        "Also find faces that fill the image, by a second look at a smaller scale. Where "
        "`input_size` is [width, height] and the image leaves room for it, it costs nothing; else "
        "up to one more run of the network.",
        is_live=True,
    )

    @property
    def largest_input(self) -> tuple[int, int]:
        """Width and height of the largest input, pixels. Images are scaled to fit into it."""
        side = AUTO_SIDE if isinstance(self.input_size, str) else self.input_size
        return (side, side) if isinstance(side, int) else side

    @property
    def input_text(self) -> str:
        """`input_size` as it is written for commands: auto, 960 or 640x480."""
        size = self.input_size
        return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)

    @property
    def fits_images(self) -> bool:
        """Whether the input for an image is only as large as the image needs."""
        return not isinstance(self.input_size, tuple)


@dataclass(frozen=True)
class RecognizerConfig(Group):
    """How faces are embedded."""

    prefix: ClassVar[str] = "recognizer."

    enabled: bool = option(True, "Compute embeddings of faces, which tell people apart.")
    model: str = option(
        "w600k_mbf",
        "ArcFace model. w600k_mbf (13 MB) is faster, w600k_r50 (174 MB) is more accurate. See "
        "docs/models.md.",
        choices=lambda: tuple(load_catalogue().names(RECOGNIZER)),
    )
    engine_path: Path | None = option(
        None, "Your own model file, .onnx or .engine. It takes precedence over `model`."
    )
    min_quality: float = fraction(
        0.0,
        "Faces of lower quality are not embedded: small, blurred, turned or partly hidden ones; 0 "
        "embeds all. See docs/verification.md.",
        is_live=True,
    )


@dataclass(frozen=True)
class SuperResolutionConfig(Group):
    """How small faces are upscaled before they are embedded."""

    prefix: ClassVar[str] = "super_resolution."

    enabled: bool = option(
        False,
        "Upscale small faces with Real-ESRGAN before they are embedded. It takes more than a "
        "second per face on a processor, and recognition gets worse: see docs/small-faces.md.",
    )
    engine_path: Path | None = option(
        None, f"Your own model file, .onnx or .engine; empty for {UPSCALER}."
    )
    max_size: int = option(32, "Faces smaller than this, in pixels, are upscaled.", limits=(8, 112))
    max_faces: int = option(
        4,
        "Maximum number of faces to upscale per image, highest scores first.",
        limits=(1, 1000),
        is_live=True,
    )


@dataclass(frozen=True)
class TrackingConfig(Group):
    """How faces are followed from image to image."""

    prefix: ClassVar[str] = "tracking."

    enabled: bool = option(
        True,
        "Give each face an id that it keeps from image to image, and embed it only when it is new "
        "or has changed.",
    )
    max_age: float = seconds(2.0, "Seconds for which a face keeps its id while it is not found.")
    refresh_period: float = seconds(
        5.0, "Seconds after which a face is embedded again; 0 for every image."
    )


@dataclass(frozen=True)
class GalleryConfig(Group):
    """Who people are, and how certain that has to be. See docs/identity.md."""

    prefix: ClassVar[str] = "gallery."

    store: str = option(
        "",
        "The gallery of people: a file, made if it is missing, or postgresql://HOST/DATABASE for "
        "one that several robots share; empty to identify nobody.",
    )
    threshold: float = fraction(
        0.4,
        "Minimum similarity to a person, a cosine, for a look at a face to count.",
        is_live=True,
    )
    margin: float = fraction(
        0.1,
        "By how much the most similar person has to be ahead of the second one, a difference of "
        "cosines.",
        is_live=True,
    )
    looks: int = option(
        3,
        "Number of looks at a tracked face that have to agree before a name is used. Another name, "
        "or none, later takes twice as many.",
        limits=(1, 100),
        is_live=True,
    )
    min_quality: float = fraction(
        0.3, "Looks of lower quality do not count: see docs/verification.md.", is_live=True
    )
    stranger_ttl: float = seconds(
        3600.0,
        "Seconds for which a stranger keeps an anonymous id, in memory only, while not seen; 0 for "
        "no such ids.",
        is_live=True,
    )
    keep_images: bool = option(
        False,
        "Keep the aligned image of each face that is enrolled, so that people need not be enrolled "
        "again for another recognizer.",
    )


@dataclass(frozen=True)
class PipelineConfig(Group):
    """All options of a `FacePipeline`.

    Raises:
        ScrfdError: a value is not accepted; names the option. Or faces are to be upscaled, but
            not recognized.
    """

    backend: str = option(
        "auto",
        "What runs the networks. auto takes TensorRT if there is a CUDA device and an engine of "
        "the model, or if one can be built, which takes minutes once; otherwise ONNX Runtime, or "
        "OpenVINO where it is installed and was measured to be faster here. "
        "openvino takes an Intel GPU where there is one, else the processor.",
        choices=lambda: BACKENDS,
    )
    cuda_graph: bool = option(
        False,
        "With TensorRT: record the work on the GPU once and replay it for every image, which saves "
        "processor time.",
    )
    threads: int = option(
        0,
        "Threads on the processor, for the networks and for OpenCV; 0 for one per core that the "
        "process may use, by its affinity and the quota of its container.",
        limits=(0, MAX_THREADS),
    )
    model_directory: Path | None = option(
        None, "Folder of the model files; empty for the one that `scrfd models` downloads to."
    )
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    recognizer: RecognizerConfig = field(default_factory=RecognizerConfig)
    super_resolution: SuperResolutionConfig = field(default_factory=SuperResolutionConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    gallery: GalleryConfig = field(default_factory=GalleryConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gallery.store and not self.recognizer.enabled:
            raise ScrfdError(
                "gallery.store is set, but recognizer.enabled is false: people are told apart by "
                "embeddings; set recognizer.enabled to true, or gallery.store to empty"
            )
        if self.super_resolution.enabled and not self.recognizer.enabled:
            raise ScrfdError(
                "super_resolution.enabled is true, but recognizer.enabled is false: faces are "
                "upscaled to be recognized; set recognizer.enabled to true, or "
                "super_resolution.enabled to false"
            )


def from_values(config: type[_Config], values: Mapping[str, Any]) -> _Config:
    """A configuration of values by full name; what is not named has its default.

    Raises:
        ScrfdError: a value is not accepted, or there is no such option.
    """
    return with_values(config(), values)


def with_values(config: _Config, values: Mapping[str, Any]) -> _Config:
    """The configuration with other values for some options, by full name.

    Raises:
        ScrfdError: a value is not accepted, or there is no such option.
    """
    unknown = values.keys() - options(type(config)).keys()
    if unknown:
        raise ScrfdError(f"there is no option {', '.join(sorted(unknown))}")
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, rest = name.partition(".")
        if rest:
            inner.setdefault(group, {})[rest] = value
        else:
            changes[name] = value
    changes |= {group: with_values(getattr(config, group), own) for group, own in inner.items()}
    return dataclasses.replace(config, **changes)
