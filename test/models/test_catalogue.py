# SPDX-License-Identifier: Apache-2.0
"""The catalogue finds and verifies model files, and mistakes in it are reported."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import scrfd_ros
from scrfd_ros.errors import ModelError
from scrfd_ros.models.catalogue import (
    DETECTOR,
    RECOGNIZER,
    SUPER_RESOLUTION,
    PackageSource,
    default_model_directory,
    file_state,
    installed_model,
    load_catalogue,
)
from scrfd_ros.models.checksums import write_pin

PACKAGE = Path(scrfd_ros.__file__).parent
CATALOGUE = Path(__file__).parents[2] / "models" / "catalogue.yaml"

MINIMAL = """
default: [tiny]
licenses:
  free: {title: Free, notice: Take it.}
packages:
  tinyfaces==1.0:
    archive: wheel
    sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
models:
  tiny:
    kind: detector
    file: tiny.onnx
    input: 640x640
    bytes: 5
    sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    landmarks: true
    license: free
    accuracy: {WIDER easy: 90.5}
    sources:
      - url: https://example.org/tiny.onnx
      - package: tinyfaces==1.0
        member: tinyfaces/tiny.onnx
pictures:
  people.jpg:
    bytes: 5
    sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    sources: [{package: tinyfaces==1.0, member: people.jpg}]
"""


def test_all_models_of_the_package_are_there() -> None:
    catalogue = load_catalogue()
    assert catalogue.names(DETECTOR) == ["500m", "1g", "2.5g", "10g", "34g", "det_500m"]
    assert catalogue.names(RECOGNIZER) == ["w600k_mbf", "w600k_r50", "glintr100"]
    assert catalogue.names(SUPER_RESOLUTION) == ["realesrgan_x4plus"]
    assert len(catalogue.names()) == 10
    assert catalogue.default == ("2.5g", "w600k_mbf")


def test_only_the_detectors_published_with_landmarks_have_them() -> None:
    entries = load_catalogue().models.values()
    assert [entry.name for entry in entries if entry.landmarks] == [
        "500m",
        "2.5g",
        "10g",
        "det_500m",
    ]


@pytest.mark.parametrize("name", ["500m", "2.5g", "w600k_mbf", "realesrgan_x4plus"])
def test_models_to_begin_with_are_in_the_registry_too(name: str) -> None:
    sources = load_catalogue().models[name].sources
    assert any(isinstance(source, PackageSource) for source in sources)


def test_every_model_of_faces_says_that_it_is_not_for_products() -> None:
    for entry in load_catalogue().models.values():
        restricted = "non-commercial research only" in entry.license.notice
        assert restricted == (entry.kind != SUPER_RESOLUTION)


def test_an_alias_is_accepted_and_explained(caplog: pytest.LogCaptureFixture) -> None:
    assert load_catalogue().find("arcface_r100", RECOGNIZER).name == "w600k_r50"
    assert "arcface_r100 stands for w600k_r50" in caplog.text
    assert "ResNet-50" in caplog.text
    assert "the ResNet-100 is glintr100" in caplog.text


# The files that SEED.md, the instructions for users of RetinaFace, tells to download or to make.
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("scrfd_500m_bnkps.onnx", "500m"),
        ("scrfd_1g.onnx", "1g"),
        ("scrfd_2.5g_bnkps.onnx", "2.5g"),
        ("scrfd_10g_bnkps.onnx", "10g"),
        ("scrfd_34g.onnx", "34g"),
        ("w600k_r50.onnx", "w600k_r50"),
        ("arcface_r100.onnx", "w600k_r50"),
        ("realesrgan_x4plus.onnx", "realesrgan_x4plus"),
    ],
)
def test_file_names_are_accepted(file: str, name: str) -> None:
    assert load_catalogue().find(file).name == name
    assert load_catalogue().find(file.removesuffix(".onnx")).name == name


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        pytest.param("2.5", None, "did you mean 2.5g?", id="nearly a name"),
        pytest.param("arcface", None, "did you mean arcface_r100?", id="nearly an alias"),
        pytest.param("yolo", DETECTOR, "known are 500m, 1g, 2.5g, 10g, 34g", id="unknown"),
        pytest.param("2.5g", RECOGNIZER, "is a detector, expected a recognizer", id="other kind"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(
    name: str, kind: str | None, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        load_catalogue().find(name, kind)
    assert message in str(caught.value)


def test_a_minimal_catalogue_is_read(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(MINIMAL)
    entry = load_catalogue(path).find("tiny")
    assert (entry.bytes, entry.landmarks, entry.license.title) == (5, True, "Free")
    assert [str(source) for source in entry.sources] == [
        "https://example.org/tiny.onnx",
        "tinyfaces==1.0 from the Python registry, through pip",
    ]


@pytest.mark.parametrize(
    ("addition", "checksums"),
    [
        pytest.param("", ["2cf24dba", "2cf24dba"], id="that of the model"),
        pytest.param(f"sha256: {'a' * 64}", ["2cf24dba", "aaaaaaaa"], id="its own"),
        pytest.param("sha256: null", ["2cf24dba", None], id="unknown"),
    ],
)
def test_a_source_can_have_its_own_checksum(
    tmp_path: Path, addition: str, checksums: list[str | None]
) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(
        MINIMAL.replace("tinyfaces/tiny.onnx", f"tinyfaces/tiny.onnx\n        {addition}")
    )
    sources = load_catalogue(path).find("tiny").sources
    assert [source.sha256 and source.sha256[:8] for source in sources] == checksums


SHA256 = "sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("models:", "models: [", "not valid YAML", id="no YAML"),
        pytest.param(MINIMAL, "hello", "expected a mapping, found 'hello'", id="no mapping"),
        pytest.param("default: [tiny]", "", "field default: is missing", id="no default"),
        pytest.param("[tiny]", "[big]", "field default: 'big' is not", id="unknown default"),
        pytest.param("title: Free, ", "", "license free, field title: is missing", id="no title"),
        pytest.param(
            "kind: detector", "kind: camera", "tiny, field kind: expected detector", id="kind"
        ),
        pytest.param("tiny.onnx\n", "../a\n", "tiny, field file: expected a file", id="folder"),
        pytest.param("bytes: 5", "bytes: many", "field bytes: expected int", id="bytes"),
        pytest.param("bytes: 5", "bytes: null", "field bytes: expected null", id="half a check"),
        pytest.param("input: 640x640", "input: 640", "field input: expected str", id="input"),
        pytest.param(
            f"bytes: 5\n    {SHA256}",
            "bytes: 5\n    sha256: 2cf\n",
            "model tiny, field sha256: expected 64",
            id="checksum",
        ),
        pytest.param("landmarks: true", "", "field landmarks: is missing", id="no landmarks"),
        pytest.param("license: free", "license: x", "field license: 'x' is not", id="license"),
        pytest.param("accuracy", "acuracy", "tiny, field accuracy: is missing", id="mistyped"),
        pytest.param("bytes:", "size: 1\n    bytes:", "field size: is not a known", id="unknown"),
        pytest.param(
            "https://", "http://", "source 1, field url: expected an https", id="no HTTPS"
        ),
        pytest.param("==1.0:", ">=1.0:", "package tinyfaces>=1.0: expected", id="not pinned"),
        pytest.param("wheel", "egg", "field archive: expected wheel or sdist", id="archive"),
        pytest.param("package: tiny", "package: x", "source 2, field package: 'x", id="package"),
        pytest.param(
            "member: tinyfaces/tiny.onnx",
            "convert: caffe",
            "source 2, field convert: expected ncnn",
            id="conversion",
        ),
        pytest.param(
            "- url: https://example.org/tiny.onnx",
            "- hello",
            "tiny, source 1: expected a mapping",
            id="source",
        ),
    ],
)
def test_a_fault_is_reported_with_file_entry_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "catalogue.yaml"
    assert old in MINIMAL
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ModelError) as caught:
        load_catalogue(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.yaml: cannot read the catalogue"):
        load_catalogue(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("content", "known", "state"),
    [
        pytest.param(b"hello", True, "present", id="right"),
        pytest.param(b"Hello", True, "corrupt", id="first byte wrong"),
        pytest.param(b"heLlo", True, "corrupt", id="one wrong byte"),
        pytest.param(b"hellO", True, "corrupt", id="last byte wrong"),
        pytest.param(b"hello!", True, "corrupt", id="too long"),
        pytest.param(b"hell", True, "corrupt", id="truncated"),
        pytest.param(None, True, "missing", id="not there"),
        pytest.param(b"anything", False, "unverified", id="no checksum known"),
        pytest.param(None, False, "missing", id="not there, no checksum known"),
    ],
)
def test_a_file_is_judged_by_its_content(
    tmp_path: Path, content: bytes | None, known: bool, state: str
) -> None:
    document = yaml.safe_load(MINIMAL)
    if not known:
        document["models"]["tiny"].update(bytes=None, sha256=None)
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(document))
    entry = load_catalogue(path).find("tiny")
    if content is not None:
        (tmp_path / entry.file).write_bytes(content)
    assert file_state(entry, tmp_path / entry.file) == state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "is not there; to download it: scrfd models 2.5g", id="missing"),
        pytest.param(b"x", "does not have the SHA-256 of 2.5g, 9c162a8", id="damaged"),
    ],
)
def test_a_model_that_cannot_be_used_is_named_with_the_remedy(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "scrfd_2.5g_bnkps.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        installed_model("2.5g", DETECTOR, tmp_path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert f"scrfd models 2.5g --directory {tmp_path}" in str(caught.value)


def test_a_model_without_known_checksum_is_used_as_long_as_it_stays_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scrfd_34g.onnx"
    with pytest.raises(ModelError, match=r"is not there; to download it: scrfd models 34g"):
        installed_model("34g", DETECTOR, tmp_path)
    path.write_bytes(b"x")
    assert installed_model("34g", DETECTOR, tmp_path) == path
    write_pin(path, hashlib.sha256(b"x").hexdigest())
    assert installed_model("34g", DETECTOR, tmp_path) == path
    path.write_bytes(b"y")
    with pytest.raises(ModelError, match=r"does not have the SHA-256 of 34g, 2d711642b726b"):
        installed_model("34g", DETECTOR, tmp_path)


def test_a_checkout_keeps_models_in_itself(tmp_path: Path) -> None:
    layout = _install(tmp_path / "checkout", modules=".", catalogue="models")
    _, directory = _ask(layout, XDG_DATA_HOME=str(tmp_path / "data"))
    assert directory == tmp_path / "checkout" / "models"


def test_a_symlinked_build_uses_the_checkout_it_links_to(tmp_path: Path) -> None:
    source = _install(tmp_path / "checkout", modules=".", catalogue="models") / "scrfd_ros"
    modules = tmp_path / "install" / "lib" / "python3" / "site-packages"
    for file in source.rglob("*.py"):
        link = modules / "scrfd_ros" / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    names, directory = _ask(modules)
    assert "2.5g" in names
    assert directory == tmp_path / "checkout" / "models"


@pytest.mark.parametrize(
    "modules",
    [
        pytest.param("lib/python3.12/site-packages", id="colcon, venv"),
        pytest.param("local/lib/python3.10/dist-packages", id="colcon on Ubuntu"),
        pytest.param(".", id="pip --target"),
    ],
)
def test_an_installed_package_finds_its_catalogue(tmp_path: Path, modules: str) -> None:
    layout = _install(tmp_path / "prefix", modules, "share/scrfd_ros/models")
    names, directory = _ask(layout, XDG_DATA_HOME=str(tmp_path / "data"))
    assert "2.5g" in names
    assert directory == tmp_path / "data" / "scrfd_ros" / "models"


@pytest.mark.parametrize("value", ["", "relative/path"], ids=["unset", "not absolute"])
def test_models_go_under_home_without_a_data_folder(tmp_path: Path, value: str) -> None:
    layout = _install(tmp_path / "prefix", ".", "share/scrfd_ros/models")
    _, directory = _ask(layout, XDG_DATA_HOME=value, HOME=str(tmp_path / "home"))
    assert directory == tmp_path / "home" / ".local" / "share" / "scrfd_ros" / "models"


def test_the_tests_run_on_this_checkout() -> None:
    assert default_model_directory() == CATALOGUE.parent


def _install(prefix: Path, modules: str, catalogue: str) -> Path:
    """Install the files that the catalogue needs; returns the module folder."""
    folder = prefix / modules
    shutil.copytree(PACKAGE / "models", folder / "scrfd_ros" / "models")
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PACKAGE / name, folder / "scrfd_ros" / name)
    (prefix / catalogue).mkdir(parents=True, exist_ok=True)
    shutil.copy(CATALOGUE, prefix / catalogue)
    return folder


def _ask(modules: Path, **environment: str) -> tuple[list[str], Path]:
    """Model names and model directory as a Python that starts in `modules` sees them."""
    code = (
        "from scrfd_ros.models.catalogue import *\n"
        "print(*load_catalogue().names())\n"
        "print(default_model_directory())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=modules,
        env={**os.environ, "PYTHONPATH": str(modules), **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return answer[0].split(), Path(answer[1])
