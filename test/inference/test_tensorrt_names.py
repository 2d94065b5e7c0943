# SPDX-License-Identifier: Apache-2.0
"""Every name of TensorRT that the code uses exists in TensorRT 8.6, 10, 11 and TensorRT-RTX.

The code follows a convention so that it can be checked here: the module is named `trt`, objects are
named as in OBJECTS, with or without `self._`, and a file that uses a name which some version lacks
checks for it, by `hasattr` or `getattr` with the name as a literal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from trt_bindings import BINDINGS, Bindings, Names

PACKAGE = Path(__file__).parents[2] / "scrfd_ros"

OBJECTS = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
    "trt": "",
}
V8, V10_3, V10_13, V11, RTX = map(str, BINDINGS)


@pytest.fixture(scope="module")
def versions(pytestconfig: pytest.Config) -> dict[str, Names]:
    """The names in each version that this Python can import."""
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("tensorrt_bindings")
    return {str(each): each.names(cache) for each in BINDINGS if not each.missing}


def meaning(node: ast.expr) -> str | None:
    """The full name of what an expression stands for; "" for the module itself."""
    match node:
        case ast.Name(id=variable) | ast.Attribute(value=ast.Name(id="self"), attr=variable):
            return OBJECTS.get(variable.removeprefix("_"))
        case ast.Attribute(value=owner, attr=name):
            return member(owner, name)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="trt"), attr=name)):
            return name  # a new object
    return None


def member(owner: ast.expr, name: str) -> str | None:
    prefix = meaning(owner)
    return None if prefix is None else f"{prefix}.{name}".removeprefix(".")


def uses(source: str) -> Iterator[tuple[int, str, bool]]:
    """Line and full name of each use, and whether the code only checks for it."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute() if name := meaning(node):
                yield node.lineno, name, False
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[owner, text, *_]):
                # A computed name cannot be checked, and is reported as missing in all versions.
                literal = isinstance(text, ast.Constant)
                name = ast.literal_eval(text) if literal else f"<{ast.unparse(text)}>"
                if name := member(owner, name):
                    yield node.lineno, name, True


def has(names: Names, name: str) -> bool:
    """Whether a version has a name. Names after a method or a value are not TensorRT's."""
    first, _, rest = name.partition(".")
    if first not in names:
        return False
    inner = names[first]
    return not rest or inner is None or has(inner, rest)


def problems(source: str, versions: dict[str, Names]) -> list[str]:
    """Invalid uses of names in a file: line, name, the versions without it."""
    found = sorted(set(uses(source)))
    asked = [f"{name}." for _, name, is_asked in found if is_asked]
    result = []
    for line, name, _ in found:
        lacking = [version for version, names in versions.items() if not has(names, name)]
        # Some version must have it; not every Python can import all of them.
        if f"{name}.".startswith(tuple(asked)) and len(lacking) < len(BINDINGS):
            continue
        if lacking:
            result.append(f"{line}: {name} is not in {', '.join(lacking)}")
    return result


def knows_tensorrt(source: str) -> bool:
    nodes = ast.walk(ast.parse(source))
    return any("trt" in (getattr(node, "id", None), getattr(node, "arg", None)) for node in nodes)


SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [
    path
    for path, source in SOURCES.items()
    if (path.parent.name == "inference" or path.name == "build.py") and knows_tensorrt(source)
]


@pytest.mark.parametrize("bindings", BINDINGS, ids=str)
def test_version_is_at_hand(bindings: Bindings, versions: dict[str, Names]) -> None:
    if bindings.missing:
        pytest.skip(bindings.missing)
    assert has(versions[str(bindings)], "ICudaEngine.num_io_tensors")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_names_exist(path: Path, versions: dict[str, Names]) -> None:
    found = problems(SOURCES[path], versions)
    assert not found, "\n".join(f"{path.relative_to(PACKAGE)}:{problem}" for problem in found)


def test_code_keeps_to_the_convention() -> None:
    seen = {name for path in MODULES for _, name, _ in uses(SOURCES[path])}
    assert {
        "Builder.build_serialized_network",
        "IExecutionContext.execute_async_v3",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        "Runtime",
    } <= seen


def test_no_other_code_uses_tensorrt() -> None:
    """Elsewhere, `engine` and `network` can be anything, but `trt` is only passed on."""
    assert not [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for path in SOURCES.keys() - MODULES
        for node in ast.walk(ast.parse(SOURCES[path]))
        if isinstance(node, ast.Attribute) and meaning(node.value) == ""
    ]


@pytest.mark.parametrize(
    ("source", "name", "lacking"),
    [
        ("engine.num_bindings", "ICudaEngine.num_bindings", {V10_3, V10_13, V11, RTX}),
        (
            "self._config.max_workspace_size = 1",
            "IBuilderConfig.max_workspace_size",
            {V10_3, V10_13, V11, RTX},
        ),
        ("trt.BuilderFlag.FP16", "BuilderFlag.FP16", {V11, RTX}),
        ("class M(trt.IProgressMonitor): pass", "IProgressMonitor", {V8}),
        ("tensor.location", "ITensor.location", {RTX}),
        (
            "trt.Runtime(log).get_engine_validity",
            "Runtime.get_engine_validity",
            {V8, V10_3, V10_13, V11},
        ),
        ("trt.Logger.Severity.FATAL", "Logger.Severity.FATAL", {V8, V10_3, V10_13, V11, RTX}),
    ],
)
def test_finds_missing_names(
    versions: dict[str, Names], source: str, name: str, lacking: set[str]
) -> None:
    here = [version for version in versions if version in lacking]
    assert problems(source, versions) == (
        [f"1: {name} is not in {', '.join(here)}"] if here else []
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("getattr(trt.BuilderFlag, 'FB16', None)", "BuilderFlag.FB16"),
        ("hasattr(config, 'progress_monitors')", "IBuilderConfig.progress_monitors"),
        ("getattr(trt.BuilderFlag, flag)", "BuilderFlag.<flag>"),
    ],
)
def test_finds_questions_for_what_never_was(
    versions: dict[str, Names], source: str, name: str
) -> None:
    if len(versions) < len(BINDINGS):
        pytest.skip("needs the names of every version")
    assert problems(source, versions) == [f"1: {name} is not in {', '.join(versions)}"]


@pytest.mark.parametrize(
    "source",
    [
        "getattr(trt.NetworkDefinitionCreationFlag, 'EXPLICIT_BATCH', None)",
        "if hasattr(config, 'progress_monitor'): config.progress_monitor = any",
        "engine.name.upper()",
        "trt.__version__.split",
        "trt.ILogger.Severity.ERROR.name",
        "other.engine.num_bindings",
    ],
)
def test_accepts(versions: dict[str, Names], source: str) -> None:
    assert problems(source, versions) == []
