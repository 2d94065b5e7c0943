# SPDX-License-Identifier: Apache-2.0
"""The rooms of the house keep to themselves: who imports what, and what every file has."""

from __future__ import annotations

import ast
import builtins
import functools
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from parameter_file import configured

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scrfd_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = ("test", "launch", "bench", "fuzz", "docs")
PYTHON_FILES = [
    *MODULES,
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))),
    *sorted(ROOT.glob("*.py")),
]

ROOMS = (
    "errors",
    "arrays",
    "faces",
    "files",
    "images",
    "inference",
    "models",
    "config",
    "detection",
    "recognition",
    "tracking",
    "engines",
    "gallery",
    "pipeline",
    "messages",
    "bags",
    "enrollment",
    "evaluation",
    "node",
    "cli",
)
"""Rooms of the house, in the order in which they may know each other."""

# Numpy, OpenCV and Python alone.
PURE_ROOMS = {"errors", "arrays", "faces", "files", "images", "detection", "recognition"}
# Libraries that are loaded only where they are used.
HEAVY = {
    "onnx": {"engines"},
    "onnxruntime": {"inference", "engines"},
    "openvino": {"inference"},
    "tensorrt": {"inference"},
    "pycuda": {"inference"},
    "cuda": {"inference"},
    "psycopg": {"gallery"},
    "faiss": {"gallery"},
    "scipy": {"evaluation"},
    "rosbags": {"bags"},
    "matplotlib": {"evaluation"},
}
ROS_PREFIXES = ("rclpy", "rosidl", "ament", "launch", "cv_bridge", "tf2", "rosbag2")
ROS_SUFFIXES = ("_msgs", "_interfaces", "_srvs")
PURE = {"numpy", "cv2", "__future__"} | set(sys.stdlib_module_names)


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=identify)


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it that happens."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{identify(path)}:{node.lineno}: a relative import"
            # `from a import b`: b can be a module or a name in a.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def is_ros(name: str) -> bool:
    package = top(name)
    return (
        package.startswith(ROS_PREFIXES)
        or package.endswith(ROS_SUFFIXES)
        or name.startswith(("scrfd_ros.msg", "scrfd_ros.srv", "scrfd_ros.node"))
    )


def room(path: Path) -> str:
    """The first folder below the package, or the module itself; "" for the package's own."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0].replace("__init__", "")


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in MODULES} == {"", *ROOMS}


def test_the_design_describes_the_rooms_in_order() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = text.split("| room | content |\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)(?:\.py|/)` ", table, re.MULTILINE) == list(ROOMS)


@every_module
def test_no_arrow_runs_upwards(path: Path) -> None:
    """A room imports only from itself and from rooms above it."""
    if room(path):
        known = {*ROOMS[: ROOMS.index(room(path)) + 1], "__file__"}
        if room(path) == "node":
            known |= {"msg", "srv"}  # generated
        ours = [name.split(".") for name in imports(path) if top(name) == "scrfd_ros"]
        assert not [name for name in ours if name[1] not in known]


def test_no_modules_import_each_other() -> None:
    """Neither directly nor over others, nor where the import comes late."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    known = {name: set(imports(path)) for name, path in paths.items()}
    for name, found in known.items():
        # `from a import b`: where b is no module, it is a name in a.
        known[name] = {each if each in paths else each.rpartition(".")[0] for each in found}
    TopologicalSorter(known).prepare()  # raises CycleError, which names them


@every_module
def test_only_ros_speaks_ros(path: Path) -> None:
    if room(path) != "node":
        assert not [name for name in imports(path) if is_ros(name)]


@every_module
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    found = {top(name) for name in imports(path)} & HEAVY.keys()
    assert not [name for name in found if room(path) not in HEAVY[name]]


@every_module
def test_the_core_is_numpy_and_opencv(path: Path) -> None:
    if room(path) in PURE_ROOMS:
        assert not [name for name in imports(path) if top(name) not in {*PURE, "scrfd_ros"}]


def is_constant(node: ast.expr, kind: type | tuple[type, ...]) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, kind)


def calculations(tree: ast.AST) -> Iterator[ast.BinOp]:
    """Products, quotients and powers of numbers. Not sums, which also count and join.

    Paths have a / and text has a %, so of these two only what has a number in it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            operands = (node.left, node.right)
            text = any(is_constant(side, str) for side in operands)
            number = any(is_constant(side, (int, float)) for side in operands)
            if isinstance(node.op, (ast.Mult, ast.MatMult, ast.FloorDiv, ast.Pow)):
                if not text:
                    yield node
            elif isinstance(node.op, (ast.Div, ast.Mod)) and number:
                yield node


@every_module
def test_commands_do_not_calculate(path: Path) -> None:
    if room(path) == "cli":
        found = list(calculations(ast.parse(path.read_text(encoding="utf-8"))))
        assert not [f"line {node.lineno}: {ast.unparse(node)}" for node in found]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=identify)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert "# SPDX-License-Identifier: Apache-2.0\n" in path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@every_module
def test_annotations_are_not_evaluated(path: Path) -> None:
    _, *code = ast.parse(path.read_text(encoding="utf-8")).body
    if code:
        assert ast.unparse(code[0]) == "from __future__ import annotations"


@every_module
def test_no_type_of_numpy_is_subscripted_at_run_time(path: Path) -> None:
    """numpy 1.21, which Humble has, cannot: `np.floating[Any]` raises a TypeError."""
    types = {f"np.{name}" for name in ("dtype", "floating", "integer", "ndarray", "number")}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    annotations = {
        id(node)
        for parent in ast.walk(tree)
        for field in ("annotation", "returns")
        if isinstance(annotation := getattr(parent, field, None), ast.AST)
        for node in ast.walk(annotation)
    }
    assert not [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and id(node) not in annotations
        and ast.unparse(node.value) in types
    ]


def texts(source: str) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and is_constant(node.value, str):
            yield ast.literal_eval(node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def names_in(tree: ast.AST) -> Iterator[str]:
    """All names that a piece of code defines or uses."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


@functools.cache
def known_names() -> set[str]:
    """Of the code, its modules and folders, and Python."""
    code = {
        name for path in MODULES for name in names_in(ast.parse(path.read_text(encoding="utf-8")))
    }
    places = {part for path in MODULES for part in path.relative_to(ROOT).with_suffix("").parts}
    return code | places | set(dir(builtins))


def is_there(reference: str) -> bool:
    """Whether a name such as scrfd_ros.faces.Faces leads to a module, or to a name in one."""
    parts = reference.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        if place.is_dir():
            return length == len(parts)
        if place.with_suffix(".py").exists():
            names = set(names_in(ast.parse(place.with_suffix(".py").read_text(encoding="utf-8"))))
            return names.issuperset(parts[length:])
    return False


FOREIGN = {
    "mcap",
    "rosbags",
    "limits.cpu",
    "CUDA_VISIBLE_DEVICES",
    "ros__parameters",
    "true",
    "false",
}
"""Names in docstrings and comments that are not of Python and not of this code."""


@every_module
def test_names_in_docstrings_and_comments_exist(path: Path) -> None:
    missing = []
    for text in texts(path.read_text(encoding="utf-8")):
        for name in re.findall(r"`(\w+(?:\.\w+)*)`", text):
            if name.startswith("scrfd_ros."):
                if not is_there(name):
                    missing.append(name)
            elif name not in FOREIGN and not known_names().issuperset(name.split(".")):
                missing.append(name)
    assert not missing


def documented(docstring: str, section: str) -> set[str]:
    """The names in a section of a docstring, such as Args."""
    _, _, rest = f"\n{docstring}\n".partition(f"\n{section}:\n")
    lines = re.match(r"(?:(?:    .*)?\n)*", rest)
    assert lines is not None
    found = re.findall(r"^    (\w+(?:, \w+)*): ", lines[0], re.MULTILINE)
    return {name for names in found for name in names.split(", ")}


@every_module
def test_documented_arguments_and_attributes_exist(path: Path) -> None:
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            docstring = ast.get_docstring(node) or ""
            within = set(names_in(node))
            for section in ("Args", "Attributes"):
                for name in documented(docstring, section) - within:
                    wrong.append(f"{node.name}: {section}: {name}")
    assert not wrong


def test_documentation_lists_every_parameter_with_its_default() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    listed = {
        name.strip("`"): "" if default == "empty" else yaml.safe_load(default.strip("`"))
        for name, _, default, *_ in rows
    }
    assert listed == configured()
