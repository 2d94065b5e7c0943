# SPDX-License-Identifier: Apache-2.0
"""Targets of mutated input: everything that reads files or messages of others.

Each target is a function of bytes, which returns or raises a ScrfdError. Any other exception is a
bug in scrfd_ros, and so is a wrong result, for which it has assertions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import yaml
from mutations import Mutate, byte_mutations, image_mutations, json_mutations, serialized
from numpy.typing import NDArray

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.free_size import fixed_size, with_free_size
from scrfd_ros.engines.prelu import with_convolutions
from scrfd_ros.errors import DownloadError, ModelError, ScrfdError
from scrfd_ros.evaluation.verification import read_pairs
from scrfd_ros.evaluation.wider_face import AnnotatedImage, read_detections
from scrfd_ros.gallery import gallery
from scrfd_ros.gallery.exchange import export_people, import_people
from scrfd_ros.gallery.gallery import checked_name
from scrfd_ros.gallery.people import GalleryInfo, Person, Template, is_id
from scrfd_ros.gallery.sqlite import SqliteStore
from scrfd_ros.images.compressed import MAX_PIXELS, bgr_from_compressed
from scrfd_ros.images.encodings import ENCODINGS, LAYOUTS, bgr_from_image
from scrfd_ros.images.message import decode_message
from scrfd_ros.images.serialized import SerializedImage, parse_image
from scrfd_ros.inference.engine_file import (
    EngineMetadata,
    ShapeRange,
    check_metadata,
    differences,
    metadata_path,
    read_metadata,
    rebuild_command,
)
from scrfd_ros.inference.network import Tensor
from scrfd_ros.inference.onnx_file import external_files, is_onnx, normalizes_input
from scrfd_ros.inference.onnx_parts import node, tensor, with_graph
from scrfd_ros.inference.protobuf import field
from scrfd_ros.inference.tensorrt_library import Platform
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.checksums import pin_path, read_pin
from scrfd_ros.models.transfer import SourceError, unpack_zip

Once = Callable[[bytes], None]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Target:
    """A reader of files or messages of others.

    Attributes:
        what: description in one line.
        seeds: valid input, and input that is refused.
        make: from an empty folder, makes the function that takes mutated input.
        mutations: from the seeds, makes the function that mutates input.
        memory_mib: maximum additional address space of one execution.
    """

    what: str
    seeds: Callable[[], list[bytes]]
    make: Callable[[Path], Once]
    mutations: Callable[[Sequence[bytes]], Mutate] = byte_mutations
    memory_mib: int = 256


# --- Images -----------------------------------------------------------------------------------


class _Network:
    """An SCRFD network for 32 x 32 pixels that always sees the same faces."""

    path, name, sha256, backend = Path("network.onnx"), "network", "", "none"
    inputs = (Tensor("input", (1, 3, 32, 32)),)
    normalizes_input, on_gpu, device, max_batch = False, False, None, None

    def __init__(self) -> None:
        self.arrays = {
            f"{kind}_{stride}": np.eye(2 * (32 // stride) ** 2, columns, dtype=np.float32)
            for kind, columns in (("score", 1), ("bbox", 4), ("kps", 10))
            for stride in (8, 16, 32)
        }
        self.outputs = tuple(Tensor(name, array.shape) for name, array in self.arrays.items())

    def __call__(self, inputs: object) -> dict[str, NDArray[np.float32]]:
        return self.arrays

    def device_milliseconds(self) -> dict[str, float]:
        return {}


def _image(encoding: str, height: int = 6, width: int = 8, is_bigendian: int = 0) -> bytes:
    """A serialized sensor_msgs/Image of noise."""
    layout = LAYOUTS[encoding]
    step = width * layout.channels * layout.value_bytes
    data = np.random.default_rng(len(encoding)).bytes(layout.lines(height) * step)
    return serialized(
        SerializedImage(
            1, 2, "camera", height, width, encoding, is_bigendian, step, memoryview(data)
        )
    )


def _images() -> list[bytes]:
    return [
        *(_image(encoding) for encoding in ENCODINGS),
        *(
            _image(encoding, is_bigendian=1)
            for encoding in ENCODINGS
            if LAYOUTS[encoding].value_bytes > 1
        ),
        _image("rgb8", 1, 1),
        _image("bgr8", 1, 1000),
        _image("mono8", 1000, 1),
        serialized(
            SerializedImage(0, 0, "", 100_000, 100_000, "bgr8", 0, 300_000, memoryview(b""))
        ),
    ]


def _make_image(folder: Path) -> Once:
    """An image from the message to its faces, and the image after it."""
    detector = Scrfd(
        _Network(), DetectorConfig(input_size=(32, 32), tiles=(2, 2), large_faces=True)
    )
    simple = Scrfd(_Network(), DetectorConfig(input_size=(32, 32)))
    good = []
    for encoding in ENCODINGS:
        data = _image(encoding)
        image = bgr_from_image(parse_image(data))
        good.append((data, image.copy(), next(simple.prepare([image])).blob.copy()))
    turns = cycle(good)

    def once(data: bytes) -> None:
        try:
            message = parse_image(data)
            image = bgr_from_image(message)
            assert image.dtype == np.uint8
            assert image.shape == (message.height, message.width, 3)
            assert image.nbytes <= 4 * len(data)
            int(image.sum())  # all of it is there
            detector.detect(image)
        finally:
            next_data, expected, blob = next(turns)
            image = bgr_from_image(parse_image(next_data))
            assert np.array_equal(image, expected), "the image after it comes out wrong"
            assert np.array_equal(next(simple.prepare([image])).blob, blob)

    return once


_FORMATS = ("jpeg", "png", "bgr8; jpeg compressed bgr8", "rgb8; png compressed rgb8")


def _compressed() -> list[bytes]:
    random = np.random.default_rng(0)
    colors = cv2.resize(random.integers(0, 256, (3, 4, 3), np.uint8), (40, 30))
    coded = []
    for suffix, image, options in (
        (".jpg", colors, []),
        (".jpg", colors[:, :, 0], [cv2.IMWRITE_JPEG_QUALITY, 50]),
        (".jpg", colors, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", colors, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
        (".png", colors, []),
        (".png", colors[:, :, 0], []),
        (".png", np.dstack((colors, colors[:, :, :1])).astype(np.uint16), []),
        (".bmp", colors, []),
        (".tiff", colors, []),
        (".webp", colors, []),
    ):
        coded.append(cv2.imencode(suffix, image, options)[1].tobytes())
    with_formats = [f"{_FORMATS[n % 4]}\0".encode() + data for n, data in enumerate(coded)]
    return [*with_formats, b"bayer_rggb8; png compressed\0" + coded[5]]


def _make_compressed(folder: Path) -> Once:
    """Format, a zero and the data, as the two fields of a sensor_msgs/CompressedImage."""
    good = _compressed()[0].partition(b"\0")[2]
    expected, *_ = bgr_from_compressed("jpeg", good)

    def once(content: bytes) -> None:
        name, _, data = content.partition(b"\0")
        smallest = (8, 8) if name.endswith(b"8") else None
        format = name.decode(errors="replace")
        try:
            decoded = bgr_from_compressed(format, data, smallest)
            image, reduction, *_ = decoded
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert 0 < image.size <= 3 * MAX_PIXELS
            assert reduction in (1, 2, 4, 8)
            width, height = decoded.size
            assert image.shape[:2] == (-(-height // reduction), -(-width // reduction))
            assert decoded.whole.shape == (height, width, 3)
        finally:
            image, *_ = bgr_from_compressed("jpeg", good)
            assert np.array_equal(image, expected), "the image after it comes out wrong"

    return once


# --- Files of models ----------------------------------------------------------------------------


def _value(name: str, shape: Sequence[int]) -> bytes:
    """Name, type and shape of an input or output, in an ONNX file."""
    sizes = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))


def _onnx_model(
    nodes: Sequence[tuple[str, str, str]],
    outputs: Mapping[str, Sequence[int]],
    weights: Mapping[str, NDArray[np.float32]] | None = None,
) -> bytes:
    """A small ONNX model: kinds of operators, each with the names of its input and its output."""
    graph = b"".join(
        field(1, field(1, given) + field(2, name) + field(4, kind)) for kind, given, name in nodes
    )
    graph += field(2, "graph") + field(11, _value("x", (1, 3, 32, 32)))
    graph += b"".join(field(12, _value(*item)) for item in outputs.items())
    for name, array in (weights or {}).items():
        sizes = b"".join(field(1, size) for size in array.shape)
        graph += field(5, sizes + field(2, 1) + field(8, name) + field(9, array.tobytes()))
    return field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def _onnx_models() -> list[bytes]:
    shape = {"y": (1, 3, 32, 32)}
    weights = {f"{name} weight": array for name, array in _Network().arrays.items()}
    of_detector = {name: array.shape for name, array in _Network().arrays.items()}
    detector = _onnx_model(
        [("Identity", f"{name} weight", name) for name in of_detector], of_detector, weights
    )
    sizes = np.array([1, 3, 64, 64], np.int64).tobytes()
    resize = field(1, node("Resize", "larger", ["x", "", "", "sizes"]))
    resize += field(5, field(1, 4) + field(2, 7) + field(8, "sizes") + field(9, sizes))
    slopes = np.full(3, 0.25, np.float32).reshape(3, 1, 1)
    prelu = field(1, node("PRelu", "z", ["x", "slopes"])) + field(5, tensor("slopes", slopes))
    return [
        _onnx_model([("Relu", "x", "y")], shape),
        _onnx_model([("Identity", "x", "a"), ("Sub", "a", "b"), ("Mul", "b", "y")], shape),
        _onnx_model([("Relu", "x", "y")], shape) + field(20, b"more") + b"\xab\1\xac\1",
        detector,
        with_graph(detector, lambda part: part.whole, resize),
        with_graph(detector, lambda part: part.whole, prelu),
    ]


def _make_onnx(folder: Path) -> Once:
    """The parts of ONNX files that this package reads itself."""

    def once(data: bytes) -> None:
        assert is_onnx(data) in (True, False)
        external_files(data)
        if fixed_size(data) is not None:
            with contextlib.suppress(ValueError):  # who calls it makes an error of that
                with_free_size(data)
        with contextlib.suppress(ModelError, ValueError):  # so do those
            with_convolutions(data)
        assert normalizes_input(data) in (True, False)

    return once


def _make_network(folder: Path) -> Once:
    """An ONNX file as a detector: loaded by ONNX Runtime, run and checked."""
    from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork

    path = folder / "model.onnx"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        Scrfd(OnnxRuntimeNetwork(path), DetectorConfig(input_size=(32, 32)))

    return once


_HERE = Platform("NVIDIA Orin", "8.7", "10.3.0", "12.6", "Linux aarch64")


def _metadata() -> EngineMetadata:
    shapes = ShapeRange((1, 3, 640, 640), (1, 3, 640, 640), (4, 3, 640, 640))
    return EngineMetadata(
        engine_sha256=hashlib.sha256(b"plan").hexdigest(),
        model="scrfd_2.5g_bnkps.onnx",
        model_sha256="1" * 64,
        normalizes_input=False,
        platform=_HERE,
        precision="fp16",
        shapes=shapes,
        options={"precision": "fp16", "workspace": 512},
        agreement={"min_iou": 0.99},
        built="2025-01-01T00:00:00+00:00",
    )


def _make_engine(folder: Path) -> Once:
    """The JSON file beside an engine, and all uses of its content."""
    engine = folder / "model.engine"

    def once(data: bytes) -> None:
        metadata_path(engine).write_bytes(data)
        metadata = read_metadata(engine)
        assert metadata is not None
        differences(metadata.platform, _HERE)
        rebuild_command(engine, metadata)
        check_metadata(engine, b"plan", metadata, _HERE)

    return once


def _metadata_seeds() -> list[bytes]:
    content = {"format": 1, **dataclasses.asdict(_metadata())}
    return [
        json.dumps(content).encode(),
        json.dumps({**content, "shapes": {}}).encode(),
        b"[" * 10_000,
        b'{"format": 1}',
    ]


# --- Text files -----------------------------------------------------------------------------------


def _catalogue_seeds() -> list[bytes]:
    whole = (ROOT / "models" / "catalogue.yaml").read_text("utf-8")
    content = yaml.safe_load(whole)
    models = {name: content["models"][name] for name in ("1g", "w600k_mbf")}
    small = {
        "licenses": content["licenses"],
        "packages": content["packages"],
        "models": models,
        "pictures": {},
        "default": ["1g"],
    }
    return [
        yaml.safe_dump(small, sort_keys=False).encode(),
        b"models: {a: &a [1], b: *a, <<: {c: 2001-01-01, d: 0x1f, e: !!set {f}}}",
        b"\xef\xbb\xbf? [a]\n: !!python/object/apply:os.system [id]",
    ]


def _make_catalogue(folder: Path) -> Once:
    path = folder / "catalogue.yaml"
    read = load_catalogue.__wrapped__  # without its cache

    def once(data: bytes) -> None:
        path.write_bytes(data)
        catalogue = read(path)
        for name in (*catalogue.names(), *catalogue.default, "no such model"):
            try:
                catalogue.find(str(name))
            except ScrfdError as error:
                assert name == "no such model", error

    return once


def _make_pin(folder: Path) -> Once:
    path = folder / "model.onnx"

    def once(data: bytes) -> None:
        pin_path(path).write_bytes(data)
        read_pin(path)

    return once


def _make_pairs(folder: Path) -> Once:
    """Lists of pairs in both forms, and detections of WIDER FACE."""
    lists = [folder / "pairs.csv", folder / "pairs.txt"]
    detections = folder / "event" / "image.txt"
    detections.parent.mkdir()
    image = AnnotatedImage("event", "image", np.zeros((0, 4)), np.zeros((3, 0), np.bool_))

    def once(data: bytes) -> None:
        form, content = data[:1], data[1:]
        if form == b"d":
            detections.write_bytes(content)
            (found,) = read_detections(folder, [image])
            assert found.ndim == 2 and found.shape[1] == 5
            return
        path = lists[form == b"t"]
        path.write_bytes(content)
        pairs = read_pairs(path)
        assert len(pairs.rows) == len(pairs.same) == len(pairs.folds)

    return once


def _pairs_seeds() -> list[bytes]:
    lfw = "2\t1\nA\t1\t2\nA\t1\tB\t2\nB\t1\t2\nB\t1\tA\t2\n"
    return [
        b"cpicture_a,picture_b,same\na/1.jpg,a/2.jpg,1\na/1.jpg,b/1.jpg,0\n",
        b'c"a",b,1\n"c\nd",e,0\n',
        f"t{lfw}".encode(),
        b"devent/image.jpg\n2\n1.0 2.0 3.0 4.0 0.5\n1 2 3 4 1e-3\n",
    ]


# --- Galleries --------------------------------------------------------------------------------

_GALLERY = GalleryInfo("recognizer", "0" * 64, 4)


class _Gallery:
    """A gallery that has one of the people of the seeds; what is added has to be sound."""

    info = _GALLERY

    def export(self) -> Iterator[tuple[Person, list[Template]]]:
        yield from _people()[:1]

    def restore(self, people: Sequence[Person], templates: Iterable[Template]) -> None:
        for person in people:
            assert checked_name(person.name) == person.name
            assert is_id(person.id) and person.created >= 0 and math.isfinite(person.created)
            json.dumps(person, ensure_ascii=False).encode()
        for template in templates:
            assert template.embedding.shape == (4,) and template.embedding.dtype == np.float32
            assert abs(np.linalg.norm(template.embedding) - 1) < 0.01
            assert is_id(template.id) and 0 <= template.quality <= 1
            template.source.encode()


def _people() -> list[tuple[Person, list[Template]]]:
    png = bytes(cv2.imencode(".png", np.zeros((112, 112, 3), np.uint8))[1])
    people = []
    for row, name in enumerate(("Anna", "Bert", "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}")):
        person = Person(f"{row:08}-0000-0000-0000-{0:012}", name, "yes", 1.0)
        if row == 1:
            person = person._replace(merged_into=people[0][0].id, expires=4e9)
        image = b"" if row else png
        embedding = np.eye(4, dtype=np.float32)[row]
        template_id = f"{row:08}-1111-0000-0000-{0:012}"
        templates = [Template(template_id, person.id, embedding, 0.5, "a.jpg", 1.0, False, image)]
        people.append((person, templates))
    return people


def _export_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "people.jsonl"

        class Gallery(_Gallery):
            def export(self) -> Iterator[tuple[Person, list[Template]]]:
                yield from _people()

        export_people(cast("gallery.Gallery", Gallery()), path)
        return [path.read_bytes(), path.read_bytes().replace(b" ", b"")]


def _make_export(folder: Path) -> Once:
    """A file that is imported into a gallery."""
    path = folder / "people.jsonl"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        import_people(cast("gallery.Gallery", _Gallery()), path)

    return once


def _gallery_file_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "people.db"
        store = SqliteStore(path, _GALLERY)
        for person, templates in _people():
            store.add([person], [each._replace(image=b"") for each in templates])
        store.forget([_people()[2][0].id])
        store.close()
        return [path.read_bytes()]


def _make_gallery_file(folder: Path) -> Once:
    """A gallery in a file, which is opened, read, changed and exported."""
    path = folder / "people.db"

    def once(data: bytes) -> None:
        for each in folder.iterdir():
            each.unlink()
        path.write_bytes(data)
        with gallery.Gallery(SqliteStore(path, _GALLERY)) as opened:
            opened.nearest(np.eye(4, dtype=np.float32)[0])
            for person, templates in opened.export():
                assert isinstance(person.name, str) and isinstance(templates, list)
            for person in opened.people:
                opened.forget(person.id)

    return once


# --- Archives, bags, MATLAB -------------------------------------------------------------------


def _zips() -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive:
            archive.writestr("folder/model.onnx", _onnx_models()[0])
            archive.writestr("../../escaped", b"x" * 100)
        found.append(content.getvalue())
    return found


def _make_zip(folder: Path) -> Once:
    """An archive of which one file is unpacked, and nothing else is written."""
    path = folder / "out"
    path.touch()

    def once(data: bytes) -> None:
        with path.open("r+b") as out:
            try:
                unpack_zip(io.BytesIO(data), "model.onnx", out, max_bytes=1 << 16)
            except SourceError as error:  # which download.py reports as this
                raise DownloadError(str(error)) from error
            finally:
                assert out.seek(0, io.SEEK_END) <= 1 << 16
                assert [*folder.iterdir()] == [path]

    return once


def _bag_messages() -> dict[str, bytes]:
    from scrfd_ros.bags.message_types import COMPRESSED_IMAGE, FACE_ARRAY, IMAGE, TYPES

    kinds = TYPES.types
    time = kinds["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    header = kinds["std_msgs/msg/Header"](stamp=time, frame_id="camera")
    jpeg = np.frombuffer(_compressed()[0].partition(b"\0")[2], np.uint8)
    messages = {
        IMAGE: {
            "header": header,
            "height": 2,
            "width": 2,
            "encoding": "bgr8",
            "is_bigendian": 0,
            "step": 6,
            "data": np.zeros(12, np.uint8),
        },
        COMPRESSED_IMAGE: {"header": header, "format": "jpeg", "data": jpeg},
        FACE_ARRAY: {
            "header": header,
            "detector": "a",
            "detector_sha256": "",
            "recognizer": "",
            "recognizer_sha256": "",
            "faces": [],
        },
    }
    return {
        kind: bytes(TYPES.serialize_cdr(kinds[kind](**fields), kind))
        for kind, fields in messages.items()
    }


def _bags() -> list[bytes]:
    """One bag of each kind, each as its first letter and the content of its one file.

    MCAP files also with compressed chunks.
    """
    import tempfile

    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    from scrfd_ros.bags.bag_writer import new_bag
    from scrfd_ros.bags.message_types import TYPES

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for letter, storage in (("m", "mcap"), ("s", "sqlite3")):
            path = Path(folder, letter)
            with new_bag(path, storage) as bag:
                for number, (kind, data) in enumerate(_bag_messages().items()):
                    bag.add_topic(f"/topic{number}", kind)
                    bag.write(f"/topic{number}", number, data)
            (file,) = path.glob(f"{letter}.*")
            found.append(letter.encode() + file.read_bytes())
            found.append(b"y" + (path / "metadata.yaml").read_bytes())
        path = Path(folder, "packed")
        writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            for number, (kind, data) in enumerate(_bag_messages().items()):
                topic = writer.add_connection(f"/topic{number}", kind, typestore=TYPES)
                writer.write(topic, number, data)
        found.append(b"m" + (path / "packed.mcap").read_bytes())
    return found


def _make_bag(folder: Path) -> Once:
    """A file of a bag, or the metadata.yaml of one, and every message in it, without a network."""
    from scrfd_ros.bags.bag import open_bag
    from scrfd_ros.bags.image_topics import image_topics
    from scrfd_ros.bags.message_types import COMPRESSED_IMAGE, FACE_ARRAY, IMAGE

    files = {b"m": folder / "bag.mcap", b"s": folder / "bag.db3"}
    whole = folder / "bag"
    whole.mkdir()
    mcap, _, sqlite3, _, _ = _bags()
    (whole / "m.mcap").write_bytes(mcap[1:])
    (whole / "s.db3").write_bytes(sqlite3[1:])
    read = _message_reader()

    def once(data: bytes) -> None:
        form, content = data[:1], data[1:]
        if form == b"y":
            (whole / "metadata.yaml").write_bytes(content)
        path = files.get(form, whole)
        if path != whole:
            path.write_bytes(content)
        with open_bag(path) as bag:
            topics = bag.topics(IMAGE, COMPRESSED_IMAGE, FACE_ARRAY)
            count = bag.count(topics)
            with contextlib.suppress(ScrfdError):
                image_topics(bag)
            before = -(2**63)
            for record in bag.records(topics):
                count -= 1
                assert form != b"m" or record.time >= before, "not in the order of their times"
                before = record.time
                with contextlib.suppress(ScrfdError):
                    read(record.kind, record.data)
            assert count == 0 or bag.damage, f"{count} messages are lost without a word"
            assert all("\n" not in sentence for sentence in (*bag.damage, *bag.notes))

    return once


def _message_reader() -> Callable[[str, bytes], None]:
    from scrfd_ros.bags.message_types import FACE_ARRAY, deserialize
    from scrfd_ros.messages.faces import faces_of

    def read(kind: str, data: bytes) -> None:
        message = deserialize(data, kind)
        if kind == FACE_ARRAY:
            faces_of(message)
        else:
            decode_message(message)

    return read


def _make_bag_message(folder: Path) -> Once:
    """The bytes of one message out of a bag, with the number of its type before them."""
    kinds = list(_bag_messages())
    read = _message_reader()

    def once(data: bytes) -> None:
        read(kinds[(data or b"\0")[0] % len(kinds)], data[1:])

    return once


def _bag_message_seeds() -> list[bytes]:
    return [bytes([number]) + data for number, data in enumerate(_bag_messages().values())]


def _mats() -> list[bytes]:
    from scipy.io import savemat

    content = io.BytesIO()

    def cell(value: object) -> NDArray[np.object_]:
        column = np.empty((1, 1), object)
        column[0, 0] = value
        return column

    boxes = cell(cell(np.array([[1, 2, 3, 4]], np.int32)))
    names = {"event_list": cell("0--Event"), "file_list": cell(cell("0_Event_1"))}
    fields = {**names, "face_bbx_list": boxes, "gt_list": boxes}
    savemat(content, fields, do_compression=True)
    return [content.getvalue()]


def _make_mat(folder: Path) -> Once:
    """A file of WIDER FACE's ground truth."""
    from scrfd_ros.evaluation.wider_face import _names_and_boxes, _read_mat, _rows

    path = folder / "faces.mat"
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        path.write_bytes(data)
        _read_mat(path, _rows)
        _read_mat(path, _names_and_boxes)

    return once


# --- Parameters -----------------------------------------------------------------------------------


def _make_parameter(folder: Path) -> Once:
    """Parameters as YAML, {name: value}, set on a node as the service does."""
    import rclpy
    from rclpy.exceptions import ParameterNotDeclaredException
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from scrfd_ros.node.parameters import LiveConfig, declare_parameters, node_config

    rclpy.init(args=["--ros-args", "--log-level", "fatal"])
    node = Node("face_node", start_parameter_services=False)
    declare_parameters(node)
    live = LiveConfig(node)
    detector = Scrfd(_Network(), DetectorConfig(input_size=(32, 32)))
    black = np.zeros((8, 8, 3), np.uint8)

    def once(data: bytes) -> None:
        try:
            values = yaml.safe_load(data)
            parameters = [Parameter(str(name), value=value) for name, value in values.items()]
            messages = [parameter.to_parameter_msg() for parameter in parameters]
        except Exception:  # a client cannot send it
            return
        for parameter in map(Parameter.from_parameter_msg, messages):
            try:
                result = node.set_parameters_atomically([parameter])
            except ParameterNotDeclaredException:  # as in the answer of the service
                continue
            assert result.successful or result.reason
        with contextlib.suppress(ScrfdError):  # with which a configure fails
            node_config(node)
        detector.config = dataclasses.replace(live.current().detector, input_size=(32, 32))
        detector.detect(black)

    return once


def _parameter_seeds() -> list[bytes]:
    whole = yaml.safe_load((ROOT / "config" / "faces.yaml").read_text("utf-8"))
    content = whole["/**"]["ros__parameters"]
    flat = {}
    for name, value in content.items():
        for below, own in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{name}.{below}".rstrip(".")] = own
    own = [yaml.safe_dump({name: value}).encode() for name, value in flat.items()]
    return [
        *own,
        b"{detector.score_threshold: .nan}",
        b"{tracking.max_age: .inf}",
        b"{detector.input_size: [32, -32]}",
        b"{cameras: [a, a/b, '']}",
    ]


def _make_parameter_file(folder: Path) -> Once:
    """A parameter file that a node is started with."""
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.node import Node

    from scrfd_ros.node.parameters import declare_parameters
    from scrfd_ros.node.unused_arguments import bad_params_file, for_other_nodes, unused_parameters

    path = folder / "parameters.yaml"
    arguments = ["--ros-args", "--log-level", "fatal", "--params-file", str(path)]

    def once(data: bytes) -> None:
        path.write_bytes(data)
        bad = bad_params_file(arguments)
        if bad:
            raise ScrfdError(bad)
        context = rclpy.Context()
        try:
            rclpy.init(args=arguments, context=context)
        except rclpy_implementation.RCLError as error:  # with which face_node ends
            raise ScrfdError(str(error)) from error
        try:
            node = Node("face_node", context=context, start_parameter_services=False)
            try:
                declare_parameters(node)
                for_other_nodes(arguments, node.get_fully_qualified_name())
                unused_parameters(node._parameter_overrides, node.get_parameters_by_prefix(""))
            finally:
                node.destroy_node()
        finally:
            rclpy.shutdown(context=context)

    return once


def _parameter_file_seeds() -> list[bytes]:
    whole = (ROOT / "config" / "faces.yaml").read_bytes()
    lines = [line for line in whole.splitlines() if line.strip() and b"#" not in line]
    return [b"\n".join(lines) + b"\n", b"/**:\n  ros__parameters:\n    cameras: [front, rear]\n"]


TARGETS = {
    "image": Target(
        "a serialized sensor_msgs/Image, to the faces in it",
        _images,
        _make_image,
        image_mutations,
        memory_mib=64,
    ),
    "compressed": Target(
        "format and data of a sensor_msgs/CompressedImage",
        _compressed,
        _make_compressed,
        memory_mib=1280,  # MAX_PIXELS, their coefficients, and with the colors exchanged
    ),
    "onnx": Target("an ONNX file, as far as scrfd_ros itself reads it", _onnx_models, _make_onnx),
    "network": Target(
        "an ONNX file as a detector, with ONNX Runtime",
        _onnx_models,
        _make_network,
    ),
    "engine": Target("the JSON file beside an engine", _metadata_seeds, _make_engine),
    "catalogue": Target(
        "models/catalogue.yaml",
        _catalogue_seeds,
        _make_catalogue,
    ),
    "pin": Target("a checksum beside a model", lambda: [b"0" * 64 + b"  model.onnx\n"], _make_pin),
    "zip": Target("a zip archive with a model in it", _zips, _make_zip),
    "gallery-export": Target(
        "an export of a gallery, which is imported", _export_seeds, _make_export, json_mutations
    ),
    "gallery-file": Target("a gallery in a file", _gallery_file_seeds, _make_gallery_file),
    "pairs": Target("pairs of images, and detections", _pairs_seeds, _make_pairs),
    "mat": Target(
        "ground truth in a .mat file",
        _mats,
        _make_mat,
    ),
    "bag": Target(
        "a bag: .mcap, .db3 or metadata.yaml",
        _bags,
        _make_bag,
    ),
    "bag-message": Target("a message out of a bag", _bag_message_seeds, _make_bag_message),
    "parameter": Target("a parameter that is set", _parameter_seeds, _make_parameter),
    "parameter-file": Target(
        "a parameter file for the node",
        _parameter_file_seeds,
        _make_parameter_file,
    ),
}
