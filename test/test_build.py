# SPDX-License-Identifier: Apache-2.0
"""The package builds and installs with colcon, copied and linked, and with pip without ROS."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory
from catkin_pkg.changelog import Changelog, populate_changelog_from_rst
from catkin_pkg.package import parse_package
from catkin_pkg.package_version import get_forthcoming_label, rename_section
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROOT = Path(__file__).resolve().parents[1]

# Type hashes of vision_msgs 4.1.1. These three messages contain all others of ours.
VISION_MSGS_HASHES = {
    "Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "LabelInfo": "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "VisionInfo": "95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
}

CHECK_INSTALLED = """
import sys
from importlib import import_module
from pathlib import Path

import scrfd_ros
from ament_index_python.packages import get_package_share_directory
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.msg import Face, FaceArray
import scrfd_ros.bags.message_types
from scrfd_ros.srv import Enroll
from vision_msgs.msg import Point2D

prefix = Path(sys.argv[1])
assert Path(scrfd_ros.__file__).is_relative_to(prefix), scrfd_ros.__file__
assert "SCRFD" in scrfd_ros.__doc__, "not our __init__.py"
assert Path(get_package_share_directory("scrfd_ros")).is_relative_to(prefix)
face = Face(landmarks=[Point2D(x=1.0, y=2.0)] * 5, embedding=[0.6, 0.8])
assert FaceArray(faces=[face]).faces[0].landmarks[4].y == 2.0
fields = Face.get_fields_and_field_types()
assert fields["landmarks"] == "sequence<vision_msgs/Point2D, 5>", fields
for module in ("cli.main", "node.demo", "node.start"):
    assert callable(import_module("scrfd_ros." + module).main)
assert load_catalogue()
assert Path(scrfd_ros.__file__).with_name("detection").joinpath("kernels.ptx").is_file()
"""


def run(command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str]) -> str:
    """Run a command; returns its output, which is shown if it fails."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-5000:]}"
    return result.stdout


def copy_package(folder: Path) -> Path:
    """A copy of the package, without what set-up and use leave in a checkout."""
    for name in ("config", "launch", "msg", "resource", "scrfd_ros", "srv", "test"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").mkdir()
    for name in (
        "CMakeLists.txt",
        "README.md",
        "models/catalogue.yaml",
        "package.xml",
        "setup.cfg",
        "setup.py",
    ):
        shutil.copy(ROOT / name, folder / name)
    return folder


def colcon_environment() -> dict[str, str]:
    """The packages of this environment below the workspace; one build process at a time."""
    prefixes = os.pathsep.join([sys.prefix, os.environ.get("AMENT_PREFIX_PATH", "")])
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]]),
        "AMENT_PREFIX_PATH": prefixes,
        "CMAKE_PREFIX_PATH": prefixes,
        "COLCON_LOG_PATH": "log",
        "CMAKE_BUILD_PARALLEL_LEVEL": "1",
    }


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package built twice, side by side: {"copied": workspace, "linked": workspace}."""
    folders = {}
    processes = {}
    for name, option in (("copied", []), ("linked", ["--symlink-install"])):
        folder = folders[name] = tmp_path_factory.mktemp(name)
        copy_package(folder / "src" / "scrfd_ros")
        with (folder / "output").open("w") as output:
            processes[name] = subprocess.Popen(
                ["colcon", "build", *option],
                cwd=folder,
                env=colcon_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
    statuses = {name: process.wait() for name, process in processes.items()}
    for name, status in statuses.items():
        assert status == 0, f"{name}:\n{(folders[name] / 'output').read_text()[-5000:]}"
    return folders


def sourced(workspace: Path, command: str) -> list[str]:
    """A command for a shell in which the workspace is sourced."""
    return ["bash", "-c", f'source "{workspace}/install/local_setup.bash" && {command}']


@pytest.mark.parametrize("name", ["copied", "linked"])
def test_colcon_build_installs_messages_modules_and_catalogue(
    workspaces: dict[str, Path], name: str
) -> None:
    workspace = workspaces[name]
    command = f"{sys.executable} -c '{CHECK_INSTALLED}' {workspace}/install"
    run(sourced(workspace, command), workspace, os.environ)


@pytest.mark.parametrize("name", ["copied", "linked"])
def test_colcon_build_installs_executables(workspaces: dict[str, Path], name: str) -> None:
    executables = workspaces[name] / "install/scrfd_ros/lib/scrfd_ros"
    assert {path.name for path in executables.iterdir()} == {
        "demo",
        "face_node",
        "play_bag",
        "scrfd",
    }
    assert all(os.access(path, os.X_OK) for path in executables.iterdir())
    command = sourced(workspaces[name], f"{executables}/scrfd --help")
    assert "detect" in run(command, workspaces[name], os.environ)


@pytest.mark.parametrize("name", ["copied", "linked"])
def test_colcon_build_installs_share_files(workspaces: dict[str, Path], name: str) -> None:
    share = workspaces[name] / "install/scrfd_ros/share/scrfd_ros"
    for folder in ("config", "launch"):
        names = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        assert names and names <= {path.name for path in (share / folder).iterdir()}
    assert (share / "models/catalogue.yaml").is_file()
    assert (share / "package.xml").is_file()


@pytest.mark.parametrize(("name", "linked"), [("copied", False), ("linked", True)])
def test_only_symlink_install_follows_edits(
    workspaces: dict[str, Path], name: str, linked: bool
) -> None:
    install = workspaces[name] / "install/scrfd_ros"
    (module,) = install.glob("lib/python*/site-packages/scrfd_ros/faces.py")
    assert module.is_symlink() == linked
    assert (install / "share/scrfd_ros/models/catalogue.yaml").is_symlink() == linked


def test_colcon_test_runs_tests_with_the_installed_package(workspaces: dict[str, Path]) -> None:
    workspace = workspaces["copied"]
    tests = workspace / "src" / "scrfd_ros" / "test"
    for path in (tests / "node").glob("test_*.py"):
        if path.name != "test_topic_names.py":  # the others run in this test suite anyway
            path.unlink()
    environment = colcon_environment()
    run(["colcon", "test", "--return-code-on-test-failure"], workspace, environment)
    results = run(["colcon", "test-result", "--all"], workspace, environment)
    for name in ("test_node", "test_launch"):
        (counts,) = re.findall(rf"{name}.xunit.xml: (\d+) tests", results)
        assert int(counts) > 1, results


def test_pip_install_gives_the_command_without_ros(tmp_path: Path) -> None:
    target = tmp_path / "venv"
    source = copy_package(tmp_path / "source")
    venv.create(target, with_pip=True)
    (site,) = target.glob("lib/python*/site-packages")
    # The requirements are those of this environment: only the package itself is installed.
    available = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "requirements.pth").write_text("\n".join(available))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    python = target / "bin/python"
    run([python, "-m", "pip", "install", "--no-deps", source], tmp_path, environment)
    assert "detect" in run([target / "bin/scrfd", "--help"], tmp_path, environment)
    assert (target / "share/scrfd_ros/models/catalogue.yaml").is_file()
    assert (site / "scrfd_ros/detection/kernels.ptx").is_file()
    assert not (site / "scrfd_ros/node").exists()
    check = (
        "import sys, scrfd_ros.pipeline, scrfd_ros.cli.main\n"
        "from scrfd_ros.models.catalogue import load_catalogue\n"
        "assert load_catalogue()\n"
        "assert scrfd_ros.__file__.startswith(sys.prefix), scrfd_ros.__file__\n"
        "assert 'rclpy' not in sys.modules\n"
    )
    run([python, "-c", check], tmp_path, environment)


def test_package_xml_is_valid_and_agrees_with_setup_cfg() -> None:
    warnings: list[str] = []
    package = parse_package(str(ROOT / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert package.name == config["metadata"]["name"]
    assert package.version == config["metadata"]["version"]
    assert package.licenses == [config["metadata"]["license"]]


@pytest.mark.parametrize("name", ["setup.cfg", "ruff.toml"])
def test_settings_name_paths_and_modules_that_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    paths = re.findall(r"(?<![\w/])(?:scrfd_ros|test|models|msg|resource)/[\w./*]+", text)
    modules = re.findall(r"\b(scrfd_ros\.[a-z_.]*[a-z_])", text)
    assert paths and modules
    assert not [path for path in paths if not list(ROOT.glob(path))]
    generated = {"scrfd_ros.msg", "scrfd_ros.srv"}
    places = [module.replace(".", "/") for module in set(modules) - generated]
    assert not [place for place in places if not list(ROOT.glob(f"{place}*"))]


def test_release_tools_read_the_changelog() -> None:
    """Those of ROS 2 give the section of the next release its version and date."""
    text = (ROOT / "CHANGELOG.rst").read_text("utf-8")
    label = get_forthcoming_label(text)
    assert label == "Forthcoming"
    package = parse_package(str(ROOT / "package.xml"))
    released = rename_section(text, label, f"{package.version} (2000-01-01)")
    changelog = populate_changelog_from_rst(Changelog(package.name), released)
    (version, date, entries), *_ = changelog.foreach_version()
    assert (version, date.year) == (package.version, 2000)
    assert entries


def test_package_xml_declares_the_packages_that_cmake_looks_for() -> None:
    package = parse_package(str(ROOT / "package.xml"))
    declared = {
        item.name
        for item in package.buildtool_depends + package.build_depends + package.test_depends
    }
    found = {
        line.split("(")[1].split()[0]
        for line in map(str.strip, (ROOT / "CMakeLists.txt").read_text().splitlines())
        if line.startswith("find_package(")
    }
    assert found - declared == {"Python3", "ament_cmake_python"}


def test_package_xml_declares_every_imported_module() -> None:
    package = parse_package(str(ROOT / "package.xml"))
    declared = {item.name for item in package.build_depends + package.exec_depends}
    keys = {name: f"python3-{name}" for name in ("numpy", "scipy", "tqdm", "yaml")}
    keys["cv2"] = "python3-opencv"
    imported = set()
    for path in [*ROOT.glob("scrfd_ros/**/*.py"), *ROOT.glob("launch/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    needed = {keys.get(name, name) for name in imported - sys.stdlib_module_names - {"scrfd_ros"}}
    # package.xml explains why they are not declared.
    optional = {"faiss", "foxglove_msgs", "hri_msgs", "matplotlib", "onnx", "openvino", "psycopg"}
    optional |= {"rosbag2_interfaces", "rosbags"}
    from_rosbags = {"lz4", "backports", "compression"}  # the last is Python's own from 3.14 on
    assert needed - declared - from_rosbags == {"onnxruntime", *optional}


@pytest.mark.parametrize("name", VISION_MSGS_HASHES)
def test_own_vision_msgs_have_the_type_hash_of_the_real_ones(name: str) -> None:
    types = {}
    for path in (ROOT / "resource/vision_msgs/msg").glob("*.msg"):
        types.update(get_types_from_msg(path.read_text(), f"vision_msgs/msg/{path.stem}"))
    typestore = get_typestore(Stores.ROS2_JAZZY)
    typestore.register(types)
    hashed = typestore.hash_rihs01(f"vision_msgs/msg/{name}")
    assert hashed == f"RIHS01_{VISION_MSGS_HASHES[name]}"


@pytest.mark.parametrize("name", VISION_MSGS_HASHES)
def test_installed_vision_msgs_have_the_type_hash_of_the_real_ones(name: str) -> None:
    path = Path(get_package_share_directory("vision_msgs"), "msg", f"{name}.json")
    if not path.exists():
        pytest.skip("this ROS 2 has no type hashes yet")
    hashes = {
        item["type_name"]: item["hash_string"]
        for item in json.loads(path.read_text())["type_hashes"]
    }
    assert hashes[f"vision_msgs/msg/{name}"] == f"RIHS01_{VISION_MSGS_HASHES[name]}"
