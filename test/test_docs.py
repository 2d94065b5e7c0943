# SPDX-License-Identifier: Apache-2.0
"""Commands, options, messages and files that the documents name exist, and the commands work.

Every line of a code block without a language, or of bash, is a command. Commands of `scrfd` and
run.sh are run where that is possible here; of the others the names are checked.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ament_index_python.packages import get_package_prefix
from bag_files import raw, write_bag
from numpy.typing import NDArray
from pipelines import loaded

from scrfd_ros.bags.tolerances import TOLERANCES
from scrfd_ros.cli.main import _COMMANDS, _parser, main
from scrfd_ros.config import options
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.node.config import NodeConfig, to_parameter
from scrfd_ros.tracking.tracker import SAME_PERSON

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "QUALITY_DECLARATION.md",
    ROOT / "models" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
]

# Commands that are run, with options that make them quick, harmless and independent of the machine.
RUN = {
    command: shlex.split(options)
    for command, options in {
        "bench": "--backend onnxruntime --detector 500m --recognizer none --repeat 1 --warmup 0",
        "convert": "",
        "detect": "--backend onnxruntime",
        "models": "--list",
        "replay": "--backend onnxruntime",
        "verify": "",
    }.items()
}


OTHERS_MESSAGES = ("Error Code", "ImportError")
"""Beginnings of messages of TensorRT and of Python."""
FILLED_IN = r"\.\.\.|640x640|cuInit|[:;] |^1 is |configure|activate"
"""Parts of messages that are filled in at run time."""


def commands(document: Path) -> Iterator[list[str]]:
    """The commands of a document, as words."""
    for block in document.read_text("utf-8").split("```")[1::2]:
        language, *lines = block.splitlines()
        for line in lines if language in ("", "bash") else []:
            line = line.replace("$(ros2 pkg prefix scrfd_ros)/share/scrfd_ros", str(ROOT))
            for part in line.split("&&"):
                if words := shlex.split(part, comments=True):
                    yield words


def scrfd_words(words: list[str]) -> list[str] | None:
    """The arguments of `scrfd`, in any of its forms; None for other commands."""
    for call in (["./run.sh"], ["scrfd"], ["ros2", "run", "scrfd_ros", "scrfd"]):
        if words[: len(call)] == call:
            return words[len(call) :]
    return None


def help_of(command: str) -> str:
    """The output of `scrfd COMMAND --help`."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        _parser().parse_args([command, "--help"])
    return output.getvalue()


def help_of_run_sh() -> str:
    """The output of run.sh without a command."""
    command = [ROOT / "run.sh"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_sh_commands() -> set[str]:
    """The commands that run.sh lists."""
    return set(re.findall(r"^  ([a-z0-9-]+) ", help_of_run_sh(), re.MULTILINE))


def check_scrfd(words: list[str]) -> None:
    assert words[0] in run_sh_commands()
    if words[0] in _COMMANDS:
        _parser().parse_args(words)  # exits if it does not know them


def check_topic(name: str) -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "scrfd_ros" / "node").glob("*.py")]
    assert re.search(rf'"(?:[\w/]*/)?{name.split("/")[-1]}"', "".join(sources)), f"no topic {name}"


def check_parameter(name: str, value: str) -> None:
    default = to_parameter(options(NodeConfig)[name].default)
    assert type(yaml.safe_load(value)) is type(default), (name, value)


def check_ros_arguments(words: list[str]) -> None:
    """Remappings and parameters of the node."""
    for option, text in zip(words[::2], words[1::2], strict=True):
        name, value = text.split(":=")
        if option == "-p":
            check_parameter(name, value)
        else:
            assert option == "-r"
            check_topic(name)


def check_ros2_run(words: list[str]) -> None:
    package, executable, *arguments = words
    assert package == "scrfd_ros"
    assert Path(get_package_prefix(package), "lib", package, executable).is_file()
    if arguments:
        assert arguments[0] == "--ros-args"
        check_ros_arguments(arguments[1:])


def check_ros2_launch(words: list[str]) -> None:
    package, file, *arguments = words
    if package == "foxglove_bridge":
        assert [file, *arguments] == ["foxglove_bridge_launch.xml"]
        return
    assert package == "scrfd_ros"
    text = (ROOT / "launch" / file).read_text("utf-8")
    if "faces.launch.py" in text:  # its arguments are those of the other file too
        text += (ROOT / "launch" / "faces.launch.py").read_text("utf-8")
    known = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text)
    for argument in arguments:
        assert argument == "--show-args" or argument.split(":=")[0] in known, argument


def check_ros2_topic(words: list[str]) -> None:
    assert words[0] in ("echo", "hz")
    check_topic(words[1])


def check_ros2_param(words: list[str]) -> None:
    verb, node, name, value = words
    assert (verb, node) == ("set", "/face_node")
    check_parameter(name, value)


def check_ros2_lifecycle(words: list[str]) -> None:
    verb, node, transition = words
    assert (verb, node) == ("set", "/face_node")
    assert transition in ("configure", "activate", "deactivate", "cleanup")


def check_ros2_service(words: list[str]) -> None:
    verb, service, kind, *request = words
    assert verb == "call"
    package, folder, name = kind.split("/")
    assert (package, folder) == ("scrfd_ros", "srv")
    assert service == "/face_node/" + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    definition = (ROOT / "srv" / f"{name}.srv").read_text("utf-8").partition("\n---")[0]
    for text in request:
        assert yaml.safe_load(text).keys() <= set(
            re.findall(r"^[\w/\[\]]+ (\w+)$", definition, re.MULTILINE)
        )


def check_ros2_bag(words: list[str]) -> None:
    if words[0] == "play":  # of the user's bag
        assert words[2:4] == ["--clock", "--topics"]
        return
    assert words[:2] == ["record", "-o"]
    for topic in words[3:]:
        check_topic(topic)


def check_rviz2(words: list[str]) -> None:
    option, layout, *arguments = words
    assert option == "-d"
    for argument in arguments[2:]:
        assert f"Value: {argument.split(':=')[0]}\n" in Path(layout).read_text("utf-8")


def check_export(words: list[str]) -> None:
    if all(word.startswith("PIP_") for word in words):  # pip's own
        return
    name, value = words[0].split("=")
    assert name in (ROOT / "launch" / "transport.launch.py").read_text("utf-8")
    assert value.startswith("$") or Path(value).is_file()


def check_sudo(words: list[str]) -> None:
    if words[:2] == ["apt", "install"]:
        names = {name.removeprefix("ros-$ROS_DISTRO-") for name in words[2:]}
        assert names <= {"rviz2", "rosbag2", "foxglove-bridge", "foxglove-msgs", "hri-msgs"}
    else:
        assert words[:2] == ["sysctl", "-w"]


def nothing_of_ours(words: list[str]) -> None:
    """Commands of the shell and of other tools."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "ros2 run": check_ros2_run,
    "ros2 launch": check_ros2_launch,
    "ros2 topic": check_ros2_topic,
    "ros2 param": check_ros2_param,
    "ros2 lifecycle": check_ros2_lifecycle,
    "ros2 bag": check_ros2_bag,
    "ros2 service": check_ros2_service,
    "rviz2": check_rviz2,
    "export": check_export,
    "sudo": check_sudo,
    **dict.fromkeys(
        ("cd", "colcon", "cp", "git", "mkdir", "pip", "rosdep", "source"), nothing_of_ours
    ),
}


def test_commands_are_found() -> None:
    found = [words for document in DOCUMENTS for words in commands(document)]
    of_scrfd = {words[0] for words in map(scrfd_words, found) if words}
    assert {*RUN, "demo", "test"} <= of_scrfd
    assert {"run", "launch", "topic"} <= {words[1] for words in found if words[0] == "ros2"}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{document.stem}: {shlex.join(words)}")
        for document in DOCUMENTS
        for words in commands(document)
    ],
)
def test_what_a_command_names_is_there(words: list[str]) -> None:
    if (of_scrfd := scrfd_words(words)) is not None:
        check_scrfd(of_scrfd)
        return
    length = 2 if words[0] == "ros2" else 1
    kind = " ".join(words[:length])
    assert kind in CHECKS, "an unknown kind of command; the output of commands is ```text"
    CHECKS[kind](words[length:])


def runnable(document: Path) -> list[list[str]]:
    """Commands of a document that are run, from their names on."""
    return [
        words
        for words in map(scrfd_words, commands(document))
        if words and words[0] in RUN and not {"--peers", "--gpu"} & {*words}  # need other packages
    ]


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, id=document.relative_to(ROOT).as_posix())
        for document in DOCUMENTS
        if runnable(document)
    ],
)
def test_commands_run(
    document: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: Callable[[str], NDArray[np.uint8]],
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
) -> None:
    """In order, in one folder with an image, a bag and the weights."""
    weights = [detector_path("500m"), detector_path("2.5g"), recognizer_path("w600k_mbf")]
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    for path in weights:
        Path("models", path.name).symlink_to(path)
    half_size = np.ascontiguousarray(image("t1.jpg")[::2, ::2])
    write_image(Path("holiday.jpg"), half_size)
    write_bag(Path("drive"), (raw("/camera/image_raw", 10**9 * n, half_size) for n in (1, 2)))
    for words in runnable(document):
        assert main([*words, *RUN[words[0]]]) == 0, words


@pytest.mark.parametrize("name", ["2.5g", "500m"])
def test_scores_in_the_page_on_retinaface(
    name: str, detector_path: Callable[[str], Path], image: Callable[[str], NDArray[np.uint8]]
) -> None:
    text = document_text("docs/retinaface.md")
    (said,) = re.findall(rf"([\d.]+) to ([\d.]+) with `{name}`", text)
    pipeline = loaded(detector_path(name), backend="onnxruntime")
    scores = pipeline(image("t1.jpg")).faces.scores
    assert said == (f"{scores.min():.2f}", f"{scores.max():.2f}")


def test_generated_files_are_up_to_date() -> None:
    files = runpy.run_path(str(ROOT / "docs" / "generate.py"))["FILES"]
    stale = [name for name, make in files.items() if (ROOT / name).read_text("utf-8") != make()]
    assert not stale, f"{stale} are outdated; run: .venv/bin/python docs/generate.py"


def test_help_of_run_sh_fits_a_terminal() -> None:
    assert max(map(len, help_of_run_sh().splitlines())) <= 80


def test_run_sh_does_what_it_lists() -> None:
    script = (ROOT / "run.sh").read_text("utf-8").split("case $command in")[1]
    cases = re.findall(r"^  ([^ ].*)\)$", script, re.MULTILINE)
    names = {name for case in cases for name in case.split(" | ")}
    assert set(_COMMANDS) <= run_sh_commands() <= names


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 145


@pytest.fixture
def ran(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Path], dict[str, Any]]:
    """Runs the Python code of a document with a photograph of six people; returns its names."""
    detector_path("2.5g")
    recognizer_path("w600k_mbf")
    write_image(tmp_path / "holiday.png", image("t1.jpg"))
    monkeypatch.chdir(tmp_path)

    def run(document: Path) -> dict[str, Any]:
        code = document.read_text("utf-8").split("```python\n")[1].split("```")[0]
        names: dict[str, Any] = {}
        exec(code.replace("holiday.jpg", "holiday.png"), names)
        return names

    return run


def test_readme_python_runs(ran: Callable[[Path], dict[str, Any]]) -> None:
    names = ran(README)
    assert len(names["faces"]) == 6
    different_people = names["similarity"][~np.eye(6, dtype=bool)]
    assert different_people.max() < SAME_PERSON


def test_python_in_the_page_on_retinaface(ran: Callable[[Path], dict[str, Any]]) -> None:
    """Before and after are the same faces, with their landmarks in one order."""
    names = ran(ROOT / "docs" / "retinaface.md")
    before, after = (
        [
            array[np.argsort(array[:, 0])]
            for array in (np.array(boxes), np.array(points).reshape(-1, 10))
        ]
        for boxes, points in (
            (names["old_boxes"], names["old_landmarks"]),
            (names["boxes"], names["landmarks"]),
        )
    )
    for old, new in zip(before, after, strict=True):
        assert old.shape == new.shape
        assert len(old) == 6
        assert np.abs(old - new).max() < 16  # pixels; the faces are 120 to 150 high


@pytest.mark.parametrize(("kind", "prefix"), [("FaceArray", ""), ("Face", "faces[].")])
def test_topics_name_every_field_of_a_message(kind: str, prefix: str) -> None:
    text = (ROOT / "docs" / "topics.md").read_text("utf-8")
    definition = (ROOT / "msg" / f"{kind}.msg").read_text("utf-8")
    fields = re.findall(r"^[\w/]+(?:\[.*\])? (\w+)$", definition, re.MULTILINE)
    assert len(fields) >= 4
    assert not [name for name in fields if f"`{prefix}{name}" not in text]


@pytest.mark.parametrize(
    "path", ["README.md", "docs/topics.md", "docs/verification.md", "scrfd_ros/__init__.py"]
)
def test_documents_name_the_threshold_of_the_tracker(path: str) -> None:
    assert f"{SAME_PERSON:.2f}" in (ROOT / path).read_text("utf-8")


def test_the_picture_in_the_readme_shows_what_the_networks_find(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    detector_path("2.5g")
    recognizer_path("w600k_mbf")
    overlay = runpy.run_path(str(ROOT / "docs" / "overlay.py"))
    faces = overlay["find_faces"](overlay["draw_scene"]())
    assert len(faces) == len(overlay["PEOPLE"])
    shown = read_image(ROOT / "docs" / "overlay.png")
    drawn = draw_faces(overlay["draw_scene"](), faces)
    assert np.abs(shown.astype(int) - drawn).mean() < 1  # OpenCV's versions differ slightly


def document_text(name: str) -> str:
    """A document in one line."""
    return " ".join((ROOT / name).read_text("utf-8").split())


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/design.md"])
def test_named_files_exist(document: str) -> None:
    """Below the root, the package or the document's folder."""
    folders = (ROOT, ROOT / "scrfd_ros", (ROOT / document).parent)
    named = re.findall(
        r"`([\w./-]+(?:/|\.(?:md|msg|py|rst|sh|txt|xml|yaml)))`", document_text(document)
    )
    names = {name for name in named if "NAME" not in name}
    assert len(names) > 20
    assert not [name for name in names if not any((folder / name).exists() for folder in folders)]


def test_named_things_are_in_their_files() -> None:
    said = re.findall(
        r"`(\w+)`(?: and `\w+`)? in `([\w/.]+\.py)`", document_text("CONTRIBUTING.md")
    )
    assert len(said) > 4
    for name, file in said:
        path = ROOT / file if file.startswith("test/") else ROOT / "scrfd_ros" / file
        assert re.search(rf"\b{name}\b", path.read_text("utf-8")), (name, file)


def test_tests_named_in_the_page_on_reliability_exist() -> None:
    found = re.findall(
        r"(test/[\w/]+\.py)?::(test_\w+)", (ROOT / "docs" / "reliability.md").read_text("utf-8")
    )
    assert found, "the table is gone"
    file, missing = "", []
    for path, name in found:
        file = path or file  # "::test_name" is of the file named before
        if f"def {name}(" not in (ROOT / file).read_text("utf-8"):
            missing.append(f"{file}::{name}")
    assert missing == []


@pytest.mark.parametrize(
    ("page", "columns"),
    [
        ("bags.md", r"\| `([a-z-]+)`.*?"),
        ("opencv-aarch64.md", r"\| limits of ([a-z-]+).*?"),
    ],
)
def test_tolerances_are_documented(page: str, columns: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    rows = re.findall(
        rf"^{columns} \| ([\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+) \|$", text, re.MULTILINE
    )
    names = ("min_iou", "max_score_difference", "max_landmark_distance", "max_embedding_distance")
    assert {name: [float(value) for value in row.split(" | ")] for name, row in rows} == {
        name: [limits[figure] for figure in names] for name, limits in TOLERANCES.items()
    }


def test_packages_to_carry_are_those_of_run_sh() -> None:
    script = (ROOT / "run.sh").read_text("utf-8")
    packages = re.findall(r"^(?:core|gpu)_packages=\((.*)\)$", script, re.MULTILINE)
    (bindings,) = re.findall(r'bindings="(.+)" # also for', script)
    downloads = [
        words[4:]
        for words in commands(ROOT / "docs" / "tensorrt.md")
        if words[:4] == ["pip", "download", "--dest", "wheels"]
    ]
    rtx = "tensorrt-rtx-cu12-libs", "tensorrt-rtx-cu12-bindings"
    assert downloads == [shlex.split(" ".join(reversed(packages))), [bindings, *rtx]]
    assert 'tensorrt-rtx-cu"$1"-{libs,bindings}' in script


GUIDE = (ROOT / "docs" / "first-guide.md").read_text("utf-8")


def test_what_the_page_on_the_guide_names_is_there() -> None:
    """Commands of run.sh with their options, and modules."""
    script = (ROOT / "run.sh").read_text("utf-8").split("case $command in")[1]
    codes = re.findall(r"`([^`]+)`", GUIDE)
    calls = [shlex.split(code)[1:] for code in codes if code.startswith("./run.sh ")]
    assert len(calls) > 15
    for name, *words in calls:
        assert re.search(rf"^  (.+ \| )?{name}( \| .+)?\)$", script, re.MULTILINE), name
        for option in (word for word in words if word.startswith("--") and name != "bench"):
            assert option in help_of(name), (name, option)
    alone = {code.split()[0] for code in codes if code.startswith("--")} - {"--fp16"}  # trtexec's
    assert {"--batch", "--precision", "--workspace"} <= alone
    assert all(option in help_of("convert") for option in alone)
    assert (ROOT / "models" / "install_models.sh").is_file()
    for code in codes:
        if re.fullmatch(r"[a-z]+/\w+\.py", code):
            assert any((folder / code).is_file() for folder in (ROOT, ROOT / "scrfd_ros")), code


def test_the_page_on_the_guide_has_the_figures_of_the_others() -> None:
    sizes = {entry.bytes for entry in load_catalogue().models.values()}
    said = {int(size.replace(",", "")) for size in re.findall(r"\d+(?:,\d{3})+", GUIDE)}
    assert len(said) > 5 and said <= sizes
    models = (ROOT / "docs" / "models.md").read_text("utf-8")
    computed = (ROOT / "docs" / "performance.md").read_text("utf-8")
    rows = re.findall(
        r"^\| (\S+) \| [^|]+ \| [^|]+, ([\d.]+) \| [^|]+, ([\d.]+) \| [\d.]+; ([^|]+) \|$",
        GUIDE,
        re.MULTILINE,
    )
    assert len(rows) == 5
    for name, operations, milliseconds, published in rows:
        assert f"| {' | '.join(published.split(', '))} |" in models
        row = re.search(rf"^\| {name.lower()} \|.*$", computed, re.MULTILINE)
        assert row is not None
        assert [operations, milliseconds] == [row[0].split(" | ")[i] for i in (1, 5)]


def test_the_catalogue_has_the_sources_of_the_guide() -> None:
    text = (ROOT / "models" / "catalogue.yaml").read_text("utf-8")
    section = GUIDE.split("## Downloads")[1].split("## ")[0]
    (mirrors,) = re.findall(r"mirrors of 2.5g and 10g: ([^|]+) \|", section)
    names = [name.split(" (")[0] for name in mirrors.split(", ")]
    assert len(names) == 5
    assert not [name for name in names if name.lower() not in text.lower()]


def test_options_of_convert_are_documented() -> None:
    text = (ROOT / "docs" / "tensorrt.md").read_text("utf-8")
    text = text.split("## By hand\n")[1].split("\n### ")[0]
    listed = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    assert listed == set(re.findall(r"^  (--[a-z-]+)", help_of("convert"), re.MULTILINE))


def quoted_messages(document: str) -> list[str]:
    """Messages of the program, from the first column of a table "what you see"."""
    text = (ROOT / "docs" / document).read_text("utf-8")
    table = text.split("| what you see | what it means |\n")[1].split("\n\n")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`(.+?)`", cell)]


@pytest.mark.parametrize("document", ["tensorrt.md", "troubleshooting.md"])
def test_quoted_messages_are_in_the_code(document: str) -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "scrfd_ros").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # joins messages that take several lines
    messages = quoted_messages(document)
    assert len(messages) > 5
    for message in messages:
        if not message.startswith(OTHERS_MESSAGES):
            for part in re.split(FILLED_IN, message):
                assert part.strip() in source, message
